//! Files: counts, media times, selection before the scaler, loops, and every damaged or odd file of the list.

mod support;

use std::fs;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use kinewatch_capture::{Camera, Captured, GapReason, StopOutcome};
use kinewatch_core::time::{Pts, SessionId};
use support::{DEADLINE, ENCODER, Watched, clip, launch, max, options, play};

#[test]
fn every_frame_of_a_file_with_its_time() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.mp4", "a.mkv"] {
        let path = clip(dir.path(), name, 30, 10, (320, 240));
        let (seen, last, reason) = play(&max(&path), 1000.0);
        assert_eq!(seen.pts_ms(), (0..30).map(|i| i * 100).collect::<Vec<_>>(), "{name}");
        assert_eq!(reason, GapReason::EndOfStream);
        assert_eq!(last, Some(Pts(2_900_000_000)));
        assert!(seen.frames.iter().all(|f| f.meta().arrival.is_none() && f.pixels().len() == 64 * 48 * 3));
        assert_eq!(seen.session(), SessionId(1));
    }
}

#[test]
fn the_pixels_are_those_of_the_plain_chain() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), "a.mp4", 5, 10, (320, 240));
    let raw = dir.path().join("raw");
    launch(&format!(
        "filesrc location={} ! decodebin ! videoscale method=bilinear add-borders=false ! \
         video/x-raw,width=64,height=48,pixel-aspect-ratio=1/1 ! videoconvert ! video/x-raw,format=RGB ! \
         filesink location={}",
        path.display(),
        raw.display()
    ));
    let (seen, ..) = play(&max(&path), 1000.0);
    assert!(seen.pixels().concat() == fs::read(raw).unwrap(), "the training reader's pixels");
}

#[test]
fn unwanted_frames_never_reach_the_scaler() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), "a.mp4", 60, 30, (320, 240));
    let watched = Watched::spawn(options("a", &max(&path), 5.0));
    let (seen, ..) = watched.session();
    assert_eq!(seen.pts_ms(), [0, 200, 400, 600, 800, 1000, 1200, 1400, 1600, 1800]);
    let stats = watched.camera.stats();
    assert_eq!(stats.decoded.load(Relaxed), 60);
    assert_eq!((stats.taken.load(Relaxed), stats.skipped.load(Relaxed)), (10, 50));
    assert_eq!(stats.unreadable.load(Relaxed), 0);
}

#[test]
fn odd_row_lengths_are_packed() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), "a.mp4", 2, 10, (320, 240));
    let mut options = options("a", &max(&path), 100.0);
    options.branches[0].spec.width = 63;
    let watched = Watched::spawn(options);
    let frame = watched.frame();
    assert_eq!(frame.pixels().len(), 63 * 48 * 3);
    assert!(frame.pixels().iter().rev().take(63 * 3).all(|p| *p < 40), "the last row is the pattern's black");
}

#[test]
fn two_branches_of_one_camera() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), "a.mp4", 30, 10, (320, 240));
    let mut options = options("a", &max(&path), 10.0);
    let mut second = support::branch(2.0);
    second.spec = support::spec(32, 32);
    second.rates_hz = vec![2.0, 1.0];
    options.branches.push(second);
    let watched = Watched::spawn(options);
    let (mut counts, mut wanted) = ([0, 0], Vec::new());
    loop {
        match watched.next() {
            Captured::Frame { branch, frame } => {
                counts[branch] += 1;
                if branch == 1 {
                    wanted.push(frame.meta().wanted);
                }
            }
            Captured::Gap { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(counts, [30, 9]);
    assert_eq!(wanted, [3, 1, 2, 1, 1, 2, 1, 1, 2], "the slower one takes its frame up to an eighth of a second early");
}

#[test]
fn a_looped_file_begins_a_session_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), "a.mp4", 6, 30, (160, 120));
    let watched = Watched::spawn(options("a", &format!("file:{}?loop=true&speed=max", path.display()), 1000.0));
    let mut first = None;
    for lap in 1..=3 {
        let (seen, _, reason) = watched.session();
        assert_eq!((seen.frames.len(), seen.session(), reason), (6, SessionId(lap), GapReason::Looped));
        let pixels = seen.pixels().concat();
        assert!(*first.get_or_insert_with(|| pixels.clone()) == pixels, "each lap is the same");
    }
    assert_eq!(watched.camera.stop(DEADLINE), StopOutcome::Joined);
}

#[test]
fn audio_never_holds_a_file_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("both.mkv");
    launch(&format!(
        "matroskamux name=mux ! filesink location={} \
         videotestsrc num-buffers=60 ! video/x-raw,width=320,height=240,framerate=20/1 ! {ENCODER} ! queue ! mux. \
         audiotestsrc num-buffers=300 ! audioconvert ! opusenc ! queue ! mux.",
        path.display()
    ));
    let (seen, _, reason) = play(&max(&path), 1000.0);
    assert_eq!((seen.frames.len(), reason), (60, GapReason::EndOfStream));
}

#[test]
fn odd_pictures_are_served() {
    let dir = tempfile::tempdir().unwrap();
    for (name, frames, size) in
        [("one.mp4", 1, (320, 240)), ("portrait.mp4", 3, (240, 426)), ("4k.mp4", 2, (3840, 2160))]
    {
        let path = clip(dir.path(), name, frames, 10, size);
        assert_eq!(play(&max(&path), 1000.0).0.frames.len(), frames as usize, "{name}");
    }
}

#[test]
fn a_turned_file_is_set_upright() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("turned.mp4");
    // The left half is white; the header asks for a quarter turn clockwise, so the top half has to be.
    launch(&format!(
        "videotestsrc num-buffers=3 pattern=white ! video/x-raw,width=160,height=240,framerate=10/1 ! \
         videobox right=-160 ! {ENCODER} ! mp4mux ! filesink location={}",
        path.display()
    ));
    let mut bytes = fs::read(&path).unwrap();
    let header = bytes.windows(4).position(|w| w == b"tkhd").unwrap() + 4;
    let matrix = header + if bytes[header] == 1 { 52 } else { 40 };
    let quarter_turn = [0, 0x0001_0000, 0, 0xffff_0000_u32, 0, 0].map(u32::to_be_bytes).concat();
    bytes[matrix..matrix + 24].copy_from_slice(&quarter_turn);
    fs::write(&path, bytes).unwrap();
    let (seen, ..) = play(&max(&path), 1000.0);
    let rows: Vec<u8> = seen.frames[0].pixels().chunks(64 * 3).map(|row| row[96]).collect();
    assert!(rows[4] > 200 && rows[43] < 60, "{rows:?}");
    assert_eq!(seen.frames.len(), 3);
}

#[test]
fn variable_rate_is_sampled_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vfr.mkv");
    let times = (0..20).map(|i| i * 50).chain((4..8).map(|i| i * 250)).collect::<Vec<u64>>();
    support::clip_at(&path, &times);
    let (seen, ..) = play(&max(&path), 4.0);
    assert_eq!(seen.pts_ms(), [0, 250, 500, 750, 1000, 1250, 1500, 1750]);
}

#[test]
fn a_resolution_change_midway_keeps_frames_coming() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("change.h264");
    let part = |size: &str| {
        format!(
            "videotestsrc num-buffers=10 ! video/x-raw,{size},framerate=10/1 ! openh264enc ! \
         h264parse config-interval=-1 ! video/x-h264,stream-format=byte-stream,alignment=au ! filesink location="
        )
    };
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    launch(&format!("{}{}", part("width=320,height=240"), a.display()));
    launch(&format!("{}{}", part("width=176,height=144"), b.display()));
    fs::write(&path, [fs::read(a).unwrap(), fs::read(b).unwrap()].concat()).unwrap();
    let (seen, ..) = play(&max(&path), 1000.0);
    assert_eq!(seen.frames.len(), 20);
    assert!(seen.frames.iter().all(|f| f.pixels().len() == 64 * 48 * 3));
}

#[test]
fn a_truncated_file_gives_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let whole = clip(dir.path(), "a.mkv", 60, 10, (320, 240));
    let cut = dir.path().join("cut.mkv");
    let bytes = fs::read(whole).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let (seen, last, _) = play(&max(&cut), 1000.0);
    assert!((10..60).contains(&seen.frames.len()), "{}", seen.frames.len());
    assert_eq!(last, seen.frames.last().map(|f| f.meta().pts));
}

#[test]
fn what_is_no_video_fails_with_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let whole = fs::read(clip(dir.path(), "a.mp4", 30, 10, (320, 240))).unwrap();
    let audio = dir.path().join("audio.mkv");
    launch(&format!("audiotestsrc num-buffers=20 ! opusenc ! matroskamux ! filesink location={}", audio.display()));
    for (path, expected) in [
        (write("text.mp4", b"this is not a video, only some text\n"), "not a video"),
        (
            write(
                "noise.mp4",
                &(0..4000_u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes()).collect::<Vec<_>>(),
            ),
            "not a video",
        ),
        (write("empty.mp4", b""), "not a video"),
        (write("cut.mp4", &whole[..whole.len() / 2]), ""),
        (audio, "no video track (found: audio/x-opus)"),
    ] {
        let watched = Watched::spawn(options("bad", &max(&path), 10.0));
        let Captured::Failed(error) = watched.next() else { panic!("{} is no video", path.display()) };
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains(&*path.to_string_lossy()), "{text}");
        assert!(!text.contains('\n'), "{text}");
        println!("{text}");
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |source: String| {
        Camera::spawn(options("bad", &source, 10.0), Box::new(|_| ())).map(|_| ()).unwrap_err().to_string()
    };
    assert!(refused(format!("file:{}/none.mp4", dir.path().display())).ends_with("none.mp4: no such file"));
    assert!(refused(format!("file:{}", dir.path().display())).contains("folder"));
    assert!(refused("test:nosuchpattern".into()).contains("nosuchpattern"));
    assert!(refused("csi:0".into()).contains("Jetson"));
}

#[test]
fn real_time_takes_real_time_and_carries_arrivals() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), "a.mp4", 20, 20, (160, 120));
    let (seen, ..) = play(&format!("file:{}", path.display()), 1000.0);
    let mono = |i: usize| seen.frames[i].meta().arrival.unwrap().mono_ns;
    assert_eq!(seen.frames.len(), 20);
    assert!(mono(19) - mono(5) >= 600_000_000, "paced by the clock");
}

#[test]
fn a_slow_consumer_slows_a_replay_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), "a.mp4", 40, 10, (160, 120));
    let (say, said) = std::sync::mpsc::sync_channel(1);
    let mut options = options("slow", &max(&path), 1000.0);
    options.branches[0].pool_frames = 4;
    options.stall_timeout = Duration::from_millis(1);
    let _camera = Camera::spawn(options, Box::new(move |c| drop(say.send(c)))).unwrap();
    let mut frames = 0;
    loop {
        match said.recv_timeout(DEADLINE).unwrap() {
            Captured::Frame { .. } => frames += 1,
            Captured::Finished => break,
            _ => {}
        }
    }
    assert_eq!(frames, 40);
}

#[test]
fn a_camera_stops_at_any_time() {
    for frames in [0, 1, 5] {
        let watched = Watched::spawn(options("t", "test:ball?size=160x120&fps=50", 1000.0));
        for _ in 0..frames {
            watched.frame();
        }
        assert_eq!(watched.camera.stop(DEADLINE), StopOutcome::Joined);
        let told: Vec<Captured> = std::iter::from_fn(|| watched.try_next()).collect();
        match told.last() {
            None => assert_eq!(frames, 0, "no session, no gap"),
            Some(Captured::Gap { reason, .. }) => assert_eq!(*reason, GapReason::Stopped),
            other => panic!("{other:?}"),
        }
        assert_eq!(watched.camera.stop(DEADLINE), StopOutcome::Joined, "twice is no harm");
    }
}

/// Driver and agent share a clock: a live source of this machine tells the true age of its frames.
#[test]
fn a_source_of_this_machine_dates_its_frames() {
    let watched = Watched::spawn(options("own", "test:ball", 10.0));
    for _ in 0..5 {
        let delay_ms = watched.frame().meta().arrival.unwrap().reported_delay_ns.unwrap() as f64 / 1e6;
        assert!((-5.0..2000.0).contains(&delay_ms), "a frame that came {delay_ms} ms after it was captured");
    }
}
