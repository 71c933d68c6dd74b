//! `[mqtt]`: the broker's address, login and certificates, and the broker inside this process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kinewatch_mqtt::{Endpoint, Options, Protocol as MqttProtocol, Tls};
use sha2::{Digest, Sha256};

use super::document::key;
use super::file::{Mqtt, Protocol};
use super::plan::{DevicePlan, MqttPlan};
use super::resolve::Resolver;

pub(super) fn resolve(r: &mut Resolver<'_>, mqtt: &Mqtt, device: Option<&DevicePlan>) -> Option<MqttPlan> {
    let at = |k: &str| key!["mqtt", k];
    let endpoint = match Endpoint::parse(&mqtt.url) {
        Ok(endpoint) => Some(endpoint),
        Err(e) => {
            r.error(&at("url"), format!("[mqtt] url: {e}"));
            None
        }
    };
    let embedded = endpoint.as_ref().filter(|_| mqtt.embedded).and_then(|e| embedded(r, e));
    let username = r.secret(mqtt.username_file.as_ref(), &at("username_file"), "[mqtt] username_file");
    let password = r.secret(mqtt.password_file.as_ref(), &at("password_file"), "[mqtt] password_file");
    if mqtt.password_file.is_some() && mqtt.username_file.is_none() {
        r.error(&at("password_file"), "[mqtt]: password_file without username_file; add username_file");
    }
    let tls = tls(r, mqtt, endpoint.as_ref());
    let bad_id = |id: &&str| id.is_empty() || id.len() > 128 || id.contains(char::is_control);
    if let Some(id) = mqtt.client_id.as_deref().filter(bad_id) {
        r.error(
            &at("client_id"),
            format!("[mqtt] client_id: {id:?} is not usable; give 1 to 128 printable characters"),
        );
    }
    let device = device?;
    Some(MqttPlan {
        endpoint: endpoint?,
        url: mqtt.url.clone(),
        embedded,
        client_id: mqtt.client_id.clone().unwrap_or_else(|| client_id(device, r.environment.machine.as_deref())),
        protocol: mqtt.protocol,
        username: username.map(|(text, _)| text.expose().to_owned()),
        password: password.map(|(text, _)| text),
        ca_file: tls.ca,
        identity: tls.certificate.zip(tls.key),
        window: mqtt.window as usize,
        keep_alive: Duration::from_secs(mqtt.keep_alive_s.into()),
        commands: mqtt.commands,
    })
}

/// `kinewatch-<device>-<ten hexadecimal digits>`: readable in a broker's log, and another on each machine, so that two boxes
/// that were given one name do not throw each other out. The digits are a hash with our own salt, because a machine
/// identifier is confidential (machine-id(5)). At most 85 characters: MQTT 3.1.1 promises only 23, brokers take more.
fn client_id(device: &DevicePlan, machine: Option<&str>) -> String {
    let (group, name) = (&device.group, &device.name);
    let Some(machine) = machine else { return format!("kinewatch-{group}-{name}") };
    let hash = Sha256::digest(format!("kinewatch MQTT client identifier 1\0{machine}\0{group}"));
    let digits: String = hash.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    format!("kinewatch-{name}-{digits}")
}

impl MqttPlan {
    /// What the client takes; will, birth and farewell are the caller's to add.
    #[must_use]
    pub fn options(&self) -> Options {
        let mut options = Options::new(self.endpoint.clone(), self.client_id.clone());
        options.protocol = match self.protocol {
            Protocol::Auto => MqttProtocol::Auto,
            Protocol::V5 => MqttProtocol::V5,
            Protocol::V311 => MqttProtocol::V311,
        };
        options.credentials = self.username.clone().map(|user| {
            let password = self.password.as_ref().map(|p| p.expose().to_owned()).unwrap_or_default();
            (user, kinewatch_mqtt::Secret::new(password))
        });
        let (certificate, key) = self.identity.clone().unzip();
        options.tls = Tls { ca: self.ca_file.clone(), certificate, key };
        options.window = self.window;
        options.keep_alive = self.keep_alive;
        options
    }
}

fn embedded(r: &mut Resolver<'_>, endpoint: &Endpoint) -> Option<SocketAddr> {
    let (host, port) = (endpoint.host(), endpoint.port());
    if !cfg!(feature = "embedded-broker") {
        let advice = "install mosquitto, or build with --features embedded-broker";
        r.error(
            &key!["mqtt", "embedded"],
            format!("[mqtt] embedded: this kinewatch was built without a broker; {advice}"),
        );
        return None;
    }
    if endpoint.is_tls() {
        let advice = "write url = \"mqtt://127.0.0.1:1883\"";
        r.error(&key!["mqtt", "url"], format!("[mqtt] embedded: the broker inside has no TLS; {advice}"));
        return None;
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    // No name but this one is looked up: that may take minutes, and ask a server about a typing mistake.
    let ip = if bare == "localhost" { Some(Ipv4Addr::LOCALHOST.into()) } else { bare.parse::<IpAddr>().ok() };
    let address = ip.filter(IpAddr::is_loopback).map(|ip| SocketAddr::new(ip, port));
    if address.is_none() {
        let advice = format!("write url = \"mqtt://127.0.0.1:{port}\"");
        r.error(
            &key!["mqtt", "url"],
            format!("[mqtt] embedded: the broker inside listens on loopback alone, not on {host}; {advice}"),
        );
    }
    address
}

fn tls(r: &mut Resolver<'_>, mqtt: &Mqtt, endpoint: Option<&Endpoint>) -> Tls {
    let file =
        |r: &Resolver<'_>, name: &Option<String>| -> Option<PathBuf> { name.as_ref().map(|f| r.path(Path::new(f))) };
    let key = r.secret(mqtt.key_file.as_ref(), &key!["mqtt", "key_file"], "[mqtt] key_file").map(|(_, path)| path);
    let tls = Tls { ca: file(r, &mqtt.ca_file), certificate: file(r, &mqtt.cert_file), key };
    let pairs = [(&mqtt.cert_file, &mqtt.key_file, "key_file"), (&mqtt.key_file, &mqtt.cert_file, "cert_file")];
    let lonely = pairs.iter().find(|(present, absent, _)| present.is_some() && absent.is_none());
    if let Some((_, _, missing)) = lonely {
        r.error(
            &key!["mqtt"],
            format!("[mqtt]: a client certificate needs both cert_file and key_file; add {missing}"),
        );
        return tls;
    }
    let given = mqtt.ca_file.is_some() || mqtt.cert_file.is_some();
    match endpoint {
        Some(e) if given && !e.is_tls() => {
            let at = if mqtt.ca_file.is_some() { "ca_file" } else { "cert_file" };
            r.error(
                &key!["mqtt", at],
                format!("[mqtt] {at}: mqtt:// uses no certificates; write url = \"mqtts://…\", or leave it out"),
            );
        }
        // A key that could not be read has been told already.
        Some(e) if e.is_tls() && r.looks_at_machine() && tls.key.is_some() == mqtt.key_file.is_some() => {
            if let Err(e) = tls.check() {
                r.error(&key!["mqtt", if mqtt.ca_file.is_some() { "ca_file" } else { "url" }], format!("[mqtt]: {e}"));
            }
        }
        _ => {}
    }
    tls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_identifier_is_the_machine_s_and_does_not_show_it() {
        let device =
            |group: &str| DevicePlan { name: "box".into(), group: group.into(), state_dir: "/".into(), platform: None };
        let of = |group, machine| client_id(&device(group), machine);
        let machine = "3f2a9c0de1b24c7f8a5b6c7d8e9f0a1b";
        assert_eq!(of("home", Some(machine)), "kinewatch-box-3581ab7775", "stable, over restarts and versions");
        assert_ne!(of("home", Some(machine)), of("home", Some("0f2a9c0de1b24c7f8a5b6c7d8e9f0a1b")));
        assert_ne!(of("home", Some(machine)), of("work", Some(machine)));
        assert_eq!(of("home", None), "kinewatch-home-box");
    }
}
