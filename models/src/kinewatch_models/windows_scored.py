"""One window of a fixed length per clip, from its middle, as it is or changed: what clip-level figures are made of.

The window never depends on the clip's length. Changed ones (see `changes`) show what a net relies on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kinewatch_models import changes, sampling, stream
from kinewatch_models.capture import Frames
from kinewatch_models.catalogue import Clip
from kinewatch_models.recipe import Recipe
from kinewatch_models.stream import Floats, Graph


def pixels(clip: Clip, recipe: Recipe, cache: Path) -> Frames:
    """The frames ``[T, S, S, 3]`` of the window around the middle of the clip, or of its first action."""
    frames, times = clip.frames(cache, recipe.input.size)
    seconds = (recipe.train.window - 1) / recipe.rate_hz
    span = next((one for one in clip.spans or () if one.label != recipe.background), None)
    middle = float(times[-1]) / 2 if span is None else (span.start + span.end) / 2
    end = min(max(middle + seconds / 2, seconds), float(times[-1]))
    taken: Frames = np.array(frames[sampling.window(times, end, recipe.rate_hz, recipe.train.window)])
    return taken


def logits(graph: Graph, frames: Frames, recipe: Recipe) -> Floats:
    """Logits ``[C]`` of a window: the mean over an online graph's frames after its warm-up, or all there is."""
    found = graph.logits(stream.normalise(frames, recipe.input.mean, recipe.input.std))
    mean: Floats = found[recipe.train.loss_from if graph.online else 0 :].mean(0)
    return mean


def score(clips: list[Clip], graph: Graph, recipe: Recipe, cache: Path, change: str = "") -> Floats:
    """Logits ``[N, C]`` of the windows of `clips`, after one of `changes`, or as they are."""
    rows = []
    for clip in clips:
        frames = pixels(clip, recipe, cache)
        rows.append(logits(graph, changes.CHANGES[change](frames) if change else frames, recipe))
    return np.stack(rows)
