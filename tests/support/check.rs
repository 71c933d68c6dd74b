//! The judge of what a subscriber heard: every promise of the event format, line by line of `mosquitto_sub -F '%t\t%p'`.
//!
//! Holds ids, numbers and where each action stands, never whole messages, so that a soak of hours can be judged while it
//! runs. It must not know how the agent works: it knows topics and JSON alone, as a consumer does.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;
use uuid::Uuid;

/// Whether an action may still be open when everything was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closure {
    /// Each has ended.
    Required,
    /// Some may go on.
    Open,
}

/// What was read, and which promises were broken.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Verdict {
    /// Messages about actions, duplicates among them.
    pub messages: u64,
    /// Messages whose `id` had come before.
    pub duplicates: u64,
    /// Actions heard of.
    pub actions: u64,
    /// Of those, ended.
    pub ended: u64,
    /// Ends by their reason.
    pub reasons: BTreeMap<String, u64>,
    /// Ranges stated on `sys/gap`.
    pub gaps_stated: u64,
    /// Sequence numbers that neither came nor were stated as lost.
    pub holes: u64,
    /// Actions whose begin, end or a message between is in a range stated as lost: the lease closes them.
    pub torn: u64,
    /// Broken promises.
    pub faults: u64,
    /// The first of them, with their line.
    pub examples: Vec<String>,
}

/// One action as it was told.
#[derive(Clone, Debug)]
pub struct Told {
    /// Camera.
    pub camera: String,
    /// Label.
    pub label: String,
    /// Session of the stream that `start_ns` and `end_ns` count from.
    pub epoch: u64,
    /// Media time of its begin, by the newest message.
    pub start_ns: i64,
    /// How it ended.
    pub end: Option<End>,
}

/// The end of an action as it was told.
#[derive(Clone, Debug)]
pub struct End {
    /// Media time.
    pub at_ns: i64,
    /// Why.
    pub reason: String,
}

/// Reads lines, keeps what is needed to judge them.
#[derive(Debug, Default)]
pub struct Checker {
    line: u64,
    counts: Verdict,
    /// By id: sequence, and a hash of what must not change when the message comes again.
    by_id: HashMap<Uuid, (u64, u64)>,
    devices: HashMap<String, Device>,
}

#[derive(Debug, Default)]
struct Device {
    sequences: BTreeSet<u64>,
    newest: u64,
    /// Ranges stated as lost.
    gaps: Vec<(u64, u64)>,
    actions: HashMap<Uuid, Vec<Rev>>,
}

#[derive(Clone, Debug)]
struct Rev {
    rev: u64,
    sequence: u64,
    line: u64,
    status: Status,
    told: Told,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Started,
    Updated,
    Ended,
}

const END_REASONS: [&str; 6] = ["boundary", "stream_lost", "model_swap", "shutdown", "max_duration", "recovered"];
/// Media times are rounded; nanoseconds.
const SLACK_NS: i64 = 5_000_000;
const EXAMPLES: usize = 40;

impl Checker {
    /// Takes the next line. Topics other than `evt` and `sys/gap` are none of its business.
    pub fn line(&mut self, text: &str) {
        self.line += 1;
        let Some((topic, payload)) = text.split_once('\t') else {
            return self.fault(format!("no topic: {}", &text[..text.len().min(80)]));
        };
        let kind: Vec<_> = topic.split('/').skip(4).take(2).collect();
        let read = match kind.as_slice() {
            ["evt", ..] => self.event(topic, payload),
            ["sys", "gap"] => self.gap(topic, payload),
            _ => Ok(()),
        };
        if let Err(reason) = read {
            self.fault(reason);
        }
    }

    /// The newest sequence number of any device; 0 before the first.
    pub fn newest(&self) -> u64 {
        self.devices.values().map(|d| d.newest).max().unwrap_or(0)
    }

    /// Distinct messages about actions.
    pub fn distinct(&self) -> u64 {
        self.by_id.len() as u64
    }

    /// The sequence number that the message with this id came with.
    pub fn sequence_of(&self, id: Uuid) -> Option<u64> {
        self.by_id.get(&id).map(|(sequence, _)| *sequence)
    }

    /// Every action, by its newest message.
    pub fn told(&self) -> impl Iterator<Item = &Told> {
        let actions = self.devices.values().flat_map(|device| device.actions.values());
        actions.filter_map(|revs| revs.iter().max_by_key(|r| r.rev)).map(|r| &r.told)
    }

    /// Judges what was read so far.
    pub fn verdict(&self, closure: Closure) -> Verdict {
        let mut out = Self { counts: self.counts.clone(), ..Self::default() };
        for (name, device) in &self.devices {
            out.judge_sequence(name, device);
            for (id, revs) in &device.actions {
                out.judge_action(*id, revs, device, closure);
            }
        }
        out.counts
    }

    fn fault(&mut self, text: String) {
        self.counts.faults += 1;
        if self.counts.examples.len() < EXAMPLES {
            self.counts.examples.push(format!("line {}: {text}", self.line));
        }
    }

    fn gap(&mut self, topic: &str, payload: &str) -> Result<(), String> {
        let message: Value = serde_json::from_str(payload).map_err(|e| format!("sys/gap is no JSON ({e})"))?;
        let number = |key: &str| message["data"][key].as_u64().ok_or(format!("sys/gap without data.{key}"));
        let (first, last) = (number("first")?, number("last")?);
        if first > last {
            return Err(format!("sys/gap from {first} to {last}"));
        }
        self.counts.gaps_stated += 1;
        let device = topic.split('/').nth(3).unwrap_or_default();
        self.devices.entry(device.to_owned()).or_default().gaps.push((first, last));
        Ok(())
    }

    fn event(&mut self, topic: &str, payload: &str) -> Result<(), String> {
        self.counts.messages += 1;
        let message: Value = serde_json::from_str(payload).map_err(|e| format!("no JSON ({e})"))?;
        let envelope = Envelope::read(topic, &message)?;
        match self.by_id.entry(envelope.id) {
            Entry::Occupied(before) => {
                self.counts.duplicates += 1;
                if *before.get() != (envelope.sequence, envelope.identity) {
                    return Err(format!("id {} came again with another content", envelope.id));
                }
                return Ok(());
            }
            Entry::Vacant(place) => place.insert((envelope.sequence, envelope.identity)),
        };
        let device = self.devices.entry(envelope.device.clone()).or_default();
        let newest = device.newest;
        device.newest = newest.max(envelope.sequence);
        let unused = device.sequences.insert(envelope.sequence);
        if !unused {
            self.fault(format!("sequence {} used twice", envelope.sequence));
        } else if envelope.sequence < newest {
            self.fault(format!("sequence {} came for the first time after {newest}", envelope.sequence));
        }
        let (action, rev) = read_action(&message["data"], envelope.sequence, self.line)?;
        self.devices.entry(envelope.device).or_default().actions.entry(action).or_default().push(rev);
        Ok(())
    }

    fn judge_sequence(&mut self, name: &str, device: &Device) {
        let (Some(first), Some(last)) = (device.sequences.first(), device.sequences.last()) else { return };
        let missing: Vec<_> =
            (*first..=*last).filter(|n| !device.sequences.contains(n) && !device.stated(*n)).collect();
        if let Some(at) = missing.first() {
            self.counts.holes += missing.len() as u64;
            self.fault(format!("device {name}: {} sequence numbers are missing, the first is {at}", missing.len()));
        }
    }

    fn judge_action(&mut self, id: Uuid, revs: &[Rev], device: &Device, closure: Closure) {
        let mut revs: Vec<_> = revs.iter().collect();
        revs.sort_by_key(|r| r.rev);
        let (Some(first), Some(last)) = (revs.first(), revs.last()) else { return };
        self.counts.actions += 1;
        self.line = last.line;
        let mut torn = false;
        for missing in missing(&revs, closure) {
            if device.states_between(missing.after, missing.before) {
                torn = true;
            } else {
                self.fault(format!("action {id} ({} of {}): {}", last.told.label, last.told.camera, missing.what));
            }
        }
        self.counts.torn += u64::from(torn);
        if revs.iter().skip(1).any(|r| r.status == Status::Started) {
            self.fault(format!("action {id} starts twice"));
        }
        let ends = revs.iter().filter(|r| r.status == Status::Ended).count();
        if ends > 1 || ends == 1 && last.status != Status::Ended {
            self.fault(format!("action {id}: something follows its end"));
        }
        if let Some(end) = &last.told.end {
            self.counts.ended += 1;
            *self.counts.reasons.entry(end.reason.clone()).or_default() += 1;
        }
        let same = |r: &Rev| {
            (&r.told.label, &r.told.camera, r.told.epoch) == (&first.told.label, &first.told.camera, first.told.epoch)
        };
        if !revs.iter().all(|r| same(r)) {
            self.fault(format!("action {id}: label, camera or session changes"));
        }
    }
}

/// Messages of an action that did not come, between two sequence numbers.
struct Missing {
    what: String,
    after: u64,
    before: u64,
}

/// What is missing of an action, whose messages are in the order of `rev`.
fn missing(revs: &[&Rev], closure: Closure) -> Vec<Missing> {
    let mut all = Vec::new();
    let (mut due, mut after) = (0, 0);
    for r in revs {
        if r.rev != due {
            all.push(Missing { what: format!("rev {} where {due} was due", r.rev), after, before: r.sequence });
        } else if due == 0 && r.status != Status::Started {
            all.push(Missing { what: format!("begins with {:?}", r.status), after, before: r.sequence });
        }
        (due, after) = (r.rev + 1, r.sequence);
    }
    let open = !revs.iter().any(|r| r.status == Status::Ended);
    if open && closure == Closure::Required {
        all.push(Missing { what: "never ended".into(), after, before: u64::MAX });
    }
    all
}

impl Device {
    /// Whether a range that was stated as lost has a number between these two.
    fn states_between(&self, after: u64, before: u64) -> bool {
        self.gaps.iter().any(|(first, last)| *first < before && *last > after)
    }

    fn stated(&self, sequence: u64) -> bool {
        self.gaps.iter().any(|(first, last)| (*first..=*last).contains(&sequence))
    }
}

impl Verdict {
    /// Panics with what was wrong unless every promise was kept and something was heard at all.
    pub fn assert_kept(&self) {
        assert!(self.messages > 0, "nothing was heard");
        assert_eq!(self.faults, 0, "{self:?}");
    }
}

struct Envelope {
    id: Uuid,
    sequence: u64,
    device: String,
    identity: u64,
}

impl Envelope {
    fn read(topic: &str, message: &Value) -> Result<Self, String> {
        let text = |key: &str| message[key].as_str().ok_or(format!("lacks {key}"));
        let (specversion, time, source) = (text("specversion")?, text("time")?, text("source")?);
        if specversion != "1.0" || text("type")?.is_empty() {
            return Err(format!("specversion {specversion}, type {:?}", message["type"]));
        }
        let id: Uuid = text("id")?.parse().map_err(|_| format!("id {} is no UUID", message["id"]))?;
        if id.get_version_num() != 7 {
            return Err(format!("id {id} is no UUIDv7"));
        }
        utc(time)?;
        let sequence = text("sequence")?;
        if sequence.len() != 20 || !sequence.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("sequence {sequence:?} is not 20 digits"));
        }
        let parts: Vec<_> = source.strip_prefix("//kinewatch/").unwrap_or_default().split('/').collect();
        let [group, device, "cam", camera] = parts.as_slice() else { return Err(format!("source {source:?}")) };
        let data = &message["data"];
        let (of_data, label) = (data["camera"]["id"].as_str(), data["label"].as_str().unwrap_or_default());
        let wanted = format!("kinewatch/v1/{group}/{device}/evt/{camera}/{label}");
        if topic != wanted || of_data != Some(camera) {
            return Err(format!("topic {topic}, but the payload says {wanted} and camera {of_data:?}"));
        }
        Ok(Self {
            id,
            sequence: sequence.parse().map_err(|_| format!("sequence {sequence:?} is too large"))?,
            device: (*device).to_owned(),
            identity: identity(data),
        })
    }
}

/// Hash of what a second delivery must repeat: everything but that it is a second one, and how late.
fn identity(data: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    let fields: BTreeMap<_, _> = data.as_object().into_iter().flatten().collect();
    for (key, value) in fields.into_iter().filter(|(key, _)| !["replayed", "latency"].contains(&key.as_str())) {
        (key, value.to_string()).hash(&mut hasher);
    }
    hasher.finish()
}

fn read_action(data: &Value, sequence: u64, line: u64) -> Result<(Uuid, Rev), String> {
    for key in ["confidence", "model", "clock"] {
        if !data[key].is_object() {
            return Err(format!("data lacks {key}"));
        }
    }
    if !data["replayed"].is_boolean() {
        return Err("data lacks replayed".into());
    }
    let text = |key: &str| data[key].as_str().ok_or(format!("data lacks {key}"));
    let action: Uuid = text("action_id")?.parse().map_err(|_| format!("action_id {}", data["action_id"]))?;
    let status = match text("status")? {
        "started" => Status::Started,
        "updated" => Status::Updated,
        "ended" => Status::Ended,
        other => return Err(format!("status {other:?}")),
    };
    let label = text("label")?;
    if label.is_empty()
        || label.len() > 64
        || !label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
    {
        return Err(format!("label {label:?}"));
    }
    let peak = data["confidence"]["peak"].as_f64().unwrap_or(-1.0);
    if !(0.0..=1.0).contains(&peak) {
        return Err(format!("confidence.peak {peak}"));
    }
    let (start_ns, decided_ns) = (boundary(data, "start")?, boundary(data, "decided_at")?);
    if start_ns > decided_ns + SLACK_NS {
        return Err("start lies after decided_at".into());
    }
    let end = match status {
        Status::Ended => Some(read_end(data, start_ns, decided_ns)?),
        Status::Started | Status::Updated => None,
    };
    let told = Told {
        camera: data["camera"]["id"].as_str().unwrap_or_default().to_owned(),
        label: label.to_owned(),
        epoch: data["camera"]["stream_epoch"].as_u64().ok_or("data lacks camera.stream_epoch")?,
        start_ns,
        end,
    };
    let rev = data["rev"].as_u64().ok_or("data lacks rev")?;
    Ok((action, Rev { rev, sequence, line, status, told }))
}

fn read_end(data: &Value, start_ns: i64, decided_ns: i64) -> Result<End, String> {
    let at_ns = boundary(data, "end")?;
    if at_ns < start_ns {
        return Err("it ends before it begins".into());
    }
    if at_ns > decided_ns + SLACK_NS {
        return Err("end lies after decided_at".into());
    }
    match data["end_reason"].as_str() {
        Some(reason) if END_REASONS.contains(&reason) => Ok(End { at_ns, reason: reason.to_owned() }),
        other => Err(format!("end_reason {other:?}")),
    }
}

fn boundary(data: &Value, key: &str) -> Result<i64, String> {
    utc(data[key]["time"].as_str().unwrap_or_default()).map_err(|e| format!("{key}: {e}"))?;
    data[key]["pts_ns"].as_i64().ok_or(format!("{key} lacks pts_ns"))
}

fn utc(time: &str) -> Result<(), String> {
    let parsed = time.parse::<jiff::Timestamp>().is_ok() && (time.ends_with('Z') || time.ends_with("+00:00"));
    if parsed { Ok(()) } else { Err(format!("time {time:?} is not RFC 3339 in UTC")) }
}

/// Fails unless everything that was received (`topic<TAB>payload`) keeps every promise, with no hole and every action ended.
pub fn assert_whole(lines: &[String]) {
    let mut checker = Checker::default();
    lines.iter().for_each(|line| checker.line(line));
    let verdict = checker.verdict(Closure::Required);
    verdict.assert_kept();
    assert_eq!(verdict.holes, 0, "{verdict:?}");
}
