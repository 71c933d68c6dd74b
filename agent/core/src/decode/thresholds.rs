//! Thresholds of a label, which may depend on the time of day.

use crate::manifest::{DecoderParams, Period, TimeOfDay};

/// What holds when, worked out once.
#[derive(Clone, Debug)]
pub(super) struct Thresholds {
    usual: DecoderParams,
    periods: Vec<(Period, DecoderParams)>,
}

impl Thresholds {
    pub(super) fn new(usual: &DecoderParams, schedule: &[Period]) -> Self {
        let periods = schedule.iter().map(|period| (*period, period.applied(*usual))).collect();
        Self { usual: *usual, periods }
    }

    /// At a time of day; what is usual when it is not known.
    pub(super) fn at(&self, time: Option<TimeOfDay>) -> &DecoderParams {
        let holds = |(period, _): &&(Period, DecoderParams)| time.is_some_and(|time| period.holds_at(time));
        self.periods.iter().find(holds).map_or(&self.usual, |(_, params)| params)
    }
}
