//! `[updates]`: where newer packages come from, and when they may.

use std::path::Path;
use std::time::Duration;

use kinewatch_core::manifest::TimeOfDay;
use kinewatch_core::name::is_name;

use super::document::key;
use super::file::Updates;
use super::plan::UpdatesPlan;
use super::resolve::Resolver;

/// `None` inside when no repository is named; outside when something is wrong.
pub(super) fn resolve(r: &mut Resolver<'_>, updates: &Updates) -> Option<Option<UpdatesPlan>> {
    let Some(url) = &updates.url else {
        if !updates.mirrors.is_empty() {
            r.error(&key!["updates", "mirrors"], "[updates]: mirrors without url; add url = \"https://…\"");
            return None;
        }
        return Some(None);
    };
    let mut ok = address(r, "url", url);
    for mirror in &updates.mirrors {
        ok &= address(r, "mirrors", mirror);
    }
    if let Some(proxy) = &updates.proxy {
        ok &= address(r, "proxy", proxy);
    }
    if !is_name(&updates.channel) {
        r.error(
            &key!["updates", "channel"],
            "[updates] channel: use 1 to 64 of a-z, 0-9, _ and -, for example \"stable\"",
        );
        ok = false;
    }
    let root = r.path(Path::new(&updates.root));
    if r.looks_at_machine() && !root.is_file() {
        let message = format!(
            "[updates] root: {}: no such file; copy the repository's root.json there, updates wait for it",
            root.display()
        );
        // A model that runs does not depend on it.
        r.warn(&key!["updates", "root"], message);
    }
    let window = match updates.window.as_deref().map(window) {
        Some(None) => {
            let message = "[updates] window: write it as \"02:00-05:00\", local time";
            r.error(&key!["updates", "window"], message);
            return None;
        }
        Some(window) => window,
        None => None,
    };
    let mirrors = std::iter::once(url).chain(&updates.mirrors).cloned().collect();
    ok.then(|| {
        Some(UpdatesPlan {
            mirrors,
            root,
            channel: updates.channel.clone(),
            policy: updates.policy,
            poll: Duration::from_secs(updates.poll_s.into()),
            window,
            rate_limit: u64::from(updates.rate_limit_kib_s) << 10,
            proxy: updates.proxy.clone(),
            reserve: u64::from(updates.reserve_mb) << 20,
            clock: updates.clock,
            swap: updates.swap,
            proof_timeout: Duration::from_secs(updates.proof_timeout_s.into()),
        })
    })
}

/// An address that requests can be made of, and that shows no password wherever it is shown.
fn address(r: &mut Resolver<'_>, key: &str, text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
    let wrong = match host {
        None | Some("") => "begins with https:// or http:// and a host",
        Some(host) if host.contains('@') => {
            "holds no user and no password: the repository is public, its signatures are the protection"
        }
        Some(_) if text.contains(char::is_whitespace) || text.contains(['?', '#']) => {
            "has no query, no fragment and no blanks"
        }
        Some(_) => return true,
    };
    // Not the address itself: it may hold a password.
    r.error(&key!["updates", key], format!("[updates] {key}: an address here {wrong}"));
    false
}

fn window(text: &str) -> Option<(TimeOfDay, TimeOfDay)> {
    let (from, to) = text.split_once('-')?;
    Some((from.trim().parse().ok()?, to.trim().parse().ok()?))
}
