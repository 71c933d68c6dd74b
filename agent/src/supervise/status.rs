//! The one line of `systemctl status`: what the agent does and what keeps it from more, in plain words.
//!
//! Made from snapshots of [`Shared`], the gravest first. Told when it has changed, and not more often than every few
//! seconds: it names no number that moves by itself, but for the minutes of an engine's build.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use kinewatch_capture::CameraState;

use super::stages::Stuck;
use crate::clock;
use crate::health::{CameraView, Shared};

/// At most this often.
const EVERY: Duration = Duration::from_secs(3);
/// Frame rates are taken over so long.
const RATE_OVER: Duration = Duration::from_secs(5);
/// Events that wait for less are on their way.
const ON_THEIR_WAY_S: f64 = 5.0;

/// The line over time.
#[derive(Debug)]
pub(super) struct StatusLine {
    told: String,
    told_at: Option<Instant>,
    rates: Vec<Rate>,
    rated_at: Instant,
    /// When the broker was found away.
    away_since: Option<String>,
}

/// Frame rate of a camera, as last shown.
#[derive(Clone, Debug)]
struct Rate {
    camera: String,
    taken: u64,
    fps: f64,
}

impl StatusLine {
    pub(super) fn new(now: Instant) -> Self {
        Self { told: String::new(), told_at: None, rates: Vec::new(), rated_at: now, away_since: None }
    }

    /// The line, when there is something new to tell. What is grave does not wait.
    pub(super) fn look(&mut self, shared: &Shared, stuck: Option<&Stuck>, now: Instant) -> Option<&str> {
        self.rate(shared, now);
        let line = stuck.map_or_else(|| self.line(shared, now), |stuck| format!("stuck: {stuck}"));
        let soon = self.told_at.is_some_and(|at| now.saturating_duration_since(at) < EVERY);
        let said_stuck = self.told.starts_with("stuck: ");
        // Of what is stuck, only the number of seconds would change.
        let news = line != self.told && !(stuck.is_some() && said_stuck);
        if !news || soon && (stuck.is_none() || said_stuck) {
            return None;
        }
        (self.told, self.told_at) = (line, Some(now));
        Some(&self.told)
    }

    fn line(&mut self, shared: &Shared, now: Instant) -> String {
        if !shared.ready.load(Relaxed) {
            return shared.unready().unwrap_or_default();
        }
        let reload = shared.reloads.hangs(now).map(|_| "a reload hangs: see the log".to_owned());
        let (cameras, broker, building) = (self.cameras(shared), self.broker(shared), building(shared, now));
        let parts = [shared.failing(), shared.unstored(), reload, Some(cameras), Some(broker), building];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }

    fn cameras(&self, shared: &Shared) -> String {
        let views = shared.cameras.load();
        let up = views.iter().filter(|c| c.is_up()).count();
        let ended = |c: &CameraView| c.capture.get().is_some_and(|s| s.state() == CameraState::Stopped);
        let away: Vec<&str> = views.iter().filter(|c| !c.is_up() && !ended(c)).map(|c| c.name.as_str()).collect();
        match (up, views.as_slice()) {
            (_, []) => "waiting for a camera: add one to the configuration, then reload".into(),
            (0, _) if away.is_empty() => "nothing to watch: every source has ended".into(),
            (0, [one]) => format!("waiting for camera {}: it does not answer", one.name),
            (0, _) => "waiting for cameras: none answers".into(),
            (_, [one]) => format!("watching {}{}", one.name, self.fps(shared)),
            (up, all) if up == all.len() => format!("watching {up} cameras{}", self.fps(shared)),
            (up, all) => format!("watching {up} of {} cameras{}{}", all.len(), self.fps(shared), missing(&away)),
        }
    }

    /// Of the cameras that are up; nothing before it has been measured.
    fn fps(&self, shared: &Shared) -> String {
        let cameras = shared.cameras.load();
        let up = cameras.iter().zip(&self.rates).filter(|(c, _)| c.is_up());
        let rates: Vec<f64> = up.map(|(_, r)| r.fps).collect();
        let (least, most) = rates.iter().fold((f64::MAX, 0.0_f64), |(a, b), r| (a.min(*r), b.max(*r)));
        let each = if rates.len() > 1 { " each" } else { "" };
        if most == 0.0 {
            String::new()
        } else if most - least <= 0.2 * most {
            format!(", {most:.1} fps{each}")
        } else {
            format!(", {least:.1} to {most:.1} fps")
        }
    }

    fn broker(&mut self, shared: &Shared) -> String {
        let d = &shared.delivery;
        let waiting = d.outbox_messages.load(Relaxed).saturating_sub(d.outbox_parked.load(Relaxed));
        if d.connected.load(Relaxed) {
            self.away_since = None;
            let late = d.outbox_oldest_boot_ns.age_s().is_some_and(|age| age > ON_THEIR_WAY_S);
            return match waiting {
                0 => "broker connected, outbox empty".into(),
                _ if late => format!("broker connected, {} on the way", events(waiting)),
                _ => "broker connected".into(),
            };
        }
        let since = self.away_since.get_or_insert_with(|| clock::shown(Duration::ZERO)[..5].to_owned());
        let wait = if waiting < 2 { "waits" } else { "wait" };
        format!("broker away since {since}, {} {wait}", events(waiting))
    }

    /// Rates anew when it is time. A camera's rate is never quite steady: a change that means nothing is not shown.
    fn rate(&mut self, shared: &Shared, now: Instant) {
        let over = now.saturating_duration_since(self.rated_at);
        let taken = |c: &CameraView| c.capture.get().map_or(0, |s| s.taken.load(Relaxed));
        let cameras = shared.cameras.load();
        if self.rates.iter().map(|r| &r.camera).ne(cameras.iter().map(|c| &c.name)) {
            let rate = |c: &Arc<CameraView>| Rate { camera: c.name.clone(), taken: taken(c), fps: 0.0 };
            self.rates = cameras.iter().map(rate).collect();
            self.rated_at = now;
        } else if over >= RATE_OVER {
            for (rate, camera) in self.rates.iter_mut().zip(cameras.iter()) {
                let fps = taken(camera).saturating_sub(rate.taken) as f64 / over.as_secs_f64();
                rate.taken = taken(camera);
                if (fps - rate.fps).abs() > 0.2 * rate.fps {
                    rate.fps = (fps * 10.0).round() / 10.0;
                }
            }
            self.rated_at = now;
        }
    }
}

/// Whether it gets on, `/status` tells.
fn building(shared: &Shared, now: Instant) -> Option<String> {
    let building = shared.building.load_full()?;
    let so_far = match building.minutes(now) {
        0 => String::new(),
        minutes => format!(" for {minutes} min"),
    };
    Some(format!("building the engine of {}{so_far}", building.model))
}

fn events(n: u64) -> String {
    match n {
        0 => "no event".into(),
        1 => "1 event".into(),
        n => format!("{n} events"),
    }
}

/// Names help while they are few.
fn missing(away: &[&str]) -> String {
    match away {
        [] => String::new(),
        [one] => format!(" ({one} is away)"),
        [one, two] => format!(" ({one} and {two} are away)"),
        more => format!(" ({} are away)", more.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builds::Building;

    fn shared(cameras: &[&str]) -> Shared {
        let view = |name: &&str| CameraView::new(name, "test:", vec!["falls".into()], vec![]);
        Shared::new("g", "d", "b", cameras.iter().map(view).collect(), vec!["falls".into()])
    }

    fn told(line: &mut StatusLine, shared: &Shared, at: Instant) -> String {
        line.look(shared, None, at).unwrap_or("(nothing)").to_owned()
    }

    #[test]
    fn the_line_says_what_goes_on_and_is_not_repeated() {
        let begun = Instant::now();
        let at = |s| begun + Duration::from_secs(s);
        let shared = shared(&["front", "porch"]);
        let mut line = StatusLine::new(begun);
        assert_eq!(told(&mut line, &shared, at(0)), "opening model falls");
        assert_eq!(told(&mut line, &shared, at(10)), "(nothing)");
        shared.ready.store(true, Relaxed);
        shared.delivery.connected.store(true, Relaxed);
        assert_eq!(
            told(&mut line, &shared, at(20)),
            "waiting for cameras: none answers; broker connected, outbox empty"
        );
        shared.delivery.connected.store(false, Relaxed);
        shared.delivery.outbox_messages.store(214, Relaxed);
        assert_eq!(told(&mut line, &shared, at(22)), "(nothing)", "too soon");
        let away = told(&mut line, &shared, at(23));
        let since = away.strip_prefix("waiting for cameras: none answers; broker away since ").unwrap();
        assert_eq!(&since[2..3], ":");
        assert_eq!(&since[5..], ", 214 events wait");
        shared.cameras.load()[1].dropped[0].failing.store(true, Relaxed);
        assert!(told(&mut line, &shared, at(30)).starts_with("model falls fails at porch; waiting"));
    }

    #[test]
    fn what_is_stuck_is_told_at_once_and_once() {
        let begun = Instant::now();
        let shared = shared(&["front"]);
        let mut line = StatusLine::new(begun);
        told(&mut line, &shared, begun);
        let stuck = |s| Stuck { stage: "store".into(), silence: Duration::from_secs(s) };
        let now = begun + Duration::from_secs(1);
        let text = line.look(&shared, Some(&stuck(21)), now).unwrap().to_owned();
        assert!(text.starts_with("stuck: store makes no progress since "), "{text}");
        assert_eq!(line.look(&shared, Some(&stuck(26)), now + Duration::from_secs(5)), None);
        assert_eq!(told(&mut line, &shared, now + Duration::from_secs(9)), "opening model falls");
    }

    #[test]
    fn an_engine_that_is_built_is_told_by_the_minute() {
        let begun = Instant::now();
        let at = |s| begun + Duration::from_secs(s);
        let shared = shared(&[]);
        shared.ready.store(true, Relaxed);
        shared.delivery.connected.store(true, Relaxed);
        let building = Building { model: "falls".into(), since: begun, step: None, busy_ms: Arc::default() };
        shared.building.store(Some(Arc::new(building)));
        let mut line = StatusLine::new(begun);
        let mut last = |s| told(&mut line, &shared, at(s)).rsplit("; ").next().unwrap().to_owned();
        assert_eq!(last(5), "building the engine of falls");
        assert_eq!(last(59), "(nothing)");
        assert_eq!(last(185), "building the engine of falls for 3 min");
        assert_eq!(last(230), "(nothing)");
        shared.building.store(None);
        assert_eq!(last(240), "broker connected, outbox empty");
    }

    #[test]
    fn few_names_and_one_event() {
        assert_eq!(missing(&["a"]), " (a is away)");
        assert_eq!(missing(&["a", "b", "c"]), " (3 are away)");
        assert_eq!((events(0), events(1), events(2)), ("no event".into(), "1 event".into(), "2 events".into()));
    }
}
