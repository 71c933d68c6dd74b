//! What to do about a stage that hangs: say it, give it a last chance, give up. Pure: instants are handed in.

use std::time::{Duration, Instant};

use super::stages::Stuck;

/// Judges what is seen of the stages.
#[derive(Debug)]
pub(super) struct Judge {
    grace: Duration,
    /// The stage that hangs, and since when that is known.
    stuck: Option<(String, Instant)>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All make progress.
    Well,
    /// One has begun to hang: to be said.
    Stuck(Stuck),
    /// It still does.
    Waiting,
    /// It makes progress again: to be said.
    Recovered(String),
    /// It had its chance.
    GiveUp(Stuck),
}

impl Judge {
    /// Gives up `grace` after a stage was found to hang.
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, stuck: None }
    }

    /// Nobody is judged now, and nobody acquitted.
    pub(super) fn pause(&self) -> Verdict {
        if self.stuck.is_some() { Verdict::Waiting } else { Verdict::Well }
    }

    pub(super) fn look(&mut self, now: Instant, stuck: Option<Stuck>) -> Verdict {
        match (stuck, &self.stuck) {
            (None, None) => Verdict::Well,
            (None, Some(_)) => self.stuck.take().map_or(Verdict::Well, |(stage, _)| Verdict::Recovered(stage)),
            (Some(stuck), Some((_, since))) if now.saturating_duration_since(*since) >= self.grace => {
                Verdict::GiveUp(stuck)
            }
            // Another one than before, perhaps held up by it: the chance is not given twice.
            (Some(_), Some(_)) => Verdict::Waiting,
            (Some(stuck), None) => {
                self.stuck = Some((stuck.stage.clone(), now));
                Verdict::Stuck(stuck)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_hangs_is_said_once_and_given_up_after_its_chance() {
        let begun = Instant::now();
        let mut judge = Judge::new(Duration::from_secs(5));
        let stuck = |stage: &str| Some(Stuck { stage: stage.into(), silence: Duration::from_secs(21) });
        let mut look = |s, stuck| judge.look(begun + Duration::from_secs(s), stuck);
        assert_eq!(look(0, None), Verdict::Well);
        assert_eq!(look(1, stuck("store")), Verdict::Stuck(stuck("store").unwrap()));
        assert_eq!(look(3, stuck("store")), Verdict::Waiting);
        assert_eq!(look(4, None), Verdict::Recovered("store".into()), "a slow disk is no hang");
        assert_eq!(look(5, None), Verdict::Well);
        assert_eq!(look(10, stuck("store")), Verdict::Stuck(stuck("store").unwrap()));
        assert_eq!(look(14, stuck("inference")), Verdict::Waiting, "held up by the first");
        assert_eq!(judge.pause(), Verdict::Waiting, "nor is anybody fed on the word of one who was away");
        let mut look = |s, stuck| judge.look(begun + Duration::from_secs(s), stuck);
        assert_eq!(look(15, stuck("inference")), Verdict::GiveUp(stuck("inference").unwrap()));
    }
}
