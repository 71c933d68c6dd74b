//! What happens to RTP packets between the payloader and the network: clocks that are set or stand still, loss, garbage.
//!
//! One value for a server, changed at any time from any thread; each stream has a probe that reads it for every packet.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;

/// The state of the line.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// Added to time stamps.
    pub(crate) set_by: AtomicU32,
    /// Time stamps stay as they are.
    pub(crate) frozen: AtomicBool,
    /// So many of a thousand packets are lost.
    pub(crate) lost_per_mille: AtomicU32,
    /// All that follows the headers is noise.
    pub(crate) garbage: AtomicBool,
}

/// Of a packet without extensions and sources (RFC 3550 section 5.1), and the first bytes of an H.264 or H.265 unit, which say
/// what it is.
const HEADERS: usize = 12 + 2;
const STAMP: std::ops::Range<usize> = 4..8;

impl Wire {
    /// Puts packets that leave through `pad` on this line.
    pub(crate) fn attach(self: &Arc<Self>, pad: &gst::Pad) {
        let wire = Arc::clone(self);
        let held = std::sync::Mutex::new(None);
        let pass =
            move |packet: &mut gst::BufferRef| wire.pass(packet, &mut held.lock().unwrap_or_else(|e| e.into_inner()));
        pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, info| {
            let passes = match &mut info.data {
                Some(gst::PadProbeData::Buffer(packet)) => pass(packet.make_mut()),
                Some(gst::PadProbeData::BufferList(packets)) => {
                    packets.make_mut().foreach_mut(|mut packet, _| {
                        let passes = pass(packet.make_mut());
                        ControlFlow::Continue(passes.then_some(packet))
                    });
                    true
                }
                _ => true,
            };
            if passes { gst::PadProbeReturn::Ok } else { gst::PadProbeReturn::Drop }
        });
    }

    /// Changes a packet; false when it is lost. `held`: the stamp at which the stream's clock stands.
    fn pass(&self, packet: &mut gst::BufferRef, held: &mut Option<u32>) -> bool {
        if glib::random_int_range(0, 1000) < self.lost_per_mille.load(Relaxed) as i32 {
            return false;
        }
        let (set_by, frozen, garbage) =
            (self.set_by.load(Relaxed), self.frozen.load(Relaxed), self.garbage.load(Relaxed));
        if !frozen {
            *held = None;
        }
        if set_by == 0 && !frozen && !garbage {
            return true;
        }
        let Ok(mut bytes) = packet.map_writable() else { return true };
        if let Some(stamp) = bytes.get_mut(STAMP)
            && let Ok(old) = <[u8; 4]>::try_from(&*stamp)
        {
            let mut new = u32::from_be_bytes(old).wrapping_add(set_by);
            if frozen {
                new = *held.get_or_insert(new);
            }
            stamp.copy_from_slice(&new.to_be_bytes());
        }
        if garbage {
            for byte in bytes.iter_mut().skip(HEADERS) {
                *byte = glib::random_int() as u8;
            }
        }
        true
    }
}
