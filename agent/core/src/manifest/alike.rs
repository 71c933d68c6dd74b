//! Two models under one name: what a consumer sees change between them, and whether they read the same frames.
//!
//! Pure. One rule for the publisher, for the device before it installs, and for the agent that lets one model stand in for
//! the other: who widens it here widens it everywhere.

use super::{Manifest, Plan};

/// The first difference between what consumers see of two models, in one line; `None` when they see the same: the same labels
/// in the same order, the same one of them for "nothing", and actions published under the same names.
#[must_use]
pub fn labels_changed(before: &Manifest, after: &Manifest) -> Option<String> {
    scored(before, after).or_else(|| background(before, after)).or_else(|| published(before, after))
}

fn scored(before: &Manifest, after: &Manifest) -> Option<String> {
    let (old, new) = (&before.labels, &after.labels);
    if old.len() != new.len() {
        return Some(format!("{} has {} labels, {} has {}", before.version, old.len(), after.version, new.len()));
    }
    let at = old.iter().zip(new).position(|(old, new)| old.name != new.name)?;
    let (was, is) = (&old[at].name, &new[at].name);
    Some(format!("label {at} of {} is {was:?}, of {} {is:?}", before.version, after.version))
}

fn background(before: &Manifest, after: &Manifest) -> Option<String> {
    let name = |m: &Manifest| {
        let label = m.output.background.and_then(|at| m.labels.get(at));
        label.map_or_else(|| "none".to_owned(), |label| format!("{:?}", label.name))
    };
    let (was, is) = (name(before), name(after));
    (was != is).then(|| format!("the background of {} is {was}, of {} {is}", before.version, after.version))
}

fn published(before: &Manifest, after: &Manifest) -> Option<String> {
    let names = |m: &Manifest| m.published().map(str::to_owned).collect::<Vec<_>>().join(", ");
    let (was, is) = (names(before), names(after));
    (was != is).then(|| format!("{} publishes {was}; {} publishes {is}", before.version, after.version))
}

/// Whether two models read the same frames: they can look at one stream, and be compared on it.
#[must_use]
pub fn same_frames(a: &Manifest, b: &Manifest) -> bool {
    let boxes = |m: &Manifest| m.tensors.boxes.as_ref().map(|boxes| boxes.count);
    let online = |m: &Manifest| m.plan == Plan::Online;
    (a.input.spec, a.sampling, online(a), boxes(a)) == (b.input.spec, b.sampling, online(b), boxes(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = include_str!("../../testdata/model.toml");

    fn with(changes: &[(&str, &str)]) -> Manifest {
        let mut text = BEFORE.replacen("version = \"0.1.0\"", "version = \"0.2.0\"", 1);
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        Manifest::parse(&text).unwrap()
    }

    fn said(changes: &[(&str, &str)]) -> Option<String> {
        labels_changed(&Manifest::parse(BEFORE).unwrap(), &with(changes))
    }

    #[test]
    fn whatever_a_consumer_subscribes_to_is_compared() {
        let more = "[[labels]]\nname = \"sitting\"\npublish = false\n\n[[sequences]]";
        let silent = "name = \"background\"\npublish = false";
        let cases: [(&[(&str, &str)], &str); 6] = [
            (&[("[[sequences]]", more)], "0.1.0 has 3 labels, 0.2.0 has 4"),
            (&[("\"lying\"", "\"resting\"")], "label 2 of 0.1.0 is \"lying\", of 0.2.0 \"resting\""),
            (
                &[("background = \"background\"", ""), ("name = \"background\"", silent)],
                "the background of 0.1.0 is \"background\", of 0.2.0 none",
            ),
            (&[("name = \"fall\"", "name = \"tumble\"")], "0.1.0 publishes lying, fall; 0.2.0 publishes lying, tumble"),
            (
                &[("name = \"lying\"", "name = \"lying\"\npublish = false")],
                "0.1.0 publishes lying, fall; 0.2.0 publishes fall",
            ),
            (
                &[("publish = false", "publish = true")],
                "0.1.0 publishes lying, fall; 0.2.0 publishes falling, lying, fall",
            ),
        ];
        for (changes, expected) in cases {
            assert_eq!(said(changes).as_deref(), Some(expected), "{changes:?}");
        }
    }

    #[test]
    fn how_it_is_found_out_may_be_another() {
        for change in [("within_s = 2.0", "within_s = 3.0"), ("on = 0.6", "on = 0.7"), ("width = 144", "width = 160")] {
            assert_eq!(said(&[change]), None, "{change:?}");
        }
    }

    #[test]
    fn frames_are_the_same_where_size_and_sampling_are() {
        let before = Manifest::parse(BEFORE).unwrap();
        assert!(same_frames(&before, &with(&[("on = 0.6", "on = 0.7")])));
        assert!(!same_frames(&before, &with(&[("width = 144", "width = 160")])));
        assert!(!same_frames(&before, &with(&[("max_hole_s = 0.5", "max_hole_s = 0.7")])));
    }
}
