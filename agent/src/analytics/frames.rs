//! A frame is taken in: into the ring of its branch, and into the requests that it makes due.

use std::sync::Arc;

use kinewatch_core::frame::Frame;
use kinewatch_core::schedule::Ticket;

use super::watcher::Sampler;
use super::{Analytics, Sink, Waiting, WindowDrop, give_back};

impl Analytics {
    /// Takes in a sampled frame, and makes the requests that it makes due wait for their turn. A window that cannot be
    /// filled is reported and left out. A frame of a camera that is not there is nothing.
    pub fn frame(&mut self, camera_slot: usize, branch_index: usize, frame: Frame, sink: &mut impl Sink) {
        let meta = *frame.meta();
        let Some(camera) = self.cameras.get_mut(camera_slot) else { return };
        let Some(branch) = camera.branches.get_mut(branch_index) else { return };
        camera.stream.observe(&meta, &self.new_clock);
        if let Some(ring) = &mut branch.ring {
            ring.push(Arc::clone(&frame));
        }
        for (bit, &index) in branch.watchers.iter().enumerate() {
            if meta.wanted & (1 << bit) == 0 {
                continue;
            }
            let watcher = &mut camera.watchers[index];
            let mut frames = self.spare.pop().unwrap_or_default();
            let due = match &mut watcher.sampler {
                Sampler::Frames(_) => {
                    frames.push(Arc::clone(&frame));
                    true
                }
                Sampler::Windows(windower) => match (windower.push(meta.pts), &branch.ring) {
                    (Some(request), Some(ring)) => {
                        let whole = windower.gather(ring, &request, &mut frames).is_ok();
                        let dropped = request.skipped + u32::from(!whole);
                        if dropped > 0 {
                            sink.windows_dropped(camera_slot, index, WindowDrop::Hole, dropped);
                        }
                        if !whole {
                            self.holed.push(index);
                        }
                        whole
                    }
                    _ => false,
                },
            };
            let waiting = Waiting { at: meta.pts, frames };
            if !due {
                give_back(&mut self.spare, waiting);
            } else if !watcher.pace.admits(meta.pts, self.one_of) {
                sink.windows_dropped(camera_slot, index, WindowDrop::Derated, 1);
                give_back(&mut self.spare, waiting);
            } else if let Some(gone) = self.schedule.offer(watcher.lane, waiting, (self.time.0)()) {
                self.let_go.push(Ticket { lane: watcher.lane, request: gone });
            }
        }
        self.note_let_go(sink);
        while let Some(index) = self.holed.pop() {
            self.note(camera_slot, index, (meta.pts, false), sink);
        }
    }
}
