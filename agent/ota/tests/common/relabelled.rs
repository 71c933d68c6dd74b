//! Whole, signed packages that tell consumers something else than the model that runs, while their channel says
//! `labels: same`.

use std::fs;
use std::path::Path;

use kinewatch_core::manifest::Manifest;
use kinewatch_core::rollout::Fault;
use kinewatch_ota::bundle::keeps_labels;

const SEQUENCE: &str = "[[sequences]]\nname = \"greeting\"\nparts = [\"wave\", \"jump\"]\nwithin_s = 1.0\n\n[golden]\n";

/// Name, what the package does, and what a device says of it.
pub(crate) fn attacks() -> Vec<(&'static str, &'static str, Fault)> {
    let (wave, golden) = ("name = \"wave\"\n", "[golden]\n");
    let silent = "name = \"wave\"\npublish = false\n";
    let renamed = SEQUENCE.replace("greeting", "goodbye");
    let (background, plain) = ("name = \"background\"\n", "name = \"background\"\npublish = false\n");
    let none = [("background = \"background\"\n", ""), (background, plain)];
    vec![
        ("label-renamed", "another name for a label", judge(&[], &[("\"wave\"", "\"greet\"")])),
        ("label-silenced", "a label that is published no more", judge(&[], &[(wave, silent)])),
        ("sequence-added", "a new name made of the old labels", judge(&[], &[(golden, SEQUENCE)])),
        (
            "sequence-renamed",
            "another name for a sequence",
            judge(&[(golden, SEQUENCE)], &[(golden, renamed.as_str())]),
        ),
        ("background-dropped", "no label for \"nothing\"", judge(&[], &none)),
    ]
}

fn judge(before: &[(&str, &str)], after: &[(&str, &str)]) -> Fault {
    let version = [("version = \"1.0.0\"", "version = \"1.1.0\"")];
    let newer = [after, &version[..]].concat();
    keeps_labels(&with(before), &with(&newer)).unwrap_err()
}

fn with(changes: &[(&str, &str)]) -> Manifest {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/packages/tiny-bright/model.toml");
    let text = changes.iter().fold(fs::read_to_string(path).unwrap(), |text, (from, to)| text.replacen(from, to, 1));
    Manifest::parse(&text).unwrap()
}
