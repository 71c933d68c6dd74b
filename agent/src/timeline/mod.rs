//! The timeline picture: score curves, detected and true intervals and the moments of decision, a panel per video.
//!
//! Drawn at twice the size and averaged down, so that lines and text are smooth; fonts are built in, so that a machine
//! without fonts draws the same. Pure but for the file it writes.

mod canvas;
mod panel;

use std::collections::BTreeMap;
use std::path::Path;

use plotters::backend::{BitMapBackend, DrawingBackend};

use self::canvas::{Canvas, SCALE};

/// Width of the picture, pixels.
pub const WIDTH: u32 = 1600;
/// Panels drawn at most; the rest is left out, and [`draw`] says how many.
pub const MAX_PANELS: usize = 48;
/// Height of the legend above the first panel, pixels.
const LEGEND_HEIGHT: u32 = 76;

/// The probability of one label over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// Label.
    pub label: String,
    /// Time and probability (0 to 1), in order of time.
    pub points: Vec<(f64, f32)>,
    /// Probability at which the decoder opens an action, if known.
    pub on: Option<f64>,
}

/// An interval, with the moments at which its begin and its end were reported.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// Label.
    pub label: String,
    /// Begin, seconds.
    pub start_s: f64,
    /// End, seconds.
    pub end_s: f64,
    /// When the begin was reported.
    pub decided_s: Option<f64>,
    /// When the end was reported.
    pub end_decided_s: Option<f64>,
}

/// One video.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Panel {
    /// Camera.
    pub title: String,
    /// A few words beside the title.
    pub note: String,
    /// Length of the time axis, seconds.
    pub duration_s: f64,
    /// Score curves.
    pub curves: Vec<Curve>,
    /// What was detected.
    pub detected: Vec<Bar>,
    /// What is annotated; `None` when there are no annotations, `Some` of nothing when nothing happens.
    pub truth: Option<Vec<Bar>>,
}

/// Why no picture was written.
#[derive(Debug, thiserror::Error)]
pub enum TimelineError {
    /// There was nothing to draw.
    #[error("timeline {0}: nothing to draw")]
    Empty(String),
    /// The file could not be written.
    #[error("timeline {path}: {detail}; name a PNG file in a directory that can be written")]
    Write {
        /// Picture.
        path: String,
        /// What failed.
        detail: String,
    },
}

/// Draws the panels below each other into a PNG file. Returns how many panels were left out.
///
/// # Errors
/// [`TimelineError`], with the file's name.
pub fn draw(panels: &[Panel], path: &Path) -> Result<usize, TimelineError> {
    let shown = path.display().to_string();
    let failed = |detail: String| TimelineError::Write { path: shown.clone(), detail };
    if panels.is_empty() {
        return Err(TimelineError::Empty(shown));
    }
    if path.extension().is_none_or(|e| !e.eq_ignore_ascii_case("png")) {
        return Err(failed("its name does not end in .png".into()));
    }
    // The encoder reports a file that cannot be made only when it is dropped.
    std::fs::File::create(path).map_err(|e| failed(e.to_string()))?;
    let (drawn, left_out) = panels.split_at(panels.len().min(MAX_PANELS));
    let colours = colours(drawn);
    let heights: Vec<u32> = drawn.iter().map(panel::height).collect();
    let total = LEGEND_HEIGHT + heights.iter().sum::<u32>() + 12;
    let mut picture = BitMapBackend::new(path, (WIDTH, total));
    let mut blit = |top: u32, height: u32, paint: &dyn Fn(&Canvas<'_>) -> canvas::Drawn| -> Result<(), TimelineError> {
        let pixels = canvas::paint(WIDTH, height, paint).map_err(failed)?;
        picture.blit_bitmap((0, top as i32), (WIDTH, height), &pixels).map_err(|e| failed(e.to_string()))
    };
    blit(0, LEGEND_HEIGHT, &|c| panel::legend(c, drawn, &colours))?;
    let mut top = LEGEND_HEIGHT;
    for (p, height) in drawn.iter().zip(&heights) {
        blit(top, *height, &|c| panel::paint(c, p, &colours))?;
        top += height;
    }
    blit(top, total - top, &|_| Ok(()))?;
    picture.present().map_err(|e| failed(e.to_string()))?;
    Ok(left_out.len())
}

/// A colour for each label, in order of first appearance: curves first, then intervals.
fn colours(panels: &[Panel]) -> BTreeMap<String, (u8, u8, u8)> {
    // Okabe and Ito's palette, which people with colour vision deficiencies can tell apart, the pale yellow left out.
    const PALETTE: [(u8, u8, u8); 7] =
        [(0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (90, 90, 90)];
    let mut colours = BTreeMap::new();
    let intervals =
        |p: &Panel| p.detected.iter().chain(p.truth.iter().flatten()).map(|b| b.label.clone()).collect::<Vec<_>>();
    let labels =
        panels.iter().flat_map(intervals).chain(panels.iter().flat_map(|p| p.curves.iter().map(|c| c.label.clone())));
    for label in labels {
        let next = PALETTE[colours.len() % PALETTE.len()];
        colours.entry(label).or_insert(next);
    }
    colours
}

/// Pixels of the final picture to pixels of the canvas.
const fn px(pixels: i32) -> i32 {
    pixels * SCALE as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn example(name: &str, truth: bool) -> Panel {
        let curve = |label: &str, centre: f64, width: f64| Curve {
            label: label.into(),
            points: (0..200)
                .map(|i| {
                    (
                        f64::from(i) * 0.1,
                        (0.02 + 0.95 * (-((f64::from(i) * 0.1 - centre) / width).powi(2)).exp()) as f32,
                    )
                })
                .collect(),
            on: Some(0.6),
        };
        let bar = |start_s: f64, end_s: f64| Bar {
            label: "fall".into(),
            start_s,
            end_s,
            decided_s: Some(start_s + 0.8),
            end_decided_s: Some(end_s + 0.9),
        };
        let true_bar = |start_s: f64, end_s: f64| Bar { decided_s: None, end_decided_s: None, ..bar(start_s, end_s) };
        Panel {
            title: name.into(),
            note: "1 of 1 found, 1 false".into(),
            duration_s: 20.0,
            curves: vec![curve("falling", 6.0, 0.7), curve("lying", 9.0, 2.4)],
            detected: vec![bar(5.4, 6.9), bar(15.0, 15.8)],
            truth: truth.then(|| vec![true_bar(5.2, 6.6)]),
        }
    }

    #[test]
    fn the_picture_has_its_size_and_something_on_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.png");
        let panels = [example("room", true), example("street", false)];
        assert_eq!(draw(&panels, &path).unwrap(), 0);
        if let Ok(keep) = std::env::var("KINEWATCH_KEEP_TIMELINE") {
            std::fs::copy(&path, keep).unwrap();
        }
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(&bytes[1..4], b"PNG");
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let height = LEGEND_HEIGHT + panels.iter().map(panel::height).sum::<u32>() + 12;
        assert_eq!((number(16), number(20)), (WIDTH, height));
        let pixels =
            canvas::paint(WIDTH, panel::height(&panels[0]), &|c| panel::paint(c, &panels[0], &colours(&panels)))
                .unwrap();
        let dark = pixels.chunks(3).filter(|p| p.iter().any(|v| *v < 128)).count();
        assert!(dark > 2_000, "only {dark} dark pixels");
    }

    #[test]
    fn strange_input_is_drawn_or_refused_but_never_panics() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(draw(&[], &dir.path().join("t.png")), Err(TimelineError::Empty(_))));
        assert!(draw(&[Panel::default()], &dir.path().join("t.jpg")).unwrap_err().to_string().contains(".png"));
        assert!(draw(&[Panel::default()], Path::new("/nonexistent/t.png")).is_err());
        let mut odd = example("ünïcode — very long name of a camera that will not fit in any margin whatever", true);
        odd.curves[0].points.push((f64::NAN, f32::NAN));
        odd.detected[0].end_s = 1e12;
        odd.duration_s = 0.0;
        assert_eq!(draw(&[odd], &dir.path().join("t.png")).unwrap(), 0);
    }
}
