"""Events of two graphs are compared by label and boundaries; frames are held against their annotations."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import tiny
from kinewatch_models import agent, agree, recipe
from kinewatch_models.agent import Event
from kinewatch_models.catalogue import Clip, Span
from kinewatch_models.scoring import Scored

ROOT = Path(__file__).parents[2]
AGENT = os.environ.get("KINEWATCH", "")


def test_events_are_the_same_by_label_and_by_boundary() -> None:
    first = [[Event("fall", 1.0, 2.0)], [Event("fall", 1.0, 2.0)], [Event("fall", 1.0, 2.0)], [], []]
    second = [[Event("fall", 1.0, 2.0)], [Event("fall", 1.2, 2.0)], [Event("lying", 1.0, 2.0)], [], []]
    table = agree.compared(first, second, 0.2)
    assert [table[key]["hits"] for key in ("same_labels", "same_within_a_judgement", "same_exactly")] == [4, 4, 3]
    assert table["same_labels"]["of"] == 5
    assert table["largest_shift_s"] == 0.2
    moved = agree.compared([[Event("fall", 1.0, 2.0)]], [[Event("fall", 1.0, 2.5)]], 0.2)
    assert (moved["same_labels"]["hits"], moved["same_within_a_judgement"]["hits"]) == (1, 0)
    other = agree.compared([[Event("fall", 1.0, 2.0)]], [[]], 0.2)
    assert other["same_labels"]["hits"] == 0


def test_frames_are_held_against_their_annotations() -> None:
    spans = (Span("falling", 1.0, 2.0), Span("falling|lying", 2.0, 3.0), Span("lying", 3.0, 9.0))
    clip = Clip("a", "drawn", "test", "a", True, spans)
    scores = np.full((4, 3), -4.0, np.float32)
    scores[[0, 1, 2, 3], [0, 1, 1, 1]] = 4.0
    table = agree.frames([Scored(clip, np.array([0.5, 1.5, 2.5, 3.5]), scores)], tiny.recipe())
    assert table["recall"] == {"background": [1, 1], "falling": [1, 1], "lying": [0, 1]}, "what may be either is out"
    assert table["frames"] == len(table["rows"]) == 3
    assert table["calibration_error"] == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.skipif(not AGENT, reason="KINEWATCH names no agent")
def test_the_agent_tells_the_events_of_every_video() -> None:
    spec = recipe.load(ROOT / "models/recipes/falls.toml")
    videos = sorted((ROOT / "tests/data").glob("*.mp4"))
    clips = [Clip(path.name, "simulated", "test", path.stem, True, None, root=path.parent) for path in videos]
    found = agent.events(Path(AGENT), ROOT / "models/falls", clips, "int8")
    assert len(found) == len(videos)
    assert any(event.label == "fall" for events in found for event in events)
    assert found[0] == agent.events(Path(AGENT), ROOT / "models/falls", clips[:1], "int8")[0]
    table = agree.measure(Path(AGENT), ROOT / "models/falls", clips, spec)
    assert table["all"]["clips"] == len(videos)
