"""A user's videos become clips of one label each, with the times that the user gave."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import moving_shapes
from kinewatch_models import cuts
from kinewatch_models.catalogue import Clip, Span
from kinewatch_models.dataset import DataError

pytestmark = pytest.mark.skipif(
    not shutil.which("gst-launch-1.0") or not shutil.which("ffmpeg"), reason="needs GStreamer, FFmpeg"
)

SIZE = 16


def video(root: Path, seconds: float) -> Clip:
    moving_shapes.write(root / "a.mp4", 1, [(0, seconds)])
    return Clip("a.mp4", "own", "train", "a", True, None, (), root, "wave")


def by_name(clips: list[Clip]) -> dict[str, Clip]:
    return {Path(clip.path).name: clip for clip in clips}


def test_lines_get_a_margin_and_what_is_between_is_background(tmp_path: Path) -> None:
    spans = (Span("wave", 3.0, 4.0), Span("jump", 4.4, 5.0))
    clip = replace(video(tmp_path, 12.0), spans=spans, label=None)
    found = by_name(cuts.cut(clip, "digest", [SIZE], tmp_path / "cache"))
    wave, jump = found["line-0"], found["line-1"]
    assert wave.spans is not None
    assert wave.spans[0].start == pytest.approx(1.6, abs=0.07)
    assert wave.spans[0].end - wave.spans[0].start == pytest.approx(1.0, abs=0.07)
    frames, times = wave.frames(tmp_path / "cache", SIZE)
    assert len(frames) == len(times)
    assert times[0] == 0
    assert times[-1] == pytest.approx(1.6 + 1.0 + 0.4, abs=0.14), "the margin ends where the next action begins"
    assert jump.spans is not None
    assert jump.spans[0].start == pytest.approx(0.4, abs=0.07)
    quiet = [one for one in found.values() if one.label == "background"]
    assert {round(float(one.frames(tmp_path / "cache", SIZE)[1][-1])) for one in quiet} == {3, 7}
    assert not any(one.is_action for one in quiet)
    assert {one.split for one in found.values()} == {"train"}


def test_a_short_clip_is_one_clip_and_a_long_one_several(tmp_path: Path) -> None:
    whole = video(tmp_path, 3.0)
    assert len(cuts.cut(whole, "short", [SIZE], tmp_path / "cache")) == 1
    quiet = cuts.cut(replace(video(tmp_path, 20.0), label="background"), "long", [SIZE], tmp_path / "cache")
    assert [round(float(one.frames(tmp_path / "cache", SIZE)[1][-1])) for one in quiet] == [8, 8, 4]


def test_hours_of_background_leave_a_few_clips_and_always_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuts, "MOST_BACKGROUND", 2)
    monkeypatch.setattr(cuts, "BACKGROUND_S", 1.0)
    clip = replace(video(tmp_path, 9.0), label="background")
    first, again = (cuts.cut(clip, "digest", [SIZE, 2 * SIZE], tmp_path / name) for name in ("one", "two"))
    assert [one.path for one in first] == [one.path for one in again]
    assert len(first) == 2
    for one in first:
        small, times = one.frames(tmp_path / "one", SIZE)
        assert len(small) == len(one.frames(tmp_path / "one", 2 * SIZE)[0]) == len(times)
    kept = [path for path in (tmp_path / "one").rglob("times.npy")]
    assert len(kept) == 2, "nothing is left of the others"


def test_a_cut_that_was_killed_is_made_again(tmp_path: Path) -> None:
    clip = video(tmp_path, 3.0)
    (first,) = cuts.cut(clip, "digest", [SIZE], tmp_path / "cache")
    whole = np.array(first.frames(tmp_path / "cache", SIZE)[0])
    folder = first.folder(tmp_path / "cache")
    (folder.parent / cuts.INDEX).unlink()
    (folder / f"{SIZE}.npy").write_bytes(b"half")
    (again,) = cuts.cut(clip, "digest", [SIZE], tmp_path / "cache")
    np.testing.assert_array_equal(again.frames(tmp_path / "cache", SIZE)[0], whole)


@pytest.mark.parametrize("start", [3.2, 60.0])
def test_times_beyond_the_end_of_a_video_are_told(tmp_path: Path, start: float) -> None:
    clip = replace(video(tmp_path, 3.0), spans=(Span("wave", start, start + 2),), label=None)
    with pytest.raises(DataError, match=f"wave from {start:g} to"):
        cuts.cut(clip, "digest", [SIZE], tmp_path / "cache")


def test_an_action_beyond_what_its_piece_shows_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuts, "LONGEST_S", 2.0)
    clip = replace(video(tmp_path, 9.0), spans=(Span("wave", 1.0, 9.5),), label=None)
    piece = by_name(cuts.cut(clip, "digest", [SIZE], tmp_path / "cache"))["line-0"]
    _, times = piece.frames(tmp_path / "cache", SIZE)
    assert piece.spans is not None
    assert piece.spans[0].end == pytest.approx(times[-1]), "windows are drawn where pictures are"
    late = replace(clip, spans=(Span("wave", 1.0, 11.0),))
    with pytest.raises(DataError, match=r"wave from 1 to 11 s, but the video ends at 8\.9 s"):
        cuts.cut(late, "digest", [SIZE], tmp_path / "cache")


def test_background_that_is_written_down_takes_no_margin_away(tmp_path: Path) -> None:
    spans = (Span("background", 0.0, 3.0), Span("wave", 3.0, 4.0), Span("background", 4.0, 9.0))
    clip = replace(video(tmp_path, 9.0), spans=spans, label=None)
    wave = by_name(cuts.cut(clip, "digest", [SIZE], tmp_path / "cache"))["line-1"]
    assert wave.spans is not None
    assert wave.spans[0].start == pytest.approx(1.6, abs=0.07)
    assert wave.frames(tmp_path / "cache", SIZE)[1][-1] == pytest.approx(4.2, abs=0.14)
