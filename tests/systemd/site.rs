//! What surrounds the service: a name server, a broker and a camera that ask for passwords, and a subscriber.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::container::Container;
use crate::support::Process;

/// Passwords that must not be seen anywhere but where they belong.
pub(crate) const PASSWORDS: [&str; 2] = ["br0ker-hunter2", "camera-hunter3"];
/// Where this repository's test data are inside.
pub(crate) const DATA: &str = "/opt/kinewatch-test";
/// The folder of the service's drop-ins.
pub(crate) const DROP_INS: &str = "/etc/systemd/system/kinewatch.service.d";
/// Where the package has examples of them.
pub(crate) const EXAMPLES: &str = "/usr/share/doc/kinewatch/examples/systemd";
/// The configuration that the package installs.
pub(crate) const CONFIG: &str = "/etc/kinewatch/kinewatch.toml";

/// `front` is looked for by name and asks for a password; `hall` shows white for ever, so that an action is always open.
const CONFIGURED: &str = r#"
[mqtt]
url = "mqtt://broker.test"
username_file = "credential:mqtt-user"
password_file = "credential:mqtt-password"

[[model]]
name = "bright"
path = "/opt/kinewatch-test/packages/tiny-bright"

[[camera]]
name = "front"
source = "rtsp://camera.test:8554/front"
credentials_file = "credential:front"

[[camera]]
name = "hall"
source = "test:white?size=160x120&fps=10"
"#;

/// They run as long as the container.
pub(crate) struct Site {
    subscriber: Process,
    _servers: Vec<Process>,
}

impl Site {
    /// Starts the servers, and edits the configuration as an administrator would.
    pub(crate) fn start(c: &Container) -> Self {
        c.write("/etc/resolv.conf", "nameserver 127.0.0.1\n");
        let mut names = c.start(&[
            "sh",
            "-c",
            "exec dnsmasq --keep-in-foreground --log-facility=- --user=root --no-resolv --no-hosts --bind-interfaces \
             --listen-address=127.0.0.1 --address=/camera.test/127.0.0.1 --address=/broker.test/127.0.0.1 2>&1",
        ]);
        names.wait_for("the name server", |line| line.contains("started"));
        c.shell(&format!("mosquitto_passwd -b -c /tmp/users joe {} && chmod 0644 /tmp/users", PASSWORDS[0]));
        c.write("/tmp/broker.conf", "listener 1883 127.0.0.1\nallow_anonymous false\npassword_file /tmp/users\n");
        let mut broker = c.start(&["sh", "-c", "exec mosquitto -v -c /tmp/broker.conf 2>&1"]);
        broker.wait_for("the broker", |line| line.contains("running"));
        let served = format!("front={DATA}/bright.mp4");
        let server = ["/opt/kinewatch-examples/rtsp-serve", "--loop", "--port", "8554"];
        let mut camera = c.start(&[&server[..], &["--user", "joe", "--password", PASSWORDS[1], &served]].concat());
        camera.wait_for("the camera", |line| line.starts_with("rtsp://"));
        let login = ["-h", "127.0.0.1", "-V", "mqttv5", "-q", "1", "-u", "joe", "-P", PASSWORDS[0]];
        let topics = ["-t", "kinewatch/#", "-F", "%t\t%p"];
        let subscriber = c.start(&[&["mosquitto_sub"], &login[..], &topics].concat());
        broker.wait_for("the subscription", |line| line.contains("Sending SUBACK"));
        configure(c);
        Self { subscriber, _servers: vec![names, broker, camera] }
    }

    /// The next message that satisfies `wanted`, of those not looked at yet.
    pub(crate) fn message(&mut self, what: &str, mut wanted: impl FnMut(&str, &Value) -> bool) -> Value {
        let parsed = |line: &str| -> Option<(String, Value)> {
            let (topic, payload) = line.split_once('\t')?;
            Some((topic.to_owned(), serde_json::from_str(payload).ok()?))
        };
        let line =
            self.subscriber.wait_for(what, |line| parsed(line).is_some_and(|(topic, value)| wanted(&topic, &value)));
        parsed(&line).unwrap().1
    }

    /// The next event of a camera with this status.
    pub(crate) fn event(&mut self, camera: &str, status: &str) -> Value {
        let of = format!("/evt/{camera}/");
        self.message(&format!("{status} at {camera}"), |topic, e| topic.contains(&of) && e["data"]["status"] == status)
    }

    /// Every line so far; what has come is looked at with it.
    pub(crate) fn lines(&mut self) -> Vec<String> {
        self.subscriber.seen().to_vec()
    }
}

fn configure(c: &Container) {
    for (name, secret) in [
        ("mqtt-user", "joe".to_owned()),
        ("mqtt-password", PASSWORDS[0].to_owned()),
        ("front", format!("joe:{}", PASSWORDS[1])),
    ] {
        let path = format!("/etc/kinewatch/credentials/{name}");
        c.write(&path, &secret);
        std::fs::set_permissions(c.path(&path), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    c.write(CONFIG, CONFIGURED);
    drop_in(c, "credentials.conf");
}

/// Makes an example of the package a drop-in of the service, as the example says.
pub(crate) fn drop_in(c: &Container, name: &str) {
    c.run(&["install", "-D", "-m", "644", &format!("{EXAMPLES}/{name}"), &format!("{DROP_INS}/{name}")]);
    c.run(&["systemctl", "daemon-reload"]);
}
