//! Waves as a publisher writes them: `1%:0h,10%:24h,100%:72h`.

use jiff::{SignedDuration, Timestamp};
use kinewatch_core::rollout::{SEEDS, Wave};

/// What is wrong with a list of waves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{wave:?}: {reason}; write for example 1%:0h,10%:24h,100%:72h")]
pub struct WaveError {
    wave: String,
    reason: &'static str,
}

/// Each wave is a share of the devices and how long after `from` it begins (`m`, `h` or `d`). A share is rounded up to one of
/// 2048 parts, so that no wave is empty.
///
/// # Errors
/// The first wave that cannot be read. Whether they grow is checked with the channel file.
pub fn parse_waves(text: &str, from: Timestamp) -> Result<Vec<Wave>, WaveError> {
    text.split(',').map(|wave| one(wave.trim(), from)).collect()
}

fn one(text: &str, from: Timestamp) -> Result<Wave, WaveError> {
    let fail = |reason| WaveError { wave: text.to_owned(), reason };
    let (share, after) = text.split_once(':').ok_or_else(|| fail("has no colon between share and time"))?;
    let percent: f64 = share
        .strip_suffix('%')
        .and_then(|number| number.trim().parse().ok())
        .filter(|percent| (0.0..=100.0).contains(percent) && *percent > 0.0)
        .ok_or_else(|| fail("its share is no number of percent above 0 and up to 100"))?;
    let after = after.trim();
    let unit = after.chars().last();
    let seconds = match unit {
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        _ => return Err(fail("its time has no unit m, h or d")),
    };
    let count: u32 = after[..after.len() - 1].parse().map_err(|_| fail("its time is no whole number"))?;
    let not_before = from
        .checked_add(SignedDuration::from_secs(i64::from(count) * seconds))
        .map_err(|_| fail("its time is out of range"))?;
    Ok(Wave { seed_below: (percent / 100.0 * f64::from(SEEDS)).ceil() as u16, not_before })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_seeds_and_pauses_times() {
        let from: Timestamp = "2026-12-01T08:00:00Z".parse().unwrap();
        let waves = parse_waves("1%:0h, 10%:24h,100%:3d", from).unwrap();
        let read: Vec<(u16, String)> = waves.iter().map(|w| (w.seed_below, w.not_before.to_string())).collect();
        let at = |day: &str| format!("2026-12-{day}T08:00:00Z");
        assert_eq!(read, [(21, at("01")), (205, at("02")), (2048, at("04"))]);
        assert_eq!(parse_waves("0.001%:0m", from).unwrap()[0].seed_below, 1);
        for wrong in ["", "10%", "0%:0h", "101%:0h", "x%:0h", "10:0h", "10%:1", "10%:h", "10%:-1h", "NaN%:0h", "5%:9é"]
        {
            assert!(parse_waves(wrong, from).is_err(), "{wrong}");
        }
    }
}
