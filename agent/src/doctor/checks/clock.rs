//! The system clock: events are only as right as it is.

use kinewatch_core::event::ClockState;

use crate::doctor::{About, Context, Finding};

/// An error above this is worth a warning, milliseconds.
const LARGE_MS: f64 = 1000.0;

pub(super) fn check(_: &Context, about: &About) -> Vec<Finding> {
    vec![judge(&crate::clock::state(), about)]
}

fn judge(state: &ClockState, about: &About) -> Finding {
    if !state.synced {
        return about.warn("not synchronised: events bear its time all the same, and tell later by how much it was wrong; run a time service (systemd-timesyncd, chrony)");
    }
    match state.max_err_ms {
        ms if ms <= 0.0 => about.ok("synchronised; the kernel may not be asked how exactly"),
        ms if ms > LARGE_MS => about.warn(format!(
            "synchronised, but only to within {:.1} s; does the time service reach its servers?",
            ms / 1e3
        )),
        ms => about.ok(format!("synchronised, to within {ms:.0} ms")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::told;

    #[test]
    fn unsynchronised_and_inexact_clocks_are_told() {
        let about = About::check("clock");
        let state = |synced, max_err_ms| ClockState { synced, source: "ntp".into(), max_err_ms, boot_id: None };
        let lines =
            told(&[(false, 0.0), (true, 12.4), (true, 2500.0), (true, 0.0)].map(|(s, e)| judge(&state(s, e), &about)));
        assert!(lines[0].starts_with("warn not synchronised"), "{lines:?}");
        assert_eq!(lines[1], "ok synchronised, to within 12 ms");
        assert!(lines[2].starts_with("warn synchronised, but only to within 2.5 s"), "{lines:?}");
        assert!(lines[3].starts_with("ok"), "{lines:?}");
    }
}
