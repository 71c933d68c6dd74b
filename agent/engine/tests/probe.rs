//! Libraries that cannot be used, each tried in a real child process: this program is its own child
//! (`engine-probe LIB`), as the agent is.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use kinewatch_engine::{ProbeCommand, find_library, probe_in_child, probe_library};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["engine-probe", library] => child(Path::new(library)),
        _ if args.iter().any(|arg| arg == "--list") => {
            if !args.iter().any(|arg| arg == "--ignored") {
                println!("probe: test");
            }
        }
        _ => {
            let dir = tempfile::tempdir().unwrap();
            files_that_are_no_library(dir.path());
            libraries_of_another_kind(dir.path());
            children_that_die(dir.path());
            a_real_library(dir.path());
            println!("test probe ... ok");
        }
    }
}

fn child(library: &Path) {
    match probe_library(library) {
        Ok(info) => println!("{}", info.to_line()),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}

fn command() -> ProbeCommand {
    ProbeCommand { program: std::env::current_exe().unwrap(), args: vec!["engine-probe".to_owned()] }
}

fn refused(library: &Path) -> String {
    let error = probe_in_child(&command(), library).unwrap_err().to_string();
    println!("{error}");
    assert!(!error.contains('\n'));
    error
}

fn files_that_are_no_library(dir: &Path) {
    let missing = dir.join("missing.so");
    assert!(refused(&missing).contains("cannot be read: No such file or directory"));
    assert!(refused(Path::new("libonnxruntime.so")).contains("is not an absolute path"));
    let text = dir.join("text.so");
    std::fs::write(&text, "this is not a library").unwrap();
    assert!(refused(&text).contains("is not a shared library (no ELF header)"));
    let directory = dir.join("directory.so");
    std::fs::create_dir(&directory).unwrap();
    assert!(refused(&directory).contains("cannot be read"));
}

/// Builds a shared library with the C compiler that links Rust programs.
fn compile(dir: &Path, name: &str, source: &str) -> PathBuf {
    let (code, library) = (dir.join(format!("{name}.c")), dir.join(format!("{name}.so")));
    std::fs::write(&code, source).unwrap();
    let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&code).status().unwrap();
    assert!(status.success());
    library
}

const BASE: &str = "struct base { const void *(*api)(unsigned); const char *(*version)(void); };
    static const void *no_api(unsigned n) { (void)n; return 0; }";

fn versioned(dir: &Path, name: &str, version: &str) -> PathBuf {
    let source = format!(
        "{BASE} static const char *version(void) {{ return \"{version}\"; }}
        static struct base b = {{ no_api, version }}; struct base *OrtGetApiBase(void) {{ return &b; }}"
    );
    compile(dir, name, &source)
}

fn libraries_of_another_kind(dir: &Path) {
    let other = compile(dir, "other", "int answer(void) { return 42; }");
    assert!(refused(&other).contains("it does not export OrtGetApiBase: it is not ONNX Runtime"));
    let null = compile(dir, "null", "void *OrtGetApiBase(void) { return 0; }");
    assert!(refused(&null).contains("OrtGetApiBase gives no version"));
    let old = versioned(dir, "old", "1.16.3");
    assert!(refused(&old).contains("is ONNX Runtime 1.16.3, 1.17 or later is needed"));
    let garbage = versioned(dir, "garbage", "garbage");
    assert!(refused(&garbage).contains("is ONNX Runtime garbage"));
    let hollow = versioned(dir, "hollow", "1.20.0");
    assert!(refused(&hollow).contains("it panicked"));

    let mut foreign = std::fs::read(&old).unwrap();
    foreign[18..20].copy_from_slice(&if cfg!(target_arch = "aarch64") { 62_u16 } else { 183 }.to_le_bytes());
    let path = dir.join("foreign.so");
    std::fs::write(&path, foreign).unwrap();
    assert!(refused(&path).contains("this machine is"));
    let cut = dir.join("cut.so");
    let whole = std::fs::read(&old).unwrap();
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    assert!(refused(&cut).contains("is cut short"));
}

fn children_that_die(dir: &Path) {
    let library = versioned(dir, "fine", "1.20.0");
    let shell = |script: &str| ProbeCommand { program: "/bin/sh".into(), args: vec!["-c".into(), script.into()] };
    let error = |script: &str| probe_in_child(&shell(script), &library).unwrap_err().to_string();
    assert!(error("kill -BUS $$").contains("killed by SIGBUS (the file is damaged)"));
    assert!(error("kill -ILL $$").contains("killed by SIGILL"));
    assert!(error("kill -SEGV $$").contains("killed by SIGSEGV"));
    assert!(error("echo hello").contains("it printed \"hello\""));
    assert!(error("echo one >&2; echo two >&2; exit 3").contains("failed: two;"));
    let crash = compile(dir, "crash", "__attribute__((constructor)) static void start(void) { __builtin_trap(); }");
    assert!(refused(&crash).contains("the process was killed by"));
    let absent = ProbeCommand { program: "/nowhere/kinewatch".into(), args: Vec::new() };
    assert!(probe_in_child(&absent, &library).unwrap_err().to_string().contains("does not start"));

    let search = find_library(Some(&library), &shell("kill -BUS $$"));
    assert!(search.found.is_none() && search.summary().contains("SIGBUS"), "{}", search.summary());
    let start = std::time::Instant::now();
    assert!(error("exec sleep 60").contains("it did not finish within 10 s"));
    assert!(start.elapsed() < std::time::Duration::from_secs(20));
}

fn a_real_library(dir: &Path) {
    let Some(library) = common::ort_library() else { return };
    let info = probe_in_child(&command(), &library).unwrap();
    println!("{}", info.to_line());
    assert!(info.version.starts_with("1."));
    let search = find_library(Some(&library), &command());
    assert_eq!(search.found.as_ref(), Some(&info), "{}", search.summary());

    let bytes = std::fs::read(&library).unwrap();
    let cut = dir.join("libonnxruntime.so");
    std::fs::write(&cut, &bytes[..bytes.len() * 2 / 3]).unwrap();
    assert!(refused(&cut).contains("is cut short"));
    // Whole, but with a hole where the code is: what a bad disk makes of it.
    let mut holed = bytes;
    let middle = holed.len() / 4;
    let end = holed.len() / 2;
    holed[middle..end].fill(0);
    std::fs::write(&cut, holed).unwrap();
    refused(&cut);
}
