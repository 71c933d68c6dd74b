//! Groups of labels of which one at most goes on at a time.

use super::track::{Emitter, Step, Track};
use crate::time::Pts;

/// One group.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// Indices of tracks.
    tracks: Vec<usize>,
    margin: f64,
}

impl Group {
    pub(super) fn new(tracks: Vec<usize>, margin: f64) -> Self {
        Self { tracks, margin }
    }

    /// Holds each label of the group against its strongest rival: what counts for it is at most the log-odds between the
    /// two, where the one that goes on is given the margin. `evidence`: log-odds by track.
    pub(super) fn weigh(&self, tracks: &[Track], log_odds: &[f64], evidence: &mut [f64]) {
        for &own in &self.tracks {
            let rivals = self.tracks.iter().filter(|&&other| other != own);
            let stood =
                |&track: &usize| log_odds[track] + if tracks[track].open().is_some() { self.margin } else { 0.0 };
            let strongest = rivals.map(stood).fold(f64::NEG_INFINITY, f64::max);
            evidence[own] = log_odds[own].min(stood(&own) - strongest);
        }
    }

    /// None of the group begins before the last one ended.
    pub(super) fn share_ends(&self, tracks: &mut [Track]) {
        let last = self.tracks.iter().map(|&track| tracks[track].last_end()).max().unwrap_or_default();
        self.tracks.iter().for_each(|&track| tracks[track].not_before(last));
    }

    /// Once all tracks have taken the step: where one has opened, the others of the group end.
    pub(super) fn settle(&self, tracks: &mut [Track], at: Pts, emit: &mut Emitter<'_>) {
        let Some(&newest) = self.tracks.iter().rfind(|&&track| tracks[track].opened().is_some()) else { return };
        let Some(begin) = tracks[newest].opened() else { return };
        let step = Step { at, dt: 0.0, hole: 0, l: 0.0 };
        for &other in self.tracks.iter().filter(|&&other| other != newest) {
            if tracks[other].open().is_some() {
                tracks[other].make_way(&step, begin, emit);
            }
        }
        self.share_ends(tracks);
    }
}
