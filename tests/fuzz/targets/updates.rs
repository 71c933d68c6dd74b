//! What comes over the air, once its signature is right: bundles and channel files.

use std::fs;

use kinewatch_core::rollout::Channel;
use kinewatch_ota::bundle::{Bounds, unpack};

use super::{is_told, scratch};

/// Magic number, no checksum, a window of 128 KiB (RFC 8878).
const FRAME: [u8; 6] = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
const BLOCK: usize = 128 << 10;

/// With an odd first byte the rest is an archive, and is made a stream that is not compressed, so that a fuzzer reaches it;
/// else it is the stream.
pub fn bundle(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let stream = if kind % 2 == 1 { stored(rest) } else { rest.to_vec() };
    let home = scratch("bundle");
    let _left_over = fs::remove_dir_all(&home);
    fs::create_dir_all(&home).unwrap();
    match unpack(stream.as_slice(), &home.join("new"), Bounds { unpacked_bytes: 1 << 20 }) {
        Ok(package) => assert_eq!(package.digest.len(), 64),
        Err(e) => {
            is_told(&e.to_string());
            is_told(&e.fault().to_string());
            assert!(!home.join("new").exists(), "{e}: something is left");
        }
    }
    let beside: Vec<_> = fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(beside.iter().all(|name| name == "new"), "written outside: {beside:?}");
}

fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut stream = FRAME.to_vec();
    let blocks: Vec<&[u8]> = bytes.chunks(BLOCK).collect();
    for (number, block) in blocks.iter().enumerate() {
        let last = u32::from(number + 1 == blocks.len());
        let header = (block.len() as u32) << 3 | last;
        stream.extend(&header.to_le_bytes()[..3]);
        stream.extend(*block);
    }
    stream
}

pub fn channel(data: &[u8]) {
    match Channel::parse(data) {
        Ok(channel) => {
            let written = channel.to_json().unwrap();
            assert_eq!(Channel::parse(&written), Ok(channel), "it reads as it was written");
        }
        Err(e) => is_told(&e.to_string()),
    }
}
