//! A TCP proxy under a test's control: it stands between a client and its server and forwards, delays, throttles,
//! swallows, resets or half-opens what passes. It knows bytes, not protocols.
//!
//! A file of its own without neighbours, so that tests of any crate can take it in. It runs on one thread with a runtime of
//! its own, on loopback, and ends with its value. What it holds is bounded: 64 pieces of 4 KiB a direction.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

const PIECE: usize = 4096;
const PIECES: usize = 64;

/// What happens to bytes, on every connection and in both directions, from now on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// They pass.
    Forward,
    /// They pass this much later; a slow reader holds the writer back only beyond the proxy's buffer.
    Delay(Duration),
    /// They pass at this many bytes a second and direction.
    Throttle(u64),
    /// Nothing passes and nothing is closed: a cable pulled out. What was under way comes after the hole, as TCP's
    /// retransmissions would.
    Hole,
    /// Each connection is reset when this many bytes of it went to the server, in the middle of a packet or not.
    ResetAfter(u64),
    /// New connections are reset at once, as by a host without a server; those that stand go on.
    Refuse,
}

/// What happens once, to the connections that stand.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    Close,
    Reset,
    HalfOpen,
}

/// A running proxy.
pub struct Proxy {
    /// Where clients connect.
    pub address: SocketAddr,
    control: Arc<Control>,
    /// Dropped with the proxy: the thread ends.
    _alive: oneshot::Sender<()>,
}

struct Control {
    target: SocketAddr,
    mode: watch::Sender<Mode>,
    /// The newest order and how many there were.
    order: watch::Sender<(u64, Order)>,
    accepted: AtomicU64,
    open: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
}

impl Proxy {
    /// Listens on a free port of loopback and forwards to `target`.
    pub fn start(target: SocketAddr) -> Self {
        let control = Arc::new(Control {
            target,
            mode: watch::Sender::new(Mode::Forward),
            order: watch::Sender::new((0, Order::Close)),
            accepted: AtomicU64::new(0),
            open: AtomicU64::new(0),
            to_server: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
        });
        let (alive, gone) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let inside = Arc::clone(&control);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = accept(listener, inside) => {}
                    _ = gone => {}
                }
            });
        });
        Self { address: told.recv().unwrap(), control, _alive: alive }
    }

    /// Switches; connections that stand follow.
    pub fn set(&self, mode: Mode) {
        self.control.mode.send_replace(mode);
    }

    /// Ends all connections in an orderly way (FIN), on both sides.
    pub fn close(&self) {
        self.order(Order::Close);
    }

    /// Resets all connections (RST), on both sides.
    pub fn reset(&self) {
        self.order(Order::Reset);
    }

    /// The server's side of all connections ends; their clients hear nothing of it, ever. New connections are not touched.
    pub fn half_open(&self) {
        self.order(Order::HalfOpen);
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.control.accepted.load(SeqCst)
    }

    /// Connections whose client side stands, half-open ones among them.
    pub fn open(&self) -> u64 {
        self.control.open.load(SeqCst)
    }

    /// Bytes forwarded to the server, and to clients.
    pub fn forwarded(&self) -> (u64, u64) {
        (self.control.to_server.load(SeqCst), self.control.to_client.load(SeqCst))
    }

    fn order(&self, order: Order) {
        self.control.order.send_modify(|(count, newest)| (*count, *newest) = (*count + 1, order));
    }
}

async fn accept(listener: TcpListener, control: Arc<Control>) {
    while let Ok((client, _)) = listener.accept().await {
        control.accepted.fetch_add(1, SeqCst);
        let control = Arc::clone(&control);
        tokio::spawn(async move {
            control.open.fetch_add(1, SeqCst);
            connection(client, &control).await;
            control.open.fetch_sub(1, SeqCst);
        });
    }
}

async fn connection(client: TcpStream, control: &Control) {
    // Subscribed first: an order given while the server is being connected counts.
    let mut orders = control.order.subscribe();
    let refused = *control.mode.borrow() == Mode::Refuse;
    let server = match TcpStream::connect(control.target).await {
        Ok(server) if !refused => server,
        _ => return drop(client.set_zero_linger()),
    };
    for stream in [&client, &server] {
        // The delays of this proxy are its own.
        let _best_effort = stream.set_nodelay(true);
    }
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let order = tokio::select! {
        done = async {
            tokio::try_join!(
                pump(&mut from_client, &mut to_server, control, &control.to_server, true),
                pump(&mut from_server, &mut to_client, control, &control.to_client, false),
            )
        } => if done.is_ok() { Order::Close } else { Order::Reset },
        order = next_order(&mut orders) => order,
    };
    match order {
        Order::Close => {}
        Order::Reset => {
            for half in [&from_client, &from_server] {
                let _gone_already = half.as_ref().set_zero_linger();
            }
        }
        Order::HalfOpen => {
            drop((from_server, to_server));
            while next_order(&mut orders).await == Order::HalfOpen {}
        }
    }
}

async fn next_order(orders: &mut watch::Receiver<(u64, Order)>) -> Order {
    if orders.changed().await.is_err() {
        // The proxy is gone, and this task with it.
        return Order::Reset;
    }
    orders.borrow_and_update().1
}

/// One direction. Ends well after the end of the stream was passed on, and with an error when the connection is to be reset.
async fn pump(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    control: &Control,
    count: &AtomicU64,
    limited: bool,
) -> io::Result<()> {
    let (queue, mut queued) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    let read = async {
        // Moved in, so that the writer sees the end.
        let queue = queue;
        let mut mode = control.mode.subscribe();
        loop {
            passable(&mut mode).await;
            tokio::select! {
                _ = mode.changed() => continue,
                ready = from.readable() => ready?,
            }
            let mut bytes = vec![0; PIECE];
            match from.try_read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(n) => bytes.truncate(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                Err(e) => return Err(e),
            }
            let delay = if let Mode::Delay(delay) = *mode.borrow() { delay } else { Duration::ZERO };
            if queue.send((Instant::now() + delay, bytes)).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async {
        let mut mode = control.mode.subscribe();
        let mut sent = 0;
        while let Some((due, bytes)) = queued.recv().await {
            sleep_until(due).await;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                passable(&mut mode).await;
                let now = *mode.borrow();
                let (piece, later) = rest.split_at(allowed(now, limited.then_some(sent)).min(rest.len()));
                to.write_all(piece).await?;
                sent += piece.len() as u64;
                count.fetch_add(piece.len() as u64, SeqCst);
                rest = later;
                match now {
                    Mode::Throttle(rate) => sleep(Duration::from_secs_f64(piece.len() as f64 / rate as f64)).await,
                    Mode::ResetAfter(limit) if limited && sent >= limit => {
                        return Err(io::ErrorKind::ConnectionReset.into());
                    }
                    _ => {}
                }
            }
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(|_| ())
}

/// Bytes that may be written in one go; `sent` is given where [`Mode::ResetAfter`] counts.
fn allowed(mode: Mode, sent: Option<u64>) -> usize {
    match (mode, sent) {
        // Twenty portions a second: it looks like a slow line, not like a fast one with holes.
        (Mode::Throttle(rate), _) => (rate / 20).max(1) as usize,
        (Mode::ResetAfter(limit), Some(sent)) => limit.saturating_sub(sent).max(1) as usize,
        _ => usize::MAX,
    }
}

async fn passable(mode: &mut watch::Receiver<Mode>) {
    // An error says that the proxy is gone, and this task with it.
    let _proxy_gone = mode.wait_for(|mode| *mode != Mode::Hole).await;
}
