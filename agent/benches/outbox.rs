//! Commits and events a second of the store, and what an acknowledgement costs: `make bench`.
//!
//! Usage: `cargo bench --bench outbox [-- DIR]`. DIR is where the database goes, on the disk that is to be measured;
//! the build's own temporary folder unless told. Events come alone, in groups of eight, and in full groups, as under load.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kinewatch_store::{Draft, Handing, Stamp, Status, Store, StoreOptions};

/// How long each line is measured.
const EACH: Duration = Duration::from_secs(3);
/// Of an event, bytes.
const PAYLOAD: usize = 1600;

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo test --all-targets` runs benches too, without this flag.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|a| a == "--bench") {
        return Ok(());
    }
    let named = arguments.iter().find(|a| !a.starts_with("--")).map(PathBuf::from);
    let parent = named.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    for group in [1, 8, 64] {
        let dir = parent.join(format!("outbox-bench-{}-{group}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let line = measure(&dir, group);
        std::fs::remove_dir_all(&dir)?;
        println!("{}", line?);
    }
    Ok(())
}

fn measure(dir: &Path, group: usize) -> Result<String, Box<dyn Error>> {
    let now = Stamp { unix_ns: 1, boot_ns: 1, boot: 1, synced: true };
    let options = StoreOptions { outbox_bytes: 1 << 40, ..StoreOptions::default() };
    let mut store = Store::open(dir.join("events.db"), options, &now, None)?;
    let build = |sequence: u64, rev: u32| {
        let mut payload = format!("{sequence:020} {rev}").into_bytes();
        payload.resize(PAYLOAD, b' ');
        payload
    };
    let draft = |n: usize| Draft {
        topic: "kinewatch/v1/home/box/evt/front/falling",
        action_id: format!("{:032x}", n / 4),
        label: "falling",
        camera: "front",
        status: [Status::Started, Status::Updated, Status::Updated, Status::Ended][n % 4],
        rev: 0,
        build: &build,
    };
    let (mut commits, mut slowest, began) = (0_usize, Duration::ZERO, Instant::now());
    while began.elapsed() < EACH {
        let drafts: Vec<_> = (commits * group..(commits + 1) * group).map(draft).collect();
        let one = Instant::now();
        store.append(&now, &drafts, Handing::Now)?;
        slowest = slowest.max(one.elapsed());
        commits += 1;
    }
    let stored = began.elapsed().as_secs_f64();
    let sequences: Vec<u64> = (1..=store.last_sequence()).collect();
    let began = Instant::now();
    for some in sequences.chunks(group) {
        store.acked(some)?;
    }
    let acknowledged = began.elapsed().as_secs_f64();
    let events = sequences.len() as f64;
    Ok(format!(
        "events by {group}: {:.0} commits/s, {:.0} events/s stored, slowest commit {:.1} ms; {:.0} acknowledged/s",
        commits as f64 / stored,
        events / stored,
        slowest.as_secs_f64() * 1e3,
        events / acknowledged,
    ))
}
