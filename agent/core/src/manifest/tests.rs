//! Manifests: the example parses, and each mistake gets its message.

use super::*;

const EXAMPLE: &str = include_str!("../../testdata/model.toml");

fn message(from: &str, to: &str) -> String {
    assert!(EXAMPLE.contains(from), "the example lacks {from:?}");
    match Manifest::parse(&EXAMPLE.replacen(from, to, 1)) {
        Ok(_) => panic!("{from:?} -> {to:?} was accepted"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn the_example_parses() {
    let m = Manifest::parse(EXAMPLE).unwrap();
    assert_eq!((m.name.as_str(), m.plan, m.output.background), ("falls", Plan::Online, Some(0)));
    assert_eq!((m.sampling.window, m.sampling.max_hole), (200_000_000, 500_000_000));
    assert_eq!(m.sequences[0].parts, [1, 2]);
    assert!(!m.labels[0].publish && !m.labels[1].publish && m.labels[2].publish);
    assert_eq!((m.frames_per_window(), m.input_elements()), (1, 3 * 144 * 144));
}

#[test]
fn each_fault_has_one_clear_line() {
    let cases = [
        ("format = 1", "format = 2", "format: 2 is unknown"),
        ("name = \"falls\"", "name = \"Falls\"", "name: \"Falls\" is not a name"),
        ("version = \"0.1.0\"", "version = \"1.0\"", "version: \"1.0\" is not a semantic version"),
        ("plan = \"online\"", "plan = \"onlin\"", "line 5, column 8: unknown variant `onlin`"),
        ("provenance = [\"simulated\"]", "provenance = []", "provenance: is empty"),
        ("width = 144", "widht = 144", "line 11, column 1: unknown key `widht`; did you mean `width`?"),
        ("width = 144", "width = 0", "input.width: 0 is outside 1 to 2048"),
        ("std = [58.395", "std = [0.0", "input.std[0]: 0 must be above 0"),
        ("mean = [123.675", "mean = [inf", "input.mean[0]: must be a finite number"),
        ("rate_hz = 5.0", "rate_hz = 0.0", "sampling.rate_hz: 0 must be above 0"),
        ("rate_hz = 5.0", "rate_hz = nan", "sampling.rate_hz"),
        ("segments = 1", "segments = 8", "sampling.window_s: 0.2 s cannot hold 8 frames"),
        ("window_s = 0.2", "window_s = 2.0", "sampling.window_s: plan online"),
        ("stride_s = 0.2", "stride_s = 0.1", "sampling.stride_s: 0.1 is less than a frame"),
        ("max_hole_s = 0.5", "max_hole_s = 0.05", "sampling.max_hole_s: 0.05 is less than a frame"),
        ("temperature = 1.0", "temperature = 0.0", "output.temperature: 0 must be above 0"),
        ("background = \"background\"", "background = \"backgroud\"", "did you mean `background`?"),
        ("logits = \"logits\"", "logits = \"frame\"", "tensors.logits: `frame` is named twice"),
        ("logits = \"logits\"", "logits = \"logits\"\nfeature = \"f\"", "tensors.feature: is only for plan cached"),
        ("shape = [3, 36, 36]", "shape = [3, 0]", "tensors.states[0].shape"),
        ("plan = \"online\"", "plan = \"cached\"", "tensors.feature: is missing"),
        ("plan = \"online\"", "plan = \"clip\"", "tensors.states: are only for plan online"),
        ("name = \"falling\"", "name = \"lying\"", "labels[2].name: `lying` is there twice"),
        ("publish = false", "publish = \"no\"", "invalid type: string"),
        ("on = 0.6", "on = 1.2", "labels[1].decoder.on: 1.2 is outside"),
        ("off = 0.4", "off = 0.7", "labels[1].decoder.off: 0.7 is above on = 0.6"),
        ("h_on = 0.5", "h_on = 0.0", "labels[1].decoder.h_on"),
        ("max_duration_s = 10.0", "max_duration_s = 0.1", "labels[1].decoder.max_duration_s"),
        ("parts = [\"falling\"", "parts = [\"faling\"", "sequences[0].parts: `faling` is not a label; did you mean"),
        ("parts = [\"falling\"", "parts = [\"background\"", "sequences[0].parts: `background` is never decoded"),
        ("name = \"fall\"", "name = \"lying\"", "sequences[0].name: `lying` is the name of another label"),
        ("within_s = 2.0", "within_s = -1.0", "sequences[0].within_s"),
        ("within_s = 2.0", "within_s = 2.0\nmax_duration_s = 0.0", "sequences[0].max_duration_s"),
        ("model = \"falls.fp32.onnx\"", "model = \"/etc/passwd\"", "graphs.fp32.model: must be a path inside"),
        ("model = \"falls.fp32.onnx\"", "model = \"a/../b\"", "graphs.fp32.model: must be a path inside"),
        ("model = \"falls.fp32.onnx\"", "model = \"f.onnx\"", "graphs.fp32.model: \"f.onnx\" is not listed in [files]"),
        ("\"labels.txt\" = \"0", "\"labels.txt\" = \"Z", "files.\"labels.txt\": must be a SHA-256"),
        ("[golden]", "[golden", "line 87, column 8"),
    ];
    for (from, to, want) in cases {
        let got = message(from, to);
        assert!(got.contains(want), "{from:?} -> {to:?}\n  gave  {got}\n  wants {want}");
        assert!(!got.contains('\n'), "more than a line: {got}");
    }
}

/// The example as a package of plan clip that reads boxes, with one more edit.
fn with_boxes(from: &str, to: &str) -> Result<Manifest, ManifestError> {
    let states = "[[tensors.states]]\ninput = \"state0\"\noutput = \"next0\"\nshape = [3, 36, 36]\n";
    let clip = EXAMPLE.replacen("plan = \"online\"", "plan = \"clip\"", 1);
    let text = clip.replacen(states, "[tensors.boxes]\ninput = \"boxes\"\ncount = 2\n", 1).replacen(
        "logits = \"golden/walk.logits.npy\"\n",
        "logits = \"golden/walk.logits.npy\"\nboxes = [[0.1, 0.2, 0.5, 0.9]]\n",
        1,
    );
    assert!(text.contains(from), "the example with boxes lacks {from:?}");
    Manifest::parse(&text.replacen(from, to, 1))
}

#[test]
fn a_clip_package_may_read_boxes() {
    let m = with_boxes("", "").unwrap();
    assert_eq!(m.tensors.boxes, Some(Boxes { input: "boxes".into(), count: 2 }));
    assert_eq!(m.golden.clips[0].boxes, [Region::new([0.1, 0.2, 0.5, 0.9]).unwrap()]);
    let m = with_boxes("boxes = [[0.1, 0.2, 0.5, 0.9]]", "").unwrap();
    assert_eq!(m.golden.clips[0].boxes, [], "the whole picture");
    assert!(with_boxes("count = 2", "count = 64").is_ok());
    let told = |from, to| with_boxes(from, to).map(|_| ()).unwrap_err().to_string();
    for (from, to, want) in [
        ("count = 2", "count = 0", "tensors.boxes.count: 0 is outside 1 to 64"),
        ("count = 2", "count = 65", "tensors.boxes.count: 65 is outside 1 to 64"),
        ("count = 2", "", "missing field `count`"),
        ("resize = \"stretch\"", "resize = \"letterbox\"", "tensors.boxes: are fractions of the picture"),
        ("count = 2", "coun = 2", "unknown key `coun`; did you mean `count`?"),
        ("input = \"boxes\"", "input = \"frame\"", "tensors.boxes.input: `frame` is named twice; names must differ"),
        ("[0.1, 0.2, 0.5, 0.9]", "[0.1, 0.2, 0.5]", "invalid length 3"),
        ("[0.1, 0.2, 0.5, 0.9]", "[0.6, 0.2, 0.5, 0.9]", "golden.clips[0].boxes[0]: x0 = 0.6 is not below x1 = 0.5"),
        ("[0.1, 0.2, 0.5, 0.9]", "[1, 2, 50, 90]", "golden.clips[0].boxes[0]: y0 = 2 is outside 0 to 1"),
        (
            "[[0.1, 0.2, 0.5, 0.9]]",
            "[[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]]",
            "golden.clips[0].boxes: has 3 boxes, tensors.boxes.count is 2; remove some",
        ),
        ("[tensors.boxes]\ninput = \"boxes\"\ncount = 2\n", "", "golden.clips[0].boxes: the graph reads no boxes"),
    ] {
        let got = told(from, to);
        assert!(got.contains(want), "{from:?} -> {to:?}\n  gave  {got}\n  wants {want}");
    }
    let boxes = "[tensors.boxes]\ninput = \"boxes\"\ncount = 2\n[graphs.fp32]";
    assert_eq!(message("[graphs.fp32]", boxes), "tensors.boxes: is only for plan clip; remove it");
}

#[test]
fn a_package_may_need_onnx_runtime() {
    assert_eq!(Manifest::parse(EXAMPLE).unwrap().requires, None);
    let parsed =
        |table: &str| Manifest::parse(&EXAMPLE.replacen("[input]", &format!("[requires]\n{table}\n[input]"), 1));
    let good = parsed("backend = \"ort\"\nbecause = \"tract has no operator RoiAlign.\"").unwrap();
    let because = "tract has no operator RoiAlign".to_owned();
    assert_eq!(good.requires, Some(Requires { backend: RequiredBackend::Ort, because }));
    for (table, want) in [
        ("backend = \"onnx\"\nbecause = \"x\"", "line 11, column 11: unknown variant `onnx`, expected `ort`"),
        ("backend = \"tract\"\nbecause = \"x\"", "unknown variant `tract`, expected `ort`"),
        ("backend = \"ort\"", "missing field `because`"),
        ("backend = \"ort\"\nbecause = \" \"", "requires.because: must be one line of at most 500 characters"),
        ("backend = \"ort\"\nbecause = \"a\\nb\"", "requires.because: must be one line"),
    ] {
        let got = parsed(table).map(|_| ()).unwrap_err().to_string();
        assert!(got.contains(want), "{table:?}\n  gave  {got}\n  wants {want}");
    }
}

#[test]
fn a_published_label_needs_a_decoder() {
    let got = message("[[sequences]]", "[[labels]]\nname = \"sit\"\n\n[[sequences]]");
    assert!(got.contains("labels[3].decoder: `sit` is published but has none"), "{got}");
}

#[test]
fn a_missing_key_is_named() {
    let got = message("license = \"CC-BY-NC-SA-4.0\"\n", "");
    assert!(got.contains("missing field `license`"), "{got}");
}

#[test]
fn labels_txt_has_to_agree() {
    let m = Manifest::parse(EXAMPLE).unwrap();
    assert!(m.check_labels_txt("background\nfalling\nlying\n").is_ok());
    let told = |text| m.check_labels_txt(text).unwrap_err().to_string();
    assert_eq!(told("background\nlying\n"), "labels.txt: line 2 is \"lying\" but labels[1] is `falling`");
    assert_eq!(told("background\nfalling\n"), "labels.txt: has 2 lines but model.toml has 3 labels");
}

#[test]
fn overrides_have_to_fit_the_package() {
    let m = Manifest::parse(EXAMPLE).unwrap();
    let told = |text: &str| toml::from_str::<Overrides>(text).unwrap().check(&m).unwrap_err().to_string();
    assert_eq!(
        told("[faling]\non = 0.7"),
        "decoder.faling: the package falls has no such label; did you mean `falling`?"
    );
    assert_eq!(told("[falling]\non = 0.3"), "decoder.falling.off: 0.4 is above on = 0.3; set off at or below on");
    assert!(told("[fall]\non = 0.3").contains("a sequence takes only within_s"));
    assert!(told("[background]\non = 0.3").contains("has no decoder"));
    let good = toml::from_str::<Overrides>("[fall]\nwithin_s = 3.0\n[lying]\nmax_duration_s = 5.0").unwrap();
    assert!(good.check(&m).is_ok());
    assert!(toml::from_str::<Overrides>("[lying]\nonn = 0.3").is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(cut in 0usize..3000, junk in "\\PC{0,20}") {
        let at = (0..=cut.min(EXAMPLE.len())).rev().find(|&i| EXAMPLE.is_char_boundary(i)).unwrap_or(0);
        let _ = Manifest::parse(&format!("{}{junk}{}", &EXAMPLE[..at], &EXAMPLE[at..]));
        let _ = Manifest::parse(&EXAMPLE[..at]);
    }
}
