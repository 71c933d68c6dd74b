//! A disk that fails for so long that memory is full: the thread with its queues, as the daemon runs it.

use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::thread::{self, JoinHandle};

use kinewatch_store::Store;
use tokio::runtime::Runtime;

use super::*;

/// More than the store thread and its queue hold together.
const EVENTS: usize = 2 * QUEUE + 300;
const DEADLINE: Duration = Duration::from_secs(60);

/// The store thread on a disk that is not there, and one that decides faster than it can bear.
struct Held {
    runtime: Runtime,
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    store: JoinHandle<()>,
    inference: JoinHandle<bool>,
    /// Decisions that were taken from it.
    taken: Arc<AtomicUsize>,
    _outgoing: mpsc::Receiver<Outgoing>,
}

impl Held {
    /// Returns when inference waits.
    fn start(state: &Path) -> Self {
        let Bench { delivery, outgoing, shared, .. } = Bench::usual(state);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (decided, decision_queue) = mpsc::channel(QUEUE);
        let (commands, command_queue) = mpsc::channel(QUEUE);
        let queues = Queues { decided: decision_queue, commands: command_queue };
        let handle = runtime.handle().clone();
        let store = thread::spawn(move || delivery.run(queues, &handle));
        let taken = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&taken);
        let inference = thread::spawn(move || {
            (0..EVENTS).all(|n| {
                let sent = decided.blocking_send(Decided::Event(Box::new(event(n)))).is_ok();
                counted.fetch_add(usize::from(sent), Relaxed);
                sent
            })
        });
        let held = Self { runtime, commands, shared, store, inference, taken, _outgoing: outgoing };
        held.until("memory to be full", || {
            held.taken.load(Relaxed) == 2 * QUEUE && held.shared.store.waiting.load(Relaxed) == QUEUE as u64
        });
        held
    }

    fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn event(n: usize) -> NewEvent {
    let mut event = example();
    (event.id, event.data.action_id) = (Uuid::now_v7(), Uuid::from_u128(n as u128));
    event.data.status = ActionStatus::Started;
    NewEvent { topic: format!("t/{n}"), event }
}

#[test]
fn memory_that_is_full_holds_up_decisions_and_nothing_else_and_none_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (file, state) = (dir.path().join("file"), dir.path().join("file").join("state"));
    fs::write(&file, "").unwrap();
    let held = Held::start(&state);
    let shared = Arc::clone(&held.shared);
    assert!(shared.unstored().unwrap().ends_with("nothing is watched"), "{:?}", shared.unstored());
    shared.stages.store.rest(Instant::now());
    held.until("a sign of life", || !shared.stages.store.silence(Instant::now()).is_zero());
    // The broker comes and goes more often than a queue holds, and a consumer asks.
    for generation in 1..=2 * QUEUE as u64 {
        let connected = Signal::Connected { generation, protocol: Version::V5 };
        held.commands.blocking_send(Command::Signal(connected)).unwrap();
    }
    let (reply, answer) = oneshot::channel();
    held.commands.blocking_send(Command::Consumed { up_to: 1, reply }).unwrap();
    let answer = held.runtime.block_on(async { tokio::time::timeout(DEADLINE, answer).await }).unwrap();
    assert!(answer.unwrap().unwrap_err().contains("the store is away"));
    assert_eq!((held.taken.load(Relaxed), held.inference.is_finished()), (2 * QUEUE, false), "it waits");

    fs::remove_file(&file).unwrap();
    held.until("everything to be stored", || shared.delivery.outbox_messages.load(Relaxed) == EVENTS as u64);
    assert_eq!(shared.unstored(), None);
    held.commands.blocking_send(Command::Stop).unwrap();
    held.store.join().unwrap();
    assert!(held.inference.join().unwrap(), "no decision was refused");
    assert_eq!(shared.delivery.decisions_lost.load(Relaxed), 0);
    let stamp = crate::clock::stamp(false);
    let store = Store::open(database(&state), StoreOptions::default(), &stamp, None).unwrap();
    let stored: Vec<_> = store.history(EVENTS + 1, 0).unwrap().into_iter().map(|h| (h.sequence, h.topic)).collect();
    let decided: Vec<_> = (0..EVENTS).map(|n| (n as u64 + 1, format!("t/{n}"))).collect();
    assert_eq!(stored, decided);
}

#[test]
fn a_stop_while_memory_is_full_ends_in_time_and_counts_what_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let held = Held::start(&dir.path().join("file").join("state"));
    let began = Instant::now();
    // In the order of the daemon: inference ends before the store is told to.
    held.shared.stopping.store(true, Relaxed);
    assert!(held.inference.join().unwrap(), "what it still has to say is taken");
    let (reply, drained) = oneshot::channel();
    held.commands.blocking_send(Command::Drain(reply)).unwrap();
    assert_eq!(drained.blocking_recv(), Ok(()), "nothing will be sent before the end");
    held.commands.blocking_send(Command::Stop).unwrap();
    held.store.join().unwrap();
    assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
    assert_eq!(held.shared.delivery.decisions_lost.load(Relaxed), EVENTS as u64);
}
