//! An RTSP server on loopback that plays clips from their beginning to each client.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::prelude::*;

use crate::clip::Clip;

/// What to serve, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// 0 takes a free one.
    pub(crate) port: u16,
    /// User and password that clients must show.
    pub(crate) credentials: Option<(String, String)>,
    /// Mount name and file.
    pub(crate) mounts: Vec<(String, PathBuf)>,
    /// Clips begin again without a break.
    pub(crate) looped: bool,
}

/// A running server. Dropping it closes every connection and frees the port.
pub(crate) struct Server {
    port: u16,
    mounts: Vec<String>,
    muted: Arc<AtomicBool>,
    /// Added to RTP time stamps.
    set_by: Arc<AtomicU32>,
    server: rtsp::RTSPServer,
    source: Option<glib::SourceId>,
    context: glib::MainContext,
    main_loop: glib::MainLoop,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Loads the clips and listens on 127.0.0.1.
    pub(crate) fn start(options: &Options) -> Result<Self, String> {
        let server = rtsp::RTSPServer::new();
        server.set_address("127.0.0.1");
        server.set_service(&options.port.to_string());
        let mount_points = server.mount_points().ok_or("no mount points")?;
        let muted = Arc::new(AtomicBool::new(false));
        let set_by = Arc::new(AtomicU32::new(0));
        for (name, path) in &options.mounts {
            let clip = Arc::new(Clip::load(path)?);
            let factory = factory(clip, options.looped, Arc::clone(&muted), Arc::clone(&set_by));
            if options.credentials.is_some() {
                let role = gst::Structure::builder("user").field("media.factory.access", true);
                factory.add_role_from_structure(&role.field("media.factory.construct", true).build());
            }
            mount_points.add_factory(&format!("/{name}"), factory);
        }
        if let Some((user, password)) = &options.credentials {
            let auth = rtsp::RTSPAuth::new();
            let token = rtsp::RTSPToken::builder().field("media.factory.role", "user").build();
            auth.add_basic(&rtsp::RTSPAuth::make_basic(user, password), &token);
            server.set_auth(Some(&auth));
        }
        let context = glib::MainContext::new();
        let main_loop = glib::MainLoop::new(Some(&context), false);
        let source = server.attach(Some(&context)).map_err(|e| format!("port {}: {e}", options.port))?;
        let port = u16::try_from(server.bound_port()).map_err(|_| "no port")?;
        let running = main_loop.clone();
        let own = context.clone();
        let thread = std::thread::spawn(move || {
            let _ = own.with_thread_default(|| running.run());
        });
        let mounts = options.mounts.iter().map(|(name, _)| name.clone()).collect();
        let (source, thread) = (Some(source), Some(thread));
        Ok(Self { port, mounts, muted, set_by, server, source, context, main_loop, thread })
    }

    /// One URL for each mount.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.mounts.iter().map(|name| format!("rtsp://127.0.0.1:{}/{name}", self.port)).collect()
    }

    /// Listening port.
    #[allow(dead_code, reason = "the tests restart a server on its port")]
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A muted server keeps its connections and sends nothing on them.
    #[allow(dead_code, reason = "the tests silence a server")]
    pub(crate) fn mute(&self, muted: bool) {
        self.muted.store(muted, Ordering::Relaxed);
    }

    /// Sets the clock that stamps pictures, as seconds from what it would show, while pictures go on.
    #[allow(dead_code, reason = "the tests set the clock of a server")]
    pub(crate) fn set_clock(&self, seconds: i32) {
        self.set_by.store(seconds.wrapping_mul(RTP_HZ) as u32, Ordering::Relaxed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(source) = self.source.take().and_then(|id| self.context.find_source_by_id(&id)) {
            source.destroy();
        }
        self.server.client_filter(Some(&mut |_, _| rtsp::RTSPFilterResult::Remove));
        self.main_loop.quit();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Of the time stamps of every video format.
const RTP_HZ: i32 = 90_000;

fn factory(clip: Arc<Clip>, looped: bool, muted: Arc<AtomicBool>, set_by: Arc<AtomicU32>) -> rtsp::RTSPMediaFactory {
    let factory = rtsp::RTSPMediaFactory::new();
    factory.set_launch(&format!("( appsrc name=pictures format=time ! {} )", clip.payloader));
    factory.set_shared(false);
    factory.connect_media_configure(move |_, media| {
        let Ok(bin) = media.element().downcast::<gst::Bin>() else { return };
        if let Some(pad) = bin.by_name("pay0").and_then(|payloader| payloader.static_pad("src")) {
            restamp(&pad, Arc::clone(&set_by));
        }
        let source = bin.by_name("pictures").and_then(|e| e.downcast::<gst_app::AppSrc>().ok());
        let Some(source) = source else { return };
        source.set_caps(Some(&clip.caps));
        let player = Mutex::new(Player { clip: Arc::clone(&clip), next: 0, lap: 0, looped });
        let muted = Arc::clone(&muted);
        let need_data = move |source: &gst_app::AppSrc, _| {
            if muted.load(Ordering::Relaxed) {
                return;
            }
            let picture = player.lock().ok().and_then(|mut player| player.next());
            let _ = match picture {
                Some(picture) => source.push_buffer(picture),
                None => source.end_of_stream(),
            };
        };
        source.set_callbacks(gst_app::AppSrcCallbacks::builder().need_data(need_data).build());
    });
    factory
}

/// Adds to the time stamp of each RTP packet (RFC 3550 section 5.1: bytes 4 to 7).
fn restamp(pad: &gst::Pad, set_by: Arc<AtomicU32>) {
    let add = move |packet: &mut gst::BufferRef| {
        let by = set_by.load(Ordering::Relaxed);
        if by == 0 {
            return;
        }
        if let Ok(mut bytes) = packet.map_writable()
            && let Some(stamp) = bytes.get_mut(4..8)
            && let Ok(old) = <[u8; 4]>::try_from(&*stamp)
        {
            stamp.copy_from_slice(&u32::from_be_bytes(old).wrapping_add(by).to_be_bytes());
        }
    };
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    pad.add_probe(kinds, move |_, info| {
        match &mut info.data {
            Some(gst::PadProbeData::Buffer(packet)) => add(packet.make_mut()),
            Some(gst::PadProbeData::BufferList(packets)) => packets.make_mut().foreach_mut(|mut packet, _| {
                add(packet.make_mut());
                std::ops::ControlFlow::Continue(Some(packet))
            }),
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}

/// One client's place in a clip.
struct Player {
    clip: Arc<Clip>,
    next: usize,
    lap: u64,
    looped: bool,
}

impl Player {
    fn next(&mut self) -> Option<gst::Buffer> {
        if self.next == self.clip.pictures.len() {
            if !self.looped {
                return None;
            }
            self.next = 0;
            self.lap += 1;
        }
        let mut picture = self.clip.pictures[self.next].copy();
        self.next += 1;
        let shift = self.clip.period * self.lap;
        let writable = picture.make_mut();
        writable.set_pts(writable.pts().map(|t| t + shift));
        writable.set_dts(writable.dts().map(|t| t + shift));
        Some(picture)
    }
}
