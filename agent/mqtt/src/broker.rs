//! A broker inside the process, for demonstrations, trials and tests: rumqttd on loopback.
//!
//! Its limits, said in the log at every start because they break the product's promise: it keeps everything in memory
//! only, forgets it with the process, and drops the oldest messages *without a word* when a topic filter has more than
//! [`MEMORY_PER_FILTER`] waiting for a subscriber that is away. It has no users, so only loopback is allowed. MQTT 5 is
//! spoken on the port asked for and MQTT 3.1.1 on the next one: it cannot do both on one. It ends with the process. Use
//! mosquitto, with `persistence true`, for anything that matters.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rumqttd::{Config, ConnectionSettings, RouterConfig, ServerSettings};

/// Bytes kept per topic filter before the oldest are forgotten.
pub(crate) const MEMORY_PER_FILTER: usize = SEGMENT * SEGMENTS;
const SEGMENT: usize = 1 << 20;
const SEGMENTS: usize = 10;
const MAX_PAYLOAD: usize = 256 << 10;
/// rumqttd takes milliseconds; loopback needs none of them.
const CONNECT_TIMEOUT_MS: u16 = 10_000;
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Why the embedded broker did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// Not a loopback address.
    #[error(
        "{listen}: the embedded broker has no users and passwords, so it listens on loopback only: use 127.0.0.1, or a real broker such as mosquitto"
    )]
    NotLoopback {
        /// The address asked for.
        listen: SocketAddr,
    },
    /// A port is taken.
    #[error(
        "{listen}: the embedded broker cannot listen there ({source}): is another broker running? Choose another port in [mqtt] url; the next port is used too, for MQTT 3.1.1"
    )]
    Bind {
        /// The address.
        listen: SocketAddr,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// There is no port after the last one.
    #[error("port {0} has no next port for MQTT 3.1.1: choose a lower one")]
    LastPort(u16),
    /// Its thread could not be started.
    #[error("the embedded broker's thread cannot be started: {0}")]
    Thread(std::io::Error),
    /// It does not answer.
    #[error("{listen}: the embedded broker does not answer ({detail})")]
    NotReady {
        /// The address.
        listen: SocketAddr,
        /// What was seen last.
        detail: String,
    },
}

/// A running embedded broker. It lives until the process ends, whether this value is kept or not.
#[derive(Debug, Clone, Copy)]
pub struct Broker {
    v5: SocketAddr,
    v311: SocketAddr,
}

impl Broker {
    /// Start it on `listen` (MQTT 5) and the next port (MQTT 3.1.1); port 0 takes two free ones. Blocks until both
    /// answer a client, 10 s at most.
    pub fn start(listen: SocketAddr) -> Result<Self, BrokerError> {
        if !listen.ip().is_loopback() {
            return Err(BrokerError::NotLoopback { listen });
        }
        let (v5, v311) = free_pair(listen)?;
        let mut broker = rumqttd::Broker::new(config(v5, v311));
        std::thread::Builder::new()
            .name("mqtt-broker".to_owned())
            .spawn(move || {
                // Returns only when all listeners have failed.
                if let Err(error) = broker.start() {
                    tracing::error!(%error, "embedded broker ended");
                }
            })
            .map_err(BrokerError::Thread)?;
        let deadline = Instant::now() + READY_WITHIN;
        wait_ready(v5, 5, deadline)?;
        wait_ready(v311, 4, deadline)?;
        tracing::warn!(
            mqtt5 = %v5, mqtt311 = %v311,
            "embedded broker: memory only, everything is gone with this process; more than {} MB waiting for one absent \
             subscriber are forgotten silently; for trials, not for real use", MEMORY_PER_FILTER >> 20
        );
        Ok(Self { v5, v311 })
    }

    /// Where MQTT 5 is spoken.
    pub fn v5(&self) -> SocketAddr {
        self.v5
    }

    /// Where MQTT 3.1.1 is spoken.
    pub fn v311(&self) -> SocketAddr {
        self.v311
    }
}

/// rumqttd reports a taken port to nobody, so both are bound and released here first.
fn free_pair(listen: SocketAddr) -> Result<(SocketAddr, SocketAddr), BrokerError> {
    let bind = |listen: SocketAddr| TcpListener::bind(listen).map_err(|source| BrokerError::Bind { listen, source });
    for attempt in 0..16 {
        let first = bind(listen)?;
        let v5 = first.local_addr().map_err(|source| BrokerError::Bind { listen, source })?;
        let next = v5.port().checked_add(1).ok_or(BrokerError::LastPort(v5.port()))?;
        let v311 = SocketAddr::new(v5.ip(), next);
        match bind(v311) {
            Err(_) if listen.port() == 0 && attempt < 15 => {}
            other => return other.map(|_| (v5, v311)),
        }
    }
    Err(BrokerError::LastPort(listen.port()))
}

fn config(v5: SocketAddr, v311: SocketAddr) -> Config {
    let server = |name: &str, listen| {
        let settings = ServerSettings {
            name: name.to_owned(),
            listen,
            tls: None,
            next_connection_delay_ms: 1,
            connections: ConnectionSettings {
                connection_timeout_ms: CONNECT_TIMEOUT_MS,
                max_payload_size: MAX_PAYLOAD,
                max_inflight_count: 100,
                auth: None,
                external_auth: None,
                dynamic_filters: true,
            },
        };
        Some(HashMap::from([(name.to_owned(), settings)]))
    };
    Config {
        router: RouterConfig {
            max_connections: 64,
            max_outgoing_packet_count: 200,
            max_segment_size: SEGMENT,
            max_segment_count: SEGMENTS,
            ..RouterConfig::default()
        },
        v5: server("mqtt5", v5),
        v4: server("mqtt311", v311),
        ..Config::default()
    }
}

/// Connect a client until it gets its CONNACK.
fn wait_ready(listen: SocketAddr, level: u8, deadline: Instant) -> Result<(), BrokerError> {
    let mut attempt = 0_u32;
    loop {
        // Each by another name: rumqttd panics over a client that comes back while its last connection is being put away,
        // which a slow machine gives it time for.
        match say_hello(listen, level, &format!("kinewatch-ready-{level}-{attempt}")) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => {
                return Err(BrokerError::NotReady { listen, detail: error.to_string() });
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
        attempt += 1;
    }
}

fn say_hello(listen: SocketAddr, level: u8, id: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&listen, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', level, 2, 0, 60];
    if level == 5 {
        body.push(0);
    }
    body.extend_from_slice(&[0, id.len() as u8]);
    body.extend_from_slice(id.as_bytes());
    stream.write_all(&[0x10, body.len() as u8])?;
    stream.write_all(&body)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    if answer[0] != 0x20 || answer[3] != 0 {
        return Err(std::io::Error::other(format!("answered {answer:02x?}")));
    }
    stream.write_all(&[0xe0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_only_and_free_ports_only() {
        assert!(matches!(Broker::start("0.0.0.0:1883".parse().unwrap()), Err(BrokerError::NotLoopback { .. })));
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = Broker::start(taken.local_addr().unwrap()).unwrap_err();
        assert!(matches!(error, BrokerError::Bind { .. }), "{error}");
    }
}
