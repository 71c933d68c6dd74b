//! Thresholds that hold at certain times of the day.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DecoderParams;

/// Minutes in a day.
const DAY: u16 = 24 * 60;

/// A time of day, local to the device: `HH:MM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
pub struct TimeOfDay(u16);

impl TimeOfDay {
    /// From the minutes since midnight; a day has 1440.
    #[must_use]
    pub fn from_minutes(minutes: u16) -> Self {
        Self(minutes % DAY)
    }

    /// Minutes since midnight, below 1440.
    #[must_use]
    pub fn minutes(self) -> u16 {
        self.0
    }
}

impl FromStr for TimeOfDay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        let parts = text.split_once(':').filter(|(h, m)| digits(h) && digits(m));
        let minutes = parts.and_then(|(h, m)| Some((h.parse::<u16>().ok()?, m.parse::<u16>().ok()?)));
        match minutes {
            Some((h, m)) if h < 24 && m < 60 => Ok(Self(h * 60 + m)),
            _ => Err(format!("\"{text}\" is no time of day; write it as \"22:30\"")),
        }
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<TimeOfDay> for String {
    fn from(time: TimeOfDay) -> Self {
        time.to_string()
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// Thresholds from one time of day to another; what is left out stays. See [`DecoderParams`] for units.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Period {
    /// Begins to hold.
    pub from: TimeOfDay,
    /// Holds no longer; before `from`, it is the next day's, and the same is all day.
    pub to: TimeOfDay,
    /// Probability to open at.
    pub on: Option<f64>,
    /// Probability to close at.
    pub off: Option<f64>,
    /// CUSUM: evidence to open, logit-seconds.
    pub h_on: Option<f64>,
    /// CUSUM: evidence to close, logit-seconds.
    pub h_off: Option<f64>,
}

impl Period {
    /// Whether it holds at a time of day.
    #[must_use]
    pub fn holds_at(&self, time: TimeOfDay) -> bool {
        if self.from < self.to { self.from <= time && time < self.to } else { self.from <= time || time < self.to }
    }

    /// The parameters while it holds.
    #[must_use]
    pub fn applied(&self, p: DecoderParams) -> DecoderParams {
        DecoderParams {
            on: self.on.unwrap_or(p.on),
            off: self.off.unwrap_or(p.off),
            h_on: self.h_on.unwrap_or(p.h_on),
            h_off: self.h_off.unwrap_or(p.h_off),
            ..p
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_night_reaches_over_midnight() {
        let night: Period = toml::from_str("from = \"22:00\"\nto = \"06:00\"\non = 0.4").unwrap();
        let at = |text: &str| night.holds_at(text.parse().unwrap());
        assert!(at("22:00") && at("23:59") && at("00:00") && at("05:59"));
        assert!(!at("06:00") && !at("12:00") && !at("21:59"));
        assert_eq!(night.from.to_string(), "22:00");
        let always: Period = toml::from_str("from = \"00:00\"\nto = \"00:00\"").unwrap();
        assert!(always.holds_at(TimeOfDay::from_minutes(0)) && always.holds_at(TimeOfDay::from_minutes(1439)));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "7:00", "24:00", "12:60", "noon", "12:3", "1200", "+1:+5"] {
            assert!(text.parse::<TimeOfDay>().is_err(), "{text}");
        }
    }
}
