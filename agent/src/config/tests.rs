//! Every kind of mistake with the message it gets, the committed schema, and the example files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::*;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A folder with a configuration, a model package and a place for state.
struct Scene {
    dir: tempfile::TempDir,
    environment: Environment,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let environment = Environment {
            host_name: "Test-Box.local".into(),
            credentials_directory: None,
            state_directory: Some(dir.path().join("state")),
            ..Environment::default()
        };
        let package = repository().join("tests/data/packages/tiny-online");
        copy(&package, &dir.path().join("tiny"));
        Self { dir, environment }
    }

    /// A package that says so; its manifest is the one file without a hash.
    fn needs_ort(&self) {
        copy(&self.path("tiny"), &self.path("needs-ort"));
        let manifest = self.path("needs-ort/model.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        let requires = "[requires]\nbackend = \"ort\"\nbecause = \"tract has no operator RoiAlign\"\n[input]";
        fs::write(manifest, text.replacen("[input]", requires, 1)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn check(&self, text: &str) -> Report {
        let path = self.path("kinewatch.toml");
        fs::write(&path, text).unwrap();
        check(&path, &self.environment, Probe::Machine)
    }

    /// What is printed, with the folder's name taken out.
    fn told(&self, text: &str) -> String {
        let report = self.check(text);
        let lines: Vec<String> = report.problems.iter().map(|p| p.render("kinewatch.toml")).collect();
        lines.join("\n").replace(&self.dir.path().display().to_string(), "DIR")
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

const GOOD: &str = "[[model]]\npath = \"tiny\"\n[[camera]]\nname = \"front\"\nsource = \"test:\"\n";

#[test]
fn five_lines_are_enough() {
    let scene = Scene::new();
    let report = scene.check(GOOD);
    assert_eq!(report.lines(Severity::Error), [""; 0]);
    let plan = report.plan.unwrap();
    assert_eq!((plan.device.name.as_str(), plan.device.group.as_str()), ("test-box-local", "default"));
    assert_eq!(plan.mqtt.client_id, "kinewatch-default-test-box-local");
    assert_eq!((plan.models[0].name.as_str(), plan.cameras[0].models.as_slice()), ("tiny", &[0][..]));
    assert_eq!(plan.web.unwrap().port(), 8089);
}

/// What a package installs has no camera yet; the daemon has to start with it.
#[test]
fn a_device_may_wait_for_its_first_camera() {
    let scene = Scene::new();
    let report = scene.check("[[model]]\npath = \"tiny\"\n");
    assert_eq!(report.lines(Severity::Error), [""; 0]);
    let warnings = report.lines(Severity::Warning);
    assert!(warnings.len() == 1 && warnings[0].contains("no [[camera]] yet"), "{warnings:?}");
    assert!(report.plan.unwrap().cameras.is_empty());
}

#[test]
fn zones_are_the_cameras() {
    let scene = Scene::new();
    copy(&repository().join("tests/data/packages/tiny-boxes"), &scene.path("boxes"));
    let both = "[[model]]\npath = \"tiny\"\n[[model]]\npath = \"boxes\"\n";
    let report =
        scene.check(&format!("{both}[[camera]]\nname = \"a\"\nsource = \"test:\"\nzones = [[0.1, 0.2, 0.5, 1]]\n"));
    assert_eq!(report.problems.len(), 0, "one of its models takes them: {:?}", report.problems);
    let zones: Vec<_> = report.plan.unwrap().cameras[0].zones.iter().map(|zone| zone.corners()).collect();
    assert_eq!(zones, [[0.1, 0.2, 0.5, 1.0]]);
}

/// The bad list: one section each, all in one snapshot, so that the tone of the messages can be read at a glance.
#[test]
fn every_mistake_says_where_it_is_and_what_to_do() {
    let scene = Scene::new();
    fs::write(scene.path("notmodel"), "x").unwrap();
    let broken = scene.path("broken");
    copy(&scene.path("tiny"), &broken);
    let onnx = fs::read_dir(&broken)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().is_some_and(|e| e == "onnx"))
        .unwrap();
    fs::write(&onnx, "not a graph").unwrap();
    copy(&repository().join("tests/data/packages/tiny-boxes"), &scene.path("boxes"));
    scene.needs_ort();
    let camera = |more: &str| format!("[[model]]\npath = \"tiny\"\n[[camera]]\nname = \"front\"\n{more}\n");
    let cases: Vec<(&str, String)> = vec![
        ("empty file", String::new()),
        ("not TOML", "[device\nname = \"a\"\n[mqtt]\nurl = mqtt\n".into()),
        ("same key twice", format!("{GOOD}name = \"again\"\n")),
        ("mistyped keys, in every kind of table", format!("[devise]\n[device]\nnmae = \"a\"\n[mqtt]\nurll = \"x\"\n{GOOD}sorce = \"test:\"\nfps = 3\n")),
        ("mistyped key in a label", GOOD.replace("[[camera]]", "[model.labels.go]\nonn = 0.5\n[[camera]]")),
        ("missing keys", "[[model]]\nname = \"m\"\n[[camera]]\nname = \"c\"\n".into()),
        ("wrong types", "[device]\nname = 5\n[web]\nlisten = 8089\n[mqtt]\nembedded = \"yes\"\n[model]\npath = \"tiny\"\n[[camera]]\nname = \"c\"\nsource = \"test:\"\nmodels = \"tiny\"\n".into()),
        ("wrong choices", format!("[device]\nplatform = \"jetson\"\n[engine]\nbackend = \"tracked\"\nproviders = [\"cpuu\"]\n[log]\nformat = \"yaml\"\n{GOOD}")),
        ("out of range", format!("[engine]\nthreads = 0\n[mqtt]\nwindow = 5000\n{GOOD}stall_timeout_s = 0.1\n")),
        ("names", "[device]\nname = \"Box 1\"\ngroup = \"\"\n[[model]]\nname = \"Falls!\"\npath = \"tiny\"\n[[camera]]\nname = \"Küche\"\nsource = \"test:\"\n".into()),
        ("the name of all", format!("[device]\nname = \"_all\"\n{GOOD}")),
        ("two of one name", format!("{GOOD}[[camera]]\nname = \"front\"\nsource = \"test:\"\n[[model]]\nname = \"tiny\"\npath = \"tiny\"\n")),
        ("unknown model", camera("source = \"test:\"\nmodels = [\"tinny\", \"other\", \"tiny\", \"tiny\"]")),
        ("no models", camera("source = \"test:\"\nmodels = []")),
        ("missing model", GOOD.replace("\"tiny\"", "\"/nonexistent/falls\"")),
        ("a file for a model", GOOD.replace("\"tiny\"", "\"notmodel\"")),
        ("a model whose file was changed", GOOD.replace("\"tiny\"", "\"broken\"")),
        ("unknown label and bad threshold", GOOD.replace("[[camera]]", "[model.labels.jumping]\non = 0.5\n[model.labels.wave]\non = 0.2\noff = 0.9\n[[camera]]")),
        ("sources", ["http://x", "/dev/video0", "clip.mp4", "rtsp://", "csi:x", "v4l2:/dev/video99", "file:missing.mp4", "file:x?lop=true", "test:?size=0x0"]
            .iter()
            .enumerate()
            .map(|(i, s)| format!("[[camera]]\nname = \"c{i}\"\nsource = \"{s}\"\n"))
            .collect::<String>()
            + "[[model]]\npath = \"tiny\"\n"),
        ("zones of another form", camera("source = \"test:\"\nzones = [[0.1, 0.2, 0.5], [0, 0, 640, 480.5], 0.5]")),
        ("too many zones", camera(&format!("source = \"test:\"\nzones = [{}]", "[0, 0, 1, 1], ".repeat(65)))),
        ("zones with wrong corners", camera("source = \"test:\"\nzones = [[0, 0, 1, 1], [0.5, 0, 0.1, 1],\n  [0, 0.5, 1, 0.5]]")),
        ("more zones than a model takes", camera("source = \"test:\"\nzones = [[0, 0, 1, 1], [0, 0, 1, 0.5], [0, 0, 0.5, 1]]").replace("\"tiny\"", "\"boxes\"")),
        ("zones that no model takes", camera("source = \"test:\"\nzones = [[0, 0, 1, 1]]")),
        ("a model that needs ONNX Runtime", format!("[engine]\nbackend = \"tract\"\n{}", GOOD.replace("\"tiny\"", "\"needs-ort\""))),
        ("password in a source", camera("source = \"rtsp://admin:hunter2@192.0.2.1/1\"")),
        ("password in the broker's URL", format!("[mqtt]\nurl = \"mqtt://joe:hunter2@broker\"\n{GOOD}")),
        ("broker URLs", format!("[mqtt]\nurl = \"tcp://broker\"\n{GOOD}")),
        ("missing secrets", format!("[mqtt]\npassword_file = \"nothing\"\n{}", camera("source = \"rtsp://192.0.2.1/1\"\ncredentials_file = \"credential:front\""))),
        ("half a login", camera("source = \"rtsp://192.0.2.1/1\"\nusername_file = \"kinewatch.toml\"")),
        ("a login where none is used", camera("source = \"test:\"\ntransport = \"udp\"")),
        ("a time for what cannot freeze", camera("source = \"test:\"\nfrozen_timeout_s = 60")),
        ("certificates", format!("[mqtt]\nurl = \"mqtts://broker\"\nca_file = \"kinewatch.toml\"\n{GOOD}")),
        ("certificate without key", format!("[mqtt]\nurl = \"mqtts://broker\"\ncert_file = \"kinewatch.toml\"\n{GOOD}")),
        ("certificates without TLS", format!("[mqtt]\nca_file = \"kinewatch.toml\"\n{GOOD}")),
        ("web address", format!("[web]\nlisten = \"8089\"\n{GOOD}")),
        ("web address for everybody", format!("[web]\nlisten = \"0.0.0.0:8089\"\n{GOOD}")),
        ("log level", format!("[log]\nlevel = \"loud\"\n{GOOD}")),
        ("engine", format!("[engine]\nort_library = \"/nonexistent.so\"\nproviders = [\"cpu\"]\nrequire_provider = \"cuda\"\n{GOOD}")),
        ("no providers", format!("[engine]\nproviders = []\n{GOOD}")),
        ("fp16 without TensorRT", format!("[engine]\nprecision = \"fp16\"\nproviders = [\"cuda\"]\n{GOOD}")),
        ("state directory", format!("[device]\nstate_dir = \"notmodel/state\"\n{GOOD}")),
    ];
    let told: Vec<String> = cases.iter().map(|(what, text)| format!("## {what}\n{}\n", scene.told(text))).collect();
    let all = told.join("\n");
    assert!(!all.contains("hunter2"), "a password is shown");
    insta::assert_snapshot!("mistakes", all);
}

#[test]
fn sensors_are_watched_for_pictures_that_repeat_and_others_when_told() {
    let scene = Scene::new();
    let cameras = [
        ("csi:0", None),
        ("csi:1", Some(0.0)),
        ("rtsp://192.0.2.1/1", None),
        ("rtsp://192.0.2.1/2", Some(60.0)),
        ("v4l2:/dev/video0", Some(0.2)),
    ];
    let mut text = "[device]\nplatform = \"jetpack7\"\n[[model]]\npath = \"tiny\"\n".to_owned();
    for (i, (source, seconds)) in cameras.iter().enumerate() {
        text += &format!("[[camera]]\nname = \"c{i}\"\nsource = \"{source}\"\n");
        text += &seconds.map(|s| format!("frozen_timeout_s = {s}\n")).unwrap_or_default();
    }
    let report = scene.check(&text);
    assert_eq!(report.lines(Severity::Error), [""; 0]);
    let plan = report.plan.unwrap();
    assert_eq!(plan.device.platform, Some(kinewatch_capture::Platform::Jetpack7));
    let seconds = |camera: &plan::CameraPlan| camera.frozen_timeout.map(|time| time.as_secs());
    let times: Vec<_> = plan.cameras.iter().map(seconds).collect();
    assert_eq!(times, [Some(10), None, None, Some(60), Some(1)]);
}

#[test]
fn files_that_are_no_configuration() {
    let scene = Scene::new();
    let say = |path: &Path| check(path, &scene.environment, Probe::Machine).problems[0].message.clone();
    assert!(say(Path::new("/nonexistent.toml")).contains("no such file"));
    assert!(say(scene.dir.path()).contains("cannot be read"));
    fs::write(scene.path("large"), vec![b'#'; (MAX_BYTES + 1) as usize]).unwrap();
    assert!(say(&scene.path("large")).contains("larger than 1 MiB"));
    fs::write(scene.path("binary"), [b'a', 0xff, 0xfe]).unwrap();
    assert!(say(&scene.path("binary")).contains("not UTF-8 text after byte 1"));
}

#[test]
fn secrets_are_read_and_never_shown() {
    let scene = Scene::new();
    let mut environment = scene.environment.clone();
    environment.credentials_directory = Some(scene.path("credentials"));
    fs::create_dir(scene.path("credentials")).unwrap();
    for (name, text, mode) in
        [("credentials/front", "admin:hunter2\n", 0o600), ("user", "joe\n", 0o644), ("password", "hunter2", 0o640)]
    {
        fs::write(scene.path(name), text).unwrap();
        fs::set_permissions(scene.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let text = "[mqtt]\nusername_file = \"user\"\npassword_file = \"password\"\n[[model]]\npath = \"tiny\"\n[[camera]]\nname = \"front\"\nsource = \"rtsp://192.0.2.1/1\"\ncredentials_file = \"credential:front\"\n";
    fs::write(scene.path("kinewatch.toml"), text).unwrap();
    let report = check(&scene.path("kinewatch.toml"), &environment, Probe::Machine);
    assert_eq!(report.lines(Severity::Error), [""; 0]);
    let warnings = report.lines(Severity::Warning);
    assert!(warnings.len() == 1 && warnings[0].contains("everybody (mode 0644)"), "{warnings:?}");
    let plan = report.plan.as_ref().unwrap();
    assert_eq!(plan.mqtt.password.as_ref().unwrap().expose(), "hunter2");
    assert_eq!(plan.cameras[0].login.as_ref().unwrap().password.expose(), "hunter2");
    assert!(!format!("{report:?}").contains("hunter2"));
}

#[test]
fn paths_are_relative_to_the_folder_of_the_file() {
    let here = std::env::current_dir().unwrap();
    assert_eq!(base_of(Path::new("kinewatch.toml")), here);
    assert_eq!(base_of(Path::new("site/kinewatch.toml")), here.join("site"));
    assert_eq!(base_of(Path::new("/etc/kinewatch/kinewatch.toml")), Path::new("/etc/kinewatch"));
}

/// The schema in the repository is the one of the types. `KINEWATCH_BLESS=1` writes it anew.
#[test]
fn the_committed_schema_is_current() {
    let path = repository().join("config/schema/kinewatch.schema.json");
    let current = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("KINEWATCH_BLESS").is_some() {
        fs::write(&path, &current).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == current,
        "config/schema/kinewatch.schema.json is stale; run the tests once with KINEWATCH_BLESS=1"
    );
}

fn configurations() -> Vec<PathBuf> {
    let examples = fs::read_dir(repository().join("config/examples")).unwrap().map(|e| e.unwrap().path());
    let installed = ["config/kinewatch.toml", "cross/debian/kinewatch.toml"].map(|path| repository().join(path));
    examples.chain(installed).collect()
}

#[test]
fn the_reference_and_every_example_are_right() {
    let environment = Environment { host_name: "box".into(), ..Environment::default() };
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for path in configurations() {
        let report = check(&path, &environment, Probe::FileOnly);
        let expected = if cfg!(feature = "embedded-broker") { 0 } else { usize::from(path.ends_with("trial.toml")) };
        assert_eq!(report.lines(Severity::Error).len(), expected, "{:?}", report.lines(Severity::Error));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("#:schema "), "{}: editors find the schema by its first line", path.display());
        let value: serde_json::Value = toml::from_str(&text).unwrap();
        assert!(
            validator.is_valid(&value),
            "{}: {:?}",
            path.display(),
            validator.validate(&value).err().map(|e| e.to_string())
        );
    }
}

/// The reference shows every key, and the values it gives as defaults are the defaults.
#[test]
fn the_reference_names_every_key_and_tells_the_true_defaults() {
    let text = fs::read_to_string(repository().join("config/kinewatch.toml")).unwrap();
    let schema = schema();
    let mut missing = Vec::new();
    for (_, table) in schema["$defs"].as_object().unwrap() {
        for key in table["properties"].as_object().into_iter().flat_map(|p| p.keys()) {
            let shown = text.lines().any(|l| {
                l.trim_start_matches("# ").starts_with(&format!("{key} ="))
                    || l.contains(&format!("{key} and "))
                    || l.contains(&format!("[model.{key}."))
                    || l.contains(&format!(".{key}]]"))
            });
            if !shown {
                missing.push(key.clone());
            }
        }
    }
    assert_eq!(missing, [""; 0]);
    let file: file::File = toml::from_str(&text).unwrap();
    let json = |f: &file::File| serde_json::to_value(f).unwrap();
    let (given, default) = (json(&file), json(&file::File::default()));
    for table in ["device", "mqtt", "web", "log", "engine"] {
        assert_eq!(given[table], default[table], "[{table}]");
    }
}

/// Configurations of strangers: whatever the bytes, a report and no panic.
#[test]
fn mutilated_files_never_panic() {
    let scene = Scene::new();
    let text = fs::read_to_string(repository().join("config/kinewatch.toml")).unwrap();
    for at in (0..text.len()).step_by(37) {
        let mut bytes = text.clone().into_bytes();
        bytes[at] = b"]=\"[.\n\0{"[at % 8];
        if let Ok(mutated) = String::from_utf8(bytes) {
            drop(check_text(&scene.path("kinewatch.toml"), &mutated, &scene.environment, Probe::FileOnly));
            drop(check_text(
                &scene.path("kinewatch.toml"),
                &mutated[..mutated.floor_char_boundary(at)],
                &scene.environment,
                Probe::FileOnly,
            ));
        }
    }
}
