"""What can be had without looking at motion: the length and shape of a clip, and the nearest median picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kinewatch_models.catalogue import Clip
from kinewatch_models.decode import Doubles
from kinewatch_models.recipe import Recipe


def scores(
    train: list[Clip], known: list[int], members: list[Clip], classes: int, recipe: Recipe, cache: Path
) -> dict[str, Doubles]:
    """Probabilities ``[N, classes]`` of `members` by what was taught: the `known` classes of `train`."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.neighbors import KNeighborsClassifier

    table = {}
    for name, model, features in (
        ("clip metadata", RandomForestClassifier(200, random_state=0), _metadata),
        ("nearest median picture", KNeighborsClassifier(1), _median_picture),
    ):
        model.fit(np.stack([features(clip, recipe, cache) for clip in train]), known)
        found = model.predict_proba(np.stack([features(clip, recipe, cache) for clip in members]))
        table[name] = np.zeros((len(members), classes))
        table[name][:, model.classes_] = found
    return table


def _metadata(clip: Clip, recipe: Recipe, cache: Path) -> Doubles:
    _, times = clip.frames(cache, recipe.input.size)
    return np.array([float(times[-1]), len(times) / max(float(times[-1]), 1e-3), clip.aspect])


def _median_picture(clip: Clip, recipe: Recipe, cache: Path) -> Doubles:
    frames, times = clip.frames(cache, recipe.input.size)
    picture: Doubles = np.median(frames[:: max(1, len(times) // 16), ::8, ::8], 0).astype(np.float64)
    return picture.ravel()
