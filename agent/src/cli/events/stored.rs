//! `kinewatch events history|outbox|export`: what the daemon has stored, looked at beside it.
//!
//! Opens the database read-only and in short pieces: the daemon never waits for it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use comfy_table::{Cell, CellAlignment};
use jiff::{Timestamp, ZonedDateTime};
use kinewatch_core::event::{ActionEvent, ActionStatus, Instant, rfc3339};
use kinewatch_store::{Filter, Gap, HistoryRow, OutboxRow, Reader, Tally, Waiting};
use serde_json::{Value, json};

use super::super::{ExportArgs, Failure, FilterArgs, HistoryArgs, OutboxArgs, Outcome, StateArgs, print};
use crate::config::{self, Environment};
use crate::delivery;
use crate::table::new_table;

/// Events read in one go.
const CHUNK: usize = 500;

/// `events history`.
pub(in crate::cli) fn history(args: &HistoryArgs) -> Outcome {
    let mut rows = reader(&args.state)?.newest(&filter(&args.filter), args.limit).map_err(Failure::say)?;
    rows.reverse();
    if args.json {
        return rows.iter().try_for_each(|row| print(&as_json(row).to_string()));
    }
    if rows.is_empty() {
        return print("no event stored that fits");
    }
    let mut table = new_table(&[
        "number",
        "decided",
        "camera",
        "label",
        "status",
        "begin",
        "end",
        "confidence",
        "ended by",
        "broker",
    ]);
    for row in &rows {
        table.add_row(cells(row));
    }
    print(&table.to_string())
}

/// `events outbox`.
pub(in crate::cli) fn outbox(args: &OutboxArgs) -> Outcome {
    let reader = reader(&args.state)?;
    let tally = reader.tally().map_err(Failure::say)?;
    let rows = reader.outbox(0, args.limit).map_err(Failure::say)?;
    let gaps = reader.gaps(args.limit).map_err(Failure::say)?;
    if args.json {
        return print(&outbox_json(&tally, &rows, &gaps).to_string());
    }
    let now = Timestamp::now();
    let [waiting, kept, parked] = tally;
    print(&format!("waits for the broker:   {}", told(&waiting, now)))?;
    print(&format!("waits for a consumer:   {}", told(&kept, now)))?;
    print(&format!("refused by the broker:  {}", told(&parked, now)))?;
    let ranges: Vec<String> = gaps.iter().map(|g| format!("{}–{} ({})", g.first, g.last, g.reason)).collect();
    let ranges = if ranges.is_empty() { "none".to_owned() } else { ranges.join(", ") };
    print(&format!("losses to be stated:    {ranges}"))?;
    if rows.is_empty() {
        return Ok(());
    }
    let mut table = new_table(&["number", "stored", "camera", "label", "status", "bytes", "sent", "waits for"]);
    for row in &rows {
        table.add_row([
            number(row.sequence.to_string()),
            Cell::new(local(row.created_unix_ns)),
            Cell::new(&row.camera),
            Cell::new(&row.label),
            Cell::new(status(row.status)),
            number(row.bytes.to_string()),
            number(row.attempts.to_string()),
            Cell::new(waits_for(row.waits_for)),
        ]);
    }
    print(&table.to_string())?;
    let all = waiting.messages + kept.messages + parked.messages;
    if all > rows.len() as u64 {
        eprintln!("kinewatch: the oldest {} of {all}; --limit shows more", rows.len());
    }
    Ok(())
}

/// `events export`.
pub(in crate::cli) fn export(args: &ExportArgs) -> Outcome {
    let reader = reader(&args.state)?;
    let filter = filter(&args.filter);
    let csv = args.out.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
    if !csv && !is_stdout(&args.out) && !args.out.extension().is_some_and(|e| e.eq_ignore_ascii_case("jsonl")) {
        return Err(Failure::Usage("--out: give a name that ends in .jsonl or .csv, or - for standard output".into()));
    }
    let failed = |e: io::Error| Failure::say(format!("{}: {e}", args.out.display()));
    let sink: Box<dyn Write> = if is_stdout(&args.out) {
        Box::new(io::stdout().lock())
    } else {
        Box::new(File::create(&args.out).map_err(failed)?)
    };
    let mut writer = Writer::new(BufWriter::new(sink), csv).map_err(failed)?;
    let (mut after, mut written) = (0, 0);
    loop {
        let rows = reader.history(&filter, after, CHUNK).map_err(Failure::say)?;
        let Some(last) = rows.last() else { break };
        after = last.sequence;
        for row in &rows {
            match writer.write(row) {
                // Whoever reads standard output may have enough.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                result => result.map_err(failed)?,
            }
        }
        written += rows.len();
    }
    writer.finish().map_err(failed)?;
    if !is_stdout(&args.out) {
        eprintln!("kinewatch: {written} events written to {}", args.out.display());
    }
    Ok(())
}

fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

fn reader(args: &StateArgs) -> Result<Reader, Failure> {
    let path = delivery::database(&state_dir(args)?);
    Reader::open(&path).map_err(Failure::say)
}

/// Named, or that of the configuration.
pub(in crate::cli) fn state_dir(args: &StateArgs) -> Result<PathBuf, Failure> {
    if let Some(dir) = &args.state_dir {
        return Ok(dir.clone());
    }
    config::state_dir(&args.config, &Environment::of_process()).map_err(|problems| {
        let mut lines = problems;
        lines.push("kinewatch: the state directory can also be named with --state-dir".to_owned());
        Failure::Config(lines)
    })
}

fn filter(args: &FilterArgs) -> Filter {
    Filter {
        camera: args.camera.clone(),
        label: args.label.clone(),
        since_unix_ns: args.since.map(|at| i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)),
    }
}

/// A time of RFC 3339, a day, or how long ago.
pub(in crate::cli) fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let now = ZonedDateTime::now();
    if let Ok(day) = text.parse::<jiff::civil::DateTime>() {
        return day.to_zoned_datetime(now.time_zone().clone()).map(|z| z.timestamp()).map_err(|e| e.to_string());
    }
    let back = text.parse::<jiff::Span>().ok().and_then(|span| now.checked_sub(span.abs()).ok());
    back.map(|at| at.timestamp()).ok_or_else(|| "write 2h, 3d, 2026-11-29, or 2026-11-29T08:00:00Z".into())
}

fn cells(row: &HistoryRow) -> Vec<Cell> {
    let broker = if row.acknowledged { "has it" } else { "waits" };
    let head = [number(row.sequence.to_string())];
    let Ok(event) = serde_json::from_slice::<ActionEvent>(&row.payload) else {
        let blank = ["?", &row.camera, &row.label, status(row.status), "", "", "", "unreadable", broker];
        return head.into_iter().chain(blank.map(Cell::new)).collect();
    };
    let data = &event.data;
    let clock = |at: &Instant| at.time.parse::<Timestamp>().map_or_else(|_| at.time.clone(), local_time);
    let reason = data.end_reason.and_then(|r| serde_json::to_value(r).ok());
    let reason = reason.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
    let decided = data.decided_at.time.parse::<Timestamp>().map_or_else(|_| data.decided_at.time.clone(), local_stamp);
    head.into_iter()
        .chain([
            Cell::new(decided),
            Cell::new(&row.camera),
            Cell::new(&row.label),
            Cell::new(status(row.status)),
            Cell::new(clock(&data.start)),
            Cell::new(data.end.as_ref().map_or_else(String::new, clock)),
            number(format!("{:.2}", data.confidence.peak)),
            Cell::new(reason),
            Cell::new(broker),
        ])
        .collect()
}

fn number(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn status(status: kinewatch_store::Status) -> &'static str {
    match status {
        kinewatch_store::Status::Started => "started",
        kinewatch_store::Status::Updated => "updated",
        kinewatch_store::Status::Ended => "ended",
    }
}

fn waits_for(waiting: Waiting) -> String {
    match waiting {
        Waiting::Broker => "broker".into(),
        Waiting::Consumer => "consumer".into(),
        Waiting::Parked(code) => format!("nothing: {} ({code:#04x})", refusal(code)),
    }
}

/// What a broker means by the reason code of a PUBACK.
fn refusal(code: u8) -> &'static str {
    match code {
        0x80 => "refused without a reason",
        0x83 => "refused by the broker's own rules",
        0x87 => "not authorised: check the broker's access rules for this topic",
        0x90 => "topic not valid",
        0x91 => "packet identifier in use",
        0x95 => "larger than the broker accepts",
        0x97 => "quota of the broker exceeded",
        0x99 => "payload format not valid",
        _ => "refused",
    }
}

fn told(tally: &Tally, now: Timestamp) -> String {
    let Some(oldest) = tally.oldest_unix_ns else { return "nothing".into() };
    let minutes = now.as_second().saturating_sub(oldest / 1_000_000_000).max(0) / 60;
    let ago = match minutes {
        0..120 => format!("{minutes} min"),
        120..2880 => format!("{} h", minutes / 60),
        _ => format!("{} days", minutes / 1440),
    };
    format!(
        "{} messages, {} kB, the oldest since {} ({ago})",
        tally.messages,
        tally.bytes.div_ceil(1000),
        local(oldest)
    )
}

fn local(unix_ns: i64) -> String {
    Timestamp::from_nanosecond(unix_ns.into()).map_or_else(|_| "?".into(), local_stamp)
}

fn local_stamp(at: Timestamp) -> String {
    at.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn local_time(at: Timestamp) -> String {
    at.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%H:%M:%S%.3f").to_string()
}

fn as_json(row: &HistoryRow) -> Value {
    let event = serde_json::from_slice::<Value>(&row.payload)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&row.payload).into_owned()));
    json!({
        "sequence": row.sequence,
        "stored": rfc3339(row.created_unix_ns),
        "acknowledged": row.acknowledged,
        "topic": row.topic,
        "event": event,
    })
}

fn outbox_json([waiting, kept, parked]: &[Tally; 3], rows: &[OutboxRow], gaps: &[Gap]) -> Value {
    let tally = |t: &Tally| json!({"messages": t.messages, "bytes": t.bytes, "oldest": t.oldest_unix_ns.map(rfc3339)});
    let gap =
        |g: &Gap| json!({"first": g.first, "last": g.last, "reason": g.reason, "since": rfc3339(g.created_unix_ns)});
    let message = |row: &OutboxRow| {
        let (waits, code) = match row.waits_for {
            Waiting::Broker => ("broker", None),
            Waiting::Consumer => ("consumer", None),
            Waiting::Parked(code) => ("nothing", Some(code)),
        };
        json!({
            "sequence": row.sequence,
            "stored": rfc3339(row.created_unix_ns),
            "camera": row.camera,
            "label": row.label,
            "status": status(row.status),
            "bytes": row.bytes,
            "sent": row.attempts,
            "waits_for": waits,
            "reason_code": code,
            "reason": code.map(refusal),
        })
    };
    json!({
        "waiting": tally(waiting),
        "kept": tally(kept),
        "parked": tally(parked),
        "gaps": gaps.iter().map(gap).collect::<Vec<_>>(),
        "messages": rows.iter().map(message).collect::<Vec<_>>(),
    })
}

/// Events as lines.
enum Writer<W: Write> {
    Json(W),
    Csv(Box<csv::Writer<W>>),
}

const COLUMNS: [&str; 18] = [
    "sequence",
    "id",
    "action_id",
    "rev",
    "status",
    "camera",
    "label",
    "start",
    "start_uncertainty_ms",
    "end",
    "end_uncertainty_ms",
    "end_reason",
    "decided_at",
    "confidence_peak",
    "confidence_mean",
    "model",
    "stored",
    "acknowledged",
];

impl<W: Write> Writer<W> {
    fn new(to: W, csv: bool) -> io::Result<Self> {
        if !csv {
            return Ok(Self::Json(to));
        }
        let mut writer = csv::Writer::from_writer(to);
        writer.write_record(COLUMNS)?;
        Ok(Self::Csv(Box::new(writer)))
    }

    /// JSON as it was published; CSV of those that can be read.
    fn write(&mut self, row: &HistoryRow) -> io::Result<()> {
        match self {
            Self::Json(to) => {
                to.write_all(&row.payload)?;
                to.write_all(b"\n")
            }
            Self::Csv(to) => match serde_json::from_slice::<ActionEvent>(&row.payload) {
                Ok(event) => Ok(to.write_record(record(row, &event))?),
                Err(error) => {
                    eprintln!("kinewatch: event {} cannot be read and is left out: {error}", row.sequence);
                    Ok(())
                }
            },
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Json(mut to) => to.flush(),
            Self::Csv(mut to) => to.flush(),
        }
    }
}

fn record(row: &HistoryRow, event: &ActionEvent) -> [String; COLUMNS.len()] {
    let data = &event.data;
    let end = |value: fn(&Instant) -> String| data.end.as_ref().map_or_else(String::new, value);
    let word = |value: Option<Value>| value.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
    let status = match data.status {
        ActionStatus::Started => "started",
        ActionStatus::Updated => "updated",
        ActionStatus::Ended => "ended",
    };
    [
        row.sequence.to_string(),
        event.id.to_string(),
        data.action_id.to_string(),
        data.rev.to_string(),
        status.to_owned(),
        data.camera.id.clone(),
        data.label.clone(),
        data.start.time.clone(),
        data.start.uncertainty_ms.to_string(),
        end(|at| at.time.clone()),
        end(|at| at.uncertainty_ms.to_string()),
        word(data.end_reason.and_then(|reason| serde_json::to_value(reason).ok())),
        data.decided_at.time.clone(),
        data.confidence.peak.to_string(),
        data.confidence.mean.to_string(),
        format!("{} {}", data.model.name, data.model.version),
        rfc3339(row.created_unix_ns),
        row.acknowledged.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_understood_in_three_ways() {
        let ago = Timestamp::now().as_second() - since("2h").unwrap().as_second();
        assert!((7200..7260).contains(&ago), "{ago}");
        assert!(since("3d").unwrap() < since("2h").unwrap());
        assert_eq!(since("2026-11-29T08:00:00Z").unwrap().to_string(), "2026-11-29T08:00:00Z");
        assert!(since("2026-11-29").is_ok() && since("yesterday").unwrap_err().contains("2h"));
    }

    #[test]
    fn a_table_has_as_many_cells_as_columns() {
        let payload = include_bytes!("../../../../config/schema/example-action-event.json").to_vec();
        let event: ActionEvent = serde_json::from_slice(&payload).unwrap();
        let mut row = HistoryRow {
            sequence: 7,
            action_id: "a".into(),
            camera: "room".into(),
            label: "fall".into(),
            status: kinewatch_store::Status::Ended,
            topic: "t".into(),
            payload,
            created_unix_ns: 0,
            acknowledged: true,
        };
        assert_eq!(cells(&row).len(), 10);
        let written = record(&row, &event);
        assert_eq!((written[0].as_str(), written[16].as_str()), ("7", "1970-01-01T00:00:00.000Z"));
        row.payload = b"{".to_vec();
        assert_eq!(cells(&row).len(), 10);
        assert_eq!(waits_for(Waiting::Parked(0x97)), "nothing: quota of the broker exceeded (0x97)");
    }
}
