"""Training windows where labels are actions of their own: one class for a whole clip, or spans in long videos.

A window always spans the same time, never the length of its clip: that length alone may give the class away. Its
place and its frame rate are drawn at random, so it also catches actions half begun and half over. Rare actions are
drawn more often, up to three times, and background as often as the recipe says, from every clip that has some.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kinewatch_models import sampling
from kinewatch_models.capture import Seconds
from kinewatch_models.catalogue import Clip, Span
from kinewatch_models.recipe import Recipe
from kinewatch_models.train.targets import Window, action_targets

MOST_REPEATS = 3
CENTRES = (0.2, 0.8)
SLOWEST, FASTEST = 0.8, 1.25


@dataclass(frozen=True)
class Stretch:
    """A part of a clip that shows one class; `shown` are all actions of the clip."""

    clip: Clip
    times: Seconds
    span: Span
    shown: tuple[Span, ...]


def epoch(clips: list[Clip], recipe: Recipe, cache: Path, rng: np.random.Generator) -> list[Window]:
    """The windows of one epoch, shuffled."""
    found: dict[str, list[Stretch]] = defaultdict(list)
    for clip in clips:
        for stretch in stretches(clip, np.load(clip.folder(cache) / "times.npy"), recipe):
            found[stretch.span.label].append(stretch)
    most = max((len(found[label]) for label in recipe.actions), default=0)
    chosen = [one for label in recipe.actions for one in _draw(found[label], _wanted(len(found[label]), most), rng)]
    if recipe.background:
        chosen += _draw(found[recipe.background], round(recipe.train.background_share * len(chosen)), rng)
    return [_window(chosen[index], recipe, rng) for index in rng.permutation(len(chosen))]


def stretches(clip: Clip, times: Seconds, recipe: Recipe) -> list[Stretch]:
    """The actions of a clip, and the background between them where it is at least half a window long."""
    end = float(times[-1])
    if clip.label is not None:
        whole = Span(clip.label, 0.0, end + 1e-6)
        shown: tuple[Span, ...] = () if clip.label == recipe.background else (whole,)
        return [Stretch(clip, times, whole, shown)]
    if clip.spans is None:
        return []
    shown = tuple(span for span in clip.spans if span.label != recipe.background)
    found = [Stretch(clip, times, span, shown) for span in shown]
    if not recipe.background:
        return found
    ends = sorted((span.start, span.end) for span in shown)
    before = 0.0
    for start, after in [*ends, (end, end)]:
        if start - before >= recipe.train.window / recipe.rate_hz / 2:
            found.append(Stretch(clip, times, Span(recipe.background, before, start), shown))
        before = max(before, after)
    return found


def _wanted(count: int, most: int) -> int:
    return min(most, MOST_REPEATS * count)


def _draw(pool: list[Stretch], count: int, rng: np.random.Generator) -> list[Stretch]:
    """`count` of `pool`, each as often as any other, give or take one."""
    if not pool:
        return []
    order = np.concatenate([rng.permutation(len(pool)) for _ in range(-(-count // len(pool)))] or [np.empty(0, int)])
    return [pool[int(index)] for index in order[:count]]


def _window(stretch: Stretch, recipe: Recipe, rng: np.random.Generator) -> Window:
    rate = recipe.rate_hz * rng.uniform(SLOWEST, FASTEST)
    seconds = (recipe.train.window - 1) / rate
    span, last = stretch.span, float(stretch.times[-1])
    centre = span.start + rng.uniform(*CENTRES) * (span.end - span.start)
    end = min(max(centre + seconds / 2, seconds), last)
    indices = sampling.window(stretch.times, end, rate, recipe.train.window)
    allowed = action_targets(stretch.times[indices], stretch.shown, recipe)
    return Window(stretch.clip, indices, allowed)
