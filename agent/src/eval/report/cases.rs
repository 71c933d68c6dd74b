//! What is worth looking at, in the order of how bad it is, and the stretch of video that shows it.

use std::collections::BTreeMap;

use crate::intervals::{Pair, Truth};
use crate::replay::Replayed;

/// Most timelines of a page; a page of these stays below ten megabytes.
const MOST_PANELS: usize = 200;
/// Most cases of a page.
const MOST_CASES: usize = 2000;
/// Longer videos are shown in parts of this length, seconds.
const PART_S: f64 = 60.0;
const LONGEST_WHOLE_S: f64 = 90.0;
/// A part shows so much of its neighbours, of its own length.
const MARGIN: f64 = 0.1;

/// What a case is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Annotated, not detected.
    Missed,
    /// Detected, not annotated.
    False,
    /// Found.
    Found,
    /// Nothing annotated, nothing detected.
    Quiet,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Missed, Self::False, Self::Found, Self::Quiet];

    /// For people, and for style and script.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Missed => "missed",
            Self::False => "false",
            Self::Found => "found",
            Self::Quiet => "quiet",
        }
    }
}

/// One line of the list.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub kind: Kind,
    pub label: String,
    /// How it went.
    pub text: String,
    /// Which video, and when.
    pub place: String,
    /// Index of its timeline.
    pub panel: usize,
    /// Index of its pair; a quiet video has none.
    pair: Option<usize>,
}

/// A stretch of a video.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Panel {
    pub camera: String,
    /// As the annotations name the video.
    pub name: String,
    /// From and to, seconds.
    pub window_s: (f64, f64),
    /// Whether the video is longer.
    pub is_part: bool,
}

/// Cases, with the timelines that show them.
#[derive(Clone, Debug, Default)]
pub(super) struct Cases {
    pub cases: Vec<Case>,
    pub panels: Vec<Panel>,
    /// Cases that did not fit into the page.
    pub left_out: usize,
}

impl Cases {
    /// The pairs of a video, each with its place in the list if it is there.
    pub(super) fn of_camera<'a>(&self, pairs: &'a [Pair], camera: &str) -> Vec<(Option<usize>, &'a Pair)> {
        let of = |(n, pair): (usize, &'a Pair)| (self.cases.iter().position(|c| c.pair == Some(n)), pair);
        pairs.iter().enumerate().filter(|(_, p)| p.sort_key().0 == camera).map(of).collect()
    }
}

/// Missed actions, false detections from the surest on, found ones from the worst overlap on, then quiet videos.
pub(super) fn worst_first(pairs: &[Pair], truth: &Truth, replayed: &[Replayed]) -> Cases {
    let mut order: Vec<(Kind, f64, usize)> = pairs
        .iter()
        .enumerate()
        .filter_map(|(n, pair)| match pair {
            Pair::Missed(t) => Some((Kind::Missed, t.start_s - t.end_s, n)),
            Pair::False(d) => Some((Kind::False, -d.peak, n)),
            Pair::Found(_, _, overlap) => Some((Kind::Found, *overlap, n)),
            Pair::Unjudged(_) => None,
        })
        .collect();
    order.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2)));
    let videos = lengths(pairs, truth, replayed);
    let mut cases = Cases::default();
    for (kind, _, n) in order {
        let (camera, _, _) = pairs[n].sort_key();
        let Some(video) = videos.get(camera) else { continue };
        cases.add(video.panel(camera, truth, middle(&pairs[n])), |panel| listed(kind, n, &pairs[n], panel));
    }
    for (camera, video) in videos.iter().filter(|(_, v)| v.longest_s == 0.0) {
        cases.add(video.panel(camera, truth, 0.0), |panel| Case {
            kind: Kind::Quiet,
            label: String::new(),
            text: "nothing annotated, nothing detected".into(),
            place: (*camera).to_owned(),
            panel,
            pair: None,
        });
    }
    cases
}

impl Cases {
    fn add(&mut self, panel: Panel, make: impl FnOnce(usize) -> Case) {
        let known = self.panels.iter().position(|p| *p == panel);
        let room = self.cases.len() < MOST_CASES && (known.is_some() || self.panels.len() < MOST_PANELS);
        if !room {
            self.left_out += 1;
            return;
        }
        let at = known.unwrap_or_else(|| {
            self.panels.push(panel);
            self.panels.len() - 1
        });
        self.cases.push(make(at));
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Length {
    video_s: f64,
    /// Longest action in it.
    longest_s: f64,
}

impl Length {
    fn panel(&self, camera: &str, truth: &Truth, middle_s: f64) -> Panel {
        let name = truth.videos.get(camera).map_or_else(|| camera.to_owned(), |v| v.name.clone());
        let is_part = self.video_s > LONGEST_WHOLE_S;
        let window_s = if is_part {
            let part_s = PART_S.max(1.5 * self.longest_s);
            let first_s = (middle_s / part_s).floor() * part_s;
            ((first_s - MARGIN * part_s).max(0.0), (first_s + (1.0 + MARGIN) * part_s).min(self.video_s))
        } else {
            (0.0, self.video_s)
        };
        Panel { camera: camera.to_owned(), name, window_s, is_part }
    }
}

fn lengths<'a>(pairs: &'a [Pair], truth: &'a Truth, replayed: &[Replayed]) -> BTreeMap<&'a str, Length> {
    let mut videos: BTreeMap<&str, Length> = BTreeMap::new();
    for (camera, video) in &truth.videos {
        let seen_s = replayed.iter().find(|r| r.camera == *camera).map_or(0.0, |r| r.duration.seconds());
        videos.insert(camera, Length { video_s: video.duration_s.max(seen_s).max(0.1), longest_s: 0.0 });
    }
    for pair in pairs {
        for (start_s, end_s) in spans(pair) {
            let video = videos.entry(pair.sort_key().0).or_default();
            video.video_s = video.video_s.max(end_s);
            // An action of no length is one all the same.
            video.longest_s = video.longest_s.max(end_s - start_s).max(f64::MIN_POSITIVE);
        }
    }
    videos
}

fn spans(pair: &Pair) -> Vec<(f64, f64)> {
    match pair {
        Pair::Found(d, t, _) => vec![d.span(), t.span()],
        Pair::False(d) | Pair::Unjudged(d) => vec![d.span()],
        Pair::Missed(t) => vec![t.span()],
    }
}

fn middle(pair: &Pair) -> f64 {
    spans(pair).last().map_or(0.0, |(start_s, end_s)| f64::midpoint(*start_s, *end_s))
}

fn listed(kind: Kind, n: usize, pair: &Pair, panel: usize) -> Case {
    let (label, text, (from_s, to_s)) = match pair {
        Pair::Missed(t) => (&t.label, t.label.clone(), t.span()),
        Pair::False(d) | Pair::Unjudged(d) => (&d.label, format!("{}, confidence {:.2}", d.label, d.peak), d.span()),
        Pair::Found(d, t, overlap) => {
            let (start_s, end_s) = (d.span().0 - t.start_s, d.span().1 - t.end_s);
            (&d.label, format!("{}, tIoU {overlap:.2}, start {start_s:+.2}, end {end_s:+.2} s", d.label), t.span())
        }
    };
    let place = format!("{} {from_s:.1}–{to_s:.1} s", pair.sort_key().0);
    Case { kind, label: label.clone(), text, place, panel, pair: Some(n) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intervals::{Detection, TrueAction, TrueVideo};

    fn detection(camera: &str, start_s: f64, peak: f64) -> Detection {
        Detection {
            camera: camera.into(),
            label: "x".into(),
            start_s,
            end_s: Some(start_s + 2.0),
            peak,
            ..Detection::default()
        }
    }

    fn action(camera: &str, start_s: f64) -> TrueAction {
        TrueAction { camera: camera.into(), label: "x".into(), start_s, end_s: start_s + 2.0 }
    }

    #[test]
    fn the_worst_comes_first_and_long_videos_are_shown_in_parts() {
        let video = |duration_s| TrueVideo { name: "v".into(), duration_s, ..TrueVideo::default() };
        let videos = [("a", 10.0), ("b", 3600.0), ("c", 5.0)].map(|(c, s)| (c.to_owned(), video(s)));
        let truth = Truth { videos: videos.into(), actions: vec![] };
        let pairs = [
            Pair::Found(detection("a", 1.0, 0.9), action("a", 1.0), 0.9),
            Pair::Found(detection("a", 4.0, 0.9), action("a", 5.0), 0.4),
            Pair::False(detection("b", 100.0, 0.5)),
            Pair::False(detection("b", 1000.0, 0.8)),
            Pair::Missed(action("b", 1010.0)),
        ];
        let cases = worst_first(&pairs, &truth, &[]);
        let told: Vec<_> = cases.cases.iter().map(|c| (c.kind, c.pair, c.panel)).collect();
        let expected = [
            (Kind::Missed, Some(4), 0),
            (Kind::False, Some(3), 0),
            (Kind::False, Some(2), 1),
            (Kind::Found, Some(1), 2),
            (Kind::Found, Some(0), 2),
            (Kind::Quiet, None, 3),
        ];
        assert_eq!(told, expected);
        assert_eq!(cases.panels[0].window_s, (954.0, 1026.0));
        assert_eq!(cases.panels[2].window_s, (0.0, 10.0));
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let pairs: Vec<Pair> = (0..300).map(|n| Pair::Missed(action(&format!("v{n}"), 1.0))).collect();
        let truth = Truth::default();
        let cases = worst_first(&pairs, &truth, &[]);
        assert_eq!((cases.panels.len(), cases.cases.len(), cases.left_out), (200, 200, 100));
    }
}
