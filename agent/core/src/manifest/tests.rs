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
