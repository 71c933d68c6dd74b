//! Videos and model packages that the scenarios need and the repository does not hold: made by ffmpeg from drawn shapes, once.
//!
//! Every video (but [`Clip::Dark`]) is dark, but white from 2 s to 4 s of its 6 s: what `tests/data/packages/tiny-bright` calls an action.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context as _, ensure};

use crate::support::root;

/// A video of the one known action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clip {
    /// 160x120, 25 fps, H.264: the one of the repository.
    Plain,
    /// 160x120, 25 fps, H.264, without the action.
    Dark,
    /// 320x240, 5 fps, H.264.
    Slow,
    /// 320x240, H.264.
    Large,
    /// 320x240, H.264, grainy: about 400 kbit/s.
    Noisy,
    /// H.265.
    H265,
    /// JPEG.
    Jpeg,
    /// VP8.
    Vp8,
}

static MAKING: Mutex<()> = Mutex::new(());

/// Its file; made when it is not there.
pub(crate) fn clip(clip: Clip) -> anyhow::Result<PathBuf> {
    let h264 = "-c:v libx264 -preset veryfast -bf 0 -sc_threshold 0 -pix_fmt yuv420p -g 25";
    let h265 = "-c:v libx265 -preset veryfast -x265-params bframes=0:keyint=25:log-level=none -pix_fmt yuv420p";
    let vp8 = "-c:v libvpx -b:v 300k -g 25 -deadline realtime -auto-alt-ref 0 -pix_fmt yuv420p";
    let jpeg = "-c:v mjpeg -q:v 5 -huffman default -pix_fmt yuvj420p";
    let (name, picture, codec) = match clip {
        Clip::Plain => return Ok(root().join("tests/data/bright.mp4")),
        Clip::Dark => ("dark.mp4", "size=160x120:rate=25", h264),
        Clip::Slow => ("slow.mp4", "size=320x240:rate=5", h264),
        Clip::Large => ("large.mp4", "size=320x240:rate=25", h264),
        Clip::Noisy => ("noisy.mp4", "size=320x240:rate=25", h264),
        Clip::H265 => ("h265.mp4", "size=160x120:rate=25", h265),
        Clip::Jpeg => ("jpeg.mkv", "size=160x120:rate=25", jpeg),
        Clip::Vp8 => ("vp8.mkv", "size=160x120:rate=25", vp8),
    };
    let grain = if clip == Clip::Noisy { ",noise=alls=12:allf=t" } else { "" };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults-media");
    fs::create_dir_all(&folder)?;
    let (path, unfinished) = (folder.join(name), folder.join(format!("{}-{name}", std::process::id())));
    let _one_at_a_time = MAKING.lock();
    if path.exists() {
        return Ok(path);
    }
    let source = format!("color=black:{picture}:duration=6");
    let colour = if clip == Clip::Dark { "black" } else { "white" };
    let white = format!("drawbox=c={colour}:t=fill:enable='gte(t,2)*lt(t,4)'{grain}");
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-y", "-f", "lavfi", "-i", &source, "-vf", &white]).args(codec.split(' '));
    let out = command.arg("-an").arg(&unfinished).output().context("ffmpeg")?;
    ensure!(out.status.success(), "ffmpeg made no {name}: {}", String::from_utf8_lossy(&out.stderr));
    fs::rename(&unfinished, &path)?;
    Ok(path)
}

/// `tiny-bright`, looking at 50 frames a second and believing each: every change of brightness is an event.
pub(crate) fn hasty_package(folder: &Path) -> anyhow::Result<PathBuf> {
    let (from, to) = (root().join("tests/data/packages/tiny-bright"), folder.join("hasty"));
    for file in
        ["LICENSE", "MODEL_CARD.md", "labels.txt", "tiny.fp32.onnx", "golden/shapes.npy", "golden/shapes.logits.npy"]
    {
        let place = to.join(file);
        fs::create_dir_all(place.parent().context("in a folder")?)?;
        fs::copy(from.join(file), place)?;
    }
    let mut manifest: toml::Table = fs::read_to_string(from.join("model.toml"))?.parse()?;
    manifest.insert("name".into(), "hasty".into());
    let sampling = manifest.get_mut("sampling").and_then(toml::Value::as_table_mut).context("[sampling]")?;
    for (key, value) in [("rate_hz", 50.0), ("window_s", 0.02), ("stride_s", 0.02), ("max_hole_s", 0.1)] {
        sampling.insert(key.into(), value.into());
    }
    let labels = manifest.get_mut("labels").and_then(toml::Value::as_array_mut).context("[[labels]]")?;
    for decoder in labels.iter_mut().filter_map(|label| label.get_mut("decoder")?.as_table_mut()) {
        for (key, value) in [("h_on", 0.05), ("h_off", 0.05), ("min_duration_s", 0.0), ("merge_gap_s", 0.0)] {
            decoder.insert(key.into(), value.into());
        }
    }
    fs::write(to.join("model.toml"), toml::to_string(&manifest)?)?;
    Ok(to)
}
