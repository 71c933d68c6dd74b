"""Scores of whole clips: sampled by time, streamed through a graph, as they are, backwards or frozen."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np

from kinewatch_models import changes, sampling, stream
from kinewatch_models.catalogue import Clip
from kinewatch_models.decode import Doubles, Interval, intervals, probabilities, sequence
from kinewatch_models.measure import action_span
from kinewatch_models.recipe import Recipe
from kinewatch_models.stream import Floats, Graph

FROZEN_FRAMES = 20


class Variant(Enum):
    """How a clip is played."""

    NORMAL = "normal"
    REVERSED = "reversed"
    FROZEN = "frozen"
    SHUFFLED = "shuffled"
    BORDER = "border only"
    MIRRORED = "mirrored"


@dataclass(frozen=True)
class Scored:
    """Logits ``[F, C]`` of one clip at `times` (seconds from its first frame)."""

    clip: Clip
    times: Doubles
    logits: Floats

    @property
    def seconds(self) -> float:
        """Until the last score; 0 where the clip is shorter than a window."""
        return float(self.times[-1]) if len(self.times) else 0.0


def frames(clip: Clip, recipe: Recipe, cache: Path, variant: Variant = Variant.NORMAL) -> tuple[Floats, Doubles]:
    """Normalised frames ``[F, 3, H, W]`` at the recipe's rate, and their times.

    Frozen: the picture just after the action (a body on the floor) held for four seconds.
    """
    pixels, times = clip.frames(cache, recipe.input.size)
    taken = sampling.ticks(times, recipe.rate_hz)
    when = times[taken]
    if variant is Variant.REVERSED:
        taken, when = taken[::-1], times[-1] - when[::-1]
    if variant is Variant.FROZEN:
        span = action_span(clip, recipe.sequences[0].parts)
        at = float(times[-1]) if span is None else span[1] + 0.3
        taken = np.full(FROZEN_FRAMES, np.argmin(np.abs(times - at)))
        when = np.arange(FROZEN_FRAMES) / recipe.rate_hz
    shown = np.array(pixels[taken])
    if variant in (Variant.SHUFFLED, Variant.BORDER, Variant.MIRRORED):
        shown = changes.CHANGES[variant.value](shown)
    return stream.normalise(shown, recipe.input.mean, recipe.input.std), when


def score(
    clips: list[Clip], graph: Graph, recipe: Recipe, cache: Path, variant: Variant = Variant.NORMAL
) -> list[Scored]:
    """Stream every clip through `graph` from zero states."""
    rows = []
    for clip in clips:
        pixels, when = frames(clip, recipe, cache, variant)
        rows.append(Scored(clip, when[graph.ends(len(when))], graph.logits(pixels)))
    return rows


def score_all(
    clips: list[Clip], graphs: list[Graph], recipe: Recipe, cache: Path, variant: Variant = Variant.NORMAL
) -> list[Scored]:
    """`score` of each of `graphs`, one after the other."""
    return [one for graph in graphs for one in score(clips, graph, recipe, cache, variant)]


def events(one: Scored, recipe: Recipe, decoders: dict[str, dict[str, float]], temperature: float) -> list[Interval]:
    """The events of the recipe's first sequence in one clip, under `decoders` (label to settings)."""
    wanted = recipe.sequences[0]
    found = [label_intervals(one, recipe, label, decoders[label], temperature) for label in wanted.parts]
    return sequence(found, wanted.within_s, wanted.max_duration_s)


def label_intervals(
    one: Scored, recipe: Recipe, label: str, settings: dict[str, float], temperature: float
) -> list[Interval]:
    """Intervals of a single label in one clip."""
    column = probabilities(one.logits, temperature)[:, recipe.labels.index(label)]
    return intervals(one.times, column, settings, recipe.period_s)
