//! What goes over one connection: messages, states, replies and subscriptions one way, acknowledgements and messages the
//! other.
//!
//! Methods of the [`Driver`], on its task. Nothing here waits: what finds no room in the flight stays where it is.

use std::time::Instant;

use tokio::sync::mpsc::error::TrySendError;

use crate::blame::{Charge, Finding, Packet, Suspect};
use crate::client::{Incoming, Outgoing, Reply, Signal};
use crate::deferral::{self, Verdict};
use crate::driver::{Asked, Connection, Driver};
use crate::flight::{StateDoes, Ticket};
use crate::link::{self, Happened, Kind, Message};
use crate::reason::ALLOW;
use crate::stop::Phase;
use crate::{DisconnectReason, Retained};

/// What a PUBLISH costs beside topic and payload: fixed header, identifier, properties.
const PACKET_OVERHEAD: usize = 96;
pub(crate) const PACKET_TOO_LARGE: u8 = 0x95;
const TOPIC_INVALID: u8 = 0x90;
const RAISE: &str =
    "it is left out while it is so large: raise the broker's largest packet (mosquitto: max_packet_size)";

impl Driver {
    /// What nobody hands over: birth, subscriptions and retained states, as far as there is room and the broker takes any.
    pub(crate) fn submit_own(&mut self, connection: &mut Connection) {
        let now = Instant::now();
        if connection.up.is_none() || self.deferrals.paused_until(now).is_some() {
            return;
        }
        let running = matches!(connection.phase, Phase::Running);
        if running
            && !std::mem::replace(&mut connection.born, true)
            && let Some(birth) = self.options.birth.clone()
        {
            Self::submit_status(connection, birth);
        }
        if running
            && connection.subscribed == Asked::No
            && connection.flight.has_room()
            && let Some(filters) = self.subscriptions.due(now)
        {
            if connection.sender.subscribe(filters) {
                connection.flight.submit(Ticket::Subscription, now);
                connection.subscribed = Asked::Waiting;
            } else {
                tracing::warn!(filters = filters.join(" "), "MQTT: these topic filters are not valid");
                connection.subscribed = Asked::Answered;
            }
        }
        while connection.flight.has_room() {
            let Some((topic, payload)) = self.ends.states.take_unsent() else { return };
            if self.blame.closed(&topic, now).is_some() {
                // It is tried again on a later connection, or when it changes.
                self.pass_over(connection, &Packet::State(topic), now);
                continue;
            }
            let bytes = payload.len() + topic.len() + PACKET_OVERHEAD;
            let does = if payload.is_empty() { StateDoes::Remove } else { StateDoes::Set };
            if bytes > connection.max_packet {
                if self.ends.states.refused(&topic) {
                    tracing::warn!(topic, bytes, "MQTT: this retained state is larger than the broker takes; {RAISE}");
                }
            } else if connection.sender.publish(&topic, payload, Kind::Retained) {
                connection.flight.submit(Ticket::State { topic, bytes, does }, now);
            } else if self.ends.states.refused(&topic) {
                tracing::warn!(topic, "MQTT: this retained topic is not valid");
            }
        }
    }

    pub(crate) fn submit(&mut self, connection: &mut Connection, message: Outgoing) {
        if connection.up.is_none() || message.generation != self.generation {
            return;
        }
        let Outgoing { sequence, topic, payload, .. } = message;
        let bytes = payload.len() + topic.len() + PACKET_OVERHEAD;
        let now = Instant::now();
        let too_large = (bytes > connection.max_packet).then_some(PACKET_TOO_LARGE);
        if let Some(code) = self.blame.closed(&topic, now).or(too_large) {
            self.queued.push_back(Signal::Refused { sequence, code });
            self.pass_over(connection, &Packet::Message(sequence), now);
        } else if connection.sender.publish(&topic, payload, Kind::Event) {
            connection.flight.submit(Ticket::Message { sequence, topic, bytes }, now);
        } else {
            self.queued.push_back(Signal::Refused { sequence, code: TOPIC_INVALID });
        }
    }

    /// What is not sent is no suspect, and keeps nothing else waiting.
    fn pass_over(&mut self, connection: &mut Connection, packet: &Packet, now: Instant) {
        self.blame.answered(packet);
        connection.flight.narrow(self.blame.is_cautious(now));
    }

    pub(crate) fn submit_reply(&mut self, connection: &mut Connection, reply: Reply) {
        let Reply { topic, payload, correlation } = reply;
        let properties = correlation.as_ref().map_or(0, |c| c.len());
        let bytes = payload.len() + topic.len() + properties + PACKET_OVERHEAD;
        if bytes > connection.max_packet {
            self.reply_failed("it is larger than the broker takes");
        } else if connection.sender.publish(&topic, payload, Kind::Reply { correlation }) {
            connection.flight.submit(Ticket::Reply { bytes }, Instant::now());
        } else {
            self.reply_failed("its topic is not valid");
        }
    }

    /// Said once: whoever asks can make it happen as often as it likes.
    fn reply_failed(&mut self, why: &str) {
        if std::mem::replace(&mut self.reply_failed, true) {
            tracing::debug!("MQTT: a reply to a command cannot be sent: {why}");
        } else {
            tracing::warn!("MQTT: a reply to a command cannot be sent: {why}; further ones are not mentioned");
        }
    }

    pub(crate) fn submit_status(connection: &mut Connection, status: Retained) {
        if connection.sender.publish(&status.topic, status.payload, Kind::Retained) {
            connection.flight.submit(Ticket::Status, Instant::now());
        } else {
            tracing::warn!(topic = status.topic, "MQTT: the status topic is not valid");
        }
    }

    pub(crate) fn note(&mut self, connection: &mut Connection, happened: Happened) {
        match happened {
            Happened::Connected { receive_maximum, max_packet, keep_alive } => {
                if let Some(maximum) = receive_maximum {
                    connection.flight.limit(maximum);
                }
                connection.max_packet = max_packet.map_or(usize::MAX, |m| m as usize);
                connection.silence = link::silence(&self.options, keep_alive);
                connection.up = Some(tokio::time::Instant::now());
                self.connected();
            }
            Happened::Sent { packet } => {
                let known = connection.flight.sent(packet);
                debug_assert!(known, "identifier {packet} for nothing we sent");
            }
            Happened::Acked { packet, code } => self.acked(connection, packet, code),
            Happened::Subscribed { packet, refused } => {
                connection.flight.acked(packet, Instant::now());
                connection.subscribed = Asked::Answered;
                self.subscribed(&refused);
            }
            Happened::Message(message) => self.pass_on(message),
            Happened::Disconnecting | Happened::Other => {}
        }
    }

    fn connected(&mut self) {
        self.generation += 1;
        self.ends.states.all_unsent();
        let protocol = self.choice.version();
        let (broker, client_id) = (&self.options.endpoint, &self.options.client_id);
        if self.news.connection_is_news() {
            tracing::info!(%broker, client_id, version = %protocol, "MQTT: connected");
        } else {
            tracing::debug!(%broker, client_id, version = %protocol, "MQTT: connected");
        }
        self.queued.push_back(Signal::Connected { generation: self.generation, protocol });
    }

    fn subscribed(&mut self, refused: &[usize]) {
        let (refused, news) = self.subscriptions.answered(refused);
        if news {
            tracing::warn!(
                filters = refused.join(" "),
                "MQTT: the broker does not let this client subscribe there, so no command arrives: allow it to read these \
                 topics in the broker's access rules, or set [mqtt] commands = false"
            );
        }
        self.queued.push_back(Signal::Subscribed { refused });
    }

    /// Never waits: a stranger who sends faster than is read loses messages, and costs nobody else anything.
    fn pass_on(&mut self, message: Message) {
        let Message { topic, payload, retained, response_topic, correlation } = message;
        let size = payload.len();
        // Copied: a part of the library's read buffer would keep all of it.
        let payload = (size <= self.options.max_incoming).then(|| bytes::Bytes::copy_from_slice(&payload));
        let missed = self.missed;
        let incoming = Incoming { topic, payload, size, retained, response_topic, correlation, missed };
        match self.ends.incoming.try_send(incoming) {
            Ok(()) => self.missed = 0,
            Err(TrySendError::Full(_)) => self.missed += 1,
            Err(TrySendError::Closed(_)) => {}
        }
    }

    fn acked(&mut self, connection: &mut Connection, packet: u16, code: u8) {
        let now = Instant::now();
        let Some(ticket) = connection.flight.acked(packet, now) else {
            tracing::debug!(packet, "MQTT: an acknowledgement for nothing we sent");
            return;
        };
        if let (Some(packet), Some(topic)) = (ticket.packet(), ticket.topic()) {
            if code < 0x80 {
                self.blame.accepted(&packet, topic);
            } else {
                self.blame.answered(&packet);
            }
        }
        connection.flight.narrow(self.blame.is_cautious(now));
        if code < 0x80 {
            self.accepted(connection, ticket, now);
        } else if deferral::may_pass(code) {
            self.deferred(connection, ticket, code, now);
        } else {
            self.refused(ticket, code);
        }
    }

    fn accepted(&mut self, connection: &mut Connection, ticket: Ticket, now: Instant) {
        match ticket {
            Ticket::Message { sequence, .. } => {
                connection.progress = true;
                // The next wait may be short; but not for ever, or two twins would throw each other out in a frenzy.
                if !self.breaks.are_many(now) {
                    self.backoff.reset();
                }
                self.deferrals.accepted(sequence);
                self.queued.push_back(Signal::Acked { sequence });
            }
            Ticket::State { topic, does, .. } => self.ends.states.acked(&topic, does),
            Ticket::Status | Ticket::Subscription | Ticket::Reply { .. } => {}
        }
    }

    fn deferred(&mut self, connection: &mut Connection, ticket: Ticket, code: u8, now: Instant) {
        let news = match ticket {
            Ticket::Message { sequence, .. } => match self.deferrals.deferred(sequence, now) {
                Verdict::Later { news } => {
                    self.queued.push_back(Signal::Deferred { sequence, code });
                    news
                }
                Verdict::ToBlame => return self.queued.push_back(Signal::Refused { sequence, code }),
            },
            Ticket::State { topic, .. } => {
                self.ends.states.deferred(topic);
                self.deferrals.pause(now)
            }
            // The birth; a farewell has no second chance.
            Ticket::Status => {
                connection.born = false;
                self.deferrals.pause(now)
            }
            Ticket::Subscription | Ticket::Reply { .. } => self.deferrals.pause(now),
        };
        if news {
            tracing::warn!(
                code,
                "MQTT: the broker does not take messages now; they are kept and it is tried again after a while"
            );
        }
    }

    /// The broker hung up because a packet is too large: the largest is to blame.
    pub(crate) fn too_large(&mut self, connection: &Connection) {
        match connection.flight.largest() {
            Some(&Ticket::Message { sequence, .. }) => {
                self.queued.push_back(Signal::Refused { sequence, code: PACKET_TOO_LARGE });
            }
            Some(Ticket::State { topic, bytes, .. }) => {
                if self.ends.states.too_large(topic) {
                    tracing::warn!(topic, bytes, "MQTT: the broker hangs up because of this retained state; {RAISE}");
                }
            }
            Some(Ticket::Reply { .. }) => self.reply_failed("the broker hangs up because of its size"),
            Some(Ticket::Status | Ticket::Subscription) | None => {}
        }
    }

    /// The broker hung up: whether because of what it was sent, and then a better reason than that it did.
    pub(crate) fn find_culprit(
        &mut self,
        connection: &Connection,
        reason: &DisconnectReason,
    ) -> Option<DisconnectReason> {
        if connection.up.is_none() || !matches!(connection.phase, Phase::Running) {
            return None;
        }
        let charge = Charge::of(reason)?;
        let (suspects, alone) = (connection.flight.suspects(), connection.flight.is_one_alone());
        let topic = match self.blame.ended(charge, suspects, alone, Instant::now()) {
            // Once says nothing.
            Finding::Nothing | Finding::Accused { times: 1, .. } => return None,
            Finding::Accused { suspect, .. } => suspect.topic,
            Finding::Guilty { suspect, times, code } => {
                self.condemn(&suspect, times, code);
                suspect.topic
            }
        };
        // The broker's own words are better.
        (charge == Charge::Doubtful).then_some(DisconnectReason::AtMessage { topic })
    }

    fn condemn(&mut self, suspect: &Suspect, times: u32, code: u8) {
        let topic = &suspect.topic;
        match &suspect.packet {
            Packet::Message(sequence) => {
                tracing::error!(
                    topic,
                    sequence,
                    times,
                    code,
                    "MQTT: the broker hangs up when it is sent this message, so it is set aside and does not hold up the \
                     others: {ALLOW}"
                );
                self.queued.push_back(Signal::Refused { sequence: *sequence, code });
            }
            Packet::State(_) => {
                if self.ends.states.refused(topic) {
                    tracing::warn!(
                        topic,
                        times,
                        code,
                        "MQTT: the broker hangs up because of this retained state, so it is left out for a while: {ALLOW}"
                    );
                }
            }
        }
    }

    fn refused(&mut self, ticket: Ticket, code: u8) {
        match ticket {
            Ticket::Message { sequence, .. } => self.queued.push_back(Signal::Refused { sequence, code }),
            Ticket::State { topic, .. } => {
                if self.ends.states.refused(&topic) {
                    tracing::warn!(topic, code, "MQTT: the broker refuses a retained state");
                }
            }
            Ticket::Status => tracing::warn!(code, "MQTT: the broker refuses our status message"),
            Ticket::Reply { .. } => self.reply_failed(&format!("the broker refuses it with 0x{code:02x}")),
            Ticket::Subscription => {}
        }
    }
}
