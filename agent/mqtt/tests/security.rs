//! Who we are and who the broker is: passwords, TLS, client certificates, against a real mosquitto.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Feeder, Mosquitto, options};
use kinewatch_mqtt::{DisconnectReason, Options, Protocol, Secret, Tls};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

async fn first_reason(options: Options) -> DisconnectReason {
    let mut feeder = Feeder::new(options, 1..=1);
    feeder.run("an answer", |f| !f.reasons.is_empty() || f.unacked.is_empty()).await;
    feeder.reasons.first().cloned().expect("it should not connect")
}

async fn delivers(options: Options) {
    let mut feeder = Feeder::new(options, 1..=3);
    feeder.run("delivered", |f| f.unacked.is_empty() || !f.reasons.is_empty()).await;
    assert_eq!(feeder.reasons, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said_and_never_shown() {
    let config = "allow_anonymous false\npassword_file {dir}/passwords\n";
    let broker = Mosquitto::with(config, |dir| {
        let made = Command::new("mosquitto_passwd")
            .args(["-b", "-c"])
            .arg(dir.join("passwords"))
            .args(["joe", "right"])
            .status();
        assert!(made.unwrap().success());
    })
    .await;
    for protocol in [Protocol::V5, Protocol::V311] {
        let with = |credentials| Options { protocol, credentials, ..options(&broker.url(), "agent") };
        for credentials in [Some(("joe".to_owned(), Secret::new("hunter2"))), None] {
            let reason = first_reason(with(credentials)).await;
            let expected = matches!(reason, DisconnectReason::NotAuthorized | DisconnectReason::BadCredentials);
            assert!(expected, "{protocol:?}: {reason}");
            assert!(reason.to_string().contains("password") && !format!("{reason} {reason:?}").contains("hunter2"));
        }
        delivers(with(Some(("joe".to_owned(), Secret::new("right"))))).await;
    }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(dir: &Path, file: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, file);
        let key = KeyPair::generate().unwrap();
        fs::write(dir.join(file), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key) }
    }

    fn issue(&self, dir: &Path, name: &str, host: &str) {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        fs::write(dir.join(format!("{name}.pem")), params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

fn certificates(dir: &Path) {
    let ours = Authority::new(dir, "ca.pem");
    ours.issue(dir, "broker", "localhost");
    ours.issue(dir, "agent", "agent");
    let other = Authority::new(dir, "other-ca.pem");
    other.issue(dir, "stranger", "agent");
}

fn tls(dir: &Path, ca: &str, identity: Option<&str>) -> Tls {
    let file = |suffix| identity.map(|i| dir.join(format!("{i}.{suffix}")));
    Tls { ca: Some(dir.join(ca)), certificate: file("pem"), key: file("key") }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_checks_the_broker() {
    let config = "allow_anonymous true\ncertfile {dir}/broker.pem\nkeyfile {dir}/broker.key\n";
    let broker = Mosquitto::with(config, certificates).await;
    let dir = broker.dir.path();
    let to = |scheme: &str, host: &str, tls: Tls| Options {
        tls,
        ..options(&format!("{scheme}://{host}:{}", broker.port), "agent")
    };
    for protocol in [Protocol::V5, Protocol::V311] {
        delivers(Options { protocol, ..to("mqtts", "localhost", tls(dir, "ca.pem", None)) }).await;
        let reason = first_reason(Options { protocol, ..to("mqtts", "127.0.0.1", tls(dir, "ca.pem", None)) }).await;
        assert_eq!(reason, DisconnectReason::TlsName { host: "127.0.0.1".into() });
        let reason =
            first_reason(Options { protocol, ..to("mqtts", "localhost", tls(dir, "other-ca.pem", None)) }).await;
        assert_eq!(reason, DisconnectReason::TlsUntrusted);
    }
    let reason = first_reason(to("mqtts", "localhost", tls(dir, "missing.pem", None))).await;
    assert!(matches!(reason, DisconnectReason::TlsFiles(_)) && reason.to_string().contains("missing.pem"), "{reason}");
    let reason = first_reason(to("mqtt", "localhost", Tls::default())).await;
    assert!(reason.to_string().contains("TLS"), "plain text to a TLS port: {reason}");
    let plain = Mosquitto::start().await;
    let url = format!("mqtts://localhost:{}", plain.port);
    let reason = first_reason(Options { tls: tls(dir, "ca.pem", None), ..options(&url, "agent") }).await;
    assert!(matches!(reason, DisconnectReason::TlsAbsent { .. } | DisconnectReason::NotMqtt { .. }), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_checks_us() {
    let config = "allow_anonymous true\nrequire_certificate true\ncafile {dir}/ca.pem\ncertfile {dir}/broker.pem\nkeyfile {dir}/broker.key\n";
    let broker = Mosquitto::with(config, certificates).await;
    let dir = broker.dir.path();
    let with = |identity| Options {
        tls: tls(dir, "ca.pem", identity),
        ..options(&format!("mqtts://localhost:{}", broker.port), "agent")
    };
    delivers(with(Some("agent"))).await;
    for identity in [None, Some("stranger")] {
        let reason = first_reason(with(identity)).await;
        assert!(matches!(reason, DisconnectReason::TlsClient { .. }), "{identity:?}: {reason}");
    }
    assert!(tls(dir, "ca.pem", Some("agent")).check().is_ok());
    let half = Tls { key: None, ..tls(dir, "ca.pem", Some("agent")) };
    assert!(half.check().is_err());
    let swapped = Tls { key: Some(dir.join("stranger.key")), ..tls(dir, "ca.pem", Some("agent")) };
    assert!(swapped.check().is_err(), "a key that does not belong to the certificate");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_without_address_is_said() {
    let reason = first_reason(options("mqtt://no-such-host.invalid:1883", "agent")).await;
    assert_eq!(reason, DisconnectReason::Dns { host: "no-such-host.invalid".into() });
}
