//! The channel file: what the publisher wants to run where, since when, and what it must prove first.
//!
//! One file per channel and model, `channels/<channel>/<model>.json`, a signed target of the repository. It comes from
//! outside: [`Channel::parse`] bounds it before it is parsed and checks every rule once. Fields that are not known are
//! ignored, so that a later agent may be told more; what would change the meaning gets another [`SCHEMA`].

use jiff::Timestamp;
use schemars::JsonSchema;
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use super::Code;
use super::seed::SEEDS;
use crate::name::is_name;

/// The only `schema` that this agent reads.
pub const SCHEMA: u32 = 1;
/// Largest channel file, bytes.
pub const MAX_CHANNEL: usize = 64 << 10;
/// Most waves.
pub const MAX_WAVES: usize = 64;
/// Longest name of a bundle, bytes.
const MAX_TARGET: usize = 255;

/// A channel file. Fields are public for the publisher's sake; what an agent holds came from [`Channel::parse`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Channel {
    /// Format of this file: 1.
    pub schema: u32,
    /// Name of the channel, as in the file's own path.
    pub channel: String,
    /// Name of the model, as in the file's own path.
    pub model: String,
    /// Version to run. It may be lower than the last one when `epoch` is higher: a signed downgrade.
    #[schemars(with = "String")]
    pub version: Version,
    /// Rises with every published change of what is to run; 1 or more. A device never goes below one that it has seen.
    #[schemars(range(min = 1))]
    pub epoch: u64,
    /// Target with the bundle, for example `models/falls/1.2.0/bundle.tar.zst`.
    pub bundle: String,
    /// What a device must have.
    #[serde(default)]
    pub requires: Requires,
    /// Who may begin when. None: everyone at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_WAVES))]
    pub waves: Vec<Wave>,
    /// Stop: nobody begins, and who has not finished goes back. Devices that have finished keep the release.
    #[serde(default)]
    pub halt: bool,
    /// Whether the labels differ from those of the release before.
    #[serde(default)]
    pub labels: Labels,
    /// What the release must prove on each device.
    #[serde(default)]
    pub gates: Gates,
}

/// What a device must have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Requires {
    /// Versions of kinewatch, for example `>=0.1, <2`. Left out: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub agent: Option<VersionReq>,
    /// Free disk space that the update needs at least, MiB, beside what the device keeps for events.
    #[serde(default)]
    pub min_free_mb: u64,
}

/// From a time on, every device below a number may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Wave {
    /// Devices with a smaller seed; of [`SEEDS`], so 20 are about 1 %.
    #[schemars(range(min = 1, max = SEEDS))]
    pub seed_below: u16,
    /// Not before; RFC 3339.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub not_before: Timestamp,
}

/// Whether a release has other labels than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Labels {
    /// Consumers see the same names, of labels and sequences; others are refused with `labels_changed`.
    #[default]
    Same,
    /// The publisher knows that consumers will see other labels.
    Changed,
}

/// What a release must prove on each device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Gates {
    /// Slowest permitted window of a hundred, ms, alone on the device. Left out: only reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.001, max = 600_000.0))]
    pub latency_p99_ms: Option<f64>,
    /// Most memory of the process that tries it out, MiB. Left out: the device's own limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub peak_memory_mb: Option<u64>,
    /// Windows of live video to compare with the model that runs. 0: no shadow.
    #[schemars(range(max = 1_000_000))]
    pub shadow_windows: u64,
    /// Least share of these windows on which both say the same. Left out: only reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub shadow_agreement: Option<f64>,
    /// Windows that it must score without an error after it has taken over.
    #[schemars(range(max = 10_000_000))]
    pub probation_windows: u64,
    /// Seconds that it must run without an error after it has taken over. Both of these must be reached.
    #[schemars(range(max = 604_800))]
    pub probation_s: u64,
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            latency_p99_ms: None,
            peak_memory_mb: None,
            shadow_windows: 0,
            shadow_agreement: None,
            probation_windows: 3000,
            probation_s: 600,
        }
    }
}

/// Since when a device may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Now.
    Now,
    /// From this time on.
    At(Timestamp),
    /// No wave of this file reaches it.
    Never,
}

/// Why a channel file is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// Larger than [`MAX_CHANNEL`].
    #[error("{bytes} bytes: a channel file has at most {MAX_CHANNEL}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Of another format.
    #[error("schema {found}: this agent reads schema {SCHEMA}; upgrade it")]
    Newer {
        /// `schema` of the file.
        found: u32,
    },
    /// No JSON, or a field is missing or of the wrong type.
    #[error("no channel file: {reason}")]
    Malformed {
        /// The parser's words.
        reason: String,
    },
    /// A field breaks a rule.
    #[error("{field}: {reason}")]
    Field {
        /// Path of the field.
        field: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
}

impl ChannelError {
    /// The code on the wire.
    #[must_use]
    pub fn code(&self) -> Code {
        if matches!(self, Self::Newer { .. }) { Code::ChannelNewer } else { Code::ChannelInvalid }
    }
}

impl Channel {
    /// The target of the channel file.
    #[must_use]
    pub fn target(channel: &str, model: &str) -> String {
        format!("channels/{channel}/{model}.json")
    }

    /// The target of the bundle, by convention.
    #[must_use]
    pub fn bundle_target(model: &str, version: &Version) -> String {
        format!("models/{model}/{version}/bundle.tar.zst")
    }

    /// Parse and check all rules.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn parse(bytes: &[u8]) -> Result<Self, ChannelError> {
        if bytes.len() > MAX_CHANNEL {
            return Err(ChannelError::TooLarge { bytes: bytes.len() });
        }
        #[derive(Deserialize)]
        struct Head {
            schema: u32,
        }
        let malformed = |e: serde_json::Error| ChannelError::Malformed { reason: e.to_string() };
        let head: Head = serde_json::from_slice(bytes).map_err(malformed)?;
        if head.schema != SCHEMA {
            return Err(ChannelError::Newer { found: head.schema });
        }
        let channel: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        channel.check()?;
        Ok(channel)
    }

    /// The file's bytes, checked by the same rules as a device does.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn to_json(&self) -> Result<Vec<u8>, ChannelError> {
        self.check()?;
        let mut bytes =
            serde_json::to_vec_pretty(self).map_err(|e| ChannelError::Malformed { reason: e.to_string() })?;
        bytes.push(b'\n');
        if bytes.len() > MAX_CHANNEL {
            return Err(ChannelError::TooLarge { bytes: bytes.len() });
        }
        Ok(bytes)
    }

    /// Check the rules that the types do not.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), ChannelError> {
        if self.schema != SCHEMA {
            return Err(ChannelError::Newer { found: self.schema });
        }
        for (field, name) in [("channel", &self.channel), ("model", &self.model)] {
            if !is_name(name) {
                return fail(field, format!("{name:?} is not a name: use 1 to 64 characters of a-z, 0-9, _ and -"));
            }
        }
        // `i64::MAX`: databases and other languages count no further.
        if self.epoch == 0 || self.epoch > i64::MAX as u64 {
            return fail("epoch", format!("{} is out of range: count from 1", self.epoch));
        }
        if self.version.to_string().len() > 64 {
            return fail("version", "longer than 64 characters".to_owned());
        }
        check_target(&self.bundle)?;
        check_waves(&self.waves)?;
        self.gates.check()
    }

    /// Since when a device of this seed may begin. A wave admits every seed below its number.
    #[must_use]
    pub fn admission(&self, seed: u16, now: Timestamp) -> Admission {
        if self.waves.is_empty() {
            return Admission::Now;
        }
        // Waves only grow and follow each other, so the first that reaches the seed is the earliest.
        match self.waves.iter().find(|wave| seed < wave.seed_below) {
            Some(wave) if wave.not_before <= now => Admission::Now,
            Some(wave) => Admission::At(wave.not_before),
            None => Admission::Never,
        }
    }
}

impl Gates {
    fn check(&self) -> Result<(), ChannelError> {
        between("gates.latency_p99_ms", self.latency_p99_ms, 0.001, 600_000.0)?;
        between("gates.shadow_agreement", self.shadow_agreement, 0.0, 1.0)?;
        between("gates.peak_memory_mb", self.peak_memory_mb.map(|mb| mb as f64), 1.0, 1_048_576.0)?;
        between("gates.shadow_windows", Some(self.shadow_windows as f64), 0.0, 1e6)?;
        between("gates.probation_windows", Some(self.probation_windows as f64), 0.0, 1e7)?;
        between("gates.probation_s", Some(self.probation_s as f64), 0.0, 604_800.0)
    }
}

fn between(field: &'static str, value: Option<f64>, least: f64, most: f64) -> Result<(), ChannelError> {
    match value {
        // Written so that a value which is no number fails.
        Some(value) if !(least..=most).contains(&value) => {
            fail(field, format!("{value} is out of range: {least} to {most}"))
        }
        _ => Ok(()),
    }
}

fn fail(field: &'static str, reason: String) -> Result<(), ChannelError> {
    Err(ChannelError::Field { field, reason })
}

/// A relative path below `models/` of plain segments: it becomes part of a URL.
fn check_target(target: &str) -> Result<(), ChannelError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
    let segment = |s: &str| !s.is_empty() && !s.starts_with('.') && s.chars().all(plain);
    if target.len() > MAX_TARGET || !target.starts_with("models/") || !target.split('/').all(segment) {
        return fail("bundle", format!("{target:?} is no target: write models/NAME/VERSION/bundle.tar.zst"));
    }
    Ok(())
}

fn check_waves(waves: &[Wave]) -> Result<(), ChannelError> {
    if waves.len() > MAX_WAVES {
        return fail("waves", format!("{} are too many: at most {MAX_WAVES}", waves.len()));
    }
    if let Some(wave) = waves.iter().find(|w| !(1..=SEEDS).contains(&w.seed_below)) {
        return fail("waves", format!("seed_below = {} is out of range: 1 to {SEEDS}", wave.seed_below));
    }
    let grows = |pair: &[Wave]| pair[0].seed_below < pair[1].seed_below && pair[0].not_before <= pair[1].not_before;
    if !waves.windows(2).all(grows) {
        return fail("waves", "each wave must admit more devices than the one before, and not begin before it".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::seed;

    const EXAMPLE: &str = r#"{"schema":1,"channel":"stable","model":"falls","version":"1.2.0","epoch":7,
        "bundle":"models/falls/1.2.0/bundle.tar.zst","requires":{"agent":">=0.1, <2","min_free_mb":600},
        "waves":[{"seed_below":20,"not_before":"2026-12-01T08:00:00Z"},{"seed_below":2048,"not_before":"2026-12-04T08:00:00Z"}],
        "halt":false,"gates":{"latency_p99_ms":33,"peak_memory_mb":800,"shadow_windows":300,"shadow_agreement":0.97},
        "a field of the future": [1, 2]}"#;

    fn with(from: &str, to: &str) -> Result<Channel, ChannelError> {
        assert!(EXAMPLE.contains(from), "{from}");
        Channel::parse(EXAMPLE.replacen(from, to, 1).as_bytes())
    }

    #[test]
    fn the_example_parses_and_is_written_as_it_reads() {
        let channel = Channel::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!((channel.gates.probation_windows, channel.gates.probation_s), (3000, 600), "what is left out");
        assert_eq!(channel.labels, Labels::Same);
        assert_eq!(channel.bundle, Channel::bundle_target(&channel.model, &channel.version));
        assert_eq!(Channel::parse(&channel.to_json().unwrap()), Ok(channel));
    }

    #[test]
    fn each_rule_is_refused_with_its_field() {
        let cases = [
            ("\"schema\":1", "\"schema\":2", "schema 2"),
            ("\"stable\"", "\"St/able\"", "channel: "),
            ("\"falls\"", "\"../falls\"", "model: "),
            ("\"epoch\":7", "\"epoch\":0", "epoch: "),
            ("\"epoch\":7", "\"epoch\":-1", "no channel file: "),
            ("\"1.2.0\"", "\"1.2\"", "no channel file: "),
            ("models/falls/1.2.0/", "models/../1.2.0/", "bundle: "),
            ("models/falls/1.2.0/", "/models/falls/", "bundle: "),
            ("models/falls/1.2.0/", "models//", "bundle: "),
            ("\"seed_below\":20,", "\"seed_below\":2048,", "waves: "),
            ("\"seed_below\":20,", "\"seed_below\":0,", "waves: "),
            ("\"seed_below\":2048", "\"seed_below\":2049", "waves: "),
            ("2026-12-04T", "2026-11-04T", "waves: "),
            ("\"latency_p99_ms\":33", "\"latency_p99_ms\":0", "gates.latency_p99_ms: "),
            ("0.97", "1.5", "gates.shadow_agreement: "),
            ("0.97", "1e999", "no channel file: "),
            (">=0.1, <2", "new", "no channel file: "),
        ];
        for (from, to, said) in cases {
            let error = with(from, to).unwrap_err();
            assert!(error.to_string().starts_with(said), "{from} -> {to}: {error}");
        }
        assert_eq!(with("\"schema\":1", "\"schema\":2").unwrap_err().code(), Code::ChannelNewer);
        assert_eq!(Channel::parse(&vec![b' '; MAX_CHANNEL + 1]).unwrap_err().code(), Code::ChannelInvalid);
    }

    #[test]
    fn waves_admit_by_seed_and_time() {
        let channel = Channel::parse(EXAMPLE.as_bytes()).unwrap();
        let (first, last) = (channel.waves[0].not_before, channel.waves[1].not_before);
        let before = first - jiff::SignedDuration::from_secs(1);
        assert_eq!(channel.admission(0, before), Admission::At(first));
        assert_eq!(channel.admission(19, first), Admission::Now);
        assert_eq!(channel.admission(20, first), Admission::At(last));
        assert_eq!(channel.admission(2047, last), Admission::Now);
        let canary = Channel { waves: channel.waves[..1].to_vec(), ..channel.clone() };
        assert_eq!(canary.admission(20, last), Admission::Never);
        let everyone = Channel { waves: Vec::new(), ..channel };
        assert_eq!(everyone.admission(seed("any", "falls"), before), Admission::Now);
    }
}
