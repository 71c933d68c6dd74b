//! The faults, as data: what is done, for how long, and what it does to the stream.

use std::time::Duration;

use super::stage::LOGIN;
use super::{Effect, Fault, Pictures};
use crate::media::{self, Clip};
use crate::rig::pause;
use crate::support::proxy::Mode;

/// Longer than the first minute, in which tries are frequent; and long enough for a few tries.
const OUTAGE_S: (u32, u32) = (75, 6);
const ONCE: (u32, u32) = (0, 0);
const TCP: &str = "tcp";

pub(crate) const RESET: Fault = Fault {
    tried: "connection reset, new ones refused",
    transport: TCP,
    clip: Clip::Plain,
    effect: Effect::Lost,
    pictures: Pictures::Whole,
    begin: |stage| {
        stage.proxy.set(Mode::Refuse);
        stage.proxy.reset();
        Ok(())
    },
    lasts_s: OUTAGE_S,
    end: |stage| {
        stage.proxy.set(Mode::Forward);
        Ok(())
    },
};

pub(crate) const HALF_OPEN: Fault = Fault {
    tried: "half-open connection: the server forgets it and says nothing",
    transport: TCP,
    clip: Clip::Plain,
    effect: Effect::Lost,
    pictures: Pictures::Whole,
    begin: |stage| {
        stage.proxy.half_open();
        Ok(())
    },
    // New connections are served at once.
    lasts_s: ONCE,
    end: |_| Ok(()),
};

pub(crate) const HOLE: Fault = Fault {
    tried: "nothing passes in either direction (cable pulled)",
    transport: TCP,
    clip: Clip::Plain,
    effect: Effect::Lost,
    pictures: Pictures::Whole,
    begin: |stage| {
        stage.proxy.set(Mode::Hole);
        Ok(())
    },
    lasts_s: (75, 20),
    end: |stage| {
        stage.proxy.set(Mode::Forward);
        Ok(())
    },
};

pub(crate) const SERVER: Fault = Fault {
    tried: "server gone and back",
    transport: TCP,
    clip: Clip::Plain,
    effect: Effect::Lost,
    pictures: Pictures::Whole,
    begin: |stage| {
        stage.server.kill();
        Ok(())
    },
    lasts_s: OUTAGE_S,
    end: |stage| stage.server.restart(),
};

pub(crate) const END: Fault = Fault {
    tried: "end of stream in the middle of an action",
    transport: TCP,
    clip: Clip::Plain,
    effect: Effect::Lost,
    pictures: Pictures::Whole,
    begin: |stage| stage.server.order("end"),
    lasts_s: ONCE,
    end: |_| Ok(()),
};

pub(crate) const MUTE: Fault = Fault {
    tried: "the server stays connected and sends nothing",
    transport: TCP,
    clip: Clip::Plain,
    effect: Effect::Lost,
    pictures: Pictures::Poor,
    begin: |stage| stage.server.order("mute on"),
    lasts_s: (75, 15),
    end: |stage| stage.server.order("mute off"),
};

pub(crate) const PASSWORD: Fault = Fault {
    tried: "wrong password, then the right one",
    transport: TCP,
    clip: Clip::Plain,
    effect: Effect::Lost,
    pictures: Pictures::Whole,
    begin: |stage| {
        stage.server.order("password another")?;
        stage.server.order("drop")
    },
    lasts_s: OUTAGE_S,
    end: |stage| stage.server.order(&format!("password {}", LOGIN.1)),
};

pub(crate) const RESOLUTION: Fault = Fault {
    tried: "resolution changes from 160x120 to 320x240 within the stream",
    transport: TCP,
    clip: Clip::Plain,
    effect: Effect::GoesOn,
    pictures: Pictures::Changed,
    begin: |stage| stage.server.order(&format!("play cam={}", media::clip(Clip::Large)?.display())),
    lasts_s: ONCE,
    end: |_| Ok(()),
};

pub(crate) const CODEC: Fault = Fault {
    tried: "codec changes: H.264, H.265, JPEG, VP8, H.264",
    transport: TCP,
    clip: Clip::Plain,
    effect: Effect::Lost,
    pictures: Pictures::Whole,
    begin: |stage| {
        for codec in [Clip::H265, Clip::Jpeg, Clip::Vp8] {
            stage.offer(codec)?;
            stage.frames_again(std::time::Instant::now(), super::AGAIN)?;
            stage.await_whole_action(super::ACTION)?;
        }
        Ok(())
    },
    lasts_s: ONCE,
    end: |stage| stage.offer(Clip::Plain),
};

pub(crate) const CLOCK: Fault = Fault {
    tried: "time stamps jump by +1 h, then by -1 h, twice, within actions",
    transport: TCP,
    clip: Clip::Plain,
    effect: Effect::GoesOn,
    pictures: Pictures::Whole,
    begin: |stage| {
        for seconds in [3600, 0, 3600] {
            stage.server.order(&format!("clock {seconds}"))?;
            stage.await_whole_action(super::ACTION)?;
            stage.await_open_action()?;
        }
        Ok(())
    },
    lasts_s: ONCE,
    end: |stage| stage.server.order("clock 0"),
};

pub(crate) const FROZEN: Fault = Fault {
    tried: "time stamps stand still",
    transport: TCP,
    clip: Clip::Plain,
    effect: Effect::GoesOn,
    pictures: Pictures::Whole,
    begin: |stage| stage.server.order("freeze on"),
    lasts_s: (60, 15),
    end: |stage| stage.server.order("freeze off"),
};

pub(crate) const LOSS: Fault = Fault {
    tried: "5 % of UDP packets lost",
    transport: "udp",
    clip: Clip::Noisy,
    effect: Effect::GoesOn,
    pictures: Pictures::Poor,
    begin: |stage| stage.server.order("loss 50"),
    lasts_s: (120, 30),
    end: |stage| stage.server.order("loss 0"),
};

pub(crate) const THROTTLE: Fault = Fault {
    tried: "line of 64 kbit/s for a stream of 400 kbit/s",
    transport: TCP,
    clip: Clip::Noisy,
    effect: Effect::Either,
    pictures: Pictures::Poor,
    begin: |stage| {
        stage.proxy.set(Mode::Throttle(8000));
        Ok(())
    },
    lasts_s: (75, 25),
    end: |stage| {
        stage.proxy.set(Mode::Forward);
        Ok(())
    },
};

pub(crate) const GARBAGE: Fault = Fault {
    tried: "noise in place of coded pictures",
    transport: TCP,
    clip: Clip::Plain,
    effect: Effect::Either,
    pictures: Pictures::Poor,
    begin: |stage| stage.server.order("garbage on"),
    lasts_s: (60, 15),
    end: |stage| stage.server.order("garbage off"),
};

impl super::Stage {
    /// The camera is set to another codec, which closes its connections, as cameras do.
    pub(super) fn offer(&mut self, clip: Clip) -> anyhow::Result<()> {
        self.server.order(&format!("offer cam={}", media::clip(clip)?.display()))?;
        self.server.order("drop")?;
        // A session that has ended is what the frames to come are told from.
        pause(Duration::from_millis(200));
        Ok(())
    }
}
