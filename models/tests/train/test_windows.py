"""Targets of training windows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

import tiny  # noqa: E402
from kinewatch_models import prepare  # noqa: E402
from kinewatch_models.catalogue import Clip, Span  # noqa: E402
from kinewatch_models.train import windows  # noqa: E402

FALL = (Span("falling", 1.0, 2.0), Span("lying", 2.0, 6.0))


def fall_clip() -> Clip:
    return Clip("fall.mp4", "drawn", "train", "P1", True, FALL)


def test_targets_follow_the_annotation() -> None:
    rows = windows.targets(fall_clip(), np.array([0.5, 1.5, 2.5, 4.0]), tiny.recipe())
    assert rows.tolist() == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
        [True, False, True],  # lying longer than memory_s: no difference shows it
    ]


def test_lying_without_its_beginning_is_not_taught() -> None:
    rows = windows.targets(fall_clip(), np.array([2.2, 2.4]), tiny.recipe())
    assert rows.tolist() == [[True, False, True]] * 2


def test_weak_clip_allows_its_classes() -> None:
    weak = Clip("lie.mp4", "drawn", "train", "P1", False, None, ("background", "lying"))
    assert windows.targets(weak, np.array([0.0]), tiny.recipe()).tolist() == [[True, False, True]]


def test_weight_scales_the_windows_of_a_set(tmp_path: Path) -> None:
    clip = fall_clip()
    clip.folder(tmp_path).mkdir(parents=True)
    prepare.save(clip.folder(tmp_path) / "times.npy", np.arange(180) / 30)
    recipe = tiny.recipe()
    none = replace(recipe, sources=[replace(recipe.sources[0], weight=0.0)])
    assert windows.epoch([clip], recipe, tmp_path, np.random.default_rng(0))
    assert windows.epoch([clip], none, tmp_path, np.random.default_rng(0)) == []


def test_clips_from_the_ceiling_may_count_more(tmp_path: Path) -> None:
    clips = [fall_clip(), Clip("fall-cam1.mp4", "drawn", "train", "P1", True, FALL)]
    for clip in clips:
        clip.folder(tmp_path).mkdir(parents=True)
        prepare.save(clip.folder(tmp_path) / "times.npy", np.arange(180) / 30)
    recipe = tiny.recipe()
    recipe = replace(recipe, sources=[replace(recipe.sources[0], overhead="*-cam1.mp4", overhead_weight=3.0)])
    drawn = [
        window.clip
        for seed in range(5)
        for window in windows.epoch(clips, recipe, tmp_path, np.random.default_rng(seed))
    ]
    wall, ceiling = (drawn.count(clip) for clip in clips)
    assert ceiling == pytest.approx(3 * wall, rel=0.1)


def test_epoch_holds_reversed_and_frozen_background(tmp_path: Path) -> None:
    clips = [fall_clip(), Clip("daily.mp4", "drawn", "train", "P2", False, ())]
    for clip in clips:
        clip.folder(tmp_path).mkdir(parents=True)
        prepare.save(clip.folder(tmp_path) / "times.npy", np.arange(180) / 30)
        prepare.save(clip.folder(tmp_path) / f"{tiny.SIZE}.npy", np.zeros((180, tiny.SIZE, tiny.SIZE, 3), np.uint8))
    drawn = windows.epoch(clips, tiny.recipe(), tmp_path, np.random.default_rng(0))
    backwards = [one for one in drawn if (np.diff(one.indices) < 0).any()]
    assert backwards
    assert all(one.allowed[:, 0].all() and not one.allowed[:, 1:].any() for one in backwards)
    assert any(one.allowed[:, 1].any() for one in drawn)
    without = replace(tiny.recipe(), train=replace(tiny.recipe().train, reversed=0.0, frozen=0.0))
    forwards = windows.epoch(clips, without, tmp_path, np.random.default_rng(0))
    assert forwards
    assert all((np.diff(one.indices) >= 0).all() and one.indices[0] < one.indices[-1] for one in forwards)
    pictures = replace(tiny.recipe(), net=replace(tiny.recipe().net, input="both"))
    shown = windows.epoch(clips, pictures, tmp_path, np.random.default_rng(0))
    backwards = [one for one in shown if (np.diff(one.indices) < 0).any()]
    assert not any(one.allowed[:, 1].any() for one in backwards)
    assert any(one.allowed[:, 2].any() for one in backwards)  # a picture shows who lies, whichever way time goes
    count, frames, allowed = next(windows.batches(clips, tiny.recipe(), tmp_path, np.random.default_rng(0)))
    assert count >= 1
    assert frames.shape[1:] == (6, 3, tiny.SIZE, tiny.SIZE)
    assert allowed.shape[1:] == (6, 3)


def test_people_are_put_before_other_backgrounds(tmp_path: Path) -> None:
    clips = [Clip(f"{grey}.mp4", "drawn", "train", str(grey), False, ()) for grey in (0, 200)]
    for clip, grey in zip(clips, (0, 200), strict=True):
        clip.folder(tmp_path).mkdir(parents=True)
        prepare.save(clip.folder(tmp_path) / "times.npy", np.arange(180) / 30)
        pictures = np.full((180, tiny.SIZE, tiny.SIZE, 3), grey, np.uint8)
        prepare.save(clip.folder(tmp_path) / f"{tiny.SIZE}.npy", pictures)

    def drawn(elsewhere: float) -> Tensor:
        plain = replace(tiny.recipe().train, elsewhere=elsewhere, strange_views=0.0)
        recipe = replace(tiny.recipe(), train=plain)
        return next(windows.batches(clips[:1] * 4 + clips[1:] * 4, recipe, tmp_path, np.random.default_rng(0)))[1]

    once, again, never = drawn(1.0), drawn(1.0), drawn(0.0)
    assert torch.equal(once, again)
    assert not torch.equal(once.mean((1, 2, 3, 4)).sign(), never.mean((1, 2, 3, 4)).sign())
