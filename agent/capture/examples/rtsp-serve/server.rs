//! An RTSP server on loopback that plays clips from their beginning to each client, and does to them what it is told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::prelude::*;

use crate::clip::Clip;
use crate::player::{Next, Player, Programme};
use crate::wire::Wire;

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
    looped: bool,
    programmes: Mutex<BTreeMap<String, Arc<Programme>>>,
    wire: Arc<Wire>,
    /// User, and what is now accepted as its login.
    login: Mutex<Option<Login>>,
    server: rtsp::RTSPServer,
    source: Option<glib::SourceId>,
    context: glib::MainContext,
    main_loop: glib::MainLoop,
    thread: Option<JoinHandle<()>>,
}

struct Login {
    auth: rtsp::RTSPAuth,
    user: String,
    basic: glib::GString,
}

/// Of the time stamps of every video format.
const RTP_HZ: i32 = 90_000;

impl Server {
    /// Loads the clips and listens on 127.0.0.1.
    pub(crate) fn start(options: &Options) -> Result<Self, String> {
        let server = rtsp::RTSPServer::new();
        server.set_address("127.0.0.1");
        server.set_service(&options.port.to_string());
        let login = options.credentials.as_ref().map(|(user, password)| Login::new(&server, user, password));
        let context = glib::MainContext::new();
        let main_loop = glib::MainLoop::new(Some(&context), false);
        let mut this = Self {
            port: 0,
            looped: options.looped,
            programmes: Mutex::default(),
            wire: Arc::default(),
            login: Mutex::new(login),
            server,
            source: None,
            context,
            main_loop,
            thread: None,
        };
        for (name, path) in &options.mounts {
            this.offer(name, path)?;
        }
        let source = this.server.attach(Some(&this.context)).map_err(|e| format!("port {}: {e}", options.port))?;
        this.source = Some(source);
        this.port = u16::try_from(this.server.bound_port()).map_err(|_| "no port")?;
        let (running, own) = (this.main_loop.clone(), this.context.clone());
        this.thread = Some(std::thread::spawn(move || {
            let _ = own.with_thread_default(|| running.run());
        }));
        Ok(this)
    }

    /// One URL for each mount.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.programmes().keys().map(|name| format!("rtsp://127.0.0.1:{}/{name}", self.port)).collect()
    }

    /// Clients that come to `name` get this clip.
    pub(crate) fn offer(&self, name: &str, path: &Path) -> Result<(), String> {
        let clip = Arc::new(Clip::load(path)?);
        let payloader = clip.payloader;
        let programme = Arc::new(Programme::new(clip, self.looped));
        let factory = factory(payloader, &programme, &self.wire);
        if self.login.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            let role = gst::Structure::builder("user").field("media.factory.access", true);
            factory.add_role_from_structure(&role.field("media.factory.construct", true).build());
        }
        let mounts = self.server.mount_points().ok_or("no mount points")?;
        mounts.add_factory(&format!("/{name}"), factory);
        self.programmes().insert(name.to_owned(), programme);
        Ok(())
    }

    fn programmes(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Programme>>> {
        self.programmes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[allow(dead_code, reason = "each test orders a part of it")]
impl Server {
    /// Listening port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A muted server keeps its connections and sends nothing on them.
    pub(crate) fn mute(&self, muted: bool) {
        self.programmes().values().for_each(|p| p.muted.store(muted, Relaxed));
    }

    /// Sets the clock that stamps pictures, as seconds from what it would show, while pictures go on.
    pub(crate) fn set_clock(&self, seconds: i32) {
        self.wire.set_by.store(seconds.wrapping_mul(RTP_HZ) as u32, Relaxed);
    }

    /// Stops that clock.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.wire.frozen.store(frozen, Relaxed);
    }

    /// Loses packets.
    pub(crate) fn lose(&self, per_mille: u32) {
        self.wire.lost_per_mille.store(per_mille, Relaxed);
    }

    /// Sends noise instead of pictures.
    pub(crate) fn garble(&self, garbage: bool) {
        self.wire.garbage.store(garbage, Relaxed);
    }

    /// Ends the stream of every client.
    pub(crate) fn end(&self) {
        self.programmes().values().for_each(|p| p.end());
    }

    /// Closes every connection.
    pub(crate) fn drop_clients(&self) {
        self.server.client_filter(Some(&mut |_, _| rtsp::RTSPFilterResult::Remove));
    }

    /// Asks for another password from now on.
    pub(crate) fn change_password(&self, password: &str) -> Result<(), String> {
        let mut login = self.login.lock().unwrap_or_else(PoisonError::into_inner);
        login.as_mut().ok_or("nobody is asked for one")?.change(password);
        Ok(())
    }

    /// Clients that play `name` go on with this clip.
    pub(crate) fn play(&self, name: &str, path: &Path) -> Result<(), String> {
        let clip = Clip::load(path)?;
        self.programmes().get(name).ok_or("no such mount")?.play(Arc::new(clip));
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(source) = self.source.take().and_then(|id| self.context.find_source_by_id(&id)) {
            source.destroy();
        }
        self.drop_clients();
        self.main_loop.quit();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Login {
    fn new(server: &rtsp::RTSPServer, user: &str, password: &str) -> Self {
        let auth = rtsp::RTSPAuth::new();
        let basic = rtsp::RTSPAuth::make_basic(user, password);
        auth.add_basic(&basic, &Self::token());
        server.set_auth(Some(&auth));
        Self { auth, user: user.to_owned(), basic }
    }

    fn change(&mut self, password: &str) {
        self.auth.remove_basic(&self.basic);
        self.basic = rtsp::RTSPAuth::make_basic(&self.user, password);
        self.auth.add_basic(&self.basic, &Self::token());
    }

    fn token() -> rtsp::RTSPToken {
        rtsp::RTSPToken::builder().field("media.factory.role", "user").build()
    }
}

fn factory(payloader: &str, programme: &Arc<Programme>, wire: &Arc<Wire>) -> rtsp::RTSPMediaFactory {
    let factory = rtsp::RTSPMediaFactory::new();
    factory.set_launch(&format!("( appsrc name=pictures format=time ! {payloader} )"));
    factory.set_shared(false);
    let (programme, wire) = (Arc::clone(programme), Arc::clone(wire));
    factory.connect_media_configure(move |_, media| {
        let Ok(bin) = media.element().downcast::<gst::Bin>() else { return };
        if let Some(pad) = bin.by_name("pay0").and_then(|payloader| payloader.static_pad("src")) {
            wire.attach(&pad);
        }
        let source = bin.by_name("pictures").and_then(|e| e.downcast::<gst_app::AppSrc>().ok());
        let Some(source) = source else { return };
        let player = Player::new(Arc::clone(&programme));
        source.set_caps(Some(player.caps()));
        let player = Arc::new(Mutex::new(player));
        let need_data = move |source: &gst_app::AppSrc, _| {
            if !push(source, &player) {
                later(source, &player);
            }
        };
        source.set_callbacks(gst_app::AppSrcCallbacks::builder().need_data(need_data).build());
    });
    factory
}

/// Gives the source what comes next; false when nothing does now.
fn push(source: &gst_app::AppSrc, player: &Mutex<Player>) -> bool {
    match player.lock().map_or(Next::End, |mut player| player.next()) {
        Next::Picture(picture, caps) => {
            if let Some(caps) = caps {
                source.set_caps(Some(&caps));
            }
            let _ = source.push_buffer(picture);
        }
        Next::Silence => return false,
        Next::End => {
            let _ = source.end_of_stream();
        }
    }
    true
}

/// A source asks once and waits: it is served when the silence is over, if it still exists.
fn later(source: &gst_app::AppSrc, player: &Arc<Mutex<Player>>) {
    let (source, player) = (source.downgrade(), Arc::clone(player));
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let Some(source) = source.upgrade() else { break };
            if push(&source, &player) {
                break;
            }
        }
    });
}
