//! Why an RTSP server cannot be reached, in words: GStreamer says only "Failed to connect".
//!
//! Asked once after a failed connection, on a thread of its own, since name resolution may block; the camera's thread
//! waits a second at most.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

/// Longest wait of the caller.
const PATIENCE: Duration = Duration::from_secs(1);

/// The reason, or `None` when the server can be reached or the answer takes too long. `url` holds no credentials.
pub(crate) fn why_unreachable(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok()?;
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    let port = url.port().unwrap_or(if url.scheme() == "rtsps" { 322 } else { 554 });
    let (answer, answered) = sync_channel(1);
    let body = move || drop(answer.send(reason(&host, port)));
    thread::Builder::new().name("cam-diagnose".into()).spawn(body).ok()?;
    answered.recv_timeout(PATIENCE).ok().flatten()
}

fn reason(host: &str, port: u16) -> Option<String> {
    let Ok(mut addresses) = (host, port).to_socket_addrs() else {
        return Some(format!("the name `{host}` cannot be resolved"));
    };
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
        let text = reason("127.0.0.1", port).unwrap();
        assert!(text.contains("refuses"), "{text}");
        let text = reason("no-such-host.invalid", 554).unwrap();
        assert!(text.contains("cannot be resolved"), "{text}");
    }
}
