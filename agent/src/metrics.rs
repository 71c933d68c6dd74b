//! Prometheus metrics, made from [`Shared`] at the moment they are asked for.
//!
//! Names: prefix `kinewatch_`, base units, `_total` on counters. Labels take their values from the configuration, or name
//! sensors of the board, so their number is bounded.

mod encode;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use self::encode::{Rows, counters, gauges, histogram};
use crate::cli::version_commit;
use crate::health::{CameraView, DroppedWindows, ModelView, Shared};

/// Metrics of one agent.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Metrics that read `shared` whenever they are rendered.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        let mut registry = Registry::with_prefix("kinewatch");
        registry.register_collector(Box::new(Reader(shared)));
        Self { registry }
    }

    /// The text that Prometheus scrapes (OpenMetrics).
    ///
    /// # Errors
    /// Never in practice: writing into a string does not fail.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

#[derive(Debug)]
struct Reader(Arc<Shared>);

/// The cameras and models of one answer: a reload between two metrics must not mix them.
struct Snapshot<'s> {
    shared: &'s Shared,
    cameras: Arc<Vec<Arc<CameraView>>>,
    models: Arc<Vec<Arc<ModelView>>>,
}

impl Collector for Reader {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let e = &mut encoder;
        let shared = &*self.0;
        let now = Snapshot { shared, cameras: shared.cameras.load_full(), models: shared.models.load_full() };
        now.build(e)?;
        now.streams(e)?;
        now.windows(e)?;
        now.models(e)?;
        now.events(e)?;
        now.delivery(e)?;
        now.commands(e)?;
        now.updates(e)?;
        now.board(e)
    }
}

impl Snapshot<'_> {
    fn build(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let labels = vec![("version", env!("CARGO_PKG_VERSION")), ("commit", version_commit())];
        gauges(e, "build_info", "Version of the agent; always 1", vec![(labels, 1)])?;
        gauges(
            e,
            "uptime_seconds",
            "Time since the agent started",
            vec![(vec![], self.shared.started.elapsed().as_secs_f64())],
        )?;
        gauges(
            e,
            "ready",
            "1 when every part has started and the agent is not stopping",
            vec![(vec![], i64::from(self.shared.is_ready()))],
        )?;
        let synced = i64::from(self.shared.clock_synced.load(Relaxed));
        gauges(e, "clock_synced", "1 while the system clock is synchronised", vec![(vec![], synced)])?;
        let steps = vec![(vec![], self.shared.clock_steps.load(Relaxed))];
        counters(e, "clock_steps", "Times that the system clock was set while the agent ran", steps)?;
        let reloads = &self.shared.reloads;
        let rows = [("applied", &reloads.applied), ("refused", &reloads.refused)];
        let rows = rows.map(|(result, n)| (vec![("result", result)], n.load(Relaxed))).to_vec();
        counters(e, "config_reloads", "Configurations read again, by what came of it", rows)?;
        let good = vec![(vec![], i64::from(reloads.last_is_applied()))];
        gauges(e, "config_last_reload_successful", "0 while the configuration file is one that was refused", good)?;
        self.silences(e)
    }

    fn silences(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let now = Instant::now();
        let stages = self.shared.stages.iter().map(|b| (vec![("stage", b.name())], b.silence(now)));
        let camera = |c| vec![("stage", "capture"), ("camera", c)];
        let cameras = self.cameras.iter().map(|c| (camera(c.name.as_str()), c.beat.silence(now)));
        let rows = stages.chain(cameras).map(|(labels, silence)| (labels, silence.as_secs_f64())).collect();
        gauges(e, "stage_silence_seconds", "Since the last sign of life of a stage; 0 while it is at rest", rows)
    }

    fn per_camera<V>(&self, value: impl Fn(&CameraView) -> V) -> Rows<'_, V> {
        self.cameras.iter().map(|c| (vec![("camera", c.name.as_str())], value(c))).collect()
    }

    fn by_reason(&self, reasons: impl Fn(&CameraView) -> Vec<(&'static str, u64)>) -> Rows<'_, u64> {
        let mut rows = Vec::new();
        for camera in self.cameras.iter() {
            let labels = |reason| vec![("camera", camera.name.as_str()), ("reason", reason)];
            rows.extend(reasons(camera).into_iter().map(|(reason, n)| (labels(reason), n)));
        }
        rows
    }

    fn streams(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let stat = |c: &CameraView, pick: fn(&kinewatch_capture::CameraStats) -> &AtomicU64| {
            c.capture.get().map_or(0, |s| pick(s).load(Relaxed))
        };
        gauges(e, "stream_up", "1 while frames arrive", self.per_camera(|c| i64::from(c.is_up())))?;
        counters(e, "frames_decoded", "Frames out of the decoder", self.per_camera(|c| stat(c, |s| &s.decoded)))?;
        counters(e, "frames", "Frames handed to inference", self.per_camera(|c| stat(c, |s| &s.taken)))?;
        counters(
            e,
            "frames_skipped",
            "Frames that no model samples, dropped before scaling",
            self.per_camera(|c| stat(c, |s| &s.skipped)),
        )?;
        let dropped = self.by_reason(|c| {
            vec![
                ("duplicate", stat(c, |s| &s.duplicates)),
                ("backward", stat(c, |s| &s.backward)),
                ("no_timestamp", stat(c, |s| &s.no_pts)),
                ("pool_exhausted", stat(c, |s| &s.pool_exhausted)),
                ("unreadable", stat(c, |s| &s.unreadable)),
                ("inference_behind", c.overflow.load(Relaxed)),
            ]
        });
        counters(e, "frames_dropped", "Frames lost, by reason", dropped)?;
        counters(
            e,
            "stream_reconnects",
            "Pipelines rebuilt after a failure",
            self.per_camera(|c| stat(c, |s| &s.reconnects)),
        )?;
        counters(
            e,
            "stream_stalls",
            "Pipelines rebuilt because no frame came",
            self.per_camera(|c| stat(c, |s| &s.stalls)),
        )?;
        counters(
            e,
            "stream_freezes",
            "Pipelines rebuilt because one picture was repeated",
            self.per_camera(|c| stat(c, |s| &s.freezes)),
        )?;
        counters(
            e,
            "decoder_fallbacks",
            "Times that the hardware decoder failed and the processor took over",
            self.per_camera(|c| stat(c, |s| &s.decoder_fallbacks)),
        )?;
        counters(
            e,
            "stream_pipelines_abandoned",
            "Pipelines left behind because they did not stop in time",
            self.per_camera(|c| stat(c, |s| &s.abandoned)),
        )?;
        counters(
            e,
            "capture_threads_abandoned",
            "Threads of cameras that hung and were replaced",
            self.per_camera(|c| stat(c, |s| &s.threads_abandoned)),
        )?;
        counters(
            e,
            "camera_clock_steps",
            "Times that a camera set its clock while frames went on",
            self.per_camera(|c| stat(c, |s| &s.clock_steps)),
        )?;
        counters(e, "stream_sessions", "Stream sessions begun", self.per_camera(|c| stat(c, |s| &s.sessions)))
    }

    fn windows(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        counters(e, "windows", "Windows scored", self.per_camera(|c| c.windows.load(Relaxed)))?;
        let mut dropped = Vec::new();
        for c in self.cameras.iter() {
            for (model, d) in c.models.iter().zip(&c.dropped) {
                for (reason, n) in [
                    ("hole", &d.hole),
                    ("failed", &d.failed),
                    ("overload", &d.overload),
                    ("swap", &d.swap),
                    ("derated", &d.derated),
                ] {
                    let labels = vec![("camera", c.name.as_str()), ("model", model.as_str()), ("reason", reason)];
                    dropped.push((labels, n.load(Relaxed)));
                }
            }
        }
        counters(e, "windows_dropped", "Windows not scored, by reason", dropped)?;
        let failing = self.cameras.iter().flat_map(|c| {
            let labels = move |model| vec![("camera", c.name.as_str()), ("model", model)];
            let failing = |d: &DroppedWindows| i64::from(d.failing.load(Relaxed));
            c.models.iter().zip(&c.dropped).map(move |(model, d)| (labels(model.as_str()), failing(d)))
        });
        gauges(e, "model_failing", "1 while a model scores nothing at a camera", failing.collect())?;
        let mut family = e.encode_descriptor(
            "score_age_seconds",
            "From the newest frame of a window, in front of the camera, to its scores",
            None,
            MetricType::Histogram,
        )?;
        for c in self.cameras.iter() {
            let labels = [("camera", c.name.as_str())];
            histogram(&c.age, family.encode_family(&&labels[..])?)?;
        }
        gauges(e, "actions_active", "Actions that go on", self.per_camera(|c| c.active.load().len() as i64))
    }

    fn models(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let infos: Vec<_> =
            self.models.iter().filter_map(|m| m.info.load_full().map(|i| (m.name.as_str(), i))).collect();
        let rows = infos
            .iter()
            .map(|(name, i)| {
                let labels = [
                    ("model", *name),
                    ("version", &i.version),
                    ("backend", &i.backend),
                    ("provider", &i.provider),
                    ("precision", &i.precision),
                ];
                (labels.to_vec(), 1)
            })
            .collect();
        gauges(e, "model_info", "What runs each model; always 1", rows)?;
        let rows = |pick: fn(&ModelView) -> &AtomicU64| {
            self.models.iter().map(|m| (vec![("model", m.name.as_str())], pick(m).load(Relaxed))).collect::<Vec<_>>()
        };
        let building = self.shared.building.load();
        let is_built = building.iter().map(|b| (vec![("model", b.model.as_str())], 1)).collect();
        gauges(e, "engine_building", "1 while an engine for the model is built", is_built)?;
        let (now, help) = (Instant::now(), "Since the build of an engine for the model began; 0 while there is none");
        let since =
            |m: &ModelView| building.iter().find(|b| b.model == m.name).map_or(0.0, |b| b.elapsed(now).as_secs_f64());
        let since = self.models.iter().map(|m| (vec![("model", m.name.as_str())], since(m))).collect();
        gauges(e, "engine_build_elapsed_seconds", help, since)?;
        counters(e, "backbone_runs", "Frames that went through the backbone", rows(|m| &m.backbone_runs))?;
        counters(e, "head_runs", "Windows that went through the head", rows(|m| &m.head_runs))?;
        counters(e, "inference_batches", "Calls of the back end", rows(|m| &m.batches))?;
        let mut family = e.encode_descriptor(
            "inference_duration_seconds",
            "Time of one call of the back end",
            None,
            MetricType::Histogram,
        )?;
        for m in self.models.iter() {
            let labels = [("model", m.name.as_str())];
            histogram(&m.duration, family.encode_family(&&labels[..])?)?;
        }
        Ok(())
    }

    fn events(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut rows = Vec::new();
        for camera in self.cameras.iter() {
            for l in &camera.events {
                for (status, n) in [("started", &l.started), ("updated", &l.updated), ("ended", &l.ended)] {
                    rows.push((
                        vec![("camera", camera.name.as_str()), ("label", l.label.as_str()), ("status", status)],
                        n.load(Relaxed),
                    ));
                }
            }
        }
        counters(e, "events", "Events decided", rows)
    }

    fn delivery(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let d = &self.shared.delivery;
        let one = |n: &AtomicU64| vec![(vec![], n.load(Relaxed))];
        gauges(
            e,
            "mqtt_connected",
            "1 while a connection to the broker stands",
            vec![(vec![], i64::from(d.connected.load(Relaxed)))],
        )?;
        counters(e, "mqtt_connections", "Connections made to the broker", one(&d.connections))?;
        counters(e, "mqtt_publish_acked", "Events that the broker acknowledged", one(&d.acked))?;
        counters(e, "mqtt_publish_refused", "Events that the broker refused for good", one(&d.refused))?;
        counters(e, "mqtt_publish_deferred", "Times that the broker put an event off", one(&d.deferred))?;
        let gauge = |n: &AtomicU64| vec![(vec![], n.load(Relaxed) as i64)];
        gauges(e, "outbox_messages", "Events stored that wait for the broker", gauge(&d.outbox_messages))?;
        gauges(e, "outbox_bytes", "Bytes of the outbox, as its quota counts them", gauge(&d.outbox_bytes))?;
        gauges(e, "outbox_parked", "Events put aside because the broker refuses them", gauge(&d.outbox_parked))?;
        gauges(e, "outbox_kept", "Events that the broker has and that wait for a consumer", gauge(&d.outbox_kept))?;
        gauges(
            e,
            "outbox_oldest_age_seconds",
            "Age of the oldest that waits for the broker; 0 when there is none",
            vec![(vec![], d.outbox_oldest_boot_ns.age_s().unwrap_or(0.0))],
        )?;
        counters(e, "outbox_dropped", "Events dropped to keep within the quota", one(&d.outbox_dropped))?;
        counters(
            e,
            "outbox_damaged",
            "Events that a damaged or lost database may have taken with it",
            one(&d.outbox_damaged),
        )?;
        let store = &self.shared.store;
        gauges(e, "store_up", "1 while events can be stored", vec![(vec![], i64::from(store.is_up()))])?;
        gauges(e, "store_waiting", "Events in memory that wait to be stored", gauge(&store.waiting))?;
        let errors = store.errors().map(|(kind, n)| (vec![("kind", kind)], n)).collect();
        counters(e, "store_errors", "Attempts to open, read or write the store that failed, by kind", errors)?;
        counters(e, "decisions_lost", "Decisions that the store could not take", one(&d.decisions_lost))
    }

    fn updates(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let u = &self.shared.updates;
        let one = |n: &AtomicU64| vec![(vec![], n.load(Relaxed))];
        let rows = [("ok", &u.polls), ("failed", &u.polls_failed)];
        let rows = rows.map(|(result, n)| (vec![("result", result)], n.load(Relaxed))).to_vec();
        counters(e, "update_polls", "Looks at the repository of models", rows)?;
        counters(
            e,
            "update_downloaded_bytes",
            "Bytes of bundles that came over the network",
            one(&u.downloaded_bytes),
        )?;
        counters(e, "update_commits", "Releases that have proven themselves here", one(&u.committed))?;
        counters(e, "update_rollbacks", "Releases that were gone back from", one(&u.rolled_back))?;
        counters(e, "update_quarantined", "Releases found to be at fault here", one(&u.quarantined))?;
        counters(e, "update_delays", "Trials put off through no fault of the release", one(&u.delayed))?;
        let state = u.state.load_full();
        let rows = state.models.iter().map(|m| (vec![("model", m.model.as_str()), ("state", m.state.as_str())], 1));
        gauges(e, "update_state", "Where the update of a model stands; always 1", rows.collect())?;
        let faults = state.models.iter().filter_map(|m| {
            let code = crate::updates::code_of(m)?;
            Some((vec![("model", m.model.as_str()), ("code", code.as_str())], 1))
        });
        gauges(e, "update_fault", "Why an update does not go on; always 1", faults.collect())?;
        let trial = self.shared.trial.load_full();
        let rows = trial.iter().filter_map(|t| Some((vec![("model", t.model.as_str())], t.agreement()?))).collect();
        gauges(e, "trial_agreement", "Part of the windows on which candidate and model agree", rows)
    }

    /// What the board told last; nothing of what it does not tell.
    fn board(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let one_of = vec![(vec![], i64::from(self.shared.one_of()))];
        gauges(e, "derating_one_of", "One window of so many is scored, to spare the device; 1 is all", one_of)?;
        let derated = self.shared.derated.load();
        let causes = derated.iter().flat_map(|d| &d.causes).map(|cause| (vec![("cause", cause.name())], 1));
        gauges(e, "derating_cause", "Why the device is spared; always 1", causes.collect())?;
        let Some(board) = self.shared.board.load_full() else { return Ok(()) };
        let info = |of: &Option<String>| of.clone().unwrap_or_default();
        let (model, l4t, mode) = (info(&board.model), info(&board.l4t), info(&board.power_mode));
        let labels = vec![("model", model.as_str()), ("l4t", l4t.as_str()), ("power_mode", mode.as_str())];
        gauges(e, "board_info", "What the board is; always 1", vec![(labels, 1)])?;
        let zones = board.zones.iter().map(|zone| (vec![("zone", zone.name.as_str())], zone.now));
        gauges(e, "board_temperature_celsius", "Temperature of a thermal zone", zones.collect())?;
        let slows = board.cooling.iter().map(|c| (vec![("device", c.name.as_str())], i64::from(c.slows())));
        gauges(e, "board_slowed", "1 while a cooling device takes speed away", slows.collect())?;
        let events = board.supply.iter().map(|s| (vec![("event", s.event.label())], s.count.unsigned_abs()));
        counters(e, "board_supply_events", "Times that the supply made the board slow down", events.collect())?;
        let rail = |name| vec![("rail", name)];
        let volts = board.rails.iter().map(|r| (rail(r.name.as_str()), r.volts));
        gauges(e, "board_rail_volts", "Voltage of a rail", volts.collect())?;
        let amperes = board.rails.iter().filter_map(|r| Some((rail(r.name.as_str()), r.amperes?)));
        gauges(e, "board_rail_amperes", "Current of a rail", amperes.collect())?;
        let memory = &board.memory;
        let free = memory.free().map(|bytes| (vec![], bytes as f64)).into_iter();
        gauges(e, "memory_available_bytes", "Memory that can be had, within the service's limit", free.collect())?;
        let stalled = memory.stalled.map(|part| (vec![], part)).into_iter();
        gauges(
            e,
            "memory_stalled_ratio",
            "Part of the last 10 s in which everything waited for memory",
            stalled.collect(),
        )
    }

    fn commands(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let c = &self.shared.commands;
        let listening = vec![(vec![], i64::from(c.listening.load(Relaxed)))];
        gauges(e, "commands_listening", "1 while the broker lets the agent listen for commands", listening)?;
        let mut rows = Vec::new();
        for (command, outcomes) in c.by_name() {
            let counts = [("ok", &outcomes.ok), ("refused", &outcomes.refused), ("failed", &outcomes.failed)];
            for (outcome, n) in counts {
                rows.push((vec![("command", command), ("outcome", outcome)], n.load(Relaxed)));
            }
        }
        counters(e, "commands", "Commands, by what became of them", rows)?;
        let reasons = [("too_many", &c.too_many), ("unread", &c.unread), ("retained", &c.retained)];
        let rows = reasons.into_iter().map(|(reason, n)| (vec![("reason", reason)], n.load(Relaxed))).collect();
        counters(e, "commands_dropped", "Commands that were not even tried, by reason", rows)?;
        let rows = vec![(vec![], c.namesakes.load(Relaxed))];
        counters(e, "namesakes", "Times that another device of the same name was heard", rows)?;
        let rows = vec![(vec![], c.unanswered.load(Relaxed))];
        counters(e, "command_answers_dropped", "Answers that found no room on the way to the broker", rows)
    }
}

/// Names of all metrics, with their suffixes; what dashboards may use.
#[must_use]
pub fn names(rendered: &str) -> Vec<String> {
    let mut names: Vec<String> = rendered
        .lines()
        .filter(|l| !l.starts_with('#'))
        .filter_map(|l| l.split(['{', ' ']).next())
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_as_reviewed() {
        let camera = CameraView::new("front", "test:", vec!["falls".into()], vec!["fall".into()]);
        camera.dropped[0].hole.store(3, Relaxed);
        let shared = Shared::new("home", "box", "mqtt://127.0.0.1", vec![camera], vec!["falls".into()]);
        shared.models.load()[0].duration.observe(std::time::Duration::from_millis(12));
        let dir = crate::board::trees::plant(&["orin-nano-jp62", "orin-nano-jp62-throttled"]);
        let root = crate::root::Root::below(dir.path());
        shared.board.store(Some(Arc::new(crate::board::Board::read(&root))));
        let causes = vec![kinewatch_core::derate::Cause::Heat];
        shared.derated.store(Some(Arc::new(kinewatch_core::event::Derated { causes, one_of: 2 })));
        let text = Metrics::new(Arc::new(shared)).render().unwrap();
        let stable: Vec<&str> = text
            .lines()
            .filter(|l| !l.starts_with("kinewatch_uptime") && !l.starts_with("kinewatch_build_info"))
            .collect();
        insta::assert_snapshot!("metrics", stable.join("\n"));
    }

    /// A dashboard that asks for a metric that does not exist shows nothing, and nobody notices.
    #[test]
    fn the_dashboard_asks_only_for_metrics_that_exist() {
        let camera = CameraView::new("c", "test:", vec!["m".into()], vec!["l".into()]);
        let shared = Shared::new("g", "d", "b", vec![camera], vec!["m".into()]);
        shared.models.load()[0].info.store(Some(Arc::new(crate::health::ModelInfo {
            version: "1".into(),
            architecture: "a".into(),
            sha256: "s".into(),
            backend: "tract".into(),
            provider: "cpu".into(),
            precision: "fp32".into(),
            nodes: std::collections::BTreeMap::new(),
            why: "w".into(),
        })));
        let known = names(&Metrics::new(Arc::new(shared)).render().unwrap());
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/grafana/kinewatch.json");
        let dashboard = std::fs::read_to_string(path).unwrap();
        let asked: Vec<&str> = dashboard
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|w| w.starts_with("kinewatch_"))
            .collect();
        assert!(asked.len() > 10, "found {}", asked.len());
        let missing: Vec<_> = asked.into_iter().filter(|a| !known.iter().any(|k| k == a)).collect();
        assert_eq!(missing, [""; 0]);
    }
}
