//! From the written form to a [`Manifest`]: everything that types cannot say.

use std::collections::BTreeSet;

use super::actions::{exclusive, index, labels, sequences, something_published};
use super::error::ManifestError;
use super::{
    Boxes, FORMAT, Golden, GoldenClip, Graph, Graphs, Input, Label, MAX_BOXES, Manifest, Output, Plan, Requires,
    Sampling, State, Tensors, files, wire,
};
use crate::frame::{FrameSpec, Resize};
use crate::name::Name;
use crate::region::Region;
use crate::time::seconds_to_nanos;

pub(super) type Checked<T> = Result<T, ManifestError>;

pub(super) fn fail<T>(key: impl Into<String>, problem: impl Into<String>) -> Checked<T> {
    Err(ManifestError::invalid(key, problem))
}

pub(super) fn package(p: wire::Package) -> Checked<Manifest> {
    format(p.format)?;
    name("name", &p.name)?;
    name("architecture", &p.architecture)?;
    version(&p.version)?;
    text("description", &p.description)?;
    text("license", &p.license)?;
    if p.provenance.is_empty() {
        return fail("provenance", "is empty; say where the training data came from");
    }
    let sampling = sampling(&p.sampling, p.plan)?;
    let labels = labels(p.labels, p.sampling.stride_s, "output.background", p.output.background.as_deref())?;
    let tensors = tensors(p.tensors, p.plan)?;
    if tensors.boxes.is_some() && p.input.resize != Resize::Stretch {
        let problem = "are fractions of the picture, which must fill the input: set input.resize = \"stretch\"";
        return fail("tensors.boxes", problem);
    }
    let manifest = Manifest {
        requires: p.requires.map(requires).transpose()?,
        input: input(&p.input)?,
        sampling,
        output: output(&p.output, &labels)?,
        graphs: graphs(p.graphs, p.plan)?,
        sequences: sequences(p.sequences, &labels)?,
        exclusive: exclusive(p.exclusive, &labels)?,
        golden: golden(p.golden, tensors.boxes.as_ref())?,
        tensors,
        files: p.files,
        labels,
        name: p.name,
        version: p.version,
        architecture: p.architecture,
        plan: p.plan,
        description: p.description,
        license: p.license,
        provenance: p.provenance,
    };
    something_published(&manifest.labels, &manifest.sequences)?;
    files::listed(&manifest.files)?;
    files::referenced(&manifest)?;
    Ok(manifest)
}

pub(super) fn format(value: i64) -> Checked<()> {
    if value == FORMAT {
        return Ok(());
    }
    fail("format", format!("{value} is unknown to this agent, which reads {FORMAT}; update the agent or repackage"))
}

pub(super) fn name(key: &str, value: &str) -> Checked<()> {
    Name::parse(value).map(|_| ()).or_else(|e| fail(key, e.to_string()))
}

fn text(key: &str, value: &str) -> Checked<()> {
    if value.trim().is_empty() || value.contains(['\n', '\r']) || value.len() > 500 {
        return fail(key, "must be one line of at most 500 characters");
    }
    Ok(())
}

fn requires(r: wire::Requires) -> Checked<Requires> {
    text("requires.because", &r.because)?;
    Ok(Requires { backend: r.backend, because: r.because.trim().trim_end_matches('.').to_owned() })
}

pub(super) fn version(value: &str) -> Checked<()> {
    let (core, build) = value.split_once('+').map_or((value, None), |(a, b)| (a, Some(b)));
    let (core, pre) = core.split_once('-').map_or((core, None), |(a, b)| (a, Some(b)));
    let number = |n: &str| {
        (1..=9).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit()) && (n == "0" || !n.starts_with('0'))
    };
    let ident = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    let numbers: Vec<&str> = core.split('.').collect();
    if numbers.len() == 3 && numbers.into_iter().all(number) && pre.is_none_or(ident) && build.is_none_or(ident) {
        return Ok(());
    }
    fail("version", format!("{value:?} is not a semantic version; write for example \"1.2.0\""))
}

pub(super) fn between(key: &str, value: f64, above: f64, most: f64) -> Checked<()> {
    if value.is_finite() && value > above && value <= most {
        return Ok(());
    }
    fail(key, format!("{value} must be above {above} and at most {most}"))
}

pub(super) fn count(key: &str, value: usize, most: usize) -> Checked<()> {
    if (1..=most).contains(&value) { Ok(()) } else { fail(key, format!("{value} is outside 1 to {most}")) }
}

fn input(i: &wire::Input) -> Checked<Input> {
    count("input.width", i.width as usize, 2048)?;
    count("input.height", i.height as usize, 2048)?;
    for (k, (mean, std)) in i.mean.iter().zip(i.std).enumerate() {
        if !mean.is_finite() {
            return fail(format!("input.mean[{k}]"), "must be a finite number");
        }
        if !(std.is_finite() && std > 0.0) {
            return fail(format!("input.std[{k}]"), format!("{std} must be above 0"));
        }
    }
    let spec = FrameSpec { width: i.width, height: i.height, resize: i.resize, filter: i.filter, order: i.order };
    Ok(Input { spec, layout: i.layout, colour: i.colour, dtype: i.dtype, mean: i.mean, std: i.std })
}

fn sampling(s: &wire::Sampling, plan: Plan) -> Checked<Sampling> {
    between("sampling.rate_hz", s.rate_hz, 0.0, 240.0)?;
    count("sampling.segments", s.segments, 512)?;
    count("sampling.snippet", s.snippet, 64)?;
    count("sampling.segments", s.segments * s.snippet, 512)?;
    between("sampling.window_s", s.window_s, 0.0, 600.0)?;
    between("sampling.stride_s", s.stride_s, 0.0, 600.0)?;
    between("sampling.max_hole_s", s.max_hole_s, 0.0, 60.0)?;
    let interval = 1.0 / s.rate_hz;
    let near = |value: f64| (value - interval).abs() <= 0.01 * interval;
    if s.segments as f64 * s.snippet as f64 * interval > s.window_s * 1.01 {
        let frames = s.segments * s.snippet;
        let problem = format!("{} s cannot hold {frames} frames at {} Hz; widen it", s.window_s, s.rate_hz);
        return fail("sampling.window_s", problem);
    }
    if s.stride_s < interval * 0.99 {
        return fail("sampling.stride_s", format!("{} is less than a frame (1/rate_hz = {interval})", s.stride_s));
    }
    if s.max_hole_s < interval * 0.99 {
        let problem = format!("{} is less than a frame (1/rate_hz = {interval}): all would be holes", s.max_hole_s);
        return fail("sampling.max_hole_s", problem);
    }
    if plan == Plan::Online {
        if s.segments != 1 || s.snippet != 1 {
            return fail("sampling.segments", "plan online reads one frame at a time: segments = 1 and snippet = 1");
        }
        if !near(s.window_s) || !near(s.stride_s) {
            return fail("sampling.window_s", format!("plan online: window_s = stride_s = 1/rate_hz = {interval}"));
        }
    }
    Ok(Sampling {
        rate_hz: s.rate_hz,
        segments: s.segments,
        snippet: s.snippet,
        window: seconds_to_nanos(s.window_s),
        stride: seconds_to_nanos(s.stride_s),
        max_hole: seconds_to_nanos(s.max_hole_s),
    })
}

fn output(o: &wire::Output, labels: &[Label]) -> Checked<Output> {
    between("output.temperature", o.temperature, 0.0, 1000.0)?;
    let background = o.background.as_deref().map(|b| index("output.background", labels, b)).transpose()?;
    Ok(Output { scores: o.scores, activation: o.activation, temperature: o.temperature as f32, background })
}

fn tensors(t: wire::Tensors, plan: Plan) -> Checked<Tensors> {
    for (key, value) in [("tensors.feature", &t.feature), ("tensors.features", &t.features)] {
        match (plan, value) {
            (Plan::Cached, None) => return fail(key, "is missing; plan cached needs its name"),
            (Plan::Clip | Plan::Online, Some(_)) => return fail(key, "is only for plan cached; remove it"),
            _ => {}
        }
    }
    if plan != Plan::Online && !t.states.is_empty() {
        return fail("tensors.states", "are only for plan online; remove them");
    }
    let mut seen = BTreeSet::new();
    let fixed = [("tensors.input", Some(&t.input)), ("tensors.logits", Some(&t.logits))];
    let cached = [("tensors.feature", t.feature.as_ref()), ("tensors.features", t.features.as_ref())];
    for (key, value) in fixed.into_iter().chain(cached) {
        unique(key, value, &mut seen)?;
    }
    for (i, state) in t.states.iter().enumerate() {
        unique(&format!("tensors.states[{i}].input"), Some(&state.input), &mut seen)?;
        unique(&format!("tensors.states[{i}].output"), Some(&state.output), &mut seen)?;
        let elements = state.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if !elements.is_some_and(|n| (1..=1 << 26).contains(&n)) {
            return fail(format!("tensors.states[{i}].shape"), "must have 1 to 67108864 elements, batch axis left out");
        }
    }
    if let Some(boxes) = &t.boxes {
        if plan != Plan::Clip {
            return fail("tensors.boxes", "is only for plan clip; remove it");
        }
        unique("tensors.boxes.input", Some(&boxes.input), &mut seen)?;
        count("tensors.boxes.count", boxes.count, MAX_BOXES)?;
    }
    let states = t.states.into_iter().map(|s| State { input: s.input, output: s.output, shape: s.shape }).collect();
    let boxes = t.boxes.map(|b| Boxes { input: b.input, count: b.count });
    Ok(Tensors { input: t.input, logits: t.logits, feature: t.feature, features: t.features, states, boxes })
}

fn unique(key: &str, value: Option<&String>, seen: &mut BTreeSet<String>) -> Checked<()> {
    match value {
        Some(name) if name.is_empty() => fail(key, "is empty; write the tensor's name in the graph"),
        Some(name) if !seen.insert(name.clone()) => fail(key, format!("`{name}` is named twice; names must differ")),
        _ => Ok(()),
    }
}

fn graphs(g: wire::Graphs, plan: Plan) -> Checked<Graphs> {
    let graph = |key: &str, g: wire::Graph| match (plan, &g.head) {
        (Plan::Cached, None) => fail(format!("{key}.head"), "is missing; plan cached has a backbone and a head"),
        (Plan::Clip | Plan::Online, Some(_)) => fail(format!("{key}.head"), "is only for plan cached; remove it"),
        _ => Ok(Graph { model: g.model, head: g.head }),
    };
    let int8 = g.int8.map(|g| graph("graphs.int8", g)).transpose()?;
    Ok(Graphs { fp32: graph("graphs.fp32", g.fp32)?, int8 })
}

fn golden(g: wire::Golden, boxes: Option<&Boxes>) -> Checked<Golden> {
    between("golden.tolerance_fp32", f64::from(g.tolerance_fp32), 0.0, 1000.0)?;
    between("golden.tolerance_int8", f64::from(g.tolerance_int8), 0.0, 1000.0)?;
    count("golden.clips", g.clips.len(), 100)?;
    let mut clips = Vec::with_capacity(g.clips.len());
    for (i, clip) in g.clips.into_iter().enumerate() {
        let boxes = regions(&format!("golden.clips[{i}].boxes"), &clip.boxes, boxes)?;
        clips.push(GoldenClip { frames: clip.frames, logits: clip.logits, boxes });
    }
    Ok(Golden { tolerance_fp32: g.tolerance_fp32, tolerance_int8: g.tolerance_int8, clips })
}

fn regions(key: &str, corners: &[[f32; 4]], boxes: Option<&Boxes>) -> Checked<Vec<Region>> {
    match boxes {
        None if !corners.is_empty() => {
            return fail(key, "the graph reads no boxes; remove them, or add [tensors.boxes]");
        }
        Some(Boxes { count, .. }) if corners.len() > *count => {
            return fail(key, format!("has {} boxes, tensors.boxes.count is {count}; remove some", corners.len()));
        }
        _ => {}
    }
    let region = |(i, &corners): (usize, &[f32; 4])| {
        Region::new(corners).or_else(|e| fail(format!("{key}[{i}]"), e.to_string()))
    };
    corners.iter().enumerate().map(region).collect()
}

pub(super) fn labels_txt(labels: &[Label], text: &str) -> Checked<()> {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    for (i, (line, label)) in lines.iter().zip(labels).enumerate() {
        if *line != label.name {
            return fail("labels.txt", format!("line {} is {line:?} but labels[{i}] is `{}`", i + 1, label.name));
        }
    }
    if lines.len() != labels.len() {
        let problem = format!("has {} lines but model.toml has {} labels", lines.len(), labels.len());
        return fail("labels.txt", problem);
    }
    Ok(())
}
