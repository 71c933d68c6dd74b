//! Where log lines go and in which form. Standard error or the journal only: standard output is for data.

use std::fmt;
use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing::Event;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::config::file::LogFormat;

/// What decides the log, strongest first: `RUST_LOG`, then `-v`, then the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// Form of a line.
    pub format: LogFormat,
    /// Filter of the configuration, such as `info`.
    pub level: String,
    /// How often `-v` was given: 1 is debug of our own crates, 2 is trace.
    pub verbose: u8,
}

/// The MQTT library has a line for every message that a broker does not take; the client says the same once. The broker for
/// trials has several for every connection, errors for those that end well among them. A filter that names them is stronger.
const QUIET: &str = "rumqttc=off,rumqttd=off";

/// What was started, for [`set_level`].
static STARTED: OnceLock<(Options, Handle<EnvFilter, Registry>)> = OnceLock::new();

/// Starts logging. Called once; later calls change nothing.
///
/// # Errors
/// In words with what to do, when the filter cannot be understood or the journal was asked for and is not there.
pub fn init(options: &Options) -> Result<(), String> {
    let (filter, handle) = reload::Layer::new(filter(options, rust_log().as_deref())?);
    let layer: Box<dyn Layer<tracing_subscriber::Registry> + Send + Sync> = match resolve(options.format) {
        LogFormat::Journald => match tracing_journald::layer() {
            Ok(layer) => layer.with_syslog_identifier("kinewatch".into()).boxed(),
            Err(e) if options.format == LogFormat::Journald => {
                return Err(format!("the journal cannot be reached: {e}; use --log-format human or json"));
            }
            Err(_) => human(),
        },
        LogFormat::Auto => lines(),
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(std::io::stderr)
            .boxed(),
        _ => human(),
    };
    if tracing_subscriber::registry().with(layer.with_filter(filter)).try_init().is_ok() {
        let _first = STARTED.set((options.clone(), handle));
    }
    Ok(())
}

/// Another filter of the configuration, from now on.
///
/// # Errors
/// In words, when the filter cannot be understood, or something stronger than the configuration decides.
pub fn set_level(level: &str) -> Result<(), String> {
    let Some((options, handle)) = STARTED.get() else { return Ok(()) };
    let rust_log = rust_log().filter(|text| !text.is_empty());
    if options.verbose > 0 || rust_log.is_some() {
        return Err("[log] level: RUST_LOG or -v was given at the start and is stronger".into());
    }
    let options = Options { level: level.to_owned(), ..options.clone() };
    let filter = filter(&options, None)?;
    handle.reload(filter).map_err(|e| format!("[log] level: {e}"))
}

fn rust_log() -> Option<String> {
    std::env::var("RUST_LOG").ok()
}

/// Checks a filter of the configuration.
///
/// # Errors
/// In words with what to do.
pub fn check_level(level: &str) -> Result<(), String> {
    let known = ["off", "error", "warn", "info", "debug", "trace"];
    if !level.contains(['=', ',', '[']) && !known.contains(&level) {
        return Err(format!(
            "\"{level}\" is not a level; one of: {}, or a filter such as info,kinewatch_mqtt=debug",
            known.join(", ")
        ));
    }
    parse(level).map(drop).map_err(|e| format!("\"{level}\" is not a log filter: {e}; write for example info"))
}

fn human() -> Box<dyn Layer<tracing_subscriber::Registry> + Send + Sync> {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt::layer().with_ansi(colour).with_target(false).with_writer(std::io::stderr).boxed()
}

/// Lines for the journal behind standard error, which adds time and program. Unlike [`LogFormat::Journald`], whoever reads
/// them sees the fields, too: `frames arrive camera="front"`.
fn lines() -> Box<dyn Layer<tracing_subscriber::Registry> + Send + Sync> {
    tracing_subscriber::fmt::layer().with_ansi(false).event_format(Prefixed).with_writer(std::io::stderr).boxed()
}

/// A line that begins with its priority, as sd-daemon(3) has it.
struct Prefixed;

impl<S, N> FormatEvent<S, N> for Prefixed
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let priority = match *event.metadata().level() {
            tracing::Level::ERROR => 3,
            tracing::Level::WARN => 4,
            tracing::Level::INFO => 6,
            tracing::Level::DEBUG | tracing::Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        let line = tracing_subscriber::fmt::format().without_time().with_level(false).with_target(false);
        line.format_event(context, writer, event)
    }
}

/// `auto` is lines for the journal where systemd connected standard error to it.
fn resolve(format: LogFormat) -> LogFormat {
    let to_journal = std::env::var_os("JOURNAL_STREAM").is_some() && !std::io::stderr().is_terminal();
    if format == LogFormat::Auto && !to_journal { LogFormat::Human } else { format }
}

fn filter(options: &Options, rust_log: Option<&str>) -> Result<EnvFilter, String> {
    let text = match (rust_log, options.verbose) {
        (Some(text), _) if !text.is_empty() => text.to_owned(),
        (_, 0) => format!("{QUIET},{}", options.level),
        (_, n) => {
            let level = if n == 1 { "debug" } else { "trace" };
            let ours = [
                "kinewatch",
                "kinewatch_core",
                "kinewatch_capture",
                "kinewatch_engine",
                "kinewatch_store",
                "kinewatch_mqtt",
                "kinewatch_ota",
            ];
            [QUIET.to_owned(), "info".to_owned()]
                .into_iter()
                .chain(ours.map(|c| format!("{c}={level}")))
                .collect::<Vec<_>>()
                .join(",")
        }
    };
    parse(&text)
        .map_err(|e| format!("\"{text}\" is not a log filter: {e}; write for example info or kinewatch_mqtt=debug"))
}

/// The library panics over some filters that are not ASCII.
fn parse(text: &str) -> Result<EnvFilter, String> {
    if !text.is_ascii() {
        return Err("it has characters that are in no name of a module".into());
    }
    EnvFilter::builder().parse(text).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(verbose: u8) -> Options {
        Options { format: LogFormat::Auto, level: "warn".into(), verbose }
    }

    #[test]
    fn the_environment_is_stronger_than_v_and_v_than_the_file() {
        assert_eq!(filter(&options(1), Some("error")).unwrap().to_string(), "error");
        assert!(filter(&options(1), None).unwrap().to_string().contains("kinewatch_mqtt=debug"));
        assert_eq!(filter(&options(0), Some("")).unwrap().to_string(), "rumqttd=off,rumqttc=off,warn");
        let named = Options { level: "info,rumqttc=debug".into(), ..options(0) };
        assert_eq!(filter(&named, None).unwrap().to_string(), "rumqttd=off,rumqttc=debug,info");
    }

    #[test]
    fn a_wrong_level_says_which_exist() {
        assert!(check_level("infoo").unwrap_err().contains("error, warn, info"));
        assert!(check_level("info,kinewatch=debug").is_ok());
        assert!(check_level("info,künewatch=debug").unwrap_err().contains("is not a log filter"));
    }
}
