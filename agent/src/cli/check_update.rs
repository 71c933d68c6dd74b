//! `kinewatch model check-update`: lets the running daemon look at the repository, waits for the end of that, and says what
//! came of it: for people, and by its exit code for scripts.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use kinewatch_core::event::{ModelState, ModelsState};
use kinewatch_core::rollout::Code;
use serde_json::{Value, json};

use super::events::state_dir;
use super::updates::{ask, seen, told};
use super::{Failure, ModelListArgs, Outcome, print};

/// How long the repository is waited for: a server that does not answer is tried several times.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often the daemon is asked whether the look has ended.
const LOOK: Duration = Duration::from_millis(200);

/// `model check-update`.
pub(super) fn run(args: &ModelListArgs) -> Outcome {
    let dir = state_dir(&args.state)?;
    let before = seen(&dir).map_err(Failure::say)?;
    ask(&dir, "model-check", &Value::Null)?;
    let state = looked(&dir, &before)?;
    if args.json {
        print(&json!(state).to_string())?;
    }
    let (well, failed): (Vec<_>, Vec<_>) = state.models.iter().map(verdict).partition(Result::is_ok);
    if !args.json {
        well.into_iter().flatten().try_for_each(|line| print(&line))?;
    }
    let failed: Vec<String> = failed.into_iter().filter_map(Result::err).collect();
    if failed.is_empty() { Ok(()) } else { Err(Failure::say(failed.join("\n"))) }
}

/// The state once a look has ended for every model.
fn looked(dir: &Path, before: &ModelsState) -> Result<ModelsState, Failure> {
    let counts: BTreeMap<&str, u64> = before.models.iter().map(|m| (m.model.as_str(), m.checks)).collect();
    let begun = Instant::now();
    loop {
        let state = seen(dir).map_err(Failure::say)?;
        if state.models.iter().all(|m| counts.get(m.model.as_str()).is_none_or(|&before| m.checks > before)) {
            return Ok(state);
        }
        if begun.elapsed() > PATIENCE {
            return Err(Failure::say(format!(
                "the repository has not answered within {} s; whether it does later: kinewatch model list",
                PATIENCE.as_secs()
            )));
        }
        std::thread::sleep(LOOK);
    }
}

/// What came of the look at the repository, in one line; an error where it failed.
fn verdict(model: &ModelState) -> Result<String, String> {
    let name = &model.model;
    if let Some(error) = &model.repository_error {
        return Err(format!("{name}: {error}"));
    }
    let Some(offer) = &model.offered else { return Ok(format!("{name}: nothing is offered")) };
    let offered = format!("{name}: offered {} (epoch {})", offer.version, offer.epoch);
    Ok(match (&model.waits_for, &model.candidate) {
        (Some(what), _) => format!("{offered}, waits: {}", waits(what, model)),
        (None, Some(_)) => format!("{offered}: {}; how it goes: kinewatch model list", model.state),
        (None, None) if offer.version == model.installed.version => {
            format!("{name}: up to date, {} runs", told(&model.installed))
        }
        (None, None) => format!("{offered}: {}", model.state),
    })
}

/// What an offer waits for, and what to do about it.
fn waits(what: &str, model: &ModelState) -> String {
    let name = &model.model;
    let by_hand = format!("`kinewatch model install {name}` does not wait");
    match what {
        "approval" => format!("for approval, by `kinewatch model install {name}`"),
        "wave" => format!("for its wave; {by_hand}"),
        "window" => format!("for the maintenance window; {by_hand}"),
        "pause" => match &model.error {
            Some(error) => format!("before it is tried again, since {error}; {by_hand}"),
            None => format!("before it is tried again; {by_hand}"),
        },
        code => match serde_json::from_value::<Code>(json!(code)) {
            Ok(code) => format!("{code}: {}", code.explain()),
            Err(_) => code.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use kinewatch_core::event::{InstalledModel, ModelError, OfferedModel};
    use kinewatch_core::rollout::Fault;

    use super::*;

    fn model() -> ModelState {
        let installed = InstalledModel { version: "1.5.0".into(), epoch: Some(6), sha256: None };
        ModelState {
            model: "falls".into(),
            installed,
            previous: None,
            channel: Some("stable".into()),
            offered: Some(OfferedModel { version: "1.6.0".into(), epoch: 7, halted: false }),
            state: "idle".into(),
            candidate: None,
            waits_for: None,
            pinned: false,
            error: None,
            repository_error: None,
            checked_at: None,
            checks: 1,
            quarantine: Vec::new(),
        }
    }

    #[test]
    fn a_verdict_says_what_is_offered_and_what_it_waits_for() {
        let waiting = |what: &str| verdict(&ModelState { waits_for: Some(what.into()), ..model() }).unwrap();
        let offered = "falls: offered 1.6.0 (epoch 7)";
        assert_eq!(waiting("approval"), format!("{offered}, waits: for approval, by `kinewatch model install falls`"));
        assert!(
            waiting("window").contains("for the maintenance window; `kinewatch model install falls` does not wait")
        );
        assert!(waiting("halted").starts_with(&format!("{offered}, waits: halted: the publisher has halted")));
        assert!(waiting("a word of the future").ends_with("waits: a word of the future"));
        let candidate = Some(InstalledModel { version: "1.6.0".into(), epoch: Some(7), sha256: None });
        let under_way = ModelState { candidate, state: "downloading".into(), ..model() };
        let expected = format!("{offered}: downloading; how it goes: kinewatch model list");
        assert_eq!(verdict(&under_way), Ok(expected));
        let runs = InstalledModel { version: "1.6.0".into(), epoch: Some(7), sha256: None };
        let verdict_of = verdict(&ModelState { installed: runs, ..model() });
        assert_eq!(verdict_of.unwrap(), "falls: up to date, 1.6.0 (epoch 7) runs");
    }

    #[test]
    fn a_look_that_failed_is_an_error_with_its_code_and_what_to_do() {
        let fault = Fault::new(Code::Unreachable, "connection refused");
        let failed = ModelState { repository_error: Some(ModelError::from(&fault)), ..model() };
        let said = verdict(&failed).unwrap_err();
        assert!(said.starts_with("falls: unreachable: the repository cannot be reached"), "{said}");
        assert!(said.ends_with("(connection refused)"), "{said}");
    }
}
