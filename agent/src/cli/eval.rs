//! `kinewatch eval`: a package measured on annotated videos.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::annotated::{self, Annotated};
use super::{EvalArgs, Failure, Outcome, print};
use crate::eval::report::{self, Material};
use crate::eval::{self, Evaluation, Input};
use crate::progress;
use crate::replay::Replayed;

pub(super) fn run(args: &EvalArgs) -> Outcome {
    let set = annotated::read(&args.set)?;
    let Annotated { decoding, labels, truth, replayed, accel, notes, .. } = &set;
    let input = Input { decoding, accel: accel.clone(), truth, labels: &labels.judged, replayed };
    let evaluation = Evaluation::new(&input)?;
    let wanted = args.report.is_some() || args.json.is_some();
    let trade_offs =
        progress::spin("trying other settings", || if wanted { eval::trade_offs(&input) } else { Vec::new() });
    let json = format!("{:#}\n", eval::json(&evaluation, &trade_offs));
    if let Some(path) = &args.events {
        write_events(path, replayed)?;
    }
    if let Some(folder) = &args.report {
        let (evaluation, trade_offs) = (&evaluation, trade_offs.as_slice());
        let page = report::page(&Material { evaluation, trade_offs, truth, replayed, decoding, notes });
        write_report(folder, &page, &json, replayed)?;
    }
    match args.json.as_deref() {
        Some(path) if path == Path::new("-") => print(json.trim_end())?,
        path => {
            path.map_or(Ok(()), |path| std::fs::write(path, &json).map_err(|e| told(path, &e)))?;
            print(&eval::summary(&evaluation))?;
        }
    }
    set.outcome()
}

fn write_events(path: &Path, replayed: &[Replayed]) -> Outcome {
    let write = || {
        let mut out = BufWriter::new(File::create(path)?);
        for event in replayed.iter().flat_map(|r| &r.events) {
            out.write_all(&event.to_json())?;
            out.write_all(b"\n")?;
        }
        out.flush()
    };
    write().map_err(|e| told(path, &e))
}

fn write_report(folder: &Path, page: &str, json: &str, replayed: &[Replayed]) -> Outcome {
    let scores = folder.join("scores");
    std::fs::create_dir_all(&scores).map_err(|e| told(&scores, &e))?;
    for (name, text) in [("index.html", page), ("metrics.json", json)] {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|e| told(&path, &e))?;
    }
    write_events(&folder.join("events.jsonl"), replayed)?;
    for r in replayed {
        let path = scores.join(format!("{}.csv", r.camera));
        crate::scores::write(&path, &r.score_labels, &r.scores).map_err(Failure::say)?;
    }
    Ok(())
}

fn told(path: &Path, error: &std::io::Error) -> Failure {
    Failure::say(format!("{}: {error}; name a file in a directory that can be written", path.display()))
}
