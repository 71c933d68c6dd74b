//! `kinewatch publish`: says what it did and what comes next; all work is done by `kinewatch_ota::publish`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use comfy_table::Cell;
use jiff::Timestamp;
use kinewatch_core::rollout::{Channel, Gates, SEEDS};
use kinewatch_ota::publish::{
    ChannelChange, Goes, KeyRing, Lifetimes, PublishError, Quorum, Quorums, Reach, Repository, Role, Rotated, Status,
    parse_waves,
};

use super::{
    Failure, LabelsArg, Outcome, PublishAddArgs, PublishChannelCommand, PublishCommand, PublishHaltArgs,
    PublishInitArgs, PublishRefreshArgs, PublishRotateArgs, PublishSetArgs, PublishSignArgs, PublishStatusArgs,
    RoleArg, print,
};

/// How long another command on the same repository is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Root => Self::Root,
            RoleArg::Targets => Self::Targets,
            RoleArg::Snapshot => Self::Snapshot,
            RoleArg::Timestamp => Self::Timestamp,
        }
    }
}

/// `publish`.
pub(super) fn run(command: PublishCommand) -> Outcome {
    // Metadata is dated to the second, and so are waves.
    let now = Timestamp::from_second(Timestamp::now().as_second())?;
    match command {
        PublishCommand::Init(args) => init(&args, now),
        PublishCommand::Add(args) => add(&args, now),
        PublishCommand::Channel(PublishChannelCommand::Set(args)) => set(*args, now),
        PublishCommand::Halt(args) => halt(&args, true, now),
        PublishCommand::Resume(args) => halt(&args, false, now),
        PublishCommand::Rotate(args) => rotate(&args, now),
        PublishCommand::Sign(args) => sign(&args, now),
        PublishCommand::Refresh(args) => refresh(&args, now),
        PublishCommand::Status(args) => status(&args, now),
    }
}

/// The repository, which nobody else writes until it is let go of.
fn open(repo: &Path, keys: &[PathBuf]) -> Result<(Repository, KeyRing), PublishError> {
    let waits = || tell([format!("{}: another `kinewatch publish` is at work here: waiting for it", repo.display())]);
    Ok((Repository::open_to_write(repo, PATIENCE, waits)?, KeyRing::read(keys)?))
}

/// To standard error: it is for a person.
fn tell(lines: impl IntoIterator<Item = String>) {
    lines.into_iter().for_each(|line| eprintln!("{line}"));
}

fn next(repo: &Path, reach: Reach) -> String {
    let repo = repo.display();
    match reach {
        Reach::Published => {
            format!("next: copy {repo} to the web server: all files first, metadata/timestamp.json last")
        }
        Reach::AwaitsOnlineKeys => {
            format!("next: run `kinewatch publish refresh {repo}` where the keys of snapshot and timestamp are")
        }
    }
}

fn init(args: &PublishInitArgs, now: Timestamp) -> Outcome {
    let repo = &args.repository.repo;
    let quorums = Quorums {
        root: Quorum { count: args.root_keys, threshold: args.root_threshold },
        targets: Quorum { count: args.targets_keys, threshold: args.targets_threshold },
    };
    let lifetimes = Lifetimes {
        root: args.root_days.into(),
        targets: args.targets_days.into(),
        snapshot: args.snapshot_days.into(),
        timestamp: args.timestamp_days.into(),
    };
    let created = Repository::create(repo, &args.keys, quorums, lifetimes, now)?;
    tell([format!(
        "{}: an empty repository, root signed by {} of {} keys, targets by {} of {}",
        repo.display(),
        args.root_threshold,
        args.root_keys,
        args.targets_threshold,
        args.targets_keys
    )]);
    tell(created.keys.iter().map(|key| format!("  {}", key.display())));
    tell([
        "next: move the root keys to media of their own, offline, and keep copies: they are needed for `rotate` and `refresh --root` alone".into(),
        format!("next: put {} on each device, as [updates] root", created.anchor.display()),
        format!("next: kinewatch publish add {} PACKAGE --keys {}", repo.display(), args.keys.display()),
    ]);
    Ok(())
}

fn add(args: &PublishAddArgs, now: Timestamp) -> Outcome {
    let repo = &args.repository.repo;
    let (mut repository, keys) = open(repo, &args.keys.dirs)?;
    let (package, reach) = crate::progress::spin("packing", || repository.add(&args.package, &keys, now))?;
    let (name, version) = (&package.manifest.name, &package.manifest.version);
    let Some(reach) = reach else {
        tell([format!("{name} {version}: is published already, with the same content")]);
        return Ok(());
    };
    tell([format!("{name} {version}: packed, unpacked as a device would, signed")]);
    if reach == Reach::AwaitsOnlineKeys {
        tell([next(repo, reach)]);
    }
    tell([format!(
        "next: kinewatch publish channel set {} CHANNEL --model {name} --version {version} --keys {}",
        repo.display(),
        args.keys.dirs[0].display()
    )]);
    Ok(())
}

fn set(args: PublishSetArgs, now: Timestamp) -> Outcome {
    let repo = &args.repository.repo;
    let (mut repository, keys) = open(repo, &args.keys.dirs)?;
    let waves = match &args.waves {
        Some(text) => parse_waves(text, now).map_err(|e| Failure::Usage(format!("--waves {e}")))?,
        None => Vec::new(),
    };
    let kept = repository.channel(&args.channel, &args.model)?.map(|before| before.gates);
    let change = ChannelChange {
        waves,
        labels_changed: args.labels == LabelsArg::Changed,
        agent: args.agent.clone(),
        min_free_mb: args.min_free_mb,
        gates: Some(gates(&args, kept.unwrap_or_default())),
    };
    let (file, reach) = repository.set_channel(&args.channel, &args.model, &args.version, change, &keys, now)?;
    tell([format!("{} on {}: {}, epoch {}", file.model, file.channel, file.version, file.epoch)]);
    tell(waves_of(&file));
    tell([next(repo, reach)]);
    Ok(())
}

fn gates(args: &PublishSetArgs, kept: Gates) -> Gates {
    Gates {
        latency_p99_ms: args.latency_p99_ms.or(kept.latency_p99_ms),
        peak_memory_mb: args.peak_memory_mb.or(kept.peak_memory_mb),
        shadow_windows: args.shadow_windows.unwrap_or(kept.shadow_windows),
        // Where nothing is compared, nothing is asked of it.
        shadow_agreement: args.shadow_agreement.or(kept.shadow_agreement.filter(|_| args.shadow_windows != Some(0))),
        probation_windows: args.probation_windows.unwrap_or(kept.probation_windows),
        probation_s: args.probation_s.unwrap_or(kept.probation_s),
    }
}

fn waves_of(file: &Channel) -> Vec<String> {
    let share = |seed: u16| f64::from(seed) / f64::from(SEEDS) * 100.0;
    if file.waves.is_empty() {
        return vec!["  every device at its next poll".into()];
    }
    file.waves
        .iter()
        .map(|wave| format!("  from {}: {:.1} % of the devices", wave.not_before, share(wave.seed_below)))
        .collect()
}

fn halt(args: &PublishHaltArgs, halt: bool, now: Timestamp) -> Outcome {
    let repo = &args.repository.repo;
    let (mut repository, keys) = open(repo, &args.keys.dirs)?;
    let (file, reach) = repository.halt(&args.channel, &args.model, halt, &keys, now)?;
    let state = if halt { "halted" } else { "goes on" };
    let already = if reach.is_none() { " (already)" } else { "" };
    tell([format!("{} {} on {}: {state}{already}", file.model, file.version, file.channel)]);
    if let Some(reach) = reach {
        tell([next(repo, reach)]);
    }
    Ok(())
}

fn rotate(args: &PublishRotateArgs, now: Timestamp) -> Outcome {
    let repo = &args.repository.repo;
    let (mut repository, mut keys) = open(repo, &args.keys.dirs)?;
    let role = Role::from(args.role);
    let goes = match &args.revoke {
        Some(id) => Goes::Id(id.clone()),
        None if args.lost => Goes::Lost,
        None => Goes::Only,
    };
    let (key, rotated) = repository.rotate(role, &goes, &mut keys, now)?;
    tell([format!("{role}: the new key is {}", key.display())]);
    told(repo, rotated);
    Ok(())
}

fn told(repo: &Path, rotated: Rotated) {
    match rotated {
        Rotated::Published { version, reach } => {
            tell([format!("root {version} is published"), next(repo, reach)]);
        }
        Rotated::Pending { path, old, new } => tell([
            format!(
                "{}: signed by {} of {} keys of the root before, {} of {} of the new one",
                path.display(),
                old.0,
                old.1,
                new.0,
                new.1
            ),
            format!("next: kinewatch publish sign {} --keys DIR, with the other root keys", repo.display()),
        ]),
    }
}

fn sign(args: &PublishSignArgs, now: Timestamp) -> Outcome {
    let repo = &args.repository.repo;
    let (mut repository, keys) = open(repo, &args.dirs)?;
    if args.discard {
        let there = repository.discard_pending()?;
        tell([if there { "thrown away" } else { "no root waits for signatures" }.to_owned()]);
        return Ok(());
    }
    let rotated = repository.sign_root(&keys, now)?;
    told(repo, rotated);
    Ok(())
}

fn refresh(args: &PublishRefreshArgs, now: Timestamp) -> Outcome {
    let repo = &args.repository.repo;
    let (mut repository, keys) = open(repo, &args.keys.dirs)?;
    if args.root {
        let rotated = repository.renew_root(&keys, now)?;
        told(repo, rotated);
        return Ok(());
    }
    let reach = repository.refresh(&keys, now)?;
    let status = repository.status(&KeyRing::default())?;
    tell(status.roles.iter().map(|role| format!("{} {}: valid until {}", role.role, role.version, role.expires)));
    tell([next(repo, reach)]);
    Ok(())
}

fn status(args: &PublishStatusArgs, now: Timestamp) -> Outcome {
    let (repository, keys) = (Repository::open(&args.repository.repo)?, KeyRing::read(&args.dirs)?);
    let status = repository.status(&keys)?;
    let text = if args.json { serde_json::to_string(&status)? } else { table(&status, now) };
    print(&text)?;
    let wrong: Vec<String> = faults(&status, now);
    if wrong.is_empty() { Ok(()) } else { Err(Failure::say(wrong.join("; "))) }
}

/// What keeps devices from updating.
fn faults(status: &Status, now: Timestamp) -> Vec<String> {
    let mut wrong = Vec::new();
    for role in &status.roles {
        if role.expires <= now {
            wrong.push(format!("{} has expired: run `kinewatch publish refresh`", role.role));
        }
        if !role.signed {
            wrong.push(format!(
                "{} is not signed by enough keys of the newest root: run `kinewatch publish refresh`",
                role.role
            ));
        }
    }
    wrong
}

fn table(status: &Status, now: Timestamp) -> String {
    let mut roles = crate::table::new_table(&["role", "version", "valid until", "left", "keys"]);
    for role in &status.roles {
        let keys: Vec<String> = role
            .keys
            .iter()
            .map(|key| match &key.file {
                Some(file) => format!("{} ({})", &key.id[..8], file.display()),
                None => key.id[..8].to_owned(),
            })
            .collect();
        let keys = format!("{} of {}", role.threshold, keys.join(", "));
        let row =
            [role.role.to_owned(), role.version.to_string(), role.expires.to_string(), left(role.expires, now), keys];
        roles.add_row(row.map(Cell::new));
    }
    let mut parts = vec![roles.to_string()];
    let mut channels = crate::table::new_table(&["channel", "model", "runs", "epoch", "state"]);
    for file in status.channels.iter().map(|c| &c.file) {
        let state = if file.halt { "halted".to_owned() } else { waves_of(file).join("\n").replace("  ", "") };
        let row = [&file.channel, &file.model, &file.version.to_string(), &file.epoch.to_string(), &state];
        channels.add_row(row.map(Cell::new));
    }
    parts.push(if status.channels.is_empty() { "no channel".into() } else { channels.to_string() });
    let mut releases = crate::table::new_table(&["release", "MB", "sha256", "channels"]);
    for release in &status.releases {
        let name = format!("{} {}", release.model, release.version);
        let row = [
            name,
            format!("{:.1}", release.bytes as f64 / 1e6),
            release.sha256[..12].to_owned(),
            release.channels.join(", "),
        ];
        releases.add_row(row.map(Cell::new));
    }
    parts.push(if status.releases.is_empty() { "no release".into() } else { releases.to_string() });
    if status.pending_root {
        parts.push("a root waits for signatures: `kinewatch publish sign`".into());
    }
    if status.awaits_online_keys {
        parts.push("the list of files waits for the online keys: `kinewatch publish refresh`".into());
    }
    parts.join("\n")
}

fn left(expires: Timestamp, now: Timestamp) -> String {
    let hours = expires.duration_since(now).as_hours();
    if expires <= now {
        "expired".into()
    } else if hours < 48 {
        format!("{hours} h")
    } else {
        format!("{} days", hours / 24)
    }
}
