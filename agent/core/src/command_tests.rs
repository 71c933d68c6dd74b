//! Commands as they come, answers as they go.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn told(name: &str, payload: &str) -> (ErrorCode, String) {
    let error = parse(name, payload.as_bytes()).unwrap_err();
    (error.code, error.message)
}

#[test]
fn every_command_is_read() {
    let plain = |command| Ok(CommandRequest { command, id: None });
    assert_eq!(parse("ping", b""), plain(Command::Ping));
    assert_eq!(parse("status", b" {}\n"), plain(Command::Status));
    assert_eq!(parse("ack", br#"{"upto":18446744073709551615}"#), plain(Command::Ack { upto: u64::MAX }));
    assert_eq!(parse("resend", br#"{"from":7}"#), plain(Command::Resend { from: 7 }));
    let as_in_an_event = br#"{"upto":"00000000000000000005"}"#;
    assert_eq!(parse("ack", as_in_an_event), plain(Command::Ack { upto: 5 }), "what was received can be sent back");
    assert_eq!(parse("resend", br#"{"from":"18446744073709551615"}"#), plain(Command::Resend { from: u64::MAX }));
    let restart = Command::CameraRestart { camera: "front".into() };
    assert_eq!(parse("camera-restart", br#"{"camera":"front"}"#), plain(restart));
    let install = Command::ModelInstall { model: "falls".into() };
    assert_eq!(parse("model-install", br#"{"model":"falls"}"#), plain(install));
    let with_id = CommandRequest { command: Command::Reload, id: Some("7".into()) };
    assert_eq!(parse("reload", br#"{"id":"7"}"#), Ok(with_id));
}

#[test]
fn whatever_is_wrong_is_said() {
    let (code, message) = told("reboot", "");
    assert_eq!(code, ErrorCode::UnknownCommand);
    assert_eq!(
        message,
        "there is no command \"reboot\"; there are: ping, status, ack, resend, camera-restart, reload, model-check, \
         model-install, model-rollback, model-pin, model-unpin"
    );
    for payload in [
        "",
        "[7]",
        "7",
        "{",
        "{}",
        r#"{"upto":-1}"#,
        r#"{"upto":1.5}"#,
        r#"{"upto":1,"upto":2}"#,
        r#"{"upto":"+5"}"#,
        r#"{"upto":""}"#,
        r#"{"upto":"18446744073709551616"}"#,
        r#"{"upto":true}"#,
    ] {
        assert_eq!(told("ack", payload).0, ErrorCode::InvalidPayload, "{payload}");
    }
    let (code, message) = told("ack", r#"{"upto":1,"force":true}"#);
    assert_eq!(code, ErrorCode::InvalidPayload);
    assert!(message.contains("unknown field `force`, expected `upto` or `id`"), "{message}");
    assert_eq!(told("camera-restart", r#"{"camera":"../x"}"#).0, ErrorCode::UnknownCamera);
    assert_eq!(told("model-pin", r#"{"model":"../x"}"#).0, ErrorCode::UnknownModel);
    assert_eq!(told("ping", &format!(r#"{{"id":"{}"}}"#, "x".repeat(65))).0, ErrorCode::InvalidPayload);
    assert_eq!(told("ping", &" ".repeat(MAX_PAYLOAD + 1)).0, ErrorCode::TooLarge);
    assert_eq!(told("ping", &"[".repeat(MAX_PAYLOAD)).0, ErrorCode::InvalidPayload);
    let deep = format!(r#"{{"id":{}"#, r#"{"a":"#.repeat(3000));
    assert_eq!(told("ping", &deep).0, ErrorCode::InvalidPayload, "no deep recursion");
    assert!(told("ping", &format!(r#"{{"{}":1}}"#, "x".repeat(9000))).1.len() < 400, "an echo is bounded");
}

#[test]
fn answers_look_like_this() {
    let done = CommandReply::new("ping", "box", None, Ok(json!({"session": 7})));
    let json = serde_json::to_string(&done).unwrap();
    assert_eq!(json, r#"{"ok":true,"command":"ping","device":"box","result":{"session":7}}"#);
    let error = CommandError::new(ErrorCode::NotForAll, "no");
    let refused = CommandReply::new("ack", "box", Some("7".into()), Err(error));
    assert_eq!(
        serde_json::to_string(&refused).unwrap(),
        r#"{"ok":false,"command":"ack","device":"box","id":"7","error":{"code":"not_for_all","message":"no"}}"#
    );
}

#[test]
fn the_schema_knows_every_command() {
    let [(_, schema), _] = schemas();
    let known: BTreeSet<_> = schema.get("properties").unwrap().as_object().unwrap().keys().cloned().collect();
    assert_eq!(known, CommandName::ALL.map(|name| name.as_str().to_owned()).into());
}

proptest! {
    #[test]
    fn any_bytes_give_a_command_or_a_bounded_error(name in ".{0,80}", payload: Vec<u8>) {
        for name in CommandName::ALL.map(CommandName::as_str).into_iter().chain([name.as_str()]) {
            if let Err(error) = parse(name, &payload) {
                prop_assert!(error.message.len() < 4 * (MAX_MESSAGE + 2));
            }
        }
    }

    #[test]
    fn what_looks_like_json_does_too(payload in r#"\{("(upto|from|id|camera|x)":("[a-z]{0,3}"|-?[0-9]{1,21}|null|\{|\[|true),?){0,4}\}?"#) {
        for name in CommandName::ALL {
            if let Ok(request) = parse(name.as_str(), payload.as_bytes()) {
                prop_assert!(payload.len() <= MAX_PAYLOAD && request.id.is_none_or(|id| id.chars().count() <= MAX_ID));
            }
        }
    }
}
