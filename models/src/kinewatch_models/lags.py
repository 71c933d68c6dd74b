"""How late the decoders of single actions are: measured on val clips, subtracted by the agent.

An annotated clip is streamed as it is. A clip of one action is put between clips of background of its own group (scene
or camera), so that the action begins and ends; without such background it teaches nothing. The cut is what a real
beginning is not, so the uncertainty beside each lag matters more than the lag.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kinewatch_models import scoring
from kinewatch_models.catalogue import Clip, Span
from kinewatch_models.recipe import Recipe
from kinewatch_models.scoring import Scored
from kinewatch_models.stream import Graph

FEWEST = 10
"""Fewer found actions of a label share the lag of all labels; fewer of all labels give none. One counts per graph."""
LEAST_UNCERTAINTY_MS = 100.0
NEAR_S = 2.0

Table = dict[str, Any]
Errors = dict[str, list[float]]


@dataclass(frozen=True)
class Timed:
    """The scores of a stream and the action whose beginning and end in it are known."""

    scored: Scored
    span: Span


def streams(clips: list[Clip], graph: Graph, recipe: Recipe, cache: Path) -> list[Timed]:
    """Every action of `clips` that begins and ends inside a stream, scored by `graph`."""
    found = []
    for clip in clips:
        if clip.spans:
            scored = scoring.score([clip], graph, recipe, cache)[0]
            found += [Timed(scored, span) for span in clip.spans if span.label in recipe.actions]
        quiet = [one for one in clips if one.group == clip.group and one.label == recipe.background]
        if clip.label in recipe.actions and quiet:
            found.append(_between(quiet[0], clip, quiet[-1], graph, recipe, cache))
    return found


def _between(before: Clip, clip: Clip, after: Clip, graph: Graph, recipe: Recipe, cache: Path) -> Timed:
    pixels = [scoring.frames(one, recipe, cache)[0] for one in (before, clip, after)]
    starts = np.cumsum([0, *map(len, pixels)]) / recipe.rate_hz
    logits = graph.logits(np.concatenate(pixels))
    times = graph.ends(sum(map(len, pixels))) / recipe.rate_hz
    return Timed(Scored(clip, times, logits), Span(clip.label or "", float(starts[1]), float(starts[2])))


def correct(chosen: Table, timed: list[Timed], recipe: Recipe) -> Table:
    """`chosen`, a table of `calibrate_actions`, with lags and uncertainties measured on `timed`."""
    starts: Errors = {label: [] for label in chosen["labels"]}
    ends: Errors = {label: [] for label in chosen["labels"]}
    for one in timed:
        label, row = one.span.label, chosen["labels"][one.span.label]
        intervals = scoring.label_intervals(one.scored, recipe, label, row, chosen["temperature"])
        near = [made for made in intervals if abs(made.start - one.span.start) < NEAR_S]
        if not near:
            continue
        best = min(near, key=lambda made: abs(made.start - one.span.start))
        starts[label].append(best.start - one.span.start)
        if best.end is not None:
            ends[label].append(best.end - one.span.end)
    labels = {label: _corrected(row, starts, ends, label) for label, row in chosen["labels"].items()}
    count = {"actions": len(timed), "found": len(_all(starts))}
    return {**chosen, "labels": labels, "lags_measured_on": count}


def _corrected(row: Table, starts: Errors, ends: Errors, label: str) -> Table:
    result = dict(row)
    for side, errors in (("start", starts), ("end", ends)):
        used = errors[label] if len(errors[label]) >= FEWEST else _all(errors)
        if len(used) >= FEWEST:
            lag = float(np.median(used))
            rest = 1000 * float(np.quantile(np.abs(np.array(used) - lag), 0.9))
            result[f"lag_{side}_s"] = round(lag, 3)
            result[f"uncertainty_{side}_ms"] = round(max(rest, LEAST_UNCERTAINTY_MS), 0)
    return result


def _all(errors: Errors) -> list[float]:
    return [value for values in errors.values() for value in values]
