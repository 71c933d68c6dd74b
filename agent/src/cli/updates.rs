//! `kinewatch model list|install|rollback|pin|unpin|history`: models over the air, by hand.
//!
//! What changes something is asked of the running daemon, over its control socket; it alone owns the state of updates. What
//! only looks reads the database beside it where none runs.

use std::path::{Path, PathBuf};

use comfy_table::Cell;
use kinewatch_core::event::{InstalledModel, ModelState, ModelsState};
use serde_json::{Value, json};

use super::events::state_dir;
use super::{Failure, ModelActionArgs, ModelHistoryArgs, ModelListArgs, Outcome, print};
use crate::control::{self, AskError};
use crate::table::new_table;
use crate::updates::{self, HistoryLine};

/// `model list`.
pub(super) fn list(args: &ModelListArgs) -> Outcome {
    let dir = state_dir(&args.state)?;
    let state = match seen(&dir) {
        Err(AskError::NotRunning { .. }) => updates::stored(&dir).map_err(Failure::say)?,
        seen => seen.map_err(Failure::say)?,
    };
    if args.json {
        return print(&json!(state).to_string());
    }
    if state.models.is_empty() {
        return print("no updates here: set [updates] url in the configuration, and see `kinewatch publish --help`");
    }
    print(&table(&state))?;
    state.models.iter().try_for_each(explain)
}

/// What the agent that runs says of its models.
pub(super) fn seen(dir: &Path) -> Result<ModelsState, AskError> {
    let reply = control::ask(dir, "status", "")?;
    let state = reply.result.map(|status| status["updates"].clone()).unwrap_or_default();
    serde_json::from_value(state).map_err(|error| AskError::Unreadable(error.to_string()))
}

fn table(state: &ModelsState) -> String {
    let mut table = new_table(&["model", "installed", "before", "channel", "offered", "state"]);
    for model in &state.models {
        let offered = model.offered.as_ref().map_or_else(String::new, |offer| {
            format!("{} (epoch {}{})", offer.version, offer.epoch, if offer.halted { ", halted" } else { "" })
        });
        let waits = model.waits_for.as_ref().map_or_else(String::new, |what| format!(", waits: {what}"));
        let pinned = if model.pinned { ", pinned" } else { "" };
        table.add_row([
            Cell::new(&model.model),
            Cell::new(told(&model.installed)),
            Cell::new(model.previous.as_ref().map_or_else(String::new, told)),
            Cell::new(model.channel.as_deref().unwrap_or("off")),
            Cell::new(offered),
            Cell::new(format!("{}{waits}{pinned}", model.state)),
        ]);
    }
    table.to_string()
}

fn explain(model: &ModelState) -> Outcome {
    let lines = [("", &model.error), ("repository: ", &model.repository_error)];
    for (of, error) in lines.into_iter().filter_map(|(of, error)| Some((of, error.as_ref()?))) {
        print(&format!("{}: {of}{error}", model.model))?;
    }
    for q in &model.quarantine {
        print(&format!("{}: {} (epoch {}) failed here: {}, {}", model.model, q.version, q.epoch, q.code, q.at))?;
    }
    Ok(())
}

pub(super) fn told(installed: &InstalledModel) -> String {
    match installed.epoch {
        Some(epoch) => format!("{} (epoch {epoch})", installed.version),
        None => format!("{} (factory)", installed.version),
    }
}

/// `model install`, `rollback`, `pin` and `unpin`: the command of that name.
pub(super) fn act(command: &str, args: &ModelActionArgs) -> Outcome {
    let answer = ask(&state_dir(&args.state)?, command, &json!({ "model": args.model }))?;
    if args.json {
        return print(&answer.to_string());
    }
    let state = answer["state"].as_str().unwrap_or("done");
    print(&format!("{}: {state}; how it goes: kinewatch model list", args.model))
}

pub(super) fn ask(dir: &Path, command: &str, payload: &Value) -> Result<Value, Failure> {
    let payload = if payload.is_null() { String::new() } else { payload.to_string() };
    let reply = control::ask(dir, command, &payload).map_err(Failure::say)?;
    match (reply.result, reply.error) {
        (Some(result), _) => Ok(result),
        (None, Some(error)) => Err(Failure::say(error.message)),
        (None, None) => Ok(Value::Null),
    }
}

/// `model history`.
pub(super) fn history(args: &ModelHistoryArgs) -> Outcome {
    let dir: PathBuf = state_dir(&args.state)?;
    let lines = updates::history(&dir, args.model.as_deref(), args.limit).map_err(Failure::say)?;
    if args.json {
        return lines.iter().try_for_each(|line| print(&json!(line).to_string()));
    }
    if lines.is_empty() {
        return print("nothing has happened yet");
    }
    let mut table = new_table(&["when", "model", "release", "from", "to", "why"]);
    for HistoryLine { model, note } in &lines {
        let why = note.fault.as_ref().map_or_else(String::new, ToString::to_string);
        let release = note.release.as_ref().map(|release| format!("{} (epoch {})", release.version, release.epoch));
        let (at, release) = (format!("{:.0}", note.at), release.unwrap_or_default());
        table.add_row([&at, model, &release, &note.from, &note.to, &why].map(Cell::new));
    }
    print(&table.to_string())
}
