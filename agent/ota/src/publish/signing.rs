//! Signatures: tough's editor makes them, this hands it keys and takes what it wrote.

use aws_lc_rs::rand::SystemRandom;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tough::editor::signed::SignedRole;
use tough::key_source::KeySource;
use tough::schema::{KeyHolder, Role as ToughRole, Root, Signed};

use super::keys::{KeyRing, key_id};
use super::{PublishError, Role};

/// The version of TUF's specification that the metadata follows.
pub(super) const SPEC_VERSION: &str = "1.0.0";
/// Field of a role in the root metadata: days that its metadata is valid. Signed, so that every publisher keeps to it.
pub(super) const EXPIRY_DAYS: &str = "x-kinewatch-expiry-days";

/// Signs for a role with every key of it that is at hand, which must be enough.
pub(super) fn sign<T: ToughRole + Serialize>(
    role: Role,
    body: T,
    root: &Root,
    keys: &KeyRing,
) -> Result<SignedRole<T>, PublishError> {
    let have = keys.count(root, role);
    let wanted = root.roles.get(&role.tough());
    let need = wanted.map_or(u64::MAX, |w| w.threshold.get());
    if (have as u64) < need {
        let ids = root.keys(role.tough()).map(|key| key_id(key)[..8].to_owned()).collect();
        return Err(PublishError::Keys { role, have, need, looked: keys.looked(), ids });
    }
    let sources: Vec<Box<dyn KeySource>> = keys.of(root, role).map(super::keys::KeyFile::source).collect();
    sign_with(role, body, root, &sources)
}

/// Signs with what is given; for root, that may be too little yet.
pub(super) fn sign_with<T: ToughRole + Serialize>(
    role: Role,
    body: T,
    holder: &Root,
    sources: &[Box<dyn KeySource>],
) -> Result<SignedRole<T>, PublishError> {
    let failed = |reason: String| PublishError::Sign { role, reason };
    // Signing with keys in memory never waits; the runtime is there because tough's interface is asynchronous.
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|e| failed(e.to_string()))?;
    let holder = KeyHolder::Root(holder.clone());
    runtime.block_on(SignedRole::new(body, &holder, sources, &SystemRandom::new())).map_err(|e| failed(e.to_string()))
}

/// How long the metadata of a role is valid, days.
pub(super) fn lifetime_days(root: &Root, role: Role) -> i64 {
    let stated = root.roles.get(&role.tough()).and_then(|keys| keys._extra.get(EXPIRY_DAYS)?.as_i64());
    stated.filter(|days| (1..=36_500).contains(days)).unwrap_or(super::Lifetimes::default().days(role))
}

/// When metadata of a role that is signed now expires, to the second.
pub(super) fn expiry<T: DeserializeOwned>(root: &Root, role: Role, now: Timestamp) -> Result<T, PublishError> {
    let lifetime = SignedDuration::from_hours(24 * lifetime_days(root, role));
    let failed = |reason: String| PublishError::Sign { role, reason };
    let seconds = Timestamp::from_second(now.as_second()).map_err(|e| failed(e.to_string()))?;
    let time = seconds.checked_add(lifetime).map_err(|e| failed(e.to_string()))?;
    // tough has its own version of the type of times, and both read the same text.
    serde_json::from_value(serde_json::Value::String(time.to_string())).map_err(|e| failed(e.to_string()))
}

/// When signed metadata expires.
pub(super) fn expires<T: ToughRole>(signed: &Signed<T>) -> Timestamp {
    signed.signed.expires().to_string().parse().unwrap_or(Timestamp::UNIX_EPOCH)
}
