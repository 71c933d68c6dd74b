//! To whom a target may be delegated: the roles to visit, in order (5.6.7).

use globset::GlobBuilder;
use sha2::{Digest, Sha256};

use super::Role;
use super::document::{Delegation, Delegations, Succinct};
use super::signature::Keyring;
use crate::read;

/// A delegated role to look into, and the keys that its delegator gives it.
#[derive(Debug, Clone)]
pub(super) struct Visit {
    pub(super) role: Role,
    pub(super) keys: Keyring,
}

/// The roles to visit for `path`, in order of trust; `true` when nobody else is to be asked.
pub(super) fn children(delegations: &Delegations, path: &str) -> (Vec<Visit>, bool) {
    if let Some(succinct) = &delegations.succinct_roles {
        return (bin(delegations, succinct, path).into_iter().collect(), false);
    }
    let mut visits = Vec::new();
    for role in delegations.roles.iter().filter(|r| covers(r, path)) {
        visits.extend(visit(role.name.clone(), Keyring::new(&delegations.keys, &role.keys)));
        if role.terminating {
            return (visits, true);
        }
    }
    (visits, false)
}

/// A delegated role cannot take the name of a top-level one: it would be stored in its place.
fn visit(name: String, keys: Keyring) -> Option<Visit> {
    let top_level = [Role::Root, Role::Timestamp, Role::Snapshot, Role::Targets];
    (!top_level.iter().any(|role| role.name() == name)).then_some(Visit { role: Role::Delegated(name), keys })
}

fn covers(role: &Delegation, path: &str) -> bool {
    let digest = || read::digest(path.as_bytes());
    match (&role.paths, &role.path_hash_prefixes) {
        (Some(patterns), _) => patterns.iter().any(|pattern| matches(pattern, path)),
        (None, Some(prefixes)) => prefixes.iter().any(|prefix| digest().starts_with(prefix.as_str())),
        (None, None) => false,
    }
}

/// Shell-style wildcards that do not cross a `/`. A pattern that cannot be read matches nothing.
fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
    pattern.len() == path.len() && pattern.iter().zip(path).all(|(part, name)| matches_part(part, name))
}

fn matches_part(pattern: &str, name: &str) -> bool {
    // Alternatives in braces are not in the specification.
    let pattern = pattern.replace('{', "[{]").replace('}', "[}]");
    GlobBuilder::new(&pattern).backslash_escape(false).build().is_ok_and(|glob| glob.compile_matcher().is_match(name))
}

/// The one bin in which a target's digest falls.
fn bin(delegations: &Delegations, succinct: &Succinct, path: &str) -> Option<Visit> {
    let bits = succinct.bit_length;
    if !(1..=32).contains(&bits) {
        return None;
    }
    let digest = Sha256::digest(path);
    let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) >> (32 - bits);
    let digits = bits.div_ceil(4) as usize;
    let name = format!("{}-{number:0digits$x}", succinct.name_prefix);
    visit(name, Keyring::new(&delegations.keys, &succinct.keys))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn wildcards_stay_within_a_part_of_the_path() {
        for (pattern, path) in [
            ("targets/*.tgz", "targets/foo.tgz"),
            ("foo-version-?.tgz", "foo-version-a.tgz"),
            ("*", "a"),
            ("**", "a"),
            ("a{b,c}", "a{b,c}"),
            ("a\\*", "a\\b"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("targets/*.tgz", "targets/foo.txt"),
            ("*.tgz", "targets/foo.tgz"),
            ("foo-version-?.tgz", "foo-version-alpha.tgz"),
            ("**", "a/b"),
            ("a{b,c}", "ab"),
            ("[", "["),
            ("*", "a/b"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }
}
