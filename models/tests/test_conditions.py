"""Conditions: clips are told apart by what they show, and each is counted once in each condition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tiny
from kinewatch_models import conditions, prepare
from kinewatch_models.catalogue import Clip
from kinewatch_models.conditions import Judged, NoFoldsError

SIZE = tiny.SIZE


def clip(cache: Path, name: str, moving: int, light: int) -> Clip:
    """A clip whose left `moving` columns flicker."""
    one = Clip(f"{name}.mp4", "drawn", "test", name, True, None, label="lying")
    frames = np.full((60, SIZE, SIZE, 3), light, np.uint8)
    frames[::2, :, :moving] += 40
    one.folder(cache).mkdir(parents=True)
    prepare.save(one.folder(cache) / "times.npy", np.arange(60) / 5)
    prepare.save(one.folder(cache) / f"{SIZE}.npy", frames)
    return one


def test_thirds_by_motion_hold_each_clip_once(tmp_path: Path) -> None:
    recipe = replace(tiny.recipe(), sequences=[], rate_hz=5.0)
    judged = [Judged(clip(tmp_path, f"c{n}", n, 100 if n < 3 else 60), n >= 2) for n in range(6)]
    table = conditions.measure(judged, recipe, tmp_path)
    still, some, much = table["conditions"]["share of the picture that moves"]
    assert [part["actions"]["hits"] for part in (still, some, much)] == [0, 2, 2]
    assert [part["actions"]["of"] for part in (still, some, much)] == [2, 2, 2]
    dark, _, light = table["conditions"]["brightness (0 to 255)"]
    assert (dark["actions"]["hits"], light["actions"]["hits"]) == (2, 1)
    assert "frames a second of the file" not in table["conditions"]
    assert "camera" not in table["conditions"]
    assert conditions.AT_BEST not in table["conditions"]


def test_cameras_under_the_ceiling_are_told_from_those_on_walls(tmp_path: Path) -> None:
    recipe = tiny.recipe()
    recipe = replace(recipe, sources=[replace(recipe.sources[0], overhead="c1*")])
    judged = [Judged(clip(tmp_path, f"c{n}", n, 100), n == 1) for n in (1, 2)]
    ceiling, wall = conditions.measure(judged, recipe, tmp_path)["conditions"]["camera"]
    assert (ceiling["part"], ceiling["actions"]["hits"]) == ("ceiling", 1)
    assert (wall["part"], wall["actions"]["hits"]) == ("wall", 0)
    best = [replace(one, right_at_best=not one.right) for one in judged]
    ceiling, wall = conditions.measure(best, recipe, tmp_path)["conditions"][conditions.AT_BEST]
    assert (ceiling["actions"]["hits"], wall["actions"]["hits"]) == (0, 1)


def test_clips_of_equal_value_stay_together(tmp_path: Path) -> None:
    recipe = replace(tiny.recipe(), sequences=[], rate_hz=5.0)
    judged = [Judged(clip(tmp_path, f"c{n}", 0, 60 if n < 4 else 90), n < 4) for n in range(6)]
    dark, light = conditions.measure(judged, recipe, tmp_path)["conditions"]["brightness (0 to 255)"]
    assert (dark["actions"]["hits"], dark["actions"]["of"]) == (4, 4)
    assert (light["actions"]["hits"], light["actions"]["of"]) == (0, 2)


@pytest.mark.parametrize(("names", "says"), [([], "no group"), (["urfd", "rooms"], "rooms was not left out, but urfd")])
def test_folds_that_nobody_left_out_are_named(names: list[str], says: str, tmp_path: Path) -> None:
    table = {"folds": [{"left_out": "urfd"}]}
    with pytest.raises(NoFoldsError, match=says):
        conditions.of_left_out(table, tmp_path, [], tiny.recipe(), tmp_path, names)
