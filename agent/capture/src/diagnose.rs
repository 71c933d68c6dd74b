//! Why an RTSP server cannot be reached, in words: GStreamer says only "Failed to connect".
//!
//! Asked once after a failed connection, on a thread of its own, since name resolution may block; the camera's thread
//! waits a second at most.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

/// Longest wait of the caller.
const PATIENCE: Duration = Duration::from_secs(1);

/// The reason, or `None` when the server can be reached or does not answer soon. `url` holds no credentials.
pub(crate) fn why_unreachable(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok()?;
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    let port = url.port().unwrap_or(if url.scheme() == "rtsps" { 322 } else { 554 });
    let resolved = Arc::new(AtomicBool::new(false));
    let (answer, answered) = sync_channel(1);
    let (name, seen) = (host.clone(), Arc::clone(&resolved));
    let body = move || drop(answer.send(reason(&name, port, &seen)));
    thread::Builder::new().name("cam-diagnose".into()).spawn(body).ok()?;
    match answered.recv_timeout(PATIENCE) {
        Ok(reason) => reason,
        Err(_) if resolved.load(Relaxed) => None,
        Err(_) => Some(format!("the name `{host}` cannot be resolved: the name server does not answer")),
    }
}

/// `resolved` is set when the name is.
fn reason(host: &str, port: u16, resolved: &AtomicBool) -> Option<String> {
    let Ok(mut addresses) = (host, port).to_socket_addrs() else {
        return Some(format!("the name `{host}` cannot be resolved"));
    };
    resolved.store(true, Relaxed);
    let address = addresses.next()?;
    match TcpStream::connect_timeout(&address, PATIENCE / 2) {
        Ok(_) => None,
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            Some(format!("{address} refuses the connection: is the camera's RTSP service running on that port?"))
        }
        Err(e) if e.kind() == io::ErrorKind::TimedOut => Some(format!("{address} does not answer")),
        Err(e) => Some(format!("{address}: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_and_unknown_names_are_told_apart() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text = reason("127.0.0.1", port, &AtomicBool::default()).unwrap();
        assert!(text.contains("refuses"), "{text}");
        let text = reason("no-such-host.invalid", 554, &AtomicBool::default()).unwrap();
        assert!(text.contains("cannot be resolved"), "{text}");
    }
}
