//! `cross/ort-deb.sh`: from a wheel to a package that holds what kinewatch loads, and wheels that it refuses.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::root;

/// Numbers of machines in an ELF file.
const AARCH64: u16 = 183;
const X86_64: u16 = 62;

/// A wheel for a Jetson's processor.
fn wheel(dir: &Path, source: &str, files: &[&str]) -> PathBuf {
    wheel_for(AARCH64, dir, source, files)
}

/// A wheel with these files under `onnxruntime/capi`, compiled here from `source`, which say that they are for `machine`.
fn wheel_for(machine: u16, dir: &Path, source: &str, files: &[&str]) -> PathBuf {
    let tree = dir.join("tree/onnxruntime");
    let _before = fs::remove_dir_all(&tree);
    fs::create_dir_all(tree.join("capi")).unwrap();
    fs::write(tree.join("LICENSE"), "MIT Licence of the library\n").unwrap();
    fs::write(dir.join("code.c"), source).unwrap();
    let library = dir.join("code.so");
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(dir.join("code.c")).status().unwrap();
    assert!(compiled.success());
    let mut bytes = fs::read(&library).unwrap();
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    fs::write(&library, bytes).unwrap();
    for file in files {
        fs::copy(&library, tree.join("capi").join(file)).unwrap();
    }
    let wheel = dir.join("onnxruntime_gpu-1.23.0-cp310-cp310-linux_aarch64.whl");
    let zipped = Command::new("python3").args(["-m", "zipfile", "-c"]).arg(&wheel).arg(&tree).status().unwrap();
    assert!(zipped.success());
    wheel
}

fn run(jetpack: &str, wheel: &Path, out: &Path, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(root().join("cross/ort-deb.sh"));
    command.arg(jetpack).arg(wheel).arg(out).env_remove("SOURCE_DATE_EPOCH").env_remove("ALLOW_ANY");
    command.envs(environment.iter().copied()).output().unwrap()
}

fn made(output: &Output) -> PathBuf {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

fn refused(output: &Output) -> String {
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

const PLAIN: &str = "int answer(void) { return 42; }";
const GPU: [&str; 4] = [
    "libonnxruntime.so.1.23.0",
    "libonnxruntime_providers_shared.so",
    "libonnxruntime_providers_cuda.so",
    "libonnxruntime_providers_tensorrt.so",
];

#[test]
fn a_wheel_becomes_a_package_and_the_same_wheel_the_same_package() {
    let dir = tempfile::tempdir().unwrap();
    let wheel = wheel(dir.path(), PLAIN, &GPU);
    let deb = made(&run("jp6", &wheel, &dir.path().join("one"), &[]));
    assert_eq!(deb.file_name().unwrap().to_str(), Some("kinewatch-onnxruntime-jp6_1.23.0-1_arm64.deb"));
    let again = made(&run("jp6", &wheel, &dir.path().join("two"), &[]));
    assert_eq!(fs::read(&deb).unwrap(), fs::read(again).unwrap());

    let field = |name: &str| {
        let output = Command::new("dpkg-deb").arg("-f").arg(&deb).arg(name).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(field("Recommends"), "nvidia-cudnn, nvidia-tensorrt");
    assert_eq!(field("Conflicts"), "kinewatch-onnxruntime-jp7");
    assert!(
        field("Description").ends_with("Providers beside the processor: cuda tensorrt."),
        "{}",
        field("Description")
    );

    let unpacked = dir.path().join("unpacked");
    assert!(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&unpacked).status().unwrap().success());
    let home = unpacked.join("usr/lib/kinewatch/onnxruntime");
    for file in GPU {
        assert!(home.join(file).is_file(), "{file}");
    }
    let real = home.join("libonnxruntime.so").canonicalize().unwrap();
    assert_eq!(real.file_name().unwrap().to_str(), Some(GPU[0]), "where the agent looks");
    let copyright = unpacked.join("usr/share/doc/kinewatch-onnxruntime-jp6/copyright");
    assert!(fs::read_to_string(copyright).unwrap().contains("MIT Licence of the library"));
}

#[test]
fn a_wheel_that_would_not_serve_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let cpu = wheel(dir.path(), PLAIN, &GPU[..2]);
    let told = refused(&run("jp6", &cpu, &out, &[]));
    assert!(told.contains("built for the processor alone; take one for the GPU"), "{told}");
    let deb = made(&run("jp7", &cpu, &out, &[("ALLOW_ANY", "1")]));
    assert!(deb.to_string_lossy().contains("kinewatch-onnxruntime-jp7_1.23.0-1_"), "{}", deb.display());

    let old = wheel(dir.path(), PLAIN, &["libonnxruntime.so.1.16.3", GPU[1], GPU[2]]);
    assert!(refused(&run("jp6", &old, &out, &[])).contains("ONNX Runtime 1.16.3 is too old; 1.17 or later"));
    let other = wheel(dir.path(), PLAIN, &["libsomething.so"]);
    assert!(refused(&run("jp6", &other, &out, &[])).contains("is it a wheel of onnxruntime?"));
    let newer = wheel(dir.path(), "const char needed[] = \"GLIBC_2.38\";", &GPU);
    let told = refused(&run("jp6", &newer, &out, &[]));
    let take = "take a wheel of onnxruntime_gpu for Python 3.10 on aarch64 that is built for JetPack 6 (CUDA 12)";
    assert!(told.contains(&format!("needs glibc 2.38, JetPack 6 has 2.35; {take}")), "{told}");
    made(&run("jp7", &newer, &out, &[]));

    let text = dir.path().join("text.whl");
    fs::write(&text, "this is no wheel").unwrap();
    let told = refused(&run("jp6", &text, &out, &[]));
    let words = ["text.whl: cannot be unzipped (", "BadZipFile: File is not a zip file)"];
    assert!(words.iter().all(|part| told.contains(part)), "{told}");
    assert!(refused(&run("jp6", &dir.path().join("none.whl"), &out, &[])).contains("no such file"));
    assert!(refused(&run("jp5", &cpu, &out, &[])).contains("write jp6 or jp7"));
}

#[test]
fn a_wheel_for_another_machine_is_refused_unless_somebody_tries_things_out() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let desktop = wheel_for(X86_64, dir.path(), PLAIN, &GPU);
    for (jetpack, take) in [("jp6", "built for JetPack 6 (CUDA 12)"), ("jp7", "built for JetPack 7 (CUDA 13)")] {
        let told = refused(&run(jetpack, &desktop, &out, &[]));
        assert!(
            told.contains("libonnxruntime.so.1.23.0 is for x86-64, and a Jetson is aarch64; take a wheel"),
            "{told}"
        );
        assert!(told.ends_with(take), "{told}");
    }
    let deb = made(&run("jp6", &desktop, &out, &[("ALLOW_ANY", "1")]));
    assert!(deb.to_string_lossy().ends_with("_1.23.0-1_amd64.deb"), "{}", deb.display());
    let riscv = wheel_for(243, dir.path(), PLAIN, &GPU);
    let told = refused(&run("jp6", &riscv, &out, &[("ALLOW_ANY", "1")]));
    assert!(told.contains("is for machine number 243, and a Jetson is aarch64 (183)"), "{told}");
}

#[test]
fn a_wheel_for_the_cuda_of_another_jetpack_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let source = |major: u32| {
        let library = |name: &str| format!("const char {name}[] = \"lib{name}.so.{major}\";");
        library("cudart") + &library("cublas") + "const char cufft[] = \"libcufft.so.11\";"
    };
    let (twelve, thirteen) = (dir.path().join("twelve"), dir.path().join("thirteen"));
    fs::create_dir(&twelve).unwrap();
    fs::create_dir(&thirteen).unwrap();
    let (twelve, thirteen) = (wheel(&twelve, &source(12), &GPU), wheel(&thirteen, &source(13), &GPU));
    let told = refused(&run("jp6", &thirteen, &out, &[]));
    assert!(
        told.ends_with(
            "needs libcublas.so.13 libcudart.so.13, JetPack 6 has CUDA 12; take a wheel of onnxruntime_gpu for Python 3.10 on \
             aarch64 that is built for JetPack 6 (CUDA 12)"
        ),
        "{told}"
    );
    let told = refused(&run("jp7", &twelve, &out, &[]));
    assert!(told.contains("needs libcublas.so.12 libcudart.so.12, JetPack 7 has CUDA 13; take a wheel"), "{told}");
    assert!(told.ends_with("for Python 3.12 on aarch64 that is built for JetPack 7 (CUDA 13)"), "{told}");

    let stderr = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    for (jetpack, fitting) in [("jp6", &twelve), ("jp7", &thirteen)] {
        let output = run(jetpack, fitting, &out, &[]);
        made(&output);
        assert_eq!(stderr(&output), "");
    }
    let output = run("jp7", &wheel(dir.path(), PLAIN, &GPU), &out, &[]);
    made(&output);
    let told = stderr(&output);
    assert!(told.contains("does not tell which CUDA it is for; JetPack 7 has CUDA 13"), "{told}");
}

/// As in a package's documentation: without its mode, without the checkout.
#[test]
fn the_script_alone_will_do() {
    let dir = tempfile::tempdir().unwrap();
    let wheel = wheel(dir.path(), PLAIN, &GPU);
    let script = dir.path().join("ort-deb.sh");
    fs::write(&script, fs::read(root().join("cross/ort-deb.sh")).unwrap()).unwrap();
    let bash = |arguments: &[&str]| {
        let mut command = Command::new("bash");
        command.arg(&script).args(arguments).current_dir(dir.path()).env_remove("ALLOW_ANY").output().unwrap()
    };
    let deb = made(&bash(&["jp6", wheel.to_str().unwrap()]));
    assert!(dir.path().join(deb).is_file(), "in the folder where it was run");
    let usage = bash(&[]);
    assert_eq!(usage.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&usage.stderr).contains("ort-deb.sh jp6|jp7 WHEEL [OUT_DIR]"));
}

#[test]
fn what_this_machine_lacks_is_no_fault_of_the_wheel() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let cpu = wheel(dir.path(), PLAIN, &GPU[..2]);
    let bare = dir.path().join("bin");
    fs::create_dir(&bare).unwrap();
    symlink("/bin/bash", bare.join("bash")).unwrap();
    let bare_path = bare.to_str().unwrap();
    let told = refused(&run("jp6", &cpu, &out, &[("PATH", bare_path)]));
    assert_eq!(told, "ort-deb: python3 is missing; apt install python3");

    let python = bare.join("python3");
    let full = "echo Traceback >&2; echo 'OSError: [Errno 28] No space left on device' >&2; exit 1";
    fs::write(&python, format!("#!/bin/bash\n{full}\n")).unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    let told = refused(&run("jp6", &cpu, &out, &[("PATH", bare_path)]));
    assert_eq!(told, "ort-deb: dpkg-deb is missing; apt install dpkg");
    let path = format!("{bare_path}:{}", std::env::var("PATH").unwrap());
    let told = refused(&run("jp6", &cpu, &out, &[("PATH", &path)]));
    assert!(told.contains("cannot be unzipped (OSError: [Errno 28] No space left on device)"), "{told}");
}

#[test]
fn a_machine_without_dpkg_is_not_taken_for_a_jetson() {
    let target = |path: &str| {
        let script = "set -eu; . cross/target.sh arm64";
        let output =
            Command::new("/bin/bash").args(["-c", script]).current_dir(root()).env("PATH", path).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).trim().to_owned()
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    assert_eq!(target(path), "error: this builds on Debian, with its packages; dpkg is missing");
    let dpkg = dir.path().join("dpkg");
    fs::write(&dpkg, "#!/bin/bash\necho arm64\n").unwrap();
    fs::set_permissions(&dpkg, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(target(path).contains("on the device itself run: make deb"));
}
