//! The status page: its port is free, or it is ours and tells how the daemon is.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::doctor::{About, Context, Finding};

/// How long our own daemon may take to answer.
const ANSWER: Duration = Duration::from_secs(3);
/// Longest answer that is read, bytes.
const MAX_BYTES: u64 = 4 << 20;

pub(super) fn check(context: &Context, about: &About) -> Vec<Finding> {
    let Some(address) = context.config.parts.web else { return vec![about.skip("off, or its address cannot be used")] };
    match TcpListener::bind(address) {
        Ok(_) => vec![about.ok(format!("{address}: free, for kinewatch to listen on"))],
        Err(e) if e.kind() == ErrorKind::AddrInUse => match status(reachable(address)) {
            Some(status) => judge(address, &status, about),
            None => vec![about.fail(format!(
                "{address}: used by something else; choose another [web] listen, or find out what with ss -ltnp"
            ))],
        },
        Err(e) if e.kind() == ErrorKind::AddrNotAvailable => vec![about.fail(format!(
            "{address}: this machine has no such address; set [web] listen to 127.0.0.1:{}",
            address.port()
        ))],
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            vec![about.fail(format!("{address}: not permitted; choose a port above 1023"))]
        }
        Err(e) => vec![about.fail(format!("{address}: {e}; choose another [web] listen"))],
    }
}

fn judge(address: SocketAddr, status: &Value, about: &About) -> Vec<Finding> {
    let (version, device) = (status["version"].as_str().unwrap_or("?"), status["device"].as_str().unwrap_or("?"));
    let cameras: Vec<&Value> = status["cameras"].as_array().into_iter().flatten().collect();
    let up = cameras.iter().filter(|c| c["state"] == "up").count();
    let connected = status["mqtt"]["connected"] == true;
    let broker = if connected { "connected to the broker" } else { "not connected to the broker" };
    let told = format!("{address}: kinewatch {version} as {device}, {up} of {} cameras up, {broker}", cameras.len());
    let mut found = Vec::new();
    for camera in cameras.iter().filter(|c| c["state"] != "up") {
        let text = |key: &str| camera[key].as_str().unwrap_or("no reason known").to_owned();
        found.push(about.warn(format!(
            "{address}: camera {} is {}: {}",
            text("name"),
            text("state"),
            text("last_error")
        )));
    }
    if !connected {
        let reason = status["mqtt"]["last_error"].as_str().unwrap_or("no reason known");
        found.push(about.warn(format!("{address}: not connected to the broker: {reason}")));
    }
    if found.is_empty() { vec![about.ok(told)] } else { found }
}

/// Who listens everywhere is asked on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The answer of a kinewatch; `None` from anything else.
fn status(address: SocketAddr) -> Option<Value> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    stream.set_write_timeout(Some(ANSWER)).ok()?;
    write!(stream, "GET /status HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut bytes = Vec::new();
    stream.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let body: Value = serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()?;
    (body["version"].is_string() && body["cameras"].is_array()).then_some(body)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::doctor::tests::{context, told};

    #[test]
    fn a_port_is_free_or_taken_and_our_own_daemon_tells_how_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut context = context(dir.path(), &[]);
        let about = About::check("web");
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        context.config.parts.web = Some(address);
        let answer = std::thread::spawn(move || {
            let (mut stream, _) = taken.accept().unwrap();
            let mut request = [0; 16];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
        });
        assert!(told(&check(&context, &about))[0].starts_with("fail"));
        answer.join().unwrap();
        assert!(told(&check(&context, &about))[0].starts_with("ok"), "free now");
        let camera = |state| json!({ "name": "front", "state": state, "last_error": "silent for 10.0 s" });
        let status = |state, connected| json!({ "version": "1.0.0", "device": "box", "cameras": [camera(state)], "mqtt": { "connected": connected } });
        let lines = |s| told(&judge(address, &s, &about));
        assert!(
            lines(status("up", true))[0]
                .ends_with("kinewatch 1.0.0 as box, 1 of 1 cameras up, connected to the broker")
        );
        assert!(lines(status("down", true))[0].ends_with("camera front is down: silent for 10.0 s"));
        assert!(lines(status("up", false))[0].contains("not connected"));
    }
}
