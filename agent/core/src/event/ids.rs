//! Identifiers of messages and actions.

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Identifiers of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Of the message: another for each revision.
    pub id: Uuid,
    /// Of the action: the same in all its messages.
    pub action_id: Uuid,
}

/// Identifiers that follow from content, so that replaying a video gives the same bytes.
///
/// `content_key` has to tell apart everything that is replayed together (video, model, session). `pts_ms` is the media
/// time of the decision; it becomes the timestamp of `id`. The timestamp of `action_id` is the action's number, so it
/// does not change from revision to revision.
#[must_use]
pub fn replay_ids(content_key: &str, action: u64, rev: u32, pts_ms: u64) -> Ids {
    let of = |part: &str| {
        let mut hash = Sha256::new();
        hash.update((content_key.len() as u64).to_be_bytes());
        hash.update(content_key.as_bytes());
        hash.update(action.to_be_bytes());
        hash.update(part.as_bytes());
        hash.finalize()
    };
    Ids { id: v7(pts_ms, &of(&format!("rev {rev}"))), action_id: v7(action, &of("action")) }
}

/// RFC 9562 section 5.7: 48 bits of milliseconds, version, 12 bits, variant, 62 bits.
fn v7(ms: u64, random: &[u8]) -> Uuid {
    let mut bytes = [0u8; 16];
    bytes[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
    bytes[6..].copy_from_slice(&random[..10]);
    bytes[6] = 0x70 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    Uuid::from_bytes(bytes)
}
