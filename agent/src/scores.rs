//! Scores in CSV files: `time_s`, then one logit (against the background) per label, five decimals; one file per video.
//!
//! With one video the file has the name that was given; with several, the camera goes before the extension
//! (`scores.csv` → `scores.room.csv`), so that every file has one clock.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use kinewatch_core::time::{Pts, SessionId};

use crate::intervals::read_bounded;
use crate::timeline::Curve;

/// Whether a command has one video or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Videos {
    /// The file keeps its name.
    One,
    /// The camera goes into the name.
    Several,
}

/// The file that the scores of `camera` go to.
#[must_use]
pub fn path_for(file: &Path, camera: &str, videos: Videos) -> PathBuf {
    if videos == Videos::One {
        return file.to_owned();
    }
    let extension = file.extension().map_or_else(|| "csv".into(), |e| e.to_string_lossy().into_owned());
    file.with_extension(format!("{camera}.{extension}"))
}

/// Writes the scores of one video or stream session.
#[derive(Debug)]
pub struct ScoresFile {
    path: PathBuf,
    out: BufWriter<File>,
    labels: usize,
}

impl ScoresFile {
    /// Creates the file and writes the header.
    ///
    /// # Errors
    /// In words, with the file's name.
    pub fn create(path: &Path, labels: &[String]) -> Result<Self, String> {
        let file = File::create(path).map_err(|e| told(path, &e))?;
        let mut out = BufWriter::new(file);
        let header: Vec<String> =
            std::iter::once("time_s".to_owned()).chain(labels.iter().map(|l| quoted(l))).collect();
        writeln!(out, "{}", header.join(",")).map_err(|e| told(path, &e))?;
        Ok(Self { path: path.to_owned(), out, labels: labels.len() })
    }

    /// One row. `scores`: a logit per label of the header.
    ///
    /// # Errors
    /// In words, with the file's name.
    pub fn row(&mut self, time_s: f64, scores: &[f32]) -> Result<(), String> {
        debug_assert_eq!(scores.len(), self.labels, "a score per label");
        let mut write = || {
            write!(self.out, "{time_s:.5}")?;
            for score in scores {
                write!(self.out, ",{score:.5}")?;
            }
            writeln!(self.out)
        };
        write().map_err(|e| told(&self.path, &e))
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// In words, with the file's name.
    pub fn finish(mut self) -> Result<(), String> {
        self.out.flush().map_err(|e| told(&self.path, &e))
    }
}

/// Writes the scores of running cameras into a folder: `CAMERA.csv`, and `CAMERA-sessionN.csv` after each new beginning of
/// its stream, whose times start anew. For demonstrations and studies: the files grow as long as the agent runs.
#[derive(Debug)]
pub struct ScoresWriter {
    folder: PathBuf,
    open: HashMap<String, (SessionId, Option<ScoresFile>)>,
}

impl ScoresWriter {
    /// A writer into a folder that exists.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), open: HashMap::new() }
    }

    /// Ends the camera's file: it is gone, or has other labels. What comes of the same session is not written.
    pub fn close(&mut self, camera: &str) {
        if let Some((_, slot)) = self.open.get_mut(camera) {
            *slot = None;
        }
    }

    /// One row. A file that cannot be written is told once in the log and given up.
    pub fn write(&mut self, camera: &str, session: SessionId, at: Pts, labels: &[String], scores: &[f32]) {
        let known = self.open.get(camera).map(|(session, _)| *session);
        if known != Some(session) {
            let name =
                if known.is_none() { format!("{camera}.csv") } else { format!("{camera}-session{}.csv", session.0) };
            let file = ScoresFile::create(&self.folder.join(name), labels)
                .map_err(|e| tracing::error!(camera, "scores: {e}"))
                .ok();
            self.open.insert(camera.to_owned(), (session, file));
        }
        let Some((_, slot)) = self.open.get_mut(camera) else { return };
        if let Some(Err(e)) = slot.as_mut().map(|file| file.row(at.seconds(), scores)) {
            tracing::error!(camera, "scores: {e}");
            *slot = None;
        }
    }
}

/// Scores of one video, as read back from a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SavedScores {
    /// Column names after the time.
    pub labels: Vec<String>,
    /// Seconds, ascending, and the log-odds of each label.
    pub rows: Vec<(f64, Vec<f32>)>,
}

/// Reads a file of scores.
///
/// # Errors
/// In words, with file, row and what to do.
pub fn read_rows(path: &Path) -> Result<SavedScores, String> {
    let text = read_bounded(path)?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().map_err(|e| format!("{}: {e}", path.display()))?.clone();
    if header.get(0) != Some("time_s") || header.len() < 2 {
        return Err(format!(
            "{}: not scores; the first line should be time_s and a label for each column",
            path.display()
        ));
    }
    let mut saved =
        SavedScores { labels: header.iter().skip(1).map(str::to_owned).collect(), ..SavedScores::default() };
    for record in reader.records() {
        let record = record.map_err(|e| format!("{}: {e}", path.display()))?;
        let line = record.position().map_or(0, csv::Position::line);
        let bad = || format!("{}:{line}: not a row of numbers", path.display());
        let number = |text: &str| text.parse::<f32>().ok().filter(|n| n.is_finite());
        let time = record.get(0).and_then(|t| t.parse().ok()).filter(|t: &f64| t.is_finite()).ok_or_else(bad)?;
        let row: Option<Vec<f32>> = record.iter().skip(1).map(number).collect();
        if saved.rows.last().is_some_and(|(before, _)| time <= *before) {
            return Err(format!("{}:{line}: not later than the row before; give one stream at a time", path.display()));
        }
        saved.rows.push((time, row.ok_or_else(bad)?));
    }
    Ok(saved)
}

/// Reads a file of scores as probability curves.
///
/// # Errors
/// As [`read_rows`].
pub fn read(path: &Path) -> Result<Vec<Curve>, String> {
    let saved = read_rows(path)?;
    let curve = |(i, label)| Curve {
        label,
        points: saved.rows.iter().map(|(time_s, row)| (*time_s, probability(row[i]))).collect(),
        ..Curve::default()
    };
    Ok(saved.labels.iter().cloned().enumerate().map(curve).collect())
}

/// Writes the scores of one video.
///
/// # Errors
/// In words, with the file's name.
pub fn write(path: &Path, labels: &[String], scores: &[(Pts, Vec<f32>)]) -> Result<(), String> {
    let mut out = ScoresFile::create(path, labels)?;
    for (at, row) in scores {
        out.row(at.seconds(), row)?;
    }
    out.finish()
}

/// Probability of a logit.
#[must_use]
pub fn probability(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// Labels are free text in a package that was made by hand.
fn quoted(label: &str) -> String {
    if label.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", label.replace('"', "\"\""))
    } else {
        label.to_owned()
    }
}

fn told(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}; name a file in a directory that can be written", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_for(&dir.path().join("s.csv"), "room", Videos::Several);
        assert!(path.ends_with("s.room.csv"));
        let mut writer = ScoresFile::create(&path, &["falling".into(), "a,b".into()]).unwrap();
        writer.row(0.2, &[0.0, -3.0]).unwrap();
        writer.row(0.4, &[2.0, 9.0]).unwrap();
        writer.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().nth(1), Some("0.20000,0.00000,-3.00000"));
        let curves = read(&path).unwrap();
        assert_eq!((curves[1].label.as_str(), curves[0].points[0]), ("a,b", (0.2, 0.5)));
    }

    #[test]
    fn a_new_session_gets_a_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let labels = ["fall".to_owned()];
        let mut writer = ScoresWriter::in_folder(dir.path());
        for (session, at) in [(1, 0.0), (1, 0.2), (2, 0.0)] {
            writer.write("room", SessionId(session), Pts::from_seconds(at), &labels, &[1.0]);
        }
        drop(writer);
        assert_eq!(std::fs::read_to_string(dir.path().join("room.csv")).unwrap().lines().count(), 3);
        assert_eq!(std::fs::read_to_string(dir.path().join("room-session2.csv")).unwrap().lines().count(), 2);
    }

    #[test]
    fn other_files_are_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.csv");
        std::fs::write(&path, "time_s,a\n0.1,x\n").unwrap();
        assert!(read(&path).unwrap_err().contains(":2: not a row of numbers"));
        std::fs::write(&path, "hello\n").unwrap();
        assert!(read(&path).unwrap_err().contains("not scores"));
        assert!(ScoresFile::create(Path::new("/nonexistent/x.csv"), &[]).is_err());
    }
}
