//! Frame rates of a V4L2 device: as its driver lists them, and whether one of them is what a configuration asks for.
//!
//! Pure. Must refuse nothing that GStreamer's `v4l2src` would agree to: it reads the same list. Any thread.

use std::fmt;

use v4l::fraction::Fraction;
use v4l::frameinterval::{FrameInterval, FrameIntervalEnum, Stepwise};
use v4l::v4l_sys::v4l2_frmivaltypes_V4L2_FRMIVAL_TYPE_CONTINUOUS as CONTINUOUS;

use crate::source::RATE_PERMILLE;

/// Rates of a size that are kept one by one; cameras have a dozen at most.
const KEPT: usize = 256;
/// So many are shown one by one.
const SHOWN: usize = 16;

/// Frames a second, as a fraction without zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So many frames
    pub frames: u32,
    /// in so many seconds.
    pub seconds: u32,
}

/// Rates that a device offers at a size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rates {
    /// The driver does not tell.
    Unknown,
    /// These, the fastest first.
    Each(Vec<Rate>),
    /// All between two.
    Between {
        /// Lowest.
        slowest: Rate,
        /// Highest.
        fastest: Rate,
    },
}

impl Rate {
    /// Frames a second.
    #[must_use]
    pub fn per_second(self) -> f64 {
        f64::from(self.frames) / f64::from(self.seconds)
    }

    /// That of a fraction which may hold zeros or more digits than a rate has.
    fn reduced(frames: u128, seconds: u128) -> Option<Self> {
        let (mut divisor, mut rest) = (frames, seconds);
        while rest > 0 {
            (divisor, rest) = (rest, divisor % rest);
        }
        let part = |n: u128| u32::try_from(n.checked_div(divisor)?).ok().filter(|n| *n > 0);
        Some(Self { frames: part(frames)?, seconds: part(seconds)? })
    }

    fn of_interval(interval: Fraction) -> Option<Self> {
        Self::reduced(interval.denominator.into(), interval.numerator.into())
    }

    fn is_at_most(self, fps: u32) -> bool {
        u64::from(self.frames) <= u64::from(fps) * u64::from(self.seconds)
    }

    fn is_at_least_nearly(self, fps: u32) -> bool {
        let asked = u64::from(fps) * u64::from(self.seconds);
        u64::from(self.frames) * 1000 >= asked * u64::from(RATE_PERMILLE)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:.2}", self.per_second());
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl Rates {
    /// From the driver's list. Its steps are taken one by one where they are few, as `v4l2src` does.
    pub(crate) fn of(listed: &[FrameInterval]) -> Self {
        let steps = match listed.first() {
            Some(FrameInterval { interval: FrameIntervalEnum::Stepwise(range), typ, .. }) => Some((range, *typ)),
            _ => None,
        };
        let each = match steps {
            None => listed.iter().take(KEPT).filter_map(discrete).collect(),
            Some((range, typ)) if typ != CONTINUOUS => one_by_one(range).unwrap_or_default(),
            Some(_) => Vec::new(),
        };
        if !each.is_empty() {
            return Self::each(each);
        }
        let ends = steps.and_then(|(range, _)| Some((Rate::of_interval(range.max)?, Rate::of_interval(range.min)?)));
        ends.map_or(Self::Unknown, |(slowest, fastest)| Self::Between { slowest, fastest })
    }

    /// Those, put in order.
    pub(crate) fn each(mut rates: Vec<Rate>) -> Self {
        rates.sort_by(|a, b| b.per_second().total_cmp(&a.per_second()));
        rates.dedup();
        Self::Each(rates)
    }

    /// Whether `fps=N` can be had. What is not known is not refused.
    pub(crate) fn serve(&self, fps: u32) -> bool {
        match self {
            Self::Unknown => true,
            Self::Each(rates) => rates.iter().any(|rate| rate.is_at_most(fps) && rate.is_at_least_nearly(fps)),
            Self::Between { slowest, fastest } => slowest.is_at_most(fps) && fastest.is_at_least_nearly(fps),
        }
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown rates"),
            Self::Each(rates) => match rates.as_slice() {
                [fastest, .., slowest] if rates.len() > SHOWN => {
                    write!(f, "{} rates from {slowest} to {fastest}", rates.len())
                }
                rates => f.write_str(&rates.iter().map(Rate::to_string).collect::<Vec<_>>().join(", ")),
            },
            Self::Between { slowest, fastest } => write!(f, "{slowest} to {fastest}"),
        }
    }
}

fn discrete(listed: &FrameInterval) -> Option<Rate> {
    match listed.interval {
        FrameIntervalEnum::Discrete(interval) => Rate::of_interval(interval),
        FrameIntervalEnum::Stepwise(_) => None,
    }
}

/// `None` when the steps are too many or make no sense.
fn one_by_one(range: &Stepwise) -> Option<Vec<Rate>> {
    let parts = |fraction: Fraction| (u128::from(fraction.numerator), u128::from(fraction.denominator));
    let ((min, min_of), (step, step_of), (max, max_of)) = (parts(range.min), parts(range.step), parts(range.max));
    // Of 32 bits each but for the count, so that no product overflows.
    let interval = |n: u128| (min * step_of + n * step * min_of, min_of * step_of);
    let within = |(length, of): &(u128, u128)| length * max_of <= max * of;
    let intervals = (0..=KEPT as u128).map(interval).take_while(within);
    let rates = intervals.map(|(length, of)| Rate::reduced(of, length)).collect::<Option<Vec<_>>>()?;
    (rates.len() <= KEPT).then_some(rates)
}

#[cfg(test)]
mod tests {
    use v4l::FourCC;
    use v4l::v4l_sys::{
        v4l2_frmivaltypes_V4L2_FRMIVAL_TYPE_DISCRETE as DISCRETE,
        v4l2_frmivaltypes_V4L2_FRMIVAL_TYPE_STEPWISE as STEPWISE,
    };

    use super::*;

    fn listed(typ: u32, interval: FrameIntervalEnum) -> FrameInterval {
        FrameInterval { index: 0, fourcc: FourCC::new(b"YUYV"), width: 640, height: 480, typ, interval }
    }

    fn discrete(intervals: &[(u32, u32)]) -> Rates {
        let listed = |&(n, d): &(u32, u32)| listed(DISCRETE, FrameIntervalEnum::Discrete(Fraction::new(n, d)));
        Rates::of(&intervals.iter().map(listed).collect::<Vec<_>>())
    }

    fn range(typ: u32, [min, max, step]: [(u32, u32); 3]) -> Rates {
        let part = |(n, d)| Fraction::new(n, d);
        let range = Stepwise { min: part(min), max: part(max), step: part(step) };
        Rates::of(&[listed(typ, FrameIntervalEnum::Stepwise(range))])
    }

    #[test]
    fn rates_are_listed_the_fastest_first_and_once() {
        let rates = discrete(&[(1, 1), (2, 25), (1, 30), (2, 60), (1001, 30000), (0, 5), (5, 0)]);
        assert_eq!(rates.to_string(), "30, 29.97, 12.5, 1");
        assert_eq!([discrete(&[]), discrete(&[(0, 0)])], [Rates::Unknown, Rates::Unknown]);
        let many: Vec<(u32, u32)> = (1..=17).map(|fps| (1, fps)).collect();
        assert_eq!(discrete(&many).to_string(), "17 rates from 1 to 17");
        assert_eq!(discrete(&many[..16]).to_string(), "16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1");
    }

    #[test]
    fn what_is_asked_is_what_is_offered_or_what_television_calls_so() {
        let film = discrete(&[(1001, 24000), (1, 15), (2, 15)]);
        assert!([24, 15].iter().all(|&fps| film.serve(fps)));
        assert!([23, 25, 30, 8, 7, 1].iter().all(|&fps| !film.serve(fps)));
        assert!(discrete(&[(1001, 30000)]).serve(30) && discrete(&[(100, 2997)]).serve(30));
        assert!(!discrete(&[(1, 30)]).serve(29) && !discrete(&[(1000, 30001)]).serve(30));
        assert!(Rates::Unknown.serve(1000));
    }

    #[test]
    fn ranges_have_all_that_is_in_them_and_steps_what_they_hit() {
        let all = range(CONTINUOUS, [(1, 60), (1, 2), (1, 1)]);
        assert_eq!(all.to_string(), "2 to 60");
        assert!([2, 7, 60].iter().all(|&fps| all.serve(fps)) && [1, 61].iter().all(|&fps| !all.serve(fps)));
        let steps = range(STEPWISE, [(1, 60), (1, 15), (1, 60)]);
        assert_eq!(steps.to_string(), "60, 30, 20, 15");
        assert!(steps.serve(20) && !steps.serve(25));
        // UVC counts in steps of 100 ns.
        let fine = range(STEPWISE, [(333_333, 10_000_000), (2_000_000, 10_000_000), (1, 10_000_000)]);
        assert_eq!(fine.to_string(), "5 to 30");
        assert!(fine.serve(30) && fine.serve(5) && !fine.serve(31));
        assert_eq!(range(STEPWISE, [(1, 30), (1, 30), (0, 0)]).to_string(), "30 to 30");
        assert_eq!(range(STEPWISE, [(0, 1), (0, 1), (1, 1)]), Rates::Unknown);
    }
}
