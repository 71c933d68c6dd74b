//! Metadata with bytes changed at random: nothing panics, and what is trusted is what was signed.

use kinewatch_ota::tuf::{Client, Clock, Floors};
use serde_json::Value;

use crate::lab::{Lab, scratch};
use crate::repository::metadata_path;

/// A change that leaves the length alone half of the time, so that it gets past that check.
fn mutated(bytes: &[u8], random: &mut impl FnMut() -> usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + random() % 3 {
        let at = random() % bytes.len();
        match random() % 6 {
            0 => bytes.truncate(at.max(1)),
            1 => bytes.insert(at, b"{}[]\",:0"[random() % 8]),
            2 => {
                let end = (at + 1 + random() % 40).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            3 => bytes[at] ^= 1 << (random() % 8),
            4 => bytes[at] = b"0123456789abcdef"[random() % 16],
            _ => bytes[at] = b"{}[]\",: \n\\"[random() % 10],
        }
    }
    bytes
}

#[tokio::test]
async fn what_is_trusted_is_what_was_signed() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize
    };
    let mut lab = Lab::new().await;
    // So that the changed bytes reach the parser and the signatures.
    lab.repository.bare = true;
    lab.repository.publish(&["root", "targets", "snapshot", "timestamp"]);
    let honest = lab.repository.files.clone();

    let (mut refused, mut same) = (0, 0);
    for round in 0..160 {
        let role = ["root", "timestamp", "snapshot", "targets"][round % 4];
        let path = metadata_path(role, lab.repository.version(role));
        let mut files = honest.clone();
        files.insert(path.clone(), mutated(&honest[&path], &mut random));
        lab.server.serve(&files);
        let folder = scratch();
        let mut options = lab.options();
        options.directory = folder.path().join("tuf");
        let mut client = Client::open(options).unwrap();
        match client.refresh(Clock::Synchronised(lab.now), &Floors::default()).await {
            Err(_) => refused += 1,
            Ok(_) => {
                let stored = std::fs::read(folder.path().join(format!("tuf/{role}.json"))).unwrap();
                assert_eq!(
                    signed(&stored),
                    signed(&honest[&path]),
                    "{role}: {}",
                    String::from_utf8_lossy(&files[&path])
                );
                same += 1;
            }
        }
    }
    assert!(refused > 80 && same > 0, "{refused} refused, {same} the same");
}

fn signed(bytes: &[u8]) -> Value {
    serde_json::from_slice::<Value>(bytes).unwrap()["signed"].take()
}
