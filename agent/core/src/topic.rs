//! The MQTT topic tree. At most six slashes: brokers in the cloud refuse more than seven.

use crate::name::is_name;

/// First levels of every topic.
pub const ROOT: &str = "kinewatch/v1";
/// In the place of a device: every device of the group. No device may be called so.
pub const ALL: &str = "_all";
/// Longest response topic, bytes.
const MAX_RESPONSE: usize = 256;

/// Retained birth, will and graceful stop of the device.
#[must_use]
pub fn status(group: &str, device: &str) -> String {
    format!("{ROOT}/{group}/{device}/status")
}

/// Retained record of how the device's clock was set.
#[must_use]
pub fn clock(group: &str, device: &str) -> String {
    format!("{ROOT}/{group}/{device}/clock")
}

/// Retained state of the store of events.
#[must_use]
pub fn store(group: &str, device: &str) -> String {
    format!("{ROOT}/{group}/{device}/store")
}

/// Action events: QoS 1, not retained.
#[must_use]
pub fn event(group: &str, device: &str, camera: &str, label: &str) -> String {
    format!("{ROOT}/{group}/{device}/evt/{camera}/{label}")
}

/// Retained state of one camera.
#[must_use]
pub fn camera_state(group: &str, device: &str, camera: &str) -> String {
    format!("{ROOT}/{group}/{device}/cam/{camera}/state")
}

/// Retained state of the models.
#[must_use]
pub fn model_state(group: &str, device: &str) -> String {
    format!("{ROOT}/{group}/{device}/model/state")
}

/// Progress of a model update.
#[must_use]
pub fn model_progress(group: &str, device: &str) -> String {
    format!("{ROOT}/{group}/{device}/model/progress")
}

/// Statement of sequence numbers that will never come.
#[must_use]
pub fn gap(group: &str, device: &str) -> String {
    format!("{ROOT}/{group}/{device}/sys/gap")
}

/// Test messages of `kinewatch doctor`: QoS 1, not retained, of no meaning to anybody. Not below `sys`, where whoever counts
/// events looks for gaps.
#[must_use]
pub fn doctor(group: &str, device: &str) -> String {
    format!("{ROOT}/{group}/{device}/doctor")
}

/// A command to this device, or to [`ALL`].
#[must_use]
pub fn command(group: &str, device: &str, name: &str) -> String {
    format!("{ROOT}/{group}/{device}/cmd/{name}")
}

/// What a device subscribes to: its own commands, and those for all of its group.
#[must_use]
pub fn commands(group: &str, device: &str) -> [String; 2] {
    [command(group, device, "+"), command(group, ALL, "+")]
}

/// To whom a command is, and its name; `None` for a topic that is no command to this device.
#[must_use]
pub fn parse_command<'t>(topic: &'t str, group: &str, device: &str) -> Option<(Audience, &'t str)> {
    let (to, rest) =
        topic.strip_prefix(ROOT)?.strip_prefix('/')?.strip_prefix(group)?.strip_prefix('/')?.split_once('/')?;
    let name = rest.strip_prefix("cmd/").filter(|name| !name.contains('/'))?;
    let audience = match to {
        ALL => Audience::All,
        to if to == device => Audience::Device,
        _ => return None,
    };
    Some((audience, name))
}

/// To whom a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// This device.
    Device,
    /// Every device of the group.
    All,
}

/// Whether a requester may have its answer there: `kinewatch/v1/<group>/<any name>/rsp/<one or two levels>`. Anywhere else an
/// answer could be taken for an event, a state or a command, with the rights of this device.
#[must_use]
pub fn is_response(topic: &str, group: &str) -> bool {
    let answers = || {
        let levels: Vec<_> = topic.strip_prefix(ROOT)?.strip_prefix('/')?.split('/').collect();
        let [of, name, "rsp", rest @ ..] = levels.as_slice() else { return None };
        let fine = |level: &&str| !level.is_empty() && !level.contains(['+', '#']) && !level.contains(char::is_control);
        (*of == group && is_name(name) && matches!(rest.len(), 1..=2) && rest.iter().all(fine)).then_some(())
    };
    topic.len() <= MAX_RESPONSE && answers().is_some()
}

/// Where a command is answered when it names no response topic.
#[must_use]
pub fn response(group: &str, device: &str, name: &str) -> String {
    format!("{ROOT}/{group}/{device}/rsp/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_those_of_the_design() {
        assert_eq!(event("home", "box", "front", "fall"), "kinewatch/v1/home/box/evt/front/fall");
        assert_eq!(camera_state("home", "box", "front"), "kinewatch/v1/home/box/cam/front/state");
        assert_eq!(gap("home", "box"), "kinewatch/v1/home/box/sys/gap");
        assert_eq!(clock("home", "box"), "kinewatch/v1/home/box/clock");
        assert_eq!(store("home", "box"), "kinewatch/v1/home/box/store");
        assert_eq!(status("home", "box"), "kinewatch/v1/home/box/status");
        assert_eq!(commands("home", "box"), ["kinewatch/v1/home/box/cmd/+", "kinewatch/v1/home/_all/cmd/+"]);
    }

    #[test]
    fn commands_are_those_to_this_device_and_to_all() {
        let of = |topic| parse_command(topic, "home", "box");
        assert_eq!(of("kinewatch/v1/home/box/cmd/ping"), Some((Audience::Device, "ping")));
        assert_eq!(of("kinewatch/v1/home/_all/cmd/ping"), Some((Audience::All, "ping")));
        for other in
            ["kinewatch/v1/home/box2/cmd/ping", "kinewatch/v1/homes/box/cmd/ping", "kinewatch/v1/home/box/cmd/a/b"]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn answers_go_only_where_answers_belong() {
        let fine = [
            "kinewatch/v1/home/box/rsp/ping",
            "kinewatch/v1/home/console-7/rsp/fleet/42",
            "kinewatch/v1/home/_all/rsp/x",
        ];
        assert_eq!(fine.map(|topic| is_response(topic, "home")), [true; 3]);
        for abuse in [
            "",
            "answers",
            "$SYS/broker",
            "kinewatch/v1/home/box/evt/front/fall",
            "kinewatch/v1/home/box/cmd/ping",
            "kinewatch/v1/home/box/status",
            "kinewatch/v1/office/box/rsp/ping",
            "kinewatch/v1/home/box/rsp",
            "kinewatch/v1/home/box/rsp/",
            "kinewatch/v1/home/box/rsp/+",
            "kinewatch/v1/home/box/rsp/#",
            "kinewatch/v1/home/+/rsp/x",
            "kinewatch/v1/home/box/rsp/a\n",
            "kinewatch/v1/home/box/rsp/a/b/c",
        ] {
            assert!(!is_response(abuse, "home"), "{abuse:?}");
        }
        assert!(!is_response(&format!("kinewatch/v1/home/box/rsp/{}", "x".repeat(300)), "home"));
    }
}
