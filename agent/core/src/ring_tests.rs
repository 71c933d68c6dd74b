//! The ring: order and bounds under any sequence of frames.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::frame::{FrameBuf, FrameMeta};
use crate::time::SessionId;

fn frame(session: u32, ns: i64, bytes: usize, wanted: u32) -> Frame {
    let meta = FrameMeta { session: SessionId(session), pts: Pts(ns), arrival: None, wanted };
    Arc::new(FrameBuf::new(meta, vec![0; bytes]))
}

#[test]
fn another_session_empties_it() {
    let mut ring = Ring::new(1000, 1000, 10);
    ring.push(frame(1, 500, 1, 1));
    assert_eq!(ring.push(frame(2, 0, 1, 1)), Pushed::Kept);
    assert_eq!((ring.len(), ring.newest().map(|f| f.meta().pts)), (1, Some(Pts(0))));
}

#[test]
fn the_nearest_is_among_the_wanted() {
    let mut ring = Ring::new(1000, 1000, 10);
    for (ns, wanted) in [(0, 1), (10, 2), (20, 1), (30, 2)] {
        ring.push(frame(1, ns, 1, wanted));
    }
    let nearest = |at, mask| ring.nearest(Pts(at), mask).map(|f| f.meta().pts.0);
    assert_eq!(nearest(12, u32::MAX), Some(10));
    assert_eq!(nearest(12, 1), Some(20));
    assert_eq!(nearest(10, 1), Some(0), "the older of two as near");
    assert_eq!(nearest(99, 1), Some(20));
    assert_eq!(nearest(-5, 2), Some(10));
    assert_eq!(nearest(0, 4), None);
}

#[test]
fn what_is_larger_than_the_ring_is_refused() {
    let mut ring = Ring::new(1000, 10, 10);
    assert_eq!(ring.push(frame(1, 0, 11, 1)), Pushed::Refused);
    assert!(ring.is_empty());
}

proptest! {
    #[test]
    fn bounds_and_order_hold_whatever_comes(
        age in 0i64..500, bytes in 0usize..60, capacity in 0usize..12,
        pushes in prop::collection::vec((0u32..3, -50i64..900, 0usize..20), 0..120), probe in -100i64..1000,
    ) {
        let mut ring = Ring::new(age, bytes, capacity);
        let reserved = ring.frames.capacity();
        for (session, ns, size) in pushes {
            let kept = ring.push(frame(session / 2, ns, size, 1));
            prop_assert!(ring.len() <= capacity.max(1) && ring.bytes() <= bytes);
            prop_assert_eq!(ring.frames.capacity(), reserved, "allocated");
            prop_assert_eq!(ring.bytes(), ring.frames.iter().map(|f| f.pixels().len()).sum::<usize>());
            let metas: Vec<_> = ring.frames.iter().map(|f| *f.meta()).collect();
            prop_assert!(metas.windows(2).all(|w| w[0].pts < w[1].pts && w[0].session == w[1].session));
            if let (Some(first), Some(last)) = (metas.first(), metas.last()) {
                prop_assert!(last.pts - first.pts <= age);
                prop_assert!(kept == Pushed::Refused || last.pts == Pts(ns));
            }
            let best = metas.iter().map(|m| (m.pts.0 - probe).abs()).min();
            prop_assert_eq!(ring.nearest(Pts(probe), 1).map(|f| (f.meta().pts.0 - probe).abs()), best);
        }
    }
}
