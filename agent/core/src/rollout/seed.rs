//! Where a device stands in the waves, and when it asks: spread over the fleet by hashes, so that no device needs to know
//! of another and each answer can be computed again.

use std::time::Duration;

use sha2::{Digest, Sha256};

/// Number of seeds; a wave is a part of them.
pub const SEEDS: u16 = 2048;

/// Longest pause between attempts at what fails.
const MAX_PAUSE: Duration = Duration::from_secs(6 * 3600);
/// Pause after the first failure, before the spread.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// The device's place in the waves of a model: the first 11 bits of SHA-256(device id, NUL, model), so 0 to 2047. Another
/// model has another order, so that the same device is not always the first to try.
#[must_use]
pub fn seed(device: &str, model: &str) -> u16 {
    (hash(&[device.as_bytes(), model.as_bytes()]) >> 53) as u16
}

/// When to poll next: the period, 10 % more or less, by hash of the device and of how often it has polled. Devices that
/// began together drift apart.
#[must_use]
pub fn poll_pause(period: Duration, device: &str, polls: u64) -> Duration {
    period.mul_f64(0.9 + 0.2 * fraction(device, "poll", polls))
}

/// When to poll first after a start: within the period, 5 minutes at most, by hash. After a power cut in a whole town the
/// server sees the devices one after the other.
#[must_use]
pub fn first_pause(period: Duration, device: &str, starts: u64) -> Duration {
    period.min(Duration::from_secs(300)).mul_f64(fraction(device, "start", starts))
}

/// How long to wait after `failures` (1 or more) in a row: one minute, doubled each time up to 6 hours, of which a hash takes up
/// to half away. `at_least` is what the server asked for (`Retry-After`); more than a day is taken as a day.
#[must_use]
pub fn backoff(failures: u32, device: &str, at_least: Option<Duration>) -> Duration {
    let pause = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(MAX_PAUSE);
    let pause = pause.mul_f64(1.0 - 0.5 * fraction(device, "backoff", u64::from(failures)));
    // A day more than it asks would serve nobody; the spread keeps those that were told the same from coming together.
    let asked = at_least.unwrap_or_default().min(Duration::from_secs(86_400));
    if asked > pause { asked.mul_f64(1.0 + 0.1 * fraction(device, "asked", u64::from(failures))) } else { pause }
}

/// From 0 up to but not 1.
fn fraction(device: &str, purpose: &str, count: u64) -> f64 {
    let hash = hash(&[device.as_bytes(), purpose.as_bytes(), &count.to_be_bytes()]);
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

fn hash(parts: &[&[u8]]) -> u64 {
    let mut sha = Sha256::new();
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            sha.update([0]);
        }
        sha.update(part);
    }
    let digest = sha.finalize();
    digest.iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_is_the_first_eleven_bits() {
        // printf 'jetson01\0falls' | sha256sum
        assert_eq!(seed("jetson01", "falls"), 0xb8e6 >> 5);
        assert_ne!(seed("jetson01", "falls"), seed("jetson01", "fights"));
    }

    #[test]
    fn a_fleet_spreads_over_the_seeds() {
        let fleet = 20_000;
        let below = (0..fleet).filter(|i| seed(&format!("device-{i}"), "falls") < SEEDS / 10).count();
        // Binomial: mean 1992, deviation 42.
        assert!((1790..2200).contains(&below), "{below}");
        assert!((0..fleet).all(|i| seed(&format!("device-{i}"), "falls") < SEEDS));
    }

    #[test]
    fn pauses_stay_within_their_bounds() {
        let period = Duration::from_secs(900);
        for count in 0..200_u32 {
            let poll = poll_pause(period, "d", u64::from(count)).as_secs_f64();
            assert!((810.0..990.0).contains(&poll), "{poll}");
            assert!(first_pause(period, "d", u64::from(count)) < Duration::from_secs(300));
            let pause = backoff(count + 1, "d", None);
            assert!(pause >= FIRST_PAUSE / 2 && pause <= MAX_PAUSE, "{pause:?}");
        }
        assert!(backoff(9, "d", None) > backoff(1, "d", None));
        assert!(backoff(1, "d", Some(Duration::from_secs(7200))) >= Duration::from_secs(7200));
        assert!(backoff(1, "d", Some(Duration::MAX)) < Duration::from_secs(100_000));
    }
}
