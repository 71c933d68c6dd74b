"""How far another platform's scaler moves a model: the same held-out clips, decoded through other chains.

Cameras of a Jetson or a VA-API machine are scaled by other hardware than the frames a net was trained on. `nearest`
picks pixels instead of weighing them; `convert first` makes RGB of the full picture, then scales.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kinewatch_models import capture, prepare, scoring, windows_scored
from kinewatch_models.catalogue import Clip
from kinewatch_models.measure import share
from kinewatch_models.recipe import Recipe
from kinewatch_models.stream import Graph

Table = dict[str, Any]


def measure(clips: list[Clip], graph: Graph, recipe: Recipe, cache: Path, calibration: Table) -> Table:
    """For each chain: clips whose decision changes, and how far the logits of frames move.

    The decision is the class of the clip's window or, where the recipe has sequences, the number of events.
    """
    before = scoring.score(clips, graph, recipe, cache)
    decided = _decisions(clips, graph, recipe, cache, calibration)
    table: Table = {"name": recipe.name, "clips": len(clips), "chains": {}}
    for chain in (name for name in capture.CHAINS if name != capture.AGENT):
        other = cache.with_name(f"{cache.name}-{chain.replace(' ', '-')}")
        for _ in prepare.fill(clips, recipe, other, chain):
            pass
        after = scoring.score(clips, graph, recipe, other)
        moved = np.concatenate([np.abs(a.logits - b.logits).ravel() for a, b in zip(before, after, strict=True)])
        changed = np.array(decided) != np.array(_decisions(clips, graph, recipe, other, calibration))
        table["chains"][chain] = {
            "changed": share(int(changed.sum()), len(clips)),
            "mean_abs_difference": round(float(moved.mean()), 4),
            "p99_abs_difference": round(float(np.quantile(moved, 0.99)), 4),
        }
    return table


def _decisions(clips: list[Clip], graph: Graph, recipe: Recipe, cache: Path, calibration: Table) -> list[int]:
    if not recipe.sequences:
        return [int(index) for index in windows_scored.score(clips, graph, recipe, cache).argmax(1)]
    scored = scoring.score(clips, graph, recipe, cache)
    return [len(scoring.events(one, recipe, calibration["labels"], calibration["temperature"])) for one in scored]
