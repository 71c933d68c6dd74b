//! The kept corpus through every target: what a fuzzer has found once stays mended, without a fuzzer.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod targets;

use std::fs;
use std::path::{Path, PathBuf};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("tests/fuzz/corpus")
}

#[test]
fn every_kept_input_is_borne() {
    for (name, _) in targets::TARGETS {
        let folder = corpus().join(name);
        let inputs: Vec<PathBuf> = fs::read_dir(&folder)
            .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
            .map(|e| e.unwrap().path())
            .collect();
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for input in &inputs {
            println!("{}", input.display());
            targets::run(name, &fs::read(input).unwrap());
        }
        println!("{name}: {} inputs", inputs.len());
    }
}

#[test]
fn corpus_and_targets_have_the_same_names_and_stay_small() {
    let mut kept: Vec<String> =
        fs::read_dir(corpus()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    kept.sort();
    let names: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(kept, names);
    let manifest = fs::read_to_string(corpus().with_file_name("Cargo.toml")).unwrap();
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is no [[bin]] of tests/fuzz/Cargo.toml");
    }
    let folders = fs::read_dir(corpus()).unwrap().flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    let bytes: u64 = folders.map(|input| input.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes < 1 << 20, "{bytes} bytes: minimise the corpus (tests/fuzz/README.md)");
}
