"""Training windows: which frames of which clip an epoch shows.

Windows around a sequence of labels are here; reversed and frozen ones are background, for without them a net learns
"tilted body" instead of "falling". Where labels are actions of their own, `action_windows` draws them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kinewatch_models import catalogue, sampling
from kinewatch_models.capture import Seconds
from kinewatch_models.catalogue import Clip
from kinewatch_models.recipe import Recipe
from kinewatch_models.train import action_windows, augment, backgrounds
from kinewatch_models.train.targets import Window, targets

# windows per epoch and clip; fractions are chances
AROUND_ACTION, BEFORE_ACTION = 2.0, 1.3
DAILY, LIKE_ACTION = 2.0, 2.5  # of daily life: anywhere, and around what looks like the action
SETTLED_S = 1.4
SMALL_SET_CLIPS, SMALL_SET_FACTOR = 10, 2.0


def epoch(clips: list[Clip], recipe: Recipe, cache: Path, rng: np.random.Generator) -> list[Window]:
    """The windows of one epoch, shuffled."""
    if not recipe.sequences:
        return action_windows.epoch(clips, recipe, cache, rng)
    counts = {name: sum(clip.dataset == name for clip in clips) for name in {clip.dataset for clip in clips}}
    sources = {source.dataset: source for source in recipe.sources}
    found: list[Window] = []
    for clip in clips:
        times = np.load(clip.folder(cache) / "times.npy")
        factor = SMALL_SET_FACTOR if counts[clip.dataset] < SMALL_SET_CLIPS else 1.0
        if catalogue.looks_down(clip, recipe):
            factor *= sources[clip.dataset].overhead_weight
        found += _of_clip(clip, times, recipe, factor * sources[clip.dataset].weight, rng)
    order = rng.permutation(len(found))
    return [found[index] for index in order]


def _of_clip(clip: Clip, times: Seconds, recipe: Recipe, factor: float, rng: np.random.Generator) -> list[Window]:
    made: list[Window] = []

    def add(first_end: float, last_end: float, count: float) -> None:
        drawn = range(_times(count * factor, rng))
        made.extend(_draw(clip, times, first_end, last_end, recipe, rng) for _ in drawn)

    end = float(times[-1])
    if not clip.is_action:
        for span in clip.spans or ():
            add(span.start, min(span.end + 0.6, end), LIKE_ACTION)
        add(min(recipe.train.window / recipe.rate_hz, end), end, DAILY)
        return made
    actions = [span for span in clip.spans or () if span.label != recipe.background]
    start, settled = actions[0].start, min(actions[-1].start + SETTLED_S, end)
    add(start + 0.3, settled, AROUND_ACTION)
    add(min(1.6, start), start, BEFORE_ACTION)
    for _ in range(_times(recipe.train.reversed * factor, rng)):
        drawn = _draw(clip, times, min(actions[-1].start, end), settled, recipe, rng)
        made.append(_background(clip, drawn.indices[::-1], times, recipe))
    for _ in range(_times(recipe.train.frozen * factor, rng)):
        still = np.full(recipe.train.window, int(rng.integers(len(times))))
        made.append(_background(clip, still, times, recipe))
    return made


def _background(clip: Clip, indices: npt.NDArray[np.int64], times: Seconds, recipe: Recipe) -> Window:
    """Frames of an action that are background, for its motion is not in them.

    To a net that sees pictures, the end of a sequence (a body on the floor) still is what it is.
    """
    background, last = recipe.labels.index(recipe.background), recipe.labels.index(recipe.sequences[0].parts[-1])
    allowed = np.zeros((len(indices), len(recipe.labels)), bool)
    allowed[:, background] = True
    if recipe.net.input != "difference":
        shown = targets(clip, times[indices], recipe)
        allowed[:, last] = shown[:, last]
        allowed[:, background] = ~shown[:, last] | shown[:, background]
    return Window(clip, indices, allowed)


def _draw(
    clip: Clip, times: Seconds, first_end: float, last_end: float, recipe: Recipe, rng: np.random.Generator
) -> Window:
    end = rng.uniform(min(first_end, last_end), last_end)
    indices = sampling.window(times, end, recipe.rate_hz * rng.uniform(0.8, 1.2), recipe.train.window)
    return Window(clip, indices, targets(clip, times[indices], recipe))


def _times(expected: float, rng: np.random.Generator) -> int:
    return int(expected) + int(rng.random() < expected % 1)


def batches(
    clips: list[Clip], recipe: Recipe, cache: Path, rng: np.random.Generator
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """One epoch: (batches in all, ``[N, T, 3, H, W]`` augmented frames, ``[N, T, C]`` allowed classes)."""
    drawn = epoch(clips, recipe, cache, rng)
    size = recipe.train.batch
    starts = range(0, max(1, len(drawn) - size // 2), size)
    for first in starts:
        some = drawn[first : first + size]
        views = torch.stack([_view(item, clips, recipe, cache, rng) for item in some])
        yield len(starts), views, torch.from_numpy(np.stack([item.allowed for item in some]))


def _view(item: Window, clips: list[Clip], recipe: Recipe, cache: Path, rng: np.random.Generator) -> Tensor:
    spec, made = recipe.input, recipe.train
    frames, _ = item.clip.frames(cache, made.cache_size)
    rendered = item.clip.dataset == catalogue.SIMULATED
    overhead = catalogue.looks_down(item.clip, recipe)
    seen = frames[item.indices]
    if made.elsewhere and rng.random() < made.elsewhere:
        pair = (item.clip, backgrounds.any_clip(clips, rng))
        own, other = (backgrounds.scene(clip, cache, made.cache_size) for clip in pair)
        acting = ~item.allowed[:, recipe.labels.index(recipe.background)]
        seen = backgrounds.elsewhere(seen, own, other, acting, rng)
    return augment.random_view(
        seen, spec.size, spec.mean, spec.std, rng, rendered, made.mirror, made.strange_views, overhead
    )
