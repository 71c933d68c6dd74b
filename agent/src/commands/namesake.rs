//! Another device that calls itself what we do: both publish on the same topics, and no consumer can tell their events and
//! sequence numbers apart. The broker does not mind, so we listen to our own birth topic. Pure.

use std::time::{Duration, Instant};

use kinewatch_core::event::{DeviceState, DeviceStatus};

/// What goes on is said again after this long.
const AGAIN: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
pub(super) struct Namesakes {
    said: Option<Instant>,
}

/// What a message on our status topic shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Ourselves, or nobody.
    Nothing,
    /// Another device; to be said or not.
    Namesake {
        /// Not said for a while.
        news: bool,
    },
}

impl Namesakes {
    /// A message on our status topic, as it came: not one that was retained, which may be our own of before.
    pub(super) fn hear(&mut self, payload: &[u8], instance: &str, now: Instant) -> Heard {
        match serde_json::from_slice::<DeviceStatus>(payload) {
            Ok(status) if status.state == DeviceState::Online && status.instance.as_deref() != Some(instance) => {
                let news = self.said.is_none_or(|said| now.saturating_duration_since(said) >= AGAIN);
                if news {
                    self.said = Some(now);
                }
                Heard::Namesake { news }
            }
            _ => Heard::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_birth_of_another_counts_and_is_said_once_an_hour() {
        let (mut namesakes, start) = (Namesakes::default(), Instant::now());
        let status = |status: DeviceStatus| serde_json::to_vec(&status).unwrap();
        let birth = |instance| status(DeviceStatus::birth(7, "1").of_instance(instance));
        let nothing = [birth("ours"), status(DeviceStatus::will(6, "1")), b"{".to_vec(), vec![]];
        for payload in nothing {
            assert_eq!(namesakes.hear(&payload, "ours", start), Heard::Nothing);
        }
        let mut hear = |s| namesakes.hear(&birth("theirs"), "ours", start + Duration::from_secs(s));
        assert_eq!([0, 60, 3600].map(&mut hear), [true, false, true].map(|news| Heard::Namesake { news }));
        let nameless = status(DeviceStatus::birth(7, "1"));
        assert_eq!(namesakes.hear(&nameless, "ours", start), Heard::Namesake { news: false }, "an older version");
    }
}
