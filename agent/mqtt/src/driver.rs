//! The client task: connect, keep the window full, report, and start all over on any error.
//!
//! One owner of everything about the connection; the handle talks to it through bounded channels. The loop's `next` is
//! never dropped halfway (that could lose half a packet), except to end the connection. What goes over a connection is in
//! [`crate::exchange`]; here is its life.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::backoff::{Backoff, Breaks, LATELY};
use crate::blame::Blame;
use crate::choice::{Answer, Choice, Next};
use crate::client::{Incoming, Outgoing, Reply, Signal, Stopped};
use crate::deferral::Deferrals;
use crate::exchange::PACKET_TOO_LARGE;
use crate::flight::Flight;
use crate::link::{self, Happened, Poller, Sender};
use crate::news::News;
use crate::states::States;
use crate::stop::{Phase, StopRequest};
use crate::subscriptions::Subscriptions;
use crate::{DisconnectReason, Options};

/// A connection that lived this long was worth it: the next wait is short again.
const PROVEN_AFTER: Duration = Duration::from_secs(10);
/// Between two connections that only find out which version the broker speaks; and how long it may take to close the first.
const BETWEEN_VERSIONS: Duration = Duration::from_millis(500);
/// A sign of life comes this often when nothing else happens.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// The task's ends of the channels that its handle holds.
pub(crate) struct Ends {
    pub(crate) outgoing: mpsc::Receiver<Outgoing>,
    pub(crate) replies: mpsc::Receiver<Reply>,
    pub(crate) incoming: mpsc::Sender<Incoming>,
    pub(crate) signals: mpsc::Sender<Signal>,
    pub(crate) states: Arc<States>,
    pub(crate) stop: mpsc::Receiver<StopRequest>,
}

pub(crate) struct Driver {
    pub(crate) options: Options,
    pub(crate) ends: Ends,
    /// Signals on their way to `ends.signals`; at most the window and a few.
    pub(crate) queued: VecDeque<Signal>,
    pub(crate) generation: u64,
    pub(crate) choice: Choice,
    pub(crate) backoff: Backoff,
    pub(crate) breaks: Breaks,
    pub(crate) deferrals: Deferrals,
    pub(crate) blame: Blame,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) news: News,
    /// Incoming messages dropped since the last one passed on.
    pub(crate) missed: u64,
    /// A reply could not be sent, and it was said.
    pub(crate) reply_failed: bool,
}

/// State of one connection.
pub(crate) struct Connection {
    pub(crate) sender: Sender,
    pub(crate) flight: Flight,
    pub(crate) up: Option<Instant>,
    pub(crate) max_packet: usize,
    pub(crate) silence: Duration,
    pub(crate) phase: Phase,
    /// Whether the birth was sent.
    pub(crate) born: bool,
    pub(crate) subscribed: Asked,
    /// Whether a message was acknowledged.
    pub(crate) progress: bool,
}

/// How far the subscriptions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    No,
    Waiting,
    Answered,
}

enum End {
    Lost {
        reason: DisconnectReason,
        progress: bool,
    },
    /// Nothing is wrong but, perhaps, the version.
    OtherVersion,
    Stopped,
}

impl Driver {
    pub(crate) fn new(options: Options, ends: Ends) -> Self {
        let choice = Choice::new(options.protocol);
        let subscriptions = Subscriptions::new(options.subscriptions.clone());
        let blame = Blame::new(options.hang_up_patience);
        Self {
            options,
            ends,
            queued: VecDeque::new(),
            generation: 0,
            choice,
            backoff: Backoff::new(),
            breaks: Breaks::default(),
            deferrals: Deferrals::new(),
            blame,
            subscriptions,
            news: News::default(),
            missed: 0,
            reply_failed: false,
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            let wait = match self.connection().await {
                End::Stopped => return,
                End::OtherVersion => BETWEEN_VERSIONS,
                End::Lost { reason, progress } => self.after(reason, progress),
            };
            if self.rest(Instant::now() + wait).await.is_break() {
                return;
            }
        }
    }

    /// Says why there is no connection, and how long to wait for the next.
    fn after(&mut self, reason: DisconnectReason, progress: bool) -> Duration {
        if self.choice.failed(&reason) == Next::Soon {
            return BETWEEN_VERSIONS;
        }
        let taken_over = reason == DisconnectReason::TakenOver;
        let wait = if taken_over { self.backoff.after_takeover() } else { self.backoff.wait(progress) };
        self.report(&reason, wait);
        self.queued.push_back(Signal::Disconnected { reason });
        wait
    }

    fn report(&mut self, reason: &DisconnectReason, wait: Duration) {
        let (broker, client_id, retry_s) = (&self.options.endpoint, &self.options.client_id, wait.as_secs_f32());
        if self.news.is_news(reason, std::time::Instant::now()) {
            tracing::warn!(%broker, client_id, retry_s, "MQTT: {reason}; events are kept and it is tried again");
        } else {
            tracing::debug!(%broker, client_id, retry_s, "MQTT: {reason}");
        }
    }

    /// Wait for the next attempt, throwing away what is queued for the broker. Waits longer when nobody reads signals.
    async fn rest(&mut self, until: Instant) -> ControlFlow<()> {
        loop {
            self.alive();
            if Instant::now() >= until && self.queued.len() < self.options.bounded_window() {
                return ControlFlow::Continue(());
            }
            tokio::select! {
                () = sleep_until(until), if Instant::now() < until => {}
                () = sleep(BEAT_EVERY) => {}
                message = self.ends.outgoing.recv() => if message.is_none() { return ControlFlow::Break(()) },
                permit = self.ends.signals.reserve(), if !self.queued.is_empty() => {
                    match (permit, self.queued.pop_front()) {
                        (Ok(permit), Some(signal)) => permit.send(signal),
                        _ => return ControlFlow::Break(()),
                    }
                }
                request = self.ends.stop.recv() => {
                    if let Some(request) = request {
                        let _ = request.reply.send(Stopped::default());
                    }
                    return ControlFlow::Break(());
                }
            }
        }
    }

    async fn connection(&mut self) -> End {
        let (sender, mut poller) = match link::open(&self.options, self.choice.version()).await {
            Ok(link) => link,
            Err(reason) => return End::Lost { reason, progress: false },
        };
        let mut connection = Connection {
            sender,
            flight: Flight::new(self.options.bounded_window()),
            up: None,
            max_packet: usize::MAX,
            silence: link::CONNECT_SILENCE,
            phase: Phase::Running,
            born: false,
            subscribed: Asked::No,
            progress: false,
        };
        connection.flight.narrow(self.blame.is_cautious(std::time::Instant::now()));
        loop {
            let happened = {
                let next = timeout(connection.silence, poller.next());
                tokio::pin!(next);
                loop {
                    self.alive();
                    self.submit_own(&mut connection);
                    if let Some(end) = self.step_out(&mut connection) {
                        return end;
                    }
                    tokio::select! {
                        happened = &mut next => break happened.unwrap_or(Err(DisconnectReason::KeepAlive)),
                        end = self.serve(&mut connection) => match end {
                            ControlFlow::Continue(()) => {}
                            ControlFlow::Break(Some(reason)) => break Err(reason),
                            ControlFlow::Break(None) => return End::Stopped,
                        },
                    }
                }
            };
            match happened {
                Ok(Happened::Connected { .. }) if self.choice.answered() == Answer::AskAgain => {
                    // With a DISCONNECT, so that the broker publishes no will.
                    connection.sender.disconnect();
                    let closed = async { while poller.next().await.is_ok() {} };
                    let _open_still = timeout(BETWEEN_VERSIONS, closed).await;
                    return End::OtherVersion;
                }
                Ok(happened) => self.note(&mut connection, happened),
                Err(reason) => return self.lost(connection, poller, reason),
            }
        }
    }

    /// Wait for one thing other than the network: a message, a signal to pass on, a state, a stop, a deadline. Breaks with a
    /// reason to end the connection, or with none when there is nobody left to work for.
    async fn serve(&mut self, connection: &mut Connection) -> ControlFlow<Option<DisconnectReason>> {
        const STOPPED: ControlFlow<Option<DisconnectReason>> = ControlFlow::Break(None);
        let up = connection.up.is_some();
        let resume = self.deferrals.paused_until(std::time::Instant::now()).map(Instant::from_std);
        let room = connection.flight.has_room() && self.queued.len() < self.options.bounded_window();
        let takes = !up || (room && resume.is_none());
        let ack_due = connection.flight.owed_since().map(|t| Instant::from_std(t) + self.options.ack_timeout);
        let phase_due = connection.phase.until();
        let running = matches!(connection.phase, Phase::Running);
        let far = Instant::now() + Duration::from_secs(3600);
        let signals = self.ends.signals.clone();
        tokio::select! {
            permit = signals.reserve(), if !self.queued.is_empty() => match (permit, self.queued.pop_front()) {
                (Ok(permit), Some(signal)) => permit.send(signal),
                _ => return STOPPED,
            },
            message = self.ends.outgoing.recv(), if takes => match message {
                Some(message) => self.submit(connection, message),
                None => return STOPPED,
            },
            Some(reply) = self.ends.replies.recv(), if up && connection.flight.has_room() => {
                self.submit_reply(connection, reply);
            }
            () = self.ends.states.changed.notified(), if up => {}
            request = self.ends.stop.recv(), if running => match request {
                Some(request) => connection.phase = Phase::Draining(request),
                None => return STOPPED,
            },
            () = sleep_until(ack_due.unwrap_or(far)), if ack_due.is_some() => {
                let seconds = self.options.ack_timeout.as_secs();
                return ControlFlow::Break(Some(DisconnectReason::NoAck { seconds }));
            }
            () = sleep_until(resume.unwrap_or(far)), if resume.is_some() => {}
            () = sleep_until(phase_due.unwrap_or(far)), if phase_due.is_some() => {}
            () = sleep(BEAT_EVERY) => {}
        }
        ControlFlow::Continue(())
    }

    fn alive(&self) {
        self.options.beat.touch(std::time::Instant::now());
    }

    /// The connection is over: save the acknowledgements that came with its end.
    fn lost(&mut self, mut connection: Connection, mut poller: Poller, reason: DisconnectReason) -> End {
        for happened in poller.leftovers() {
            if matches!(happened, Happened::Sent { .. } | Happened::Acked { .. }) {
                self.note(&mut connection, happened);
            }
        }
        if let DisconnectReason::ByBroker { code: PACKET_TOO_LARGE, .. } = reason {
            self.too_large(&connection);
        }
        if connection.subscribed == Asked::Waiting && self.subscriptions.died_asking(std::time::Instant::now()) {
            tracing::warn!(
                filters = self.options.subscriptions.join(" "),
                "MQTT: the broker ends each connection that asks for these subscriptions; events go on without them, and \
                 they are asked for again in an hour: allow them in the broker's access rules, or set [mqtt] commands = false"
            );
        }
        if matches!(reason, DisconnectReason::Oversize { .. }) && self.subscriptions.pause(std::time::Instant::now()) {
            tracing::warn!("MQTT: {reason}; events go on, commands are listened to again in an hour");
        }
        let progress = connection.progress;
        let culprit = self.find_culprit(&connection, &reason);
        let judged = self.judge(connection.up, reason);
        let reason = culprit.unwrap_or(judged);
        match connection.phase {
            Phase::Running => End::Lost { reason, progress },
            Phase::Leaving(request) => finish(request, &connection.flight, true),
            Phase::Draining(request) | Phase::Farewell(request) => finish(request, &connection.flight, false),
        }
    }

    fn judge(&mut self, up: Option<Instant>, reason: DisconnectReason) -> DisconnectReason {
        let Some(since) = up else { return reason };
        let now = std::time::Instant::now();
        let times = if reason.is_break() { self.breaks.note(now) } else { 0 };
        let many = self.breaks.are_many(now);
        if since.elapsed() > PROVEN_AFTER {
            self.news.proven();
            if !many {
                self.backoff.reset();
            }
        }
        // What says more than that is not replaced.
        if many && matches!(reason, DisconnectReason::Closed { .. }) {
            return DisconnectReason::Unstable { times, minutes: LATELY.as_secs() / 60 };
        }
        reason
    }

    /// Advance the way out when its step is done or its time is over.
    fn step_out(&mut self, connection: &mut Connection) -> Option<End> {
        let over = connection.phase.until().is_some_and(|until| Instant::now() >= until);
        let idle = connection.flight.is_empty() && self.ends.outgoing.is_empty() && self.ends.replies.is_empty();
        match std::mem::replace(&mut connection.phase, Phase::Running) {
            Phase::Draining(request) if connection.up.is_none() => Some(finish(request, &connection.flight, false)),
            Phase::Draining(request) if idle || over => {
                if let Some(stopped) = self.options.stopped.clone() {
                    Self::submit_status(connection, stopped);
                }
                connection.phase = Phase::Farewell(request);
                self.step_out(connection)
            }
            Phase::Farewell(request) if connection.flight.is_empty() || over => {
                connection.sender.disconnect();
                connection.phase = Phase::Leaving(request);
                None
            }
            Phase::Leaving(request) if over => Some(finish(request, &connection.flight, false)),
            unchanged => {
                connection.phase = unchanged;
                None
            }
        }
    }
}

fn finish(request: StopRequest, flight: &Flight, farewell: bool) -> End {
    let _ = request.reply.send(Stopped { unacked: flight.unacked(), farewell });
    End::Stopped
}
