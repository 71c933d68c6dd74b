"""Other scalers than the agent's: what they change is measured, and nothing where they change nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import tiny
from kinewatch_models import capture, prepare, scalers
from kinewatch_models.catalogue import Clip
from kinewatch_models.stream import Graph

DATA = Path(__file__).parents[2] / "tests/data"
pytestmark = pytest.mark.skipif(not shutil.which("gst-launch-1.0"), reason="needs GStreamer")


def test_other_chains_give_other_pixels_at_the_same_times() -> None:
    frames, times = capture.decode(DATA / "room-1.mp4", 32, 32)
    for chain in ("nearest", "convert first"):
        other, same = capture.decode(DATA / "room-1.mp4", 32, 32, chain)
        np.testing.assert_array_equal(times, same)
        assert 0.5 < np.abs(frames.astype(int) - other).mean() < 20, chain


def test_moved_logits_are_measured(tmp_path: Path, graphs: dict[str, Path]) -> None:
    clips = [Clip(f"room-{n}.mp4", "drawn", "test", str(n), True, None, root=DATA) for n in (1, 2)]
    recipe, calibration = tiny.recipe(), {"temperature": 1.0, "labels": {}}
    for decoder in recipe.decoders:
        row = {"on": decoder.on, "off": decoder.off, "h_on": 0.1, "h_off": 0.4, "min_duration_s": 0.2}
        calibration["labels"][decoder.label] = {**row, "merge_gap_s": 0.4, "lag_start_s": 0.0, "lag_end_s": 0.0}
    assert len(list(prepare.fill(clips, recipe, tmp_path / "cache"))) == 2
    table = scalers.measure(clips, Graph(graphs["int8"]), recipe, tmp_path / "cache", calibration)
    assert table["chains"]["nearest"]["mean_abs_difference"] > 0.001
    assert table["chains"]["nearest"]["changed"]["of"] == 2
