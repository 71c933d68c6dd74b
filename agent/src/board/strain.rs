//! Whether the device has to be spared, from two looks at its board. Pure.

use kinewatch_core::derate::Cause;

use super::{Board, power};

/// Less than this part of the memory left, and less than [`ENOUGH`]: it is short.
const SCARCE: u64 = 20;
/// Bytes that are enough on any machine.
const ENOUGH: u64 = 256 << 20;
/// Everything waits for memory for more than this part of the time: it is short.
const STALLED: f64 = 0.05;

/// A cause, with what was seen, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strain {
    /// What for.
    pub cause: Cause,
    /// In words.
    pub detail: String,
}

/// What stands now. `seconds`: between the two looks.
#[must_use]
pub fn between(before: &Board, now: &Board, seconds: f64) -> Vec<Strain> {
    let mut found = Vec::new();
    let mut note = |cause, details: Vec<String>| {
        if !details.is_empty() {
            found.push(Strain { cause, detail: details.join(", ") });
        }
    };
    let slowing = now.cooling.iter().filter(|device| device.slows());
    note(Cause::Heat, slowing.map(|device| format!("{} {}", device.name, device.state)).collect());
    let rates = power::rates(&before.supply, &now.supply, seconds).into_iter();
    let excessive = rates.filter(|(event, rate)| *rate > event.tolerable_per_s());
    note(Cause::Power, excessive.map(|(event, rate)| format!("{}, {rate:.1} times a second", event.text())).collect());
    note(Cause::Memory, memory(now));
    found
}

fn memory(now: &Board) -> Vec<String> {
    let memory = &now.memory;
    let mib = |bytes: u64| bytes >> 20;
    let short = |left: Option<u64>, of: Option<u64>, whose: &str| {
        let (left, of) = (left?, of.filter(|of| *of > 0)?);
        (left < (of / SCARCE).min(ENOUGH)).then(|| format!("{} of {} MiB left {whose}", mib(left), mib(of)))
    };
    let stalled = memory.stalled.filter(|part| *part > STALLED);
    [
        short(memory.available, Some(memory.total), "of the machine's memory"),
        short(memory.left, memory.limit, "of MemoryHigh= or MemoryMax="),
        stalled.map(|part| format!("everything waits for memory {:.0} % of the time", part * 100.0)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{Cooling, Memory, Supply, power::SupplyEvent, trees};
    use crate::root::Root;

    fn told(before: &Board, now: &Board) -> Vec<String> {
        between(before, now, 2.0).iter().map(|s| format!("{}: {}", s.cause.name(), s.detail)).collect()
    }

    #[test]
    fn a_healthy_board_is_not_strained_and_a_hot_one_is() {
        let dir = trees::plant(&["orin-nano-jp62"]);
        let root = Root::below(dir.path());
        let healthy = Board::read(&root);
        assert_eq!(told(&healthy, &healthy), [""; 0]);
        let dir = trees::plant(&["orin-nano-jp62", "orin-nano-jp62-throttled"]);
        let root = Root::below(dir.path());
        assert_eq!(told(&healthy, &Board::read(&root))[0], "heat: cpufreq-cpu0 3, 17000000.gpu 2");
    }

    #[test]
    fn what_is_counted_in_normal_use_is_no_strain() {
        let board = |under, instant| Board {
            supply: [(SupplyEvent::UnderVoltage, under), (SupplyEvent::InstantOverCurrent, instant)]
                .map(|(event, count)| Supply { event, count })
                .to_vec(),
            cooling: vec![Cooling { name: "pwm-fan".into(), state: 3 }],
            ..Board::default()
        };
        assert_eq!(told(&board(0, 0), &board(0, 15)), [""; 0], "27 000 in an hour");
        assert_eq!(told(&board(0, 0), &board(0, 60)), ["power: instantaneous over-current, 30.0 times a second"]);
        assert_eq!(told(&board(3, 0), &board(4, 0)), ["power: under-voltage, 0.5 times a second"]);
        assert_eq!(told(&board(3, 9), &board(0, 0)), [""; 0], "counters of another boot");
    }

    #[test]
    fn memory_is_short_when_little_is_left_or_everything_waits() {
        let with = |memory: Memory| told(&Board::default(), &Board { memory, ..Board::default() });
        let memory = Memory { total: 4000 << 20, available: Some(201 << 20), ..Memory::default() };
        assert_eq!(with(memory.clone()), [""; 0]);
        assert_eq!(
            with(Memory { available: Some(199 << 20), stalled: Some(0.06), ..memory.clone() }),
            ["memory: 199 of 4000 MiB left of the machine's memory, everything waits for memory 6 % of the time"]
        );
        assert_eq!(
            with(Memory { total: 64 << 30, available: Some(3 << 30), ..memory.clone() }),
            [""; 0],
            "it is plenty"
        );
        let limited = Memory { limit: Some(1000 << 20), left: Some(49 << 20), ..memory };
        assert_eq!(with(limited), ["memory: 49 of 1000 MiB left of MemoryHigh= or MemoryMax="]);
        assert_eq!(with(Memory::default()), [""; 0]);
    }
}
