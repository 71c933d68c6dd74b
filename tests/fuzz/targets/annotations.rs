//! Files of a user: annotations, groups, saved events and scores.

use std::fs;
use std::path::Path;

use kinewatch::eval::{read_groups, set};
use kinewatch::intervals::{self, FrameRate, Truth, read_events, read_truth};
use kinewatch::{decode, scores, table};
use kinewatch_core::manifest::Manifest;

use super::{file, is_told, scratch};

const BRIGHT: &str = include_str!("../../data/packages/tiny-bright/model.toml");

pub fn truth(data: &[u8]) {
    judged(read_truth(&file("truth", data), None));
}

/// One text of a folder, with a label for each frame.
pub fn frame_labels(data: &[u8]) {
    let folder = scratch("frame-labels");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("video-1.txt"), data).unwrap();
    judged(read_truth(&folder, Some(FrameRate(25.0))));
}

/// What was read is looked at as `eval` does.
fn judged(truth: Result<Truth, String>) {
    match truth {
        Ok(truth) => {
            set::oddities(&truth).iter().for_each(|line| is_told(line));
            let decoding = Manifest::parse(BRIGHT).unwrap().decoding();
            let _ = set::labels(&[], &decoding, &truth);
            drop(table::judged(&intervals::pair(&[], &truth, None)));
        }
        Err(e) => is_told(&e),
    }
}

pub fn groups(data: &[u8]) {
    let mut truth = Truth::default();
    if let Err(e) = read_groups(&file("groups.csv", data), &mut truth) {
        is_told(&e);
    }
}

pub fn events(data: &[u8]) {
    match read_events(&file("events.jsonl", data)) {
        Ok(detections) => {
            drop(table::detected(&detections));
            drop(intervals::pair(&detections, &Truth::default(), None));
        }
        Err(e) => is_told(&e),
    }
}

pub fn scores(data: &[u8]) {
    let path = file("scores.csv", data);
    told(scores::read(&path));
    let decoding = Manifest::parse(BRIGHT).unwrap().decoding();
    told(decode::decode(Path::new(&path), &decoding, &"0".repeat(64), "camera"));
}

fn told<T>(result: Result<T, String>) {
    if let Err(e) = result {
        is_told(&e);
    }
}
