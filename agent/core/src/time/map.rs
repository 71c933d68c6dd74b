//! From media time to the monotonic clock, and from there to wall time.
//!
//! Owned by the inference thread, one per camera. Constant time per frame, no allocation, never reads a clock.

use super::envelope::{Line, MOST_POINTS, Point};
use super::{Arrival, NANOS_PER_SECOND, Pts, WallTime};

const MILLI: f64 = 1e6;
/// Media time of a bucket: one point of the fit. All buckets are two minutes.
const BUCKET_NS: i64 = 10 * NANOS_PER_SECOND;
/// Rates are believed when points span this much.
const RATE_SPAN_NS: f64 = 19e9;
/// No clock of a camera that works is further off: 1,000 ppm.
const RATE_LIMIT: f64 = 1e-3;
/// How far a known rate moves by itself over some minutes (warmth, discipline of either clock): 60 ppm.
const RATE_WANDER: f64 = 60e-6;
/// Rounding to milliseconds, exposure, scheduling.
const FLOOR_NS: f64 = 3.0 * MILLI;
/// A frame that nothing delayed was captured up to this long before it arrived: exposure, coder, wire, decoder.
const ASSUMED_DELAY_NS: f64 = 80.0 * MILLI;
/// Reports may say a little less than nothing, and no more than this much more than what is assumed.
const REPORTED_DELAY_NS: (f64, f64) = (-20.0 * MILLI, 500.0 * MILLI);
/// Two clocks that are both disciplined agree this well.
const REPORT_ERROR_NS: f64 = 20.0 * MILLI;
/// Reports that differ by more within two minutes are of a clock that is being set.
const REPORT_SPREAD_NS: f64 = 60.0 * MILLI;
/// A stall or a backlog that may hide under the first frames of a stream; it is worked off at twice the speed or faster.
const BACKLOG_NS: f64 = 2e9;
/// Congestion that may last as long as the stream is young, and how long that is.
const CONGESTION_NS: f64 = 350.0 * MILLI;
const YOUNG_NS: f64 = 20e9;
/// One frame alone says this little of the delay, and each more so much better.
const FEW_NS: f64 = 500.0 * MILLI;
/// Frames whose best says how late frames are now.
const RECENT: usize = 4;
/// Joins remembered: boundaries of minutes ago may lie before some.
const PAST: usize = 4;

/// From media time to wall time, for one session.
///
/// A frame arrives some delay after it was captured, and delay only ever adds: the lowest `arrival - pts` of each 10 s
/// are the points of a fit over two minutes ([`Line::under`]), which gives offset and rate of the camera's clock at once, so
/// that a camera whose clock is off by hundreds of ppm is neither late nor early. What the fit does not know is stated.
#[derive(Clone, Debug, Default)]
pub struct ClockMap {
    fixed: Option<i64>,
    era: Era,
    /// Eras before the last joins, oldest first; each with the media time at which it ended.
    past: [Option<(i64, Reading)>; PAST],
}

/// Where the delay that every frame has is taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DelaySource {
    /// Between 0 and 80 ms: nothing better is known.
    #[default]
    Assumed,
    /// From reports of the sender, which agree with our clock.
    Reported,
    /// Reports come but make no sense on our clock: they are not used.
    ReportsRefused,
}

/// The stretch of media time since the session began, or since the camera's clock was last joined anew.
#[derive(Clone, Debug, Default)]
struct Era {
    rebases: u32,
    /// Origin of the points: first frame.
    origin: Option<(i64, i64)>,
    /// Arrival of the newest frame.
    newest_mono: i64,
    buckets: [Option<Bucket>; MOST_POINTS],
    /// The newest frames, newest last: what the delay is now.
    recent: [Option<Point>; RECENT],
    /// Rate by which points of one bucket are compared.
    rate: f64,
    /// Rate of the era before, a better guess than none.
    known_rate: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    index: i64,
    lowest: Point,
    reported_ns: Option<i64>,
    /// Above the lowest, along the rate.
    excess_sum: f64,
    samples: f64,
}

/// What an era knows.
#[derive(Clone, Copy, Debug)]
struct Reading {
    origin: (i64, i64),
    line: Line,
    rate_error: f64,
    /// What does not depend on where one asks.
    error: f64,
    /// How far the lowest points of each bucket, and of now, lie above the line.
    above: [(i64, f64); MOST_POINTS + 1],
    delay: f64,
    source: DelaySource,
}

impl ClockMap {
    /// A map that knows nothing yet; [`ClockMap::wall`] then gives the media time, infinitely uncertain.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A map for replay: media time zero is `unix_ns`, exactly.
    #[must_use]
    pub fn fixed(unix_ns: i64) -> Self {
        Self { fixed: Some(unix_ns), ..Self::default() }
    }

    /// Learns from one frame. Constant time; no effect on a fixed map.
    pub fn observe(&mut self, pts: Pts, arrival: Arrival) {
        if self.era.origin.is_some() && self.era.rebases != arrival.rebases {
            let ended = self.era.reading().map(|reading| (pts.0, reading));
            self.past.rotate_left(1);
            self.past[PAST - 1] = ended;
            let known_rate = Some(self.era.rate).filter(|_| self.era.is_rate_known()).or(self.era.known_rate);
            self.era = Era { known_rate, rate: known_rate.unwrap_or(0.0), ..Era::default() };
        }
        self.era.rebases = arrival.rebases;
        self.era.observe(pts, arrival);
    }

    /// The wall time of a media time of this session. `wall_minus_mono_ns`: [`super::DeviceClock::wall_minus_mono_ns`].
    #[must_use]
    pub fn wall(&self, pts: Pts, wall_minus_mono_ns: i64) -> WallTime {
        if let Some(zero) = self.fixed {
            return WallTime { unix_ns: zero.saturating_add(pts.0), uncertainty_ns: 0 };
        }
        let past = self.past.iter().flatten().find(|(ended, _)| pts.0 < *ended).map(|(_, reading)| *reading);
        let Some(reading) = past.or_else(|| self.era.reading()) else {
            return WallTime { unix_ns: pts.0.saturating_add(wall_minus_mono_ns), uncertainty_ns: i64::MAX };
        };
        let (mono_ns, uncertainty_ns) = reading.mono(pts);
        WallTime { unix_ns: mono_ns.saturating_add(wall_minus_mono_ns), uncertainty_ns }
    }

    /// Where the constant delay is taken from at present.
    #[must_use]
    pub fn delay_source(&self) -> DelaySource {
        self.era.reading().map_or(DelaySource::Assumed, |reading| reading.source)
    }
}

impl Era {
    fn observe(&mut self, pts: Pts, arrival: Arrival) {
        let offset = arrival.mono_ns.saturating_sub(pts.0);
        let (x0, y0) = *self.origin.get_or_insert((pts.0, offset));
        self.newest_mono = arrival.mono_ns;
        let x = pts.0.saturating_sub(x0);
        let point = Point { x: x as f64, y: offset.saturating_sub(y0) as f64 };
        self.recent.rotate_left(1);
        self.recent[RECENT - 1] = Some(point);
        let index = x.div_euclid(BUCKET_NS);
        let slot = index.rem_euclid(MOST_POINTS as i64) as usize;
        match &mut self.buckets[slot] {
            Some(bucket) if bucket.index == index => bucket.add(point, arrival.reported_delay_ns, self.rate),
            _ => {
                self.buckets[slot] = Some(Bucket {
                    index,
                    lowest: point,
                    reported_ns: arrival.reported_delay_ns,
                    excess_sum: 0.0,
                    samples: 1.0,
                });
                // What a jump over several buckets left behind is older than the window.
                for old in &mut self.buckets {
                    if old.is_some_and(|b| b.index <= index.saturating_sub(MOST_POINTS as i64) || b.index > index) {
                        *old = None;
                    }
                }
                if let Some(reading) = self.reading() {
                    self.rate = reading.line.rate;
                }
            }
        }
    }

    fn is_rate_known(&self) -> bool {
        let indices = || self.buckets.iter().flatten().map(|b| b.lowest.x);
        indices().fold(0.0, f64::max) - indices().fold(f64::INFINITY, f64::min) >= RATE_SPAN_NS
    }

    fn reading(&self) -> Option<Reading> {
        let origin = self.origin?;
        let mut buckets = [Bucket::NONE; MOST_POINTS];
        let mut count = 0;
        for bucket in self.buckets.iter().flatten() {
            buckets[count] = *bucket;
            count += 1;
        }
        let buckets = &mut buckets[..count];
        buckets.sort_unstable_by_key(|b| b.index);
        let mut points = [Point::default(); MOST_POINTS];
        for (point, bucket) in points.iter_mut().zip(buckets.iter()) {
            *point = bucket.lowest;
        }
        let points = &points[..count];
        let span = points.last()?.x - points.first()?.x;
        let known_rate = self.known_rate.unwrap_or(0.0);
        let line =
            if span >= RATE_SPAN_NS { Line::under(points, 0.0, RATE_LIMIT) } else { Line::of_rate(points, known_rate) };
        let samples: f64 = buckets.iter().map(|b| b.samples).sum();
        let jitter = usual_jitter(buckets, &line);
        let rate_error = match self.known_rate {
            _ if span >= RATE_SPAN_NS => RATE_WANDER + jitter / span,
            Some(_) => 2.0 * RATE_WANDER,
            None => RATE_LIMIT,
        };
        let mut above = [(i64::MIN, 0.0); MOST_POINTS + 1];
        for (above, bucket) in above.iter_mut().zip(buckets.iter()) {
            *above = (bucket.index, bucket.lowest.y - line.at(bucket.lowest.x));
        }
        if let Some(first) = above[..count].iter_mut().find(|(index, _)| *index == 0) {
            // The first frame lies at the origin. No bucket before it shows a step within the first.
            first.1 = first.1.max(-line.at(0.0) - jitter);
        }
        above[MOST_POINTS] = (buckets.last()?.index, self.now_above(&line, jitter));
        let (delay, delay_error, source) = delay(buckets, &line);
        Some(Reading {
            origin,
            line,
            rate_error: rate_error.min(RATE_LIMIT),
            error: FLOOR_NS + jitter + self.unseen(samples) + delay_error,
            above,
            delay,
            source,
        })
    }

    /// How late even the best of the newest frames is, or the newest alone beyond the usual jitter.
    fn now_above(&self, line: &Line, jitter: f64) -> f64 {
        let above = |p: &Point| p.y - line.at(p.x);
        let best = self.recent.iter().flatten().map(above).fold(f64::INFINITY, f64::min);
        let newest = self.recent[RECENT - 1].as_ref().map_or(0.0, above) - jitter;
        if best.is_finite() { best.max(newest).max(0.0) } else { 0.0 }
    }

    /// Delay that the frames of a young era cannot show yet.
    fn unseen(&self, samples: f64) -> f64 {
        let first = self.origin.map_or(0, |(x0, y0)| x0.saturating_add(y0));
        let elapsed = self.newest_mono.saturating_sub(first) as f64;
        let young = if elapsed < YOUNG_NS { (BACKLOG_NS - elapsed / 2.0).max(CONGESTION_NS) } else { 0.0 };
        FEW_NS / samples + young
    }
}

/// How far frames lie above the line on average, in most buckets: congestion now and then is stated where it is.
fn usual_jitter(buckets: &[Bucket], line: &Line) -> f64 {
    let mut means = [0.0; MOST_POINTS];
    for (mean, bucket) in means.iter_mut().zip(buckets) {
        *mean = (bucket.excess_sum / bucket.samples) + (bucket.lowest.y - line.at(bucket.lowest.x)).max(0.0);
    }
    let means = &mut means[..buckets.len()];
    means.sort_unstable_by(f64::total_cmp);
    means.get(buckets.len() / 2).copied().unwrap_or(0.0)
}

/// The delay that the line itself has, half of what is not known of it, and where it is from.
fn delay(buckets: &[Bucket], line: &Line) -> (f64, f64, DelaySource) {
    let reported = || {
        let told = buckets.iter().filter_map(|b| Some((b, b.reported_ns? as f64)));
        told.map(|(b, reported)| reported - (b.lowest.y - line.at(b.lowest.x)))
    };
    let assumed = |source| (ASSUMED_DELAY_NS / 2.0, ASSUMED_DELAY_NS / 2.0, source);
    let count = reported().count();
    // A sender that has told little yet may be about to set its clock.
    if count < 3 {
        return assumed(DelaySource::Assumed);
    }
    let (least, most) = reported().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), r| (r.min(a), r.max(b)));
    if least < REPORTED_DELAY_NS.0 || most > REPORTED_DELAY_NS.1 || most - least > REPORT_SPREAD_NS {
        return assumed(DelaySource::ReportsRefused);
    }
    let mean = (reported().sum::<f64>() / count as f64).max(0.0);
    let own = REPORT_ERROR_NS + (most - least) / 2.0;
    // Beyond what is assumed the sender's clock may be behind as well as the frame late: both are covered.
    let error = if mean <= ASSUMED_DELAY_NS { own } else { mean.max(own) };
    (mean, error, DelaySource::Reported)
}

impl Reading {
    /// Monotonic instant, and its uncertainty, nanoseconds.
    fn mono(&self, pts: Pts) -> (i64, i64) {
        let (x0, y0) = self.origin;
        let x = pts.0.saturating_sub(x0) as f64;
        let offset = y0.saturating_add((self.line.at(x) - self.delay).round() as i64);
        let error = self.error + self.rate_error * self.line.beyond(x) + self.above(pts.0.saturating_sub(x0));
        (pts.0.saturating_add(offset), error.ceil() as i64)
    }

    /// How late even the best frames around `x` are. They were delayed, or the camera's clock was set by less than shows
    /// at once: nothing tells which, so it is uncertainty.
    fn above(&self, x: i64) -> f64 {
        let index = x.div_euclid(BUCKET_NS);
        let newest = self.above[MOST_POINTS].0;
        let near = self.above.iter().filter(|(at, _)| index.min(newest).abs_diff(*at) <= 1);
        near.map(|(_, above)| *above).fold(0.0, f64::max)
    }
}

impl Bucket {
    const NONE: Self =
        Self { index: 0, lowest: Point { x: 0.0, y: 0.0 }, reported_ns: None, excess_sum: 0.0, samples: 0.0 };

    fn add(&mut self, point: Point, reported_ns: Option<i64>, rate: f64) {
        let above = point.y - self.lowest.y - rate * (point.x - self.lowest.x);
        if above < 0.0 {
            self.excess_sum -= above * self.samples;
            self.lowest = point;
            self.reported_ns = reported_ns;
        } else {
            self.excess_sum += above;
        }
        self.samples += 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;
    const WALL: i64 = 1_790_000_000_000_000_000;

    fn watch(map: &mut ClockMap, frames: std::ops::Range<i64>, rebases: u32, delay_ms: impl Fn(i64) -> i64) {
        for k in frames {
            let arrival = Arrival { mono_ns: (k * 40 + delay_ms(k)) * MS, rebases, ..Arrival::default() };
            map.observe(Pts(k * 40 * MS), arrival);
        }
    }

    /// Milliseconds from media time to wall time, and the uncertainty.
    fn at(map: &ClockMap, ms: i64) -> (i64, i64) {
        let wall = map.wall(Pts(ms * MS), WALL);
        ((wall.unix_ns - WALL) / MS - ms, wall.uncertainty_ns / MS)
    }

    #[test]
    fn late_frames_do_not_move_the_map() {
        let mut map = ClockMap::new();
        watch(&mut map, 0..1500, 0, |k| if k % 10 == 0 { 50 } else { 100 });
        assert_eq!(at(&map, 10_000), (10, 88), "50 of delay, 40 assumed; 3, 40, 45 of jitter and few frames");
    }

    #[test]
    fn a_young_stream_says_so() {
        let mut map = ClockMap::new();
        assert_eq!(map.wall(Pts(5), 7), WallTime { unix_ns: 12, uncertainty_ns: i64::MAX });
        watch(&mut map, 0..25, 0, |_| 40);
        assert!((1_500..1_700).contains(&at(&map, 0).1), "{:?}", at(&map, 0));
        watch(&mut map, 25..250, 0, |_| 40);
        assert!((390..420).contains(&at(&map, 0).1), "{:?}", at(&map, 0));
        watch(&mut map, 250..600, 0, |_| 40);
        assert_eq!(at(&map, 0), (0, 43));
    }

    #[test]
    fn each_side_of_a_join_keeps_its_own_line() {
        let mut map = ClockMap::new();
        watch(&mut map, 0..1500, 0, |_| 40);
        // The pause at the join was placed 15 ms too short.
        watch(&mut map, 1500..3000, 1, |_| 55);
        assert_eq!((at(&map, 59_000).0, at(&map, 61_000).0), (0, 15));
        for rebases in 2..9 {
            watch(&mut map, 3000..3100, rebases, |_| 40);
        }
        assert!(at(&map, 0).1 < 5_000, "older joins than are kept: {:?}", at(&map, 0));
    }

    #[test]
    fn replay_is_exact_and_extremes_do_not_overflow() {
        let exact = WallTime { unix_ns: 12, uncertainty_ns: 0 };
        assert_eq!(ClockMap::fixed(5).wall(Pts(7), 99), exact);
        let mut map = ClockMap::new();
        for pts in [i64::MIN, 0, i64::MAX] {
            for mono_ns in [i64::MIN, i64::MAX] {
                for reported_delay_ns in [None, Some(i64::MIN), Some(i64::MAX)] {
                    map.observe(Pts(pts), Arrival { mono_ns, reported_delay_ns, rebases: 0 });
                    let _ = (map.wall(Pts(pts), mono_ns), map.delay_source());
                }
            }
        }
    }
}
