//! How the device's clock was set: the retained correction of times already published.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ActionEvent, ClockState, Instant, rfc3339};
use crate::time::ClockStep;

/// Steps of a [`ClockRecord`] at most; older ones are forgotten, see [`ClockRecord::corrects_from`].
pub const MOST_STEPS: usize = 32;
/// No quartz of a device is further off while nothing disciplines it, parts per million.
pub const DRIFT_PPM: f64 = 100.0;

/// Retained on the device's `clock` topic: how its clock was set since it booted.
///
/// An event whose `data.clock.boot_id` is this `boot_id` and whose `sequence` is `last_sequence` or less was made before a
/// step: `step_ms` is to be added to its times, once for each such step. A message without steps says that nothing was
/// wrong so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClockRecord {
    /// Boot of the device that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Larger with each start of the agent.
    pub session: u64,
    /// Whether the clock is synchronised now.
    pub synced: bool,
    /// Where wall time comes from.
    pub source: String,
    /// Events of a lower `sequence` cannot be corrected from this message: their steps were forgotten.
    pub corrects_from: u64,
    /// A corrected time of an unsynchronised clock is uncertain by so many millionths of the time from the event to the
    /// step, on top of what the event states.
    #[schemars(range(min = 0))]
    pub drift_ppm: f64,
    /// Oldest first.
    #[schemars(length(max = 32))]
    pub steps: VecDeque<StepRecord>,
}

/// One setting of the clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepRecord {
    /// When it was noticed, on the clock as it is since, RFC 3339, UTC.
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
    /// The same instant on the clock as it was.
    #[schemars(extend("format" = "date-time"))]
    pub was: String,
    /// The difference, milliseconds. Zero when the clock was merely found to be right.
    pub step_ms: f64,
    /// Last event whose times are those of the clock as it was.
    pub last_sequence: u64,
    /// Whether the clock is synchronised since.
    pub synced: bool,
}

impl ClockRecord {
    /// Nothing was set yet.
    #[must_use]
    pub fn new(session: u64, clock: &ClockState) -> Self {
        Self {
            boot_id: clock.boot_id.clone(),
            session,
            synced: clock.synced,
            source: clock.source.clone(),
            corrects_from: 0,
            drift_ppm: DRIFT_PPM,
            steps: VecDeque::new(),
        }
    }

    /// Notes a step that came after the event `last_sequence`.
    pub fn note(&mut self, step: &ClockStep, last_sequence: u64) {
        if self.steps.len() >= MOST_STEPS
            && let Some(forgotten) = self.steps.pop_front()
        {
            self.corrects_from = forgotten.last_sequence.saturating_add(1);
        }
        self.synced = step.synced;
        self.source = if step.synced { "ntp" } else { "local" }.into();
        self.steps.push_back(StepRecord {
            at: rfc3339(step.new_unix_ns),
            was: rfc3339(step.old_unix_ns),
            step_ms: (step.step_ns() as f64 / 1e6).round(),
            last_sequence,
            synced: step.synced,
        });
    }

    /// What is to be added to the times of an event, milliseconds; zero for one of another boot.
    #[must_use]
    pub fn correction_ms(&self, event: &ActionEvent) -> f64 {
        let Ok(sequence) = event.sequence.parse::<u64>() else { return 0.0 };
        if self.boot_id.is_none() || event.data.clock.boot_id != self.boot_id {
            return 0.0;
        }
        self.steps.iter().filter(|step| sequence <= step.last_sequence).map(|step| step.step_ms).sum()
    }

    /// Moves the times of a stored event onto the clock of today, for what is made of it anew.
    pub fn correct(&self, event: &mut ActionEvent) {
        let shift_ms = self.correction_ms(event);
        if shift_ms != 0.0 {
            let data = &mut event.data;
            let instants = [Some(&mut data.start), data.end.as_mut(), Some(&mut data.decided_at)];
            instants.into_iter().flatten().for_each(|instant| shift(instant, shift_ms));
        }
    }
}

fn shift(instant: &mut Instant, ms: f64) {
    if let Ok(time) = instant.time.parse::<jiff::Timestamp>() {
        instant.time = rfc3339(time.as_millisecond().saturating_add(ms as i64).saturating_mul(1_000_000));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(seconds: i64) -> ClockStep {
        ClockStep { mono_ns: 0, old_unix_ns: 0, new_unix_ns: seconds * 1_000_000_000, synced: true }
    }

    fn event(sequence: u64, boot: &str) -> ActionEvent {
        let text = include_str!("../../../../config/schema/example-action-event.json");
        let mut event: ActionEvent = serde_json::from_str(text).unwrap();
        event.sequence = format!("{sequence:020}");
        event.data.clock.boot_id = Some(boot.into());
        event
    }

    #[test]
    fn steps_add_up_for_events_of_before_and_of_this_boot() {
        let clock = ClockState { boot_id: Some("b".into()), ..ClockState::default() };
        let mut record = ClockRecord::new(4, &clock);
        record.note(&step(10), 5);
        record.note(&step(-3), 8);
        let correction = |sequence, boot| record.correction_ms(&event(sequence, boot));
        assert_eq!([5, 6, 8, 9].map(|s| correction(s, "b")), [7_000.0, -3_000.0, -3_000.0, 0.0]);
        assert_eq!(correction(5, "another"), 0.0);
        let mut corrected = event(5, "b");
        record.correct(&mut corrected);
        let at = |e: &ActionEvent| e.data.start.time.parse::<jiff::Timestamp>().unwrap().as_millisecond();
        assert_eq!(at(&corrected) - at(&event(5, "b")), 7_000);
    }

    #[test]
    fn the_record_is_bounded_and_says_where_it_begins() {
        let mut record = ClockRecord::new(0, &ClockState::default());
        for k in 0..40 {
            record.note(&step(1), k);
        }
        assert_eq!((record.steps.len(), record.corrects_from, record.steps[0].last_sequence), (32, 8, 8));
    }
}
