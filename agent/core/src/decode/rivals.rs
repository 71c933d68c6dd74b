//! Groups of labels of which one at most goes on at a time.

use super::track::{Emitter, Track};
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

    /// Holds each label of the group against its strongest rival, where the one that goes on is given the margin: what
    /// counts for a label that is not ahead does not speak for it. `evidence`: log-odds by track.
    pub(super) fn weigh(&self, tracks: &[Track], log_odds: &[f64], evidence: &mut [f64]) {
        let stood = |track: usize| log_odds[track] + if tracks[track].open().is_some() { self.margin } else { 0.0 };
        let (mut first, mut second) = ((usize::MAX, f64::NEG_INFINITY), f64::NEG_INFINITY);
        for &track in &self.tracks {
            let l = stood(track);
            if l > first.1 {
                (first, second) = ((track, l), first.1);
            } else {
                second = second.max(l);
            }
        }
        for &own in &self.tracks {
            let lead = stood(own) - if own == first.0 { second } else { first.1 };
            evidence[own] = log_odds[own].min(tracks[own].pivot() + lead);
        }
    }

    /// None of the group begins before the last one ended.
    pub(super) fn share_ends(&self, tracks: &mut [Track]) {
        let last = self.tracks.iter().map(|&track| tracks[track].last_end()).max().unwrap_or_default();
        self.tracks.iter().for_each(|&track| tracks[track].not_before(last));
    }

    /// Once all tracks have taken the step: where one has opened, the others of the group end. Of two that open in one step
    /// the likelier stays.
    pub(super) fn settle(&self, tracks: &mut [Track], log_odds: &[f64], at: Pts, emit: &mut Emitter<'_>) {
        let opened = self.tracks.iter().filter(|&&track| tracks[track].opened().is_some());
        let Some(&winner) = opened.max_by(|&&a, &&b| log_odds[a].total_cmp(&log_odds[b])) else { return };
        let Some(begin) = tracks[winner].opened() else { return };
        for &other in self.tracks.iter().filter(|&&other| other != winner) {
            if tracks[other].open().is_some() {
                tracks[other].make_way(at, begin, emit);
            }
        }
        self.share_ends(tracks);
    }
}
