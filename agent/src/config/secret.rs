//! Secrets: read from files or from systemd's credentials directory, and never shown.
//!
//! A secret is never taken from the configuration file itself, and no `Debug` or `Display` prints one.

use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Longest secret file that is read, bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// Text that cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text over.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the one place that hands it on.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A user and a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// User name.
    pub user: String,
    /// Password.
    pub password: Secret,
}

/// A secret file as it was found.
#[derive(Debug)]
pub struct Loaded {
    /// Its text, without the line end.
    pub text: Secret,
    /// Who else can read it, in words; `None` when only its owner and group can.
    pub exposed: Option<String>,
}

/// Where `credential:NAME` or a path points to.
///
/// # Errors
/// In words with what to do, when `credential:` is used outside systemd or with a name that leaves the directory.
pub fn locate(reference: &str, base: &Path, credentials_directory: Option<&Path>) -> Result<PathBuf, String> {
    let Some(name) = reference.strip_prefix("credential:") else { return Ok(base.join(reference)) };
    if name.is_empty() || name.contains('/') || name == ".." {
        return Err(format!(
            "\"{reference}\" is not a credential's name; write credential:NAME as in LoadCredential=NAME:PATH"
        ));
    }
    match credentials_directory {
        Some(directory) => Ok(directory.join(name)),
        None => Err(format!(
            "\"{reference}\" needs $CREDENTIALS_DIRECTORY, which systemd sets; add LoadCredential={name}:PATH to the unit, or name a file"
        )),
    }
}

/// Whether a login was written where the name of a file belongs. It must not be repeated in a message then.
#[must_use]
pub fn looks_like_login(reference: &str, base: &Path) -> bool {
    reference.contains(':') && !reference.starts_with("credential:") && !base.join(reference).exists()
}

/// Reads a secret file.
///
/// # Errors
/// In words with what to do.
pub fn read(path: &Path) -> Result<Loaded, String> {
    let shown = path.display();
    let told = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => format!("{shown} does not exist; create it with mode 0600"),
        std::io::ErrorKind::PermissionDenied => {
            format!("{shown} may not be read by this user; give it to the user that runs kinewatch")
        }
        _ => format!("{shown} cannot be read: {e}"),
    };
    // Looked at before it is opened: opening a pipe waits for a writer.
    let meta = fs::metadata(path).map_err(told)?;
    if !meta.is_file() {
        return Err(format!("{shown} is not a file"));
    }
    let file = fs::File::open(path).map_err(told)?;
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|e| format!("{shown} is not text: {e}"))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("{shown} is larger than 64 KiB; it should hold one secret"));
    }
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    if text.is_empty() {
        return Err(format!("{shown} is empty; write the secret into it"));
    }
    let mode = meta.permissions().mode();
    let exposed = (mode & 0o004 != 0)
        .then(|| format!("{shown} can be read by everybody (mode {:04o}); chmod 0600 it", mode & 0o7777));
    Ok(Loaded { text: Secret(text), exposed })
}

/// Splits `user:password`.
///
/// # Errors
/// In words with what to do; the text is not repeated.
pub fn login(text: &Secret, path: &Path) -> Result<Login, String> {
    match text.expose().lines().next().and_then(|line| line.split_once(':')) {
        Some((user, password)) if !user.is_empty() => {
            Ok(Login { user: user.to_owned(), password: Secret(password.to_owned()) })
        }
        _ => Err(format!("{} does not hold user:password on its first line", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn the_line_end_is_not_part_of_a_secret_and_debug_shows_nothing() {
        let (_dir, path) = file("pa ss\r\n", 0o600);
        let loaded = read(&path).unwrap();
        assert_eq!(loaded.text.expose(), "pa ss");
        assert!(loaded.exposed.is_none());
        assert!(!format!("{loaded:?}").contains("pa ss"));
    }

    #[test]
    fn a_world_readable_secret_is_told() {
        let (_dir, path) = file("x", 0o644);
        assert!(read(&path).unwrap().exposed.unwrap().contains("0644"));
    }

    #[test]
    fn empty_large_and_missing_files_say_what_to_do() {
        let (_dir, path) = file("\n", 0o600);
        assert!(read(&path).unwrap_err().contains("is empty"));
        let (_dir, path) = file(&"x".repeat(70_000), 0o600);
        assert!(read(&path).unwrap_err().contains("larger than"));
        assert!(read(Path::new("/nonexistent/secret")).unwrap_err().contains("does not exist"));
    }

    #[test]
    fn credentials_stay_inside_their_directory() {
        let base = Path::new("/etc/kinewatch");
        assert_eq!(locate("credential:cam", base, Some(Path::new("/run/c"))).unwrap(), Path::new("/run/c/cam"));
        assert_eq!(locate("cam.secret", base, None).unwrap(), Path::new("/etc/kinewatch/cam.secret"));
        assert!(locate("credential:../x", base, Some(Path::new("/run/c"))).is_err());
        assert!(locate("credential:cam", base, None).unwrap_err().contains("LoadCredential"));
    }

    #[test]
    fn a_login_in_the_place_of_a_file_is_recognised() {
        let (dir, _path) = file("x", 0o600);
        fs::write(dir.path().join("odd:name"), "x").unwrap();
        assert!(looks_like_login("joe:hunter2", dir.path()));
        assert!(!looks_like_login("odd:name", dir.path()) && !looks_like_login("credential:cam", dir.path()));
        assert!(!looks_like_login("missing", dir.path()));
    }

    #[test]
    fn a_password_may_hold_colons() {
        let login = login(&Secret::new("joe:a:b".into()), Path::new("f")).unwrap();
        assert_eq!((login.user.as_str(), login.password.expose()), ("joe", "a:b"));
    }
}
