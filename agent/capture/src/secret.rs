//! User and password of a camera, and the redaction of every text that leaves this crate.
//!
//! Never prints a secret: `Debug` shows stars, and [`redact`] removes URL user parts, secret query values and every
//! password registered in this process. Called from any thread; takes a short lock.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use gstreamer::glib;

/// Known secrets, longest first, so that one which contains another goes whole.
static SECRETS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What replaces a secret.
const MASK: &str = "***";

/// User and password of a camera. Making one registers the password with [`redact`].
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: String,
}

impl Credentials {
    /// From plain text; trailing line ends (of a password file) are the caller's to strip.
    #[must_use]
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        let (user, password) = (user.into(), password.into());
        let basic = glib::base64_encode(format!("{user}:{password}").as_bytes());
        let encoded = percent_encoding::utf8_percent_encode(&password, percent_encoding::NON_ALPHANUMERIC);
        register(&[&password, &encoded.to_string(), basic.as_str()]);
        Self { user, password }
    }

    /// User name.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Password, in the clear: hand it only to the source element.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).field("password", &MASK).finish()
    }
}

/// Removes passwords from `text`: user parts of URLs, values of secret query keys, and registered passwords.
#[must_use]
pub fn redact(text: &str) -> String {
    let mut out = mask_query(&mask_user_parts(text));
    for secret in SECRETS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if out.contains(secret.as_str()) {
            out = out.replace(secret.as_str(), MASK);
        }
    }
    out
}

/// Masks the values of query keys that name a secret; the rest stays, as cameras are told apart by it.
pub(crate) fn mask_query(text: &str) -> String {
    const KEYS: [&str; 8] = ["password", "passwd", "passwort", "pass", "pwd", "pw", "token", "auth"];
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('=') {
        let (head, tail) = rest.split_at(at + 1);
        out.push_str(head);
        let before = &head[..at];
        let key = before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or(before);
        let key = key.to_ascii_lowercase();
        let value_end = tail.find(|c: char| "&/?#;,\"'`".contains(c) || c.is_whitespace()).unwrap_or(tail.len());
        if KEYS.iter().any(|k| key.ends_with(k)) && value_end > 0 {
            out.push_str(MASK);
            rest = &tail[value_end..];
        } else {
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

/// [`redact`] for what should have been an address and is none, so that nobody knows where its user part begins: all before the
/// last `@` goes but a scheme.
#[must_use]
pub fn redact_address(text: &str) -> String {
    const SCHEMES: [&str; 10] = ["rtsp", "rtsps", "mqtt", "mqtts", "http", "https", "file", "v4l2", "csi", "test"];
    let shown = redact(text);
    let Some(at) = shown.rfind('@') else { return shown };
    let scheme = shown[..at].split_once(':').filter(|(scheme, _)| SCHEMES.contains(scheme));
    let begin = scheme.map_or(0, |(scheme, rest)| scheme.len() + 1 + rest.len() - rest.trim_start_matches('/').len());
    format!("{}{MASK}{}", &shown[..begin], &shown[at..])
}

fn mask_user_parts(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        // Up to the last `@` of the word: a password with an unescaped `/` or `?` must not show either.
        let end = tail.find(|c: char| "\"'`".contains(c) || c.is_whitespace()).unwrap_or(tail.len());
        match tail[..end].rfind('@') {
            Some(user_end) => {
                out.push_str(MASK);
                rest = &tail[user_end..];
            }
            None => rest = tail,
        }
    }
    out.push_str(rest);
    out
}

fn register(secrets: &[&str]) {
    let mut known = SECRETS.lock().unwrap_or_else(PoisonError::into_inner);
    for secret in secrets.iter().filter(|s| !s.is_empty()) {
        if !known.iter().any(|k| k == secret) {
            known.push((*secret).to_owned());
        }
    }
    known.sort_by_key(|s| std::cmp::Reverse(s.len()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redaction_knows_registered_passwords_in_every_form() {
        let credentials = Credentials::new("root", "s3cr=t/Q");
        assert!(!format!("{credentials:?}").contains("s3cr"));
        let basic = glib::base64_encode(b"root:s3cr=t/Q");
        for text in ["auth failed for s3cr=t/Q", "s3cr%3Dt%2FQ in url", &format!("Authorization: Basic {basic}")] {
            let shown = redact(text);
            assert!(!shown.contains("s3cr") && !shown.contains(basic.as_str()), "{shown}");
        }
    }

    #[test]
    fn an_address_that_is_none_shows_no_user_part() {
        let shown = |text| redact_address(text);
        assert_eq!(shown("rtsp:/joe:Pl4nted@h/x"), "rtsp:/***@h/x");
        assert_eq!(shown("joe:Pl4nted@h/x"), "***@h/x");
        assert_eq!(shown("joe:Pl4 n@ted@1.2.3.4:80"), "***@1.2.3.4:80");
        assert_eq!(shown("file:/x?password=Pl4nted"), "file:/x?password=***");
        assert_eq!(shown("rtsp://a:b@c/d"), "rtsp://***@c/d");
        assert_eq!(shown("/dev/video0"), "/dev/video0");
    }

    #[test]
    fn urls_lose_their_user_part_and_secret_values() {
        assert_eq!(redact("open rtsp://a:b@c/d failed"), "open rtsp://***@c/d failed");
        assert_eq!(redact("rtsp://a:b/c?d@host/x"), "rtsp://***@host/x");
        assert_eq!(redact("`rtsp://c/d?password=xyz&ch=1`"), "`rtsp://c/d?password=***&ch=1`");
        assert_eq!(redact("rtsp://c/d?ch=1"), "rtsp://c/d?ch=1");
        assert_eq!(redact("no url, a = b"), "no url, a = b");
        assert_eq!(redact("Küche=1 pässwort=kühl ü=pw=heiß"), "Küche=1 pässwort=kühl ü=pw=***");
    }
}
