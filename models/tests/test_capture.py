"""Decoding what phones and accidents leave: turned, trimmed, empty, damaged and hanging files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from kinewatch_models import capture, sampling
from kinewatch_models.capture import CaptureError

pytestmark = pytest.mark.skipif(
    not shutil.which("gst-launch-1.0") or not shutil.which("ffmpeg"), reason="needs GStreamer, FFmpeg"
)


def ffmpeg(*words: str | Path) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, words)], check=True)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Four seconds at 30 frames a second whose upper half is white, with a key frame every two seconds."""
    source = "color=white:s=64x32:r=30:d=4,pad=64:64:0:0:black"
    ffmpeg("-f", "lavfi", "-i", source, "-c:v", "libx264", "-bf", "2", "-g", "60", tmp_path / "a.mp4")
    return tmp_path / "a.mp4"


def test_a_turned_video_is_set_upright(video: Path, tmp_path: Path) -> None:
    ffmpeg("-i", video, "-c", "copy", "-metadata:s:v", "rotate=90", tmp_path / "turned.mp4")
    upright, turned = (capture.decode(path, 32, 32)[0][0] for path in (video, tmp_path / "turned.mp4"))
    assert upright[:12].mean() > 200
    assert upright[20:].mean() < 50
    assert abs(turned[:, :12].mean() - turned[:, 20:].mean()) > 150, "what was above is at a side"
    assert abs(turned[:12].mean() - turned[20:].mean()) < 20


def test_a_video_cut_by_an_edit_list_has_as_many_times_as_frames(video: Path, tmp_path: Path) -> None:
    ffmpeg("-ss", "1.3", "-i", video, "-c", "copy", tmp_path / "cut.mp4")
    frames, times = capture.decode(tmp_path / "cut.mp4", 32, 32)
    assert len(frames) == len(times)
    assert times[0] == 0
    np.testing.assert_allclose(np.diff(times), 1 / 30, atol=0.002)
    assert times[-1] == pytest.approx(2.7, abs=0.1)


def test_a_variable_frame_rate_keeps_its_times(video: Path, tmp_path: Path) -> None:
    """Thirty frames a second for two seconds, then ten: a grid of five finds the same moments as in the whole video."""
    ffmpeg("-i", video, "-vf", "select='lt(n,60)+not(mod(n,3))'", "-vsync", "vfr", tmp_path / "variable.mp4")
    frames, times = capture.decode(tmp_path / "variable.mp4", 32, 32)
    assert len(frames) == len(times) == 80
    np.testing.assert_allclose(np.diff(times), [1 / 30] * 60 + [1 / 10] * 19, atol=0.002)
    whole = capture.decode(video, 32, 32)[1]
    np.testing.assert_allclose(times[sampling.ticks(times, 5.0)], whole[sampling.ticks(whole, 5.0)], atol=0.07)


def test_what_is_no_video_is_told(video: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "half.mp4").write_bytes(video.read_bytes()[:800])
    for name in ("empty", "text", "half", "missing"):
        with pytest.raises(CaptureError, match=f"{name}.mp4: .+") as told:
            capture.decode(tmp_path / f"{name}.mp4", 32, 32)
        assert "\n" not in str(told.value)


def test_a_decoder_that_hangs_is_ended(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gst-launch-1.0").write_text("#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "bin/gst-launch-1.0").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setattr(capture, "SILENCE_S", 0.2)
    with pytest.raises(CaptureError, match="has hung"):
        capture.decode(video, 32, 32)
