//! Labels, decoders, sequences and groups, from the written form: what turns scores into actions.

use std::collections::BTreeSet;

use super::error::{ManifestError, nearest};
use super::validate::{Checked, between, count, fail, format, name, version};
use super::{Decoding, Exclusive, Label, MAX_LABELS, Sequence, wire};
use crate::time::seconds_to_nanos;

pub(super) fn decoding(p: wire::Decoding) -> Checked<Decoding> {
    format(p.format)?;
    name("name", &p.name)?;
    version(&p.version)?;
    between("stride_s", p.stride_s, 0.0, 600.0)?;
    let labels = labels(p.labels, p.stride_s, "background", p.background.as_deref())?;
    let sequences = sequences(p.sequences, &labels)?;
    something_published(&labels, &sequences)?;
    let background = p.background.as_deref().map(|b| index("background", &labels, b)).transpose()?;
    let stride = seconds_to_nanos(p.stride_s);
    let exclusive = exclusive(p.exclusive, &labels)?;
    Ok(Decoding { name: p.name, version: p.version, stride, background, labels, sequences, exclusive })
}

pub(super) fn something_published(labels: &[Label], sequences: &[Sequence]) -> Checked<()> {
    if sequences.is_empty() && !labels.iter().any(|l| l.publish) {
        return fail("labels", "no label is published and there is no sequence; set publish = true on one");
    }
    Ok(())
}

pub(super) fn labels(
    wire: Vec<wire::Label>,
    stride_s: f64,
    key: &str,
    background: Option<&str>,
) -> Checked<Vec<Label>> {
    count("labels", wire.len(), MAX_LABELS)?;
    if let Some(name) = background {
        known(key, name, wire.iter().map(|l| l.name.as_str()))?;
    }
    let mut seen = BTreeSet::new();
    let mut labels = Vec::with_capacity(wire.len());
    for (i, label) in wire.into_iter().enumerate() {
        let key = format!("labels[{i}]");
        name(&format!("{key}.name"), &label.name)?;
        if !seen.insert(label.name.clone()) {
            return fail(format!("{key}.name"), format!("`{}` is there twice; names must differ", label.name));
        }
        let is_background = background == Some(label.name.as_str());
        match &label.decoder {
            Some(_) if is_background => {
                return fail(format!("{key}.decoder"), "the background is never decoded; remove it");
            }
            Some(params) => params.check(&format!("{key}.decoder"), stride_s)?,
            None if label.publish && !is_background => {
                let problem = format!("`{}` is published but has none; add it or set publish = false", label.name);
                return fail(format!("{key}.decoder"), problem);
            }
            None => {}
        }
        labels.push(Label { publish: label.publish && !is_background, name: label.name, decoder: label.decoder });
    }
    Ok(labels)
}

/// The place of a name among labels.
fn known<'a>(key: &str, wanted: &str, labels: impl Iterator<Item = &'a str> + Clone) -> Checked<usize> {
    labels.clone().position(|l| l == wanted).ok_or_else(|| {
        let hint =
            nearest(wanted, labels).map_or("add it to [[labels]]".to_owned(), |n| format!("did you mean `{n}`?"));
        ManifestError::invalid(key, format!("`{wanted}` is not a label; {hint}"))
    })
}

pub(super) fn index(key: &str, labels: &[Label], wanted: &str) -> Checked<usize> {
    known(key, wanted, labels.iter().map(|l| l.name.as_str()))
}

pub(super) fn sequences(wire: Vec<wire::Sequence>, labels: &[Label]) -> Checked<Vec<Sequence>> {
    let mut seen: BTreeSet<String> = labels.iter().map(|l| l.name.clone()).collect();
    let mut sequences = Vec::with_capacity(wire.len());
    for (i, sequence) in wire.into_iter().enumerate() {
        let key = format!("sequences[{i}]");
        name(&format!("{key}.name"), &sequence.name)?;
        if !seen.insert(sequence.name.clone()) {
            return fail(format!("{key}.name"), format!("`{}` is the name of another label", sequence.name));
        }
        if !(2..=8).contains(&sequence.parts.len()) {
            return fail(format!("{key}.parts"), "must name 2 to 8 labels in order");
        }
        between(&format!("{key}.within_s"), sequence.within_s, 0.0, 600.0)?;
        if let Some(longest_s) = sequence.max_duration_s {
            between(&format!("{key}.max_duration_s"), longest_s, 1e-3, 86_400.0)?;
        }
        let mut parts = Vec::with_capacity(sequence.parts.len());
        for part in &sequence.parts {
            let part_key = format!("{key}.parts");
            let at = index(&part_key, labels, part)?;
            if labels[at].decoder.is_none() {
                return fail(part_key, format!("`{part}` is never decoded; give it a [labels.decoder]"));
            }
            if parts.contains(&at) {
                return fail(part_key, format!("`{part}` is there twice"));
            }
            parts.push(at);
        }
        let (within, longest) = (seconds_to_nanos(sequence.within_s), sequence.max_duration_s.map(seconds_to_nanos));
        sequences.push(Sequence { name: sequence.name, parts, within, longest });
    }
    Ok(sequences)
}

pub(super) fn exclusive(wire: Vec<wire::Exclusive>, labels: &[Label]) -> Checked<Vec<Exclusive>> {
    let mut grouped = BTreeSet::new();
    let mut groups = Vec::with_capacity(wire.len());
    for (i, group) in wire.into_iter().enumerate() {
        let key = format!("exclusive[{i}].labels");
        if group.labels.len() < 2 {
            return fail(key, "must name at least 2 labels");
        }
        if !(0.0..=20.0).contains(&group.margin) {
            return fail(format!("exclusive[{i}].margin"), format!("{} is outside 0 to 20", group.margin));
        }
        let mut members = Vec::with_capacity(group.labels.len());
        for name in &group.labels {
            let at = index(&key, labels, name)?;
            if labels[at].decoder.is_none() {
                return fail(key, format!("`{name}` is never decoded; give it a [labels.decoder]"));
            }
            if !grouped.insert(at) {
                return fail(key, format!("`{name}` is there twice; a label belongs to one group"));
            }
            members.push(at);
        }
        groups.push(Exclusive { labels: members, margin: group.margin });
    }
    Ok(groups)
}
