//! A scripted broker: speaks just enough MQTT to misbehave on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// End of a topic that scripts may have something against.
pub(crate) const FORBIDDEN: &str = "forbidden";

/// What the script sees.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Seen {
    /// CONNECT with this protocol level (4 or 5).
    Connect { level: u8 },
    /// PUBLISH with this identifier; `count` counts those of all connections, from 1. `forbidden`: its topic ends with
    /// [`FORBIDDEN`].
    Publish { packet: u16, count: usize, forbidden: bool },
    /// SUBSCRIBE with this identifier.
    Subscribe { packet: u16 },
}

/// What the script does about it.
pub(crate) enum Reply {
    Bytes(Vec<u8>),
    /// The last words before hanging up.
    Last(Vec<u8>),
    Close,
    Nothing,
}

pub(crate) struct Fake {
    pub(crate) port: u16,
    pings: Arc<AtomicUsize>,
    hang_up: Arc<Notify>,
    task: JoinHandle<()>,
}

pub(crate) fn connack_v5(code: u8, receive_maximum: Option<u16>) -> Reply {
    answer(
        code,
        match receive_maximum {
            None => vec![0x20, 3, 0, code, 0],
            Some(n) => vec![0x20, 6, 0, code, 3, 0x21, (n >> 8) as u8, n as u8],
        },
    )
}

pub(crate) fn connack_v4(code: u8) -> Reply {
    answer(code, vec![0x20, 2, 0, code])
}

/// A broker that refuses must close the connection.
fn answer(code: u8, bytes: Vec<u8>) -> Reply {
    if code == 0 { Reply::Bytes(bytes) } else { Reply::Last(bytes) }
}

pub(crate) fn puback(packet: u16) -> Vec<u8> {
    vec![0x40, 2, (packet >> 8) as u8, packet as u8]
}

pub(crate) fn puback_v5(packet: u16, code: u8) -> Vec<u8> {
    vec![0x40, 4, (packet >> 8) as u8, packet as u8, code, 0]
}

/// An answer to a SUBSCRIBE of MQTT 5, with a code for each filter.
pub(crate) fn suback_v5(packet: u16, codes: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x90, 3 + codes.len() as u8, (packet >> 8) as u8, packet as u8, 0];
    bytes.extend_from_slice(codes);
    bytes
}

impl Fake {
    /// One connection after the other.
    pub(crate) async fn start(mut script: impl FnMut(Seen) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (pings, hang_up) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (seen_pings, told) = (Arc::clone(&pings), Arc::clone(&hang_up));
        let task = tokio::spawn(async move {
            let mut count = 0;
            while let Ok((stream, _)) = listener.accept().await {
                tokio::select! {
                    _ = serve(stream, &mut count, &seen_pings, &mut script) => {}
                    () = told.notified() => {}
                }
            }
        });
        Self { port, pings, hang_up, task }
    }

    /// Ends the connection that stands.
    pub(crate) fn hang_up(&self) {
        self.hang_up.notify_one();
    }

    /// PINGREQs of all connections.
    pub(crate) fn pings(&self) -> usize {
        self.pings.load(SeqCst)
    }

    pub(crate) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    count: &mut usize,
    pings: &AtomicUsize,
    script: &mut impl FnMut(Seen) -> Reply,
) -> std::io::Result<()> {
    loop {
        let (kind, body) = packet(&mut stream).await?;
        let reply = match kind >> 4 {
            1 => script(Seen::Connect { level: body[6] }),
            3 => {
                let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                *count += 1;
                let packet = u16::from_be_bytes([body[2 + topic], body[3 + topic]]);
                let forbidden = body[2..2 + topic].ends_with(FORBIDDEN.as_bytes());
                script(Seen::Publish { packet, count: *count, forbidden })
            }
            8 => script(Seen::Subscribe { packet: u16::from_be_bytes([body[0], body[1]]) }),
            12 => {
                pings.fetch_add(1, SeqCst);
                Reply::Bytes(vec![0xd0, 0])
            }
            14 => return Ok(()),
            _ => Reply::Nothing,
        };
        match reply {
            Reply::Bytes(bytes) => stream.write_all(&bytes).await?,
            Reply::Last(bytes) => return stream.write_all(&bytes).await,
            Reply::Close => return Ok(()),
            Reply::Nothing => {}
        }
    }
}

async fn packet(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await?;
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = stream.read_u8().await?;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok((kind, body))
}
