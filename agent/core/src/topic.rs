//! The MQTT topic tree. At most six slashes: brokers in the cloud refuse more than seven.

/// First levels of every topic.
pub const ROOT: &str = "kinewatch/v1";

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

/// Test messages of `kinewatch doctor`: QoS 1, not retained, of no meaning to anybody.
#[must_use]
pub fn doctor(group: &str, device: &str) -> String {
    format!("{ROOT}/{group}/{device}/sys/doctor")
}

/// A command to this device.
#[must_use]
pub fn command(group: &str, device: &str, name: &str) -> String {
    format!("{ROOT}/{group}/{device}/cmd/{name}")
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
        assert_eq!(status("home", "box"), "kinewatch/v1/home/box/status");
    }
}
