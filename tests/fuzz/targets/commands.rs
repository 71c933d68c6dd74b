//! What comes over MQTT from whoever may publish: the topic of a command, its payload, and where it wants to be answered.

use kinewatch_core::command::{self, CommandName, CommandReply};
use kinewatch_core::topic;

use super::{is_told, text};

/// The first line is a topic, and a name too; the second is a response topic; the rest is the payload.
pub fn command(data: &[u8]) {
    let mut lines = data.splitn(3, |b| *b == b'\n');
    let (first, second, payload) =
        (lines.next().unwrap_or(&[]), lines.next().unwrap_or(&[]), lines.next().unwrap_or(&[]));
    let (Some(name), Some(response)) = (text(first), text(second)) else { return };
    if let Some((_, name)) = topic::parse_command(name, "home", "box") {
        assert!(!name.contains('/'));
        answer(name, payload);
    }
    answer(name, payload);
    for known in CommandName::ALL {
        answer(known.as_str(), payload);
    }
    if topic::is_response(response, "home") {
        assert!(
            response.starts_with("kinewatch/v1/home/") && response.contains("/rsp/") && !response.contains(['+', '#'])
        );
    }
}

fn answer(name: &str, payload: &[u8]) {
    let (id, outcome) = match command::parse(name, payload) {
        Ok(request) => {
            assert_eq!(request.command.name().as_str(), name);
            assert!(request.id.as_ref().is_none_or(|id| id.chars().count() <= command::MAX_ID));
            (request.id, Ok(serde_json::Value::Null))
        }
        Err(error) => {
            is_told(&error.message);
            (None, Err(error))
        }
    };
    let written = serde_json::to_vec(&CommandReply::new(name, "box", id, outcome)).unwrap();
    assert!(written.len() < 16 << 10, "an answer of {} bytes", written.len());
}
