"""Random views: what they must leave alone."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from kinewatch_models.train import augment

MEAN, STD, SIZE = [0.0] * 3, [1.0] * 3, 24


def view(frames: np.ndarray, seed: int) -> np.ndarray:
    return augment.random_view(frames, SIZE, MEAN, STD, np.random.default_rng(seed)).numpy()


def test_views_of_one_picture_differ_between_windows() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), np.uint8)
    views = np.stack([view(picture, seed) for seed in range(8)])
    assert views.shape == (8, 2, 3, SIZE, SIZE)
    assert views.std(0).mean() > 10


def test_a_still_camera_stays_still_in_most_windows() -> None:
    picture = np.repeat(np.random.default_rng(0).integers(0, 255, (1, 32, 32, 3), np.uint8), 6, 0)
    moved = [np.abs(np.diff(view(picture, seed), axis=0)).mean() for seed in range(60)]
    assert np.median(moved) < 3  # a sensor's noise, in byte units
    assert max(moved) > 3  # some shake, flicker or step of exposure
