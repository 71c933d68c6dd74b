//! The process that tries models out, with the real binary: good models, every kind of bad one, and children that are none.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, Ordering::Relaxed};
use std::time::{Duration, Instant};

use kinewatch::config::file::{Backend, Precision, Provider};
use kinewatch::config::plan::EnginePlan;
use kinewatch::worker::{Job, Limits, Proof, Refusal, Step, Worker};
use kinewatch_core::rollout::{Code, Disposition, Fault, Gates};
use support::candidates::{graph, package, release};
use support::root;
use tempfile::TempDir;

fn engine(backend: Backend) -> EnginePlan {
    EnginePlan {
        backend,
        precision: Precision::Auto,
        ort_library: None,
        providers: vec![Provider::Cpu],
        require_provider: None,
        threads: 1,
        max_batch: 4,
    }
}

/// On ONNX Runtime where the tests are given one.
fn here() -> Backend {
    let named = std::env::var_os("ORT_DYLIB_PATH").is_some_and(|library| !library.is_empty());
    if named { Backend::Ort } else { Backend::Tract }
}

fn worker() -> Worker {
    Worker::new(env!("CARGO_BIN_EXE_kinewatch"), ["model-worker"])
}

fn limits() -> Limits {
    Limits { wall: Duration::from_secs(60), memory_bytes: 1 << 30 }
}

fn job(dir: PathBuf, backend: Backend) -> Job {
    Job { windows: 50, measure_s: 5.0, ..Job::new(dir, engine(backend), None) }
}

fn prove(job: &Job, limits: &Limits, gates: &Gates) -> Result<Proof, Refusal> {
    worker().prove(job, limits, gates, &AtomicBool::new(false), &mut |_| {})
}

fn fault(result: Result<Proof, Refusal>) -> Fault {
    match result {
        Err(Refusal::Fault(fault)) => {
            println!("{fault}");
            fault
        }
        other => panic!("a fault was expected: {other:?}"),
    }
}

/// A child of `sh`, which says what a worker would.
fn script(text: &str) -> Worker {
    Worker::new("sh", ["-c", text])
}

fn any_job() -> Job {
    job(package("tiny-bright"), Backend::Tract)
}

fn of_script(text: &str, limits: &Limits) -> Fault {
    fault(script(text).prove(&any_job(), limits, &Gates::default(), &AtomicBool::new(false), &mut |_| {}))
}

#[test]
fn a_good_model_is_proven_with_figures() {
    for backend in [Backend::Tract, here()] {
        let mut steps = Vec::new();
        let gates = Gates { latency_p99_ms: Some(10_000.0), peak_memory_mb: Some(900), ..Gates::default() };
        let job = job(package("tiny-clip"), backend);
        let proof =
            worker().prove(&job, &limits(), &gates, &AtomicBool::new(false), &mut |step| steps.push(step)).unwrap();
        println!("{proof:?}");
        assert_eq!(steps, [Step::Open, Step::Bench]);
        assert_eq!((proof.windows, proof.stride_ms), (50, 200.0));
        assert!(proof.p50_ms > 0.0 && proof.p50_ms <= proof.p99_ms, "{proof:?}");
        assert!(proof.golden_max_diff <= proof.golden_tolerance && proof.peak_memory_mb > 5, "{proof:?}");
        assert_eq!(proof.backend, if backend == Backend::Tract { "tract" } else { "ort" });
    }
}

/// What no library can tell: every release that is wrong by itself is told apart, and is the release's fault.
#[test]
fn bad_models_are_told_apart() {
    let home = TempDir::new().unwrap();
    let made = |name: &str| release(&home.path().join(name), "tiny", "2.0.0", Some(&graph(name)));
    let code = |dir: PathBuf, limits: &Limits, gates: &Gates| {
        let fault = fault(prove(&job(dir, here()), limits, gates));
        assert_eq!(fault.code.disposition(), Disposition::Quarantine, "{fault}");
        fault.code
    };
    let gates = Gates::default();
    assert_eq!(code(made("disagrees"), &limits(), &gates), Code::GoldenMismatch);
    assert_eq!(code(made("not-finite"), &limits(), &gates), Code::NotFinite);
    // It takes some tens.
    let fast = Gates { latency_p99_ms: Some(4.0), ..Gates::default() };
    assert_eq!(code(package("tiny-slow"), &limits(), &fast), Code::TooSlowModel);
    let small = Gates { peak_memory_mb: Some(8), ..Gates::default() };
    assert_eq!(code(package("tiny-slow"), &limits(), &small), Code::WorkerMemory, "the gate bounds the process");
    if here() == Backend::Tract {
        eprintln!("without ONNX Runtime: no graph is known that crashes, hangs or eats memory");
        return;
    }
    assert_eq!(code(made("eats-memory"), &limits(), &gates), Code::WorkerMemory);
    let begun = Instant::now();
    // ONNX Runtime's profile of the first run takes up to a gigabyte meanwhile.
    let short = Limits { wall: Duration::from_secs(10), ..Limits::default() };
    assert_eq!(code(made("hangs"), &short, &gates), Code::WorkerTimeout);
    assert!(begun.elapsed() < Duration::from_secs(30));
    if cfg!(target_arch = "x86_64") {
        assert_eq!(code(made("crashes"), &limits(), &gates), Code::WorkerCrashed);
    }
}

#[test]
fn a_package_that_is_none_is_the_releases_fault_and_a_missing_library_is_not() {
    let home = TempDir::new().unwrap();
    let dir = release(&home.path().join("r"), "tiny", "2.0.0", None);
    std::fs::write(dir.join("tiny.fp32.onnx"), "altered").unwrap();
    assert_eq!(
        fault(prove(&job(dir.clone(), Backend::Tract), &limits(), &Gates::default())).code,
        Code::PackageInvalid
    );
    support::candidates::rewrite(&dir, |text| text);
    let garbage = fault(prove(&job(dir, Backend::Tract), &limits(), &Gates::default()));
    assert_eq!(garbage.code, Code::WorkerFailed);
    assert!(!garbage.detail.contains(&home.path().display().to_string()), "{garbage}");
    let mut elsewhere = job(package("tiny-bright"), Backend::Ort);
    elsewhere.engine.ort_library = Some("/nonexistent/libonnxruntime.so".into());
    let fault = fault(prove(&elsewhere, &limits(), &Gates::default()));
    assert_eq!((fault.code, fault.code.disposition()), (Code::WorkerUnavailable, Disposition::Delay));
}

#[test]
fn children_that_end_in_their_own_way() {
    let open = "read job; echo '{\"step\":\"open\"}'; ";
    let code = |text: &str| of_script(&format!("{open}{text}"), &limits()).code;
    assert_eq!(code("kill -SEGV $$"), Code::WorkerCrashed);
    assert_eq!(code("kill -KILL $$"), Code::NoMemory, "only the kernel does that");
    assert_eq!(of_script("kill -KILL $$", &limits()).code, Code::NoMemory, "before its first word, too");
    assert_eq!(code("kill -TERM $$"), Code::Interrupted, "whoever stops the service");
    assert_eq!(code("echo memory allocation of 9 bytes failed >&2; kill -ABRT $$"), Code::WorkerMemory);
    assert_eq!(code("exit 0"), Code::WorkerCrashed, "without a word");
    assert_eq!(code("echo '{\"done\":{}}'; kill -SEGV $$"), Code::WorkerCrashed, "after its last word");
    assert_eq!(code("echo '{\"failed\":{\"code\":\"not_finite\",\"detail\":\"x\"}}'"), Code::NotFinite);
    assert_eq!(code("yes | head -c 30000000; exit 3"), Code::WorkerCrashed, "noise is not kept");
    assert_eq!(of_script("exit 2", &limits()).code, Code::WorkerUnavailable);
    let nobody = Worker::new("/nonexistent/kinewatch", ["model-worker"]);
    let result = nobody.prove(&any_job(), &limits(), &Gates::default(), &AtomicBool::new(false), &mut |_| {});
    assert_eq!(fault(result).code, Code::WorkerUnavailable);
}

/// Memory that is really used is seen from outside, whatever the child's own limit.
#[test]
fn memory_and_time_are_bounded_from_outside() {
    let small = Limits { memory_bytes: 64 << 20, ..limits() };
    let open = "read job; echo '{\"step\":\"open\"}'; ";
    let greedy = of_script(&format!("{open}exec tail /dev/zero"), &small);
    assert_eq!(greedy.code, Code::WorkerMemory, "it gets no more: {greedy}");
    // Shared memory is not counted by the child's own limit.
    let shared = "import mmap, time\nm = mmap.mmap(-1, 512 << 20)\nfor at in range(0, 512 << 20, 4096): m[at] = 1\ntime.sleep(1000)";
    let greedy = of_script(&format!("{open}exec python3 -c '{shared}'"), &Limits { memory_bytes: 200 << 20, ..small });
    assert_eq!(greedy.code, Code::WorkerMemory, "{greedy}");
    assert!(greedy.detail.contains("200 MiB are allowed"), "seen from outside: {greedy}");
    let begun = Instant::now();
    let short = Limits { wall: Duration::from_secs(1), ..limits() };
    assert_eq!(of_script("read job; exec sleep 1000", &short).code, Code::WorkerTimeout);
    assert_eq!(of_script("read job; exec >&- 2>&-; exec sleep 1000 &", &short).code, Code::WorkerUnavailable);
    assert!(begun.elapsed() < support::DEADLINE);
}

#[test]
fn limits_are_in_force_before_the_job_is_told() {
    let text = "read job; echo \"$(ulimit -d) $(ulimit -c) $(nice) $(cat /proc/$$/oom_score_adj)\" >&2; exit 1";
    let small = Limits { memory_bytes: 100 << 20, ..limits() };
    let fault = of_script(text, &small);
    assert!(fault.detail.contains("102400 0 19 1000"), "{fault}");
}

#[test]
fn it_stops_when_asked_and_takes_its_children_along() {
    let home = TempDir::new().unwrap();
    let pid_file = home.path().join("pid");
    let text = format!(
        "read job; sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; echo '{{\"step\":\"open\"}}'; wait",
        pid_file.display()
    );
    let stop = AtomicBool::new(false);
    let result = script(&text).prove(&any_job(), &limits(), &Gates::default(), &stop, &mut |_| {
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(result, Err(Refusal::Stopped));
    let pid = std::fs::read_to_string(pid_file).unwrap();
    let gone = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    let deadline = Instant::now() + support::DEADLINE;
    while !gone() {
        assert!(Instant::now() < deadline, "{pid} lives on");
        std::thread::yield_now();
    }
}

/// When the parent is killed, nothing goes on for nobody; before, nobody but the parent ends it.
#[test]
fn a_worker_without_a_parent_ends() {
    let home = TempDir::new().unwrap();
    let hanging = match here() {
        Backend::Ort => release(&home.path().join("hangs"), "tiny", "2.0.0", Some(&graph("hangs"))),
        _ => package("tiny-slow"),
    };
    let mut child = support::kinewatch()
        .arg("model-worker")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let job = Job { windows: 100_000, measure_s: 1000.0, ..job(hanging, here()) };
    use std::io::Write;
    writeln!(stdin, "{}", serde_json::to_string(&job).unwrap()).unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    assert_eq!(line.trim(), r#"{"step":"open"}"#);
    use rustix::process::{Pid, Signal, kill_process};
    for signal in [Signal::HUP, Signal::INT, Signal::TERM] {
        kill_process(Pid::from_child(&child), signal).unwrap();
    }
    drop(stdin);
    let status = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
}

/// Graphs as a disk, a network or an enemy may have changed them: whatever they do to the child, the parent has an answer.
/// `make mutations` tries 10,000 and writes `agent/design/mutations.md`.
#[test]
fn mutated_graphs_never_reach_the_parent() {
    let asked = std::env::var("KINEWATCH_MUTATIONS").ok();
    let count: u64 = asked.as_ref().map_or(24, |n| n.parse().unwrap());
    let (next, told) = (AtomicU64::new(0), Mutex::new(BTreeMap::<String, u64>::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let home = TempDir::new().unwrap();
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= count {
                        break;
                    }
                    let answer = proof_of_mutation(number, &home.path().join("r"));
                    *told.lock().unwrap().entry(answer).or_default() += 1;
                }
            });
        }
    });
    let told = told.into_inner().unwrap();
    println!("{count} mutated graphs: {told:?}");
    assert_eq!(told.values().sum::<u64>(), count);
    // Only a full run writes the table.
    if asked.is_some() && std::env::var_os("KINEWATCH_BLESS").is_some() {
        let rows: String = told.iter().map(|(code, n)| format!("| `{code}` | {n} |\n")).collect();
        let head = "# Mutated graphs\n\nWritten by `make mutations` (`tests/worker.rs`): graphs of three small packages with one to eight places \
                    changed (a bit,\na byte, a run repeated, removed or overwritten), half of them for ONNX Runtime, half for tract, each tried in a child \
                    process as a release\nis. The parent had an answer to every one of them.\n";
        let text = format!("{head}\n{count} graphs, and what was said of them:\n\n| | graphs |\n|---|---|\n{rows}");
        std::fs::write(root().join("agent/design/mutations.md"), text).unwrap();
    }
}

/// Code of what was said of the mutation with this number; `proven` where it computes what it should all the same.
fn proof_of_mutation(number: u64, dir: &Path) -> String {
    let limits = Limits { wall: Duration::from_secs(20), memory_bytes: 512 << 20 };
    let from = ["tiny-bright", "tiny-clip-causal", "tiny-nan"][number as usize % 3];
    support::candidates::copy(&package(from), dir);
    mutate(&dir.join("tiny.fp32.onnx"), number);
    let _without = std::fs::remove_file(dir.join("tiny.int8.onnx"));
    support::candidates::rewrite(dir, |text| match text.find("[graphs.int8]") {
        Some(at) => {
            let end = at + text[at..].find("[[labels]]").unwrap();
            let kept = format!("{}{}", &text[..at], &text[end..]);
            kept.lines().filter(|l| !l.contains("int8.onnx")).map(|l| format!("{l}\n")).collect()
        }
        None => text,
    });
    let backend = if number.is_multiple_of(2) { here() } else { Backend::Tract };
    let job = Job { windows: 10, ..job(dir.to_owned(), backend) };
    let mut tries = 0;
    let told = loop {
        match prove(&job, &limits, &Gates::default()) {
            Ok(_) => break "proven".to_owned(),
            // A machine too busy to load its library in time has not looked at the graph yet.
            Err(Refusal::Fault(fault)) if fault.code == Code::WorkerUnavailable && tries < 20 => tries += 1,
            Err(Refusal::Fault(fault)) => {
                if matches!(fault.code, Code::WorkerCrashed | Code::WorkerMemory | Code::WorkerTimeout) {
                    println!("{from}, mutation {number}: {fault}");
                }
                assert_ne!(fault.code, Code::WorkerUnavailable, "{from}, mutation {number}: {fault}");
                break fault.code.to_string();
            }
            Err(Refusal::Stopped) => panic!("nobody stopped it"),
        }
    };
    std::fs::remove_dir_all(dir).unwrap();
    told
}

/// One to eight places changed, by number: a bit, a byte, a run repeated, removed or overwritten.
fn mutate(path: &Path, number: u64) {
    let mut random = fastrand::Rng::with_seed(number);
    let mut bytes = std::fs::read(path).unwrap();
    for _ in 0..random.usize(1..=8) {
        let at = random.usize(0..bytes.len());
        let run = random.usize(1..=16).min(bytes.len() - at);
        match random.u8(0..5) {
            0 => bytes[at] ^= 1 << random.u8(0..8),
            1 => bytes[at] = random.u8(..),
            2 => bytes.splice(at..at, bytes[at..at + run].to_vec()).for_each(drop),
            3 if bytes.len() > 32 => drop(bytes.drain(at..at + run)),
            _ => bytes[at..at + run].fill_with(|| random.u8(..)),
        }
    }
    std::fs::write(path, bytes).unwrap();
}
