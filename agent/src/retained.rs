//! Which cameras' states the broker keeps for this device, remembered over restarts of the agent.
//!
//! A camera that is renamed or removed while no agent runs would else stay `online` with the broker for ever. The task of
//! [`crate::camera_states`] owns it. A file that cannot be read or written costs such a removal, never an event.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::replace::replace;

/// Topics remembered; 64 more than cameras there may be, so that those which are gone find room.
const MOST: usize = 128;
/// A topic has up to 240 bytes; what is larger was not written here.
const MAX_BYTES: u64 = 64 << 10;

/// The topics, and where they are kept.
#[derive(Debug)]
pub(crate) struct Retained {
    path: PathBuf,
    /// The oldest first.
    topics: Vec<String>,
}

impl Retained {
    /// What earlier runs have left.
    pub(crate) fn open(state_dir: &Path) -> Self {
        let path = state_dir.join("retained.json");
        let topics = read(&path).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!("{}: {error}; states of cameras that are gone may stay with the broker", path.display());
            }
            Vec::new()
        });
        Self { path, topics }
    }

    /// Remembers that `now` are retained. Gives those which were and are not any more: they stay remembered, as an
    /// answer that they are removed does not come here.
    pub(crate) fn follow(&mut self, now: &[String]) -> Vec<String> {
        let gone: Vec<_> = self.topics.iter().filter(|topic| !now.contains(topic)).cloned().collect();
        let topics: Vec<_> = gone.iter().chain(now).cloned().collect();
        let topics = topics[topics.len().saturating_sub(MOST)..].to_vec();
        if topics != self.topics {
            self.topics = topics;
            self.save();
        }
        gone
    }

    fn save(&self) {
        if let Err(error) = replace(&self.path, &serde_json::to_vec(&self.topics).unwrap_or_default()) {
            let path = self.path.display();
            tracing::warn!(
                "{path}: {error}; the state of a camera that is removed before the next start will stay with the broker"
            );
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<String>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn topics(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_is_gone_is_told_at_every_start_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let mut retained = Retained::open(dir.path());
        assert_eq!(retained.follow(&topics(&["a", "b"])), [""; 0]);
        assert_eq!(retained.follow(&topics(&["b", "c"])), ["a"]);
        let mut retained = Retained::open(dir.path());
        assert_eq!(retained.follow(&topics(&["c"])), ["a", "b"]);
        assert_eq!(retained.follow(&topics(&["a", "c"])), ["b"], "it has come back");
        for n in 0..MOST {
            retained.follow(&topics(&[&format!("camera {n}")]));
        }
        assert_eq!(Retained::open(dir.path()).topics.len(), MOST);
        fs::write(dir.path().join("retained.json"), "{").unwrap();
        assert_eq!(Retained::open(dir.path()).follow(&topics(&["c"])), [""; 0]);
    }
}
