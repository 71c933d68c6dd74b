//! Models over the air: the trust anchor, the clock, the repository, the disk, and what keeps an update from going on.
//!
//! The repository is asked with metadata of the check's own, in a folder that is removed again: what the daemon trusts is not
//! touched.

use std::path::Path;

use kinewatch_core::event::{ModelError, ModelsState};
use kinewatch_core::rollout::{Code, Disposition, Fault};

use super::size;
use crate::config::file::UpdateClock;
use crate::config::plan::UpdatesPlan;
use crate::doctor::{About, Context, Finding, Network};
use crate::updates;

pub(super) fn check(context: &Context, about: &About) -> Vec<Finding> {
    let Some(plan) = context.config.parts.updates.as_ref() else {
        return vec![about.skip("[updates] of the configuration cannot be used")];
    };
    let mut found = context.state_dir().map_or_else(Vec::new, |dir| models(dir, about));
    let Some(plan) = plan else {
        found.push(about.skip("off: [updates] url is not set"));
        return found;
    };
    found.extend(clock(plan, crate::clock::state().synced, about));
    found.extend(context.state_dir().and_then(|dir| space(plan, dir, about)));
    if context.network == Network::Offline {
        found.push(match updates::anchor(plan) {
            Ok(()) => about.skip("the repository is not asked (--offline)"),
            Err(fault) => told(&fault, about),
        });
        return found;
    }
    match updates::look(plan) {
        Ok(expires) => {
            found.push(
                about.ok(format!("{}: its metadata is signed as it should be, until {expires}", plan.mirrors[0])),
            );
        }
        Err(fault) => found.push(told(&fault, about)),
    }
    found
}

/// A fault in the words of its code.
fn told(fault: &Fault, about: &About) -> Finding {
    let message = ModelError::from(fault).to_string();
    match fault.code.disposition() {
        Disposition::Wait => about.warn(message),
        Disposition::Delay | Disposition::Quarantine => about.fail(message),
    }
}

fn clock(plan: &UpdatesPlan, synced: bool, about: &About) -> Option<Finding> {
    let waits = plan.clock == UpdateClock::Synchronised && !synced;
    let code = Code::ClockNotSynchronised;
    waits.then(|| about.warn(format!("{code}: {}; or set [updates] clock = \"trusted\"", code.explain())))
}

fn space(plan: &UpdatesPlan, dir: &Path, about: &About) -> Option<Finding> {
    let there = dir.ancestors().find(|dir| dir.is_dir())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let code = Code::NoSpace;
    (free < plan.reserve).then(|| {
        about.warn(format!(
            "{code}: {}: {} are free, and [updates] reserve_mb keeps {} for events; free some",
            there.display(),
            size(free),
            size(plan.reserve)
        ))
    })
}

/// What the updater last said of each model.
fn models(dir: &Path, about: &About) -> Vec<Finding> {
    match updates::stored(dir) {
        Ok(state) => judge(&state, about),
        Err(fault) => vec![told(&fault, about)],
    }
}

fn judge(state: &ModelsState, about: &About) -> Vec<Finding> {
    let mut found = Vec::new();
    for model in &state.models {
        let errors = [("", &model.error), ("the repository: ", &model.repository_error)];
        for (of, error) in errors.into_iter().filter_map(|(of, error)| Some((of, error.as_ref()?))) {
            found.push(about.warn(format!("{}: {of}{error}", model.model)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::time::Duration;

    use super::*;
    use crate::config::file::{UpdatePolicy, UpdateSwap};
    use crate::doctor::tests::told as lines;

    /// The document that tells an operator of each code, as it is made from the codes themselves.
    fn document() -> String {
        let example = Fault::new(Code::ProbationFailed, "1 errors in 112 windows: …");
        let on_mqtt = serde_json::to_string(&ModelError::from(&example)).unwrap();
        let mut text = format!(
            "# Codes of updates\n\nMade from `agent/core/src/rollout/code.rs`; `KINEWATCH_BLESS=1` writes it anew.\n\nA code is seen in four \
             places, each time with the same words:\n\n- on MQTT, retained: `error` of the model in `model/state` (`repository_error` \
             for a look at the repository that failed), such as `{on_mqtt}`;\n- in the log: `update model=MODEL release=… from=STATE \
             to=STATE code=CODE detail=… : EXPLANATION`, at the level of the table;\n- in `kinewatch \
             model list` and `kinewatch doctor` (`updates`): `CODE: EXPLANATION (DETAIL)`; the doctor asks the repository by itself, and \
             says what it finds at the level of the table; of what the last trial said it warns;\n- in metrics: `kinewatch_update_fault{{model,code}}`.\n\n| code | log | doctor | \
             what follows | explanation |\n|---|---|---|---|---|\n"
        );
        let about = About::check("updates");
        for code in Code::ALL {
            let follows = match (code, code.disposition()) {
                (Code::NotCompared, _) => "the trial goes on",
                (_, Disposition::Delay) => "tried again, after pauses that grow",
                (_, Disposition::Wait) => "nothing, until somebody decides otherwise",
                (_, Disposition::Quarantine) => "quarantine on this device, until a new epoch",
            };
            let (log, doctor) = (updates::level(*code), told(&Fault::new(*code, ""), &about).verdict.name());
            writeln!(text, "| `{code}` | {log} | {doctor} | {follows} | {} |", code.explain().replace('|', "\\|"))
                .unwrap();
        }
        text
    }

    #[test]
    fn the_document_of_codes_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("design/update-codes.md");
        let document = document();
        if std::env::var_os("KINEWATCH_BLESS").is_some() {
            std::fs::write(&path, &document).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == document, "{}: run the test with KINEWATCH_BLESS=1", path.display());
    }

    fn plan() -> UpdatesPlan {
        UpdatesPlan {
            mirrors: vec!["https://models.example/repo".into()],
            root: "/nonexistent/root.json".into(),
            channel: "stable".into(),
            policy: UpdatePolicy::Auto,
            poll: Duration::from_secs(3600),
            window: None,
            rate_limit: 0,
            proxy: None,
            reserve: 1 << 60,
            clock: UpdateClock::Synchronised,
            proof_timeout: std::time::Duration::from_secs(1800),
            swap: UpdateSwap::Auto,
        }
    }

    #[test]
    fn what_keeps_an_update_waiting_is_told_with_its_code_and_what_to_do() {
        let about = About::check("updates");
        let dir = tempfile::tempdir().unwrap();
        let found: Vec<_> =
            clock(&plan(), false, &about).into_iter().chain(space(&plan(), dir.path(), &about)).collect();
        let found = lines(&found);
        assert!(found[0].starts_with("warn clock_not_synchronised: the clock is not"), "{found:?}");
        assert!(
            found[1].starts_with("warn no_space: ") && found[1].contains("1024 PiB") || found[1].contains("free"),
            "{found:?}"
        );
        assert!(clock(&plan(), true, &about).is_none());
        let anchor = updates::anchor(&plan()).unwrap_err();
        assert!(lines(&[told(&anchor, &about)])[0].starts_with("fail anchor_invalid: "), "{anchor}");
    }
}
