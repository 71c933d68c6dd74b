//! Commands from the broker: judged, done and answered. How they look is in [`kinewatch_core::command`]; what each of them
//! does is in `execute`; what may be relied on is in `agent/design/commands.md`.
//!
//! One task on the control runtime, one command after another. Whoever may publish on the topic may give commands, so nothing
//! here trusts what comes: it is bounded in size and rate, and answered only where an answer can do no harm. Never waits for
//! the broker: an answer that finds no room is dropped and counted.

mod counts;
mod execute;
mod namesake;
mod rate;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kinewatch_core::command::{self, CommandError, CommandReply, ErrorCode};
use kinewatch_core::name::slug;
use kinewatch_core::topic::{self, Audience};
use kinewatch_mqtt::{Incoming, Reply};
use serde_json::Value;
use tokio::sync::mpsc;

pub use self::counts::{Counts, Outcomes};
use self::namesake::{Heard, Namesakes};
use self::rate::Bucket;
use crate::delivery;
use crate::health::Shared;
use crate::{reload, supervise, updates};

/// Commands done in a second, and how many of them may come at once.
const RATE: (f64, f64) = (10.0, 20.0);
/// Refusals of what exceeds that which are said in a second; the rest is dropped in silence.
const REFUSALS: (f64, f64) = (1.0, 5.0);
/// A command to all devices of a group is done at a random moment within this time, so that they do not answer at once.
const SPREAD: Duration = Duration::from_secs(5);
/// Commands to all that may wait for their moment.
const SPREAD_QUEUE: usize = 8;
/// Largest correlation data that is sent back, bytes.
const MAX_CORRELATION: usize = 1024;
/// Retained commands that are mentioned, at most.
const MENTIONS: usize = 16;

/// What commands act on.
pub struct Parts {
    /// What is known of the agent.
    pub shared: Arc<Shared>,
    /// Counts the starts of the agent.
    pub session: u64,
    /// The store thread.
    pub delivery: mpsc::Sender<delivery::Command>,
    /// Builds the stream of one camera anew.
    pub cameras: supervise::Requests,
    /// Reads the configuration again.
    pub reload: reload::Requests,
    /// Looks for newer models, and goes back to older ones.
    pub updates: updates::Requests,
}

/// Serves commands until the MQTT client is gone.
pub async fn run(parts: Arc<Parts>, mut incoming: mpsc::Receiver<Incoming>, replies: mpsc::Sender<Reply>) {
    let mut desk = Desk::new(parts, replies, SPREAD);
    loop {
        let due = desk.spread.front().map(|(due, _)| *due);
        tokio::select! {
            message = incoming.recv() => match message {
                Some(message) => desk.take(message, Instant::now()).await,
                None => return,
            },
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                if let Some((_, job)) = desk.spread.pop_front() {
                    desk.serve(job).await;
                }
            }
        }
    }
}

struct Desk {
    parts: Arc<Parts>,
    replies: mpsc::Sender<Reply>,
    rate: Bucket,
    refusals: Bucket,
    /// Commands to all, by the moment at which they are done.
    spread: VecDeque<(Instant, Job)>,
    within: Duration,
    /// Topics of retained commands that were mentioned.
    mentioned: BTreeSet<String>,
    namesakes: Namesakes,
}

/// A command that is to be done.
struct Job {
    audience: Audience,
    name: String,
    payload: Option<Bytes>,
    size: usize,
    to: Option<Address>,
}

/// Where an answer goes.
struct Address {
    topic: String,
    correlation: Option<Bytes>,
}

impl Desk {
    fn new(parts: Arc<Parts>, replies: mpsc::Sender<Reply>, within: Duration) -> Self {
        let now = Instant::now();
        let (rate, refusals) = (Bucket::new(RATE, now), Bucket::new(REFUSALS, now));
        let (spread, mentioned, namesakes) = (VecDeque::new(), BTreeSet::new(), Namesakes::default());
        Self { parts, replies, rate, refusals, spread, within, mentioned, namesakes }
    }

    fn counts(&self) -> &Counts {
        &self.parts.shared.commands
    }

    async fn take(&mut self, message: Incoming, now: Instant) {
        self.counts().unread.fetch_add(message.missed, Relaxed);
        let shared = Arc::clone(&self.parts.shared);
        if message.topic == topic::status(&shared.group, &shared.device) {
            return self.hear_status(&message, now);
        }
        let Some((audience, name)) = topic::parse_command(&message.topic, &shared.group, &shared.device) else {
            return;
        };
        if message.retained {
            return self.mention_retained(&message.topic);
        }
        let (to, mistake) = match address(&shared, audience, name, &message) {
            Ok(to) => (to, None),
            Err(mistake) => (own_address(&shared, audience, name, None), Some(mistake)),
        };
        let full = audience == Audience::All && self.spread.len() >= SPREAD_QUEUE;
        if full || !self.rate.take(now) {
            self.counts().too_many.fetch_add(1, Relaxed);
            if self.refusals.take(now) {
                let message = format!("more than {} commands a second; send it again later", RATE.0);
                self.answer(name, to, None, Err(CommandError::new(ErrorCode::RateLimited, message)));
            }
            return;
        }
        if let Some(mistake) = mistake {
            self.counts().note(name, Err(&mistake));
            return self.answer(name, to, None, Err(mistake));
        }
        let job = Job { audience, name: name.to_owned(), payload: message.payload, size: message.size, to };
        match audience {
            Audience::Device => self.serve(job).await,
            Audience::All => {
                let due = now + self.within.mul_f64(fastrand::f64());
                let place = self.spread.partition_point(|(other, _)| *other <= due);
                self.spread.insert(place, (due, job));
            }
        }
    }

    fn hear_status(&mut self, message: &Incoming, now: Instant) {
        let shared = &self.parts.shared;
        let Some(payload) = message.payload.as_ref().filter(|_| !message.retained) else { return };
        let Heard::Namesake { news } = self.namesakes.hear(payload, &shared.instance, now) else { return };
        shared.commands.namesakes.fetch_add(1, Relaxed);
        if news {
            let (group, device) = (&shared.group, &shared.device);
            tracing::error!(
                group,
                device,
                "another device has the same name: consumers cannot tell its events and sequence numbers from ours; give each \
                 its own [device] name"
            );
        }
    }

    /// A retained command would be done again at every connection: it is not done, and whoever left it is told how to
    /// remove it.
    fn mention_retained(&mut self, topic: &str) {
        self.counts().retained.fetch_add(1, Relaxed);
        if self.mentioned.len() < MENTIONS && self.mentioned.insert(topic.to_owned()) {
            tracing::warn!(
                topic,
                "a retained command is ignored: it would be done again at every connection; remove it with mosquitto_pub \
                 -r -n -t TOPIC, and publish commands without retain"
            );
        }
    }

    async fn serve(&mut self, job: Job) {
        let Job { audience, name, payload, size, to } = job;
        let request = match payload {
            Some(payload) => command::parse(&name, &payload),
            None => {
                let message = format!("{size} bytes: the payload of a command has at most {}", command::MAX_PAYLOAD);
                Err(CommandError::new(ErrorCode::TooLarge, message))
            }
        };
        let (id, outcome) = match request {
            Ok(request) => (request.id, self.parts.execute(audience, request.command).await),
            Err(error) => (None, Err(error)),
        };
        self.counts().note(&name, outcome.as_ref().map(|_| ()));
        self.answer(&name, to, id, outcome);
    }

    fn answer(&self, name: &str, to: Option<Address>, id: Option<String>, outcome: Result<Value, CommandError>) {
        let Some(Address { topic, correlation }) = to else { return };
        let reply = CommandReply::new(name, &self.parts.shared.device, id, outcome);
        let payload = Bytes::from(serde_json::to_vec(&reply).unwrap_or_default());
        if self.replies.try_send(Reply { topic, payload, correlation }).is_err() {
            self.counts().unanswered.fetch_add(1, Relaxed);
        }
    }
}

/// Where the answer to `message` goes: its response topic, else the device's own. A command to all is answered only where it
/// asks for it: a thousand answers on a thousand topics help nobody.
fn address(
    shared: &Shared,
    audience: Audience,
    name: &str,
    message: &Incoming,
) -> Result<Option<Address>, CommandError> {
    let refuse = |message: String| Err(CommandError::new(ErrorCode::InvalidResponse, message));
    let correlation = message.correlation.clone();
    if correlation.as_ref().is_some_and(|c| c.len() > MAX_CORRELATION) {
        return refuse(format!("correlation data: at most {MAX_CORRELATION} bytes are sent back"));
    }
    match &message.response_topic {
        None => Ok(own_address(shared, audience, name, correlation)),
        Some(topic) if topic::is_response(topic, &shared.group) => {
            Ok(Some(Address { topic: topic.clone(), correlation }))
        }
        Some(topic) => {
            let allowed = topic::response(&shared.group, &shared.device, name);
            refuse(format!(
                "response topic {topic:?}: answers go to kinewatch/v1/GROUP/NAME/rsp/… alone, such as {allowed}"
            ))
        }
    }
}

fn own_address(shared: &Shared, audience: Audience, name: &str, correlation: Option<Bytes>) -> Option<Address> {
    let topic = topic::response(&shared.group, &shared.device, &slug(name));
    (audience == Audience::Device).then_some(Address { topic, correlation })
}

#[cfg(test)]
mod tests;
