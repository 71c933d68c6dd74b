//! The client task: connect, keep the window full, report, and start all over on any error.
//!
//! One owner of everything about the connection; the handle talks to it through bounded channels. The loop's `next` is
//! never dropped halfway (that could lose half a packet), except to end the connection.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::backoff::Backoff;
use crate::choice::Choice;
use crate::client::{Outgoing, Signal, Stopped};
use crate::flight::{Flight, Ticket};
use crate::link::{self, Happened, Kind, Poller, Sender};
use crate::states::States;
use crate::stop::{Phase, StopRequest};
use crate::{DisconnectReason, Options};

/// A connection that lived this long was worth it: the next wait is short again.
const PROVEN_AFTER: Duration = Duration::from_secs(10);
/// So many short connections in a row are no accident.
const MANY_SHORT_LIVES: u32 = 3;
/// A sign of life comes this often when nothing else happens.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// What a PUBLISH costs beside topic and payload: fixed header, identifier, properties.
const PACKET_OVERHEAD: usize = 96;
const PACKET_TOO_LARGE: u8 = 0x95;
const TOPIC_INVALID: u8 = 0x90;

pub(crate) struct Driver {
    options: Options,
    outgoing: mpsc::Receiver<Outgoing>,
    signals: mpsc::Sender<Signal>,
    states: Arc<States>,
    stop: mpsc::Receiver<StopRequest>,
    /// Signals on their way to `signals`; at most the window and a few.
    queued: VecDeque<Signal>,
    generation: u64,
    choice: Choice,
    backoff: Backoff,
    /// Connections in a row that the broker closed within [`PROVEN_AFTER`].
    short_lives: u32,
    last_reason: Option<DisconnectReason>,
}

/// State of one connection.
struct Connection {
    sender: Sender,
    flight: Flight,
    up: Option<Instant>,
    max_packet: usize,
    silence: Duration,
    phase: Phase,
}

enum End {
    Lost(DisconnectReason),
    Stopped,
}

impl Driver {
    pub(crate) fn new(
        options: Options,
        outgoing: mpsc::Receiver<Outgoing>,
        signals: mpsc::Sender<Signal>,
        states: Arc<States>,
        stop: mpsc::Receiver<StopRequest>,
    ) -> Self {
        let choice = Choice::new(options.protocol);
        Self {
            options,
            outgoing,
            signals,
            states,
            stop,
            queued: VecDeque::new(),
            generation: 0,
            choice,
            backoff: Backoff::new(),
            short_lives: 0,
            last_reason: None,
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            let reason = match self.connection().await {
                End::Stopped => return,
                End::Lost(reason) => reason,
            };
            self.choice.failed(&reason);
            let taken_over = reason == DisconnectReason::TakenOver;
            let wait = if taken_over { self.backoff.after_takeover() } else { self.backoff.wait() };
            self.report(&reason, wait);
            self.queued.push_back(Signal::Disconnected { reason });
            if self.rest(Instant::now() + wait).await.is_break() {
                return;
            }
        }
    }

    /// The same reason again and again is said once.
    fn report(&mut self, reason: &DisconnectReason, wait: Duration) {
        let retry_s = wait.as_secs_f32();
        // The same reason again is no news, even if its numbers have changed.
        if self.last_reason.as_ref().map(std::mem::discriminant) == Some(std::mem::discriminant(reason)) {
            tracing::debug!(broker = %self.options.endpoint, retry_s, "MQTT: {reason}");
        } else {
            tracing::warn!(broker = %self.options.endpoint, retry_s, "MQTT: {reason}");
        }
        self.last_reason = Some(reason.clone());
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
                message = self.outgoing.recv() => if message.is_none() { return ControlFlow::Break(()) },
                permit = self.signals.reserve(), if !self.queued.is_empty() => match (permit, self.queued.pop_front()) {
                    (Ok(permit), Some(signal)) => permit.send(signal),
                    _ => return ControlFlow::Break(()),
                },
                request = self.stop.recv() => {
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
            Err(reason) => return End::Lost(reason),
        };
        let mut connection = Connection {
            sender,
            flight: Flight::new(self.options.bounded_window()),
            up: None,
            max_packet: usize::MAX,
            silence: link::silence(&self.options, None),
            phase: Phase::Running,
        };
        loop {
            let happened = {
                let next = timeout(connection.silence, poller.next());
                tokio::pin!(next);
                loop {
                    self.alive();
                    self.submit_states(&mut connection);
                    if let Some(end) = self.step_out(&mut connection) {
                        return end;
                    }
                    tokio::select! {
                        happened = &mut next => break happened.unwrap_or(Err(DisconnectReason::KeepAlive)),
                        end = self.serve(&mut connection) => if let Some(end) = end { return end },
                    }
                }
            };
            match happened {
                Ok(happened) => self.note(&mut connection, happened),
                Err(reason) => return self.lost(connection, poller, reason),
            }
        }
    }

    /// Wait for one thing other than the network: a message, a signal to pass on, a state, a stop, a deadline.
    async fn serve(&mut self, connection: &mut Connection) -> Option<End> {
        let up = connection.up.is_some();
        let room = !up || (connection.flight.has_room() && self.queued.len() < self.options.bounded_window());
        let ack_due = connection.flight.oldest().map(|t| Instant::from_std(t) + self.options.ack_timeout);
        let phase_due = connection.phase.until();
        let running = matches!(connection.phase, Phase::Running);
        let far = Instant::now() + Duration::from_secs(3600);
        let signals = self.signals.clone();
        tokio::select! {
            permit = signals.reserve(), if !self.queued.is_empty() => match (permit, self.queued.pop_front()) {
                (Ok(permit), Some(signal)) => permit.send(signal),
                // Nobody reads the signals any more: there is nobody to work for.
                _ => return Some(End::Stopped),
            },
            message = self.outgoing.recv(), if room => match message {
                Some(message) => self.submit(connection, message),
                None => return Some(End::Stopped),
            },
            () = self.states.changed.notified(), if up => {}
            request = self.stop.recv(), if running => match request {
                Some(request) => connection.phase = Phase::Draining(request),
                None => return Some(End::Stopped),
            },
            () = sleep_until(ack_due.unwrap_or(far)), if ack_due.is_some() => {
                return Some(End::Lost(DisconnectReason::NoAck { seconds: self.options.ack_timeout.as_secs() }));
            }
            () = sleep_until(phase_due.unwrap_or(far)), if phase_due.is_some() => {}
            () = sleep(BEAT_EVERY) => {}
        }
        None
    }

    fn alive(&self) {
        self.options.beat.touch(std::time::Instant::now());
    }

    fn submit(&mut self, connection: &mut Connection, message: Outgoing) {
        if connection.up.is_none() || message.generation != self.generation {
            return;
        }
        let Outgoing { sequence, topic, payload, .. } = message;
        let bytes = payload.len() + topic.len() + PACKET_OVERHEAD;
        if bytes > connection.max_packet {
            self.queued.push_back(Signal::Refused { sequence, code: PACKET_TOO_LARGE });
        } else if connection.sender.publish(&topic, payload, Kind::Event) {
            connection.flight.submit(Ticket::Message { sequence, bytes }, std::time::Instant::now());
        } else {
            self.queued.push_back(Signal::Refused { sequence, code: TOPIC_INVALID });
        }
    }

    fn submit_states(&self, connection: &mut Connection) {
        while connection.up.is_some() && connection.flight.has_room() {
            let Some((topic, payload)) = self.states.take_unsent() else { return };
            if connection.sender.publish(&topic, payload, Kind::Retained) {
                connection.flight.submit(Ticket::State { topic }, std::time::Instant::now());
            } else {
                tracing::warn!(topic, "MQTT: this retained topic is not valid");
            }
        }
    }

    fn note(&mut self, connection: &mut Connection, happened: Happened) {
        match happened {
            Happened::Connected { receive_maximum, max_packet, keep_alive } => {
                if let Some(maximum) = receive_maximum {
                    connection.flight.limit(maximum);
                }
                connection.max_packet = max_packet.map_or(usize::MAX, |m| m as usize);
                connection.silence = link::silence(&self.options, keep_alive);
                self.connected(connection);
            }
            Happened::Sent { packet } => {
                let known = connection.flight.sent(packet);
                debug_assert!(known, "identifier {packet} for nothing we sent");
            }
            Happened::Acked { packet, code } => self.acked(connection, packet, code),
            _ => {}
        }
    }

    fn connected(&mut self, connection: &mut Connection) {
        self.choice.worked();
        self.generation += 1;
        connection.up = Some(Instant::now());
        self.states.all_unsent();
        if let Some(birth) = self.options.birth.clone() {
            self.submit_status(connection, birth);
        }
        let protocol = self.choice.version();
        tracing::info!(broker = %self.options.endpoint, version = %protocol, "MQTT: connected");
        self.queued.push_back(Signal::Connected { generation: self.generation, protocol });
    }

    fn submit_status(&self, connection: &mut Connection, status: crate::Retained) {
        if connection.sender.publish(&status.topic, status.payload, Kind::Retained) {
            connection.flight.submit(Ticket::Status, std::time::Instant::now());
        } else {
            tracing::warn!(topic = status.topic, "MQTT: the status topic is not valid");
        }
    }

    fn acked(&mut self, connection: &mut Connection, packet: u16, code: u8) {
        let accepted = code < 0x80;
        match connection.flight.acked(packet) {
            Some(Ticket::Message { sequence, .. }) if accepted => {
                // Progress, so the next wait may be short; but not for ever, or two twins would throw each other out in a
                // frenzy.
                if self.short_lives < MANY_SHORT_LIVES {
                    self.backoff.reset();
                }
                self.queued.push_back(Signal::Acked { sequence });
            }
            Some(Ticket::Message { sequence, .. }) => self.queued.push_back(Signal::Refused { sequence, code }),
            Some(Ticket::State { topic }) if accepted => self.states.acked(&topic),
            Some(Ticket::State { topic }) => tracing::warn!(topic, code, "MQTT: the broker refuses a retained state"),
            Some(Ticket::Status) if !accepted => tracing::warn!(code, "MQTT: the broker refuses our status message"),
            Some(Ticket::Status) => {}
            None => tracing::debug!(packet, "MQTT: an acknowledgement for nothing we sent"),
        }
    }

    /// The connection is over: save the acknowledgements that came with its end.
    fn lost(&mut self, mut connection: Connection, mut poller: Poller, reason: DisconnectReason) -> End {
        for happened in poller.leftovers() {
            if matches!(happened, Happened::Sent { .. } | Happened::Acked { .. }) {
                self.note(&mut connection, happened);
            }
        }
        if let DisconnectReason::ByBroker { code: PACKET_TOO_LARGE, .. } = reason
            && let Some(sequence) = connection.flight.largest()
        {
            self.queued.push_back(Signal::Refused { sequence, code: PACKET_TOO_LARGE });
        }
        let reason = self.judge(connection.up, reason);
        match connection.phase {
            Phase::Running => End::Lost(reason),
            Phase::Leaving(request) => finish(request, &connection.flight, true),
            Phase::Draining(request) | Phase::Farewell(request) => finish(request, &connection.flight, false),
        }
    }

    fn judge(&mut self, up: Option<Instant>, reason: DisconnectReason) -> DisconnectReason {
        match up {
            Some(since) if since.elapsed() > PROVEN_AFTER => {
                self.backoff.reset();
                self.short_lives = 0;
                self.last_reason = None;
            }
            Some(_) if matches!(reason, DisconnectReason::Closed { .. }) => {
                self.short_lives += 1;
                if self.short_lives >= MANY_SHORT_LIVES {
                    return DisconnectReason::Unstable { times: self.short_lives };
                }
            }
            _ => {}
        }
        reason
    }

    /// Advance the way out when its step is done or its time is over.
    fn step_out(&mut self, connection: &mut Connection) -> Option<End> {
        let over = connection.phase.until().is_some_and(|until| Instant::now() >= until);
        let idle = connection.flight.is_empty() && self.outgoing.is_empty();
        match std::mem::replace(&mut connection.phase, Phase::Running) {
            Phase::Draining(request) if connection.up.is_none() => Some(finish(request, &connection.flight, false)),
            Phase::Draining(request) if idle || over => {
                if let Some(stopped) = self.options.stopped.clone() {
                    self.submit_status(connection, stopped);
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
