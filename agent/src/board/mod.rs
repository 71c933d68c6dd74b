//! What the board tells of itself: which it is, how hot, at which power mode and voltage, and how much memory is left.
//!
//! Files of sysfs and procfs alone, below a [`Root`], so that a Jetson is tested with a tree of files: `tegrastats` is text that
//! changes with every release, and `nvpmodel` needs root. What cannot be read is left out; blocks that are switched off
//! answer with an error. Never writes. A read may take milliseconds for each sensor (some sit behind a slow bus), so it
//! belongs to the task of [`watch`] and to `doctor`, never to a thread that works on frames.

pub mod gpu;
pub mod heat;
pub mod memory;
pub mod power;
pub mod strain;
#[cfg(test)]
#[path = "../../../tests/support/trees.rs"]
pub(crate) mod trees;
pub mod watch;

use std::collections::BTreeSet;

use kinewatch_capture::platform::{Jetson, Platform, Release, detect};

pub use self::heat::{Cooling, Zone};
pub use self::memory::Memory;
pub use self::power::{Rail, Supply, SupplyEvent};
use crate::root::Root;

/// What was read at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Board {
    /// What it calls itself, such as `NVIDIA Jetson Orin Nano Developer Kit`.
    pub model: Option<String>,
    /// Release of NVIDIA's Linux for Tegra, such as `36.4.3`.
    pub l4t: Option<String>,
    /// Which JetPack that is.
    pub jetpack: Option<Platform>,
    /// Power mode, such as `MAXN_SUPER (2)`.
    pub power_mode: Option<String>,
    /// Thermal zones that give a temperature.
    pub zones: Vec<Zone>,
    /// Cooling devices, fans among them.
    pub cooling: Vec<Cooling>,
    /// Events of the supply since boot.
    pub supply: Vec<Supply>,
    /// Voltages and currents.
    pub rails: Vec<Rail>,
    /// Memory of the machine and of the service.
    pub memory: Memory,
}

impl Board {
    /// Reads everything. Blocks for some milliseconds, on a hung bus for longer.
    #[must_use]
    pub fn read(root: &Root) -> Self {
        Self {
            model: model(root),
            l4t: l4t(root),
            jetpack: jetpack(root),
            power_mode: power::mode(root),
            zones: heat::zones(root),
            cooling: heat::cooling(root),
            supply: power::supply(root),
            rails: power::rails(root),
            memory: Memory::read(root),
        }
    }
}

/// What the board calls itself.
#[must_use]
pub fn model(root: &Root) -> Option<String> {
    root.read("/proc/device-tree/model").filter(|model| !model.is_empty())
}

/// Whether it is a Jetson.
#[must_use]
pub fn is_jetson(root: &Root) -> bool {
    jetson(root).is_some()
}

/// Release of Linux for Tegra, such as `36.4.3`.
#[must_use]
pub fn l4t(root: &Root) -> Option<String> {
    let Release { major, minor, patch } = jetson(root)?.release?;
    Some(format!("{major}.{minor}.{patch}"))
}

/// The JetPack that its release belongs to; by the chip where the release is not told.
#[must_use]
pub fn jetpack(root: &Root) -> Option<Platform> {
    jetson(root).map(Jetson::platform)
}

/// As the pipelines of cameras see it.
fn jetson(root: &Root) -> Option<Jetson> {
    detect(&root.at("/"))
}

/// Makes names unique, since they become labels: the second `tj` is `tj 2`.
fn distinct<T>(mut found: Vec<T>, name: fn(&mut T) -> &mut String) -> Vec<T> {
    let mut seen = BTreeSet::new();
    for item in &mut found {
        let name = name(item);
        let own = name.clone();
        let mut n = 1;
        while !seen.insert(name.clone()) {
            n += 1;
            *name = format!("{own} {n}");
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boards_and_releases_are_told_from_their_trees() {
        for (tree, model, l4t, jetpack, mode) in [
            ("orin-nano-jp62", "NVIDIA Jetson Orin Nano Developer Kit", "36.4.3", Platform::Jetpack6, "MAXN_SUPER (2)"),
            ("thor-jp7", "NVIDIA Jetson AGX Thor Developer Kit", "38.2.0", Platform::Jetpack7, "MAXN (0)"),
        ] {
            let dir = trees::plant(&[tree]);
            let root = Root::below(dir.path());
            let board = Board::read(&root);
            assert_eq!(board.model.as_deref(), Some(model));
            assert_eq!(board.l4t.as_deref(), Some(l4t));
            assert_eq!(board.jetpack, Some(jetpack));
            assert_eq!(board.power_mode.as_deref(), Some(mode));
            assert!(is_jetson(&root) && !board.zones.is_empty() && board.memory.total > 0, "{board:?}");
        }
    }

    #[test]
    fn a_machine_that_tells_nothing_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::below(dir.path());
        assert_eq!(Board::read(&root), Board::default());
        assert!(!is_jetson(&root));
        for text in ["", "R36", "# Rx (release), REVISION: 4.3,"] {
            let dir = trees::plant_text(&format!("=== /etc/nv_tegra_release\n{text}\n"));
            let root = Root::below(dir.path());
            assert_eq!((l4t(&root), is_jetson(&root)), (None, false), "{text}");
        }
    }

    #[test]
    fn names_that_come_twice_are_told_apart() {
        let names = ["tj", "gpu", "tj", "tj", "tjx"].map(str::to_owned).to_vec();
        assert_eq!(distinct(names, |name| name), ["tj", "gpu", "tj 2", "tj 3", "tjx"]);
    }
}
