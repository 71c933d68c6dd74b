"""k-fold cross-validation by group, where labels are actions of their own: every clip is measured once by a net that
has seen no clip of its group.

Windows alone are measured, so no threshold is needed and no val split is set aside: all other folds train.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kinewatch_models import evaluate_actions, stream, windows_scored
from kinewatch_models.catalogue import Clip
from kinewatch_models.decode import probabilities
from kinewatch_models.evaluate import counts
from kinewatch_models.recipe import Recipe

Table = dict[str, Any]
Graphs = Callable[[list[Clip]], dict[str, Path]]
"""Trains on clips and returns the graphs by precision."""


class FoldError(Exception):
    """There are too few groups."""


def folds(clips: list[Clip], count: int) -> list[tuple[list[Clip], list[Clip]]]:
    """(train, measured) of every fold; groups are dealt out in an order that their names alone decide."""
    groups = sorted({clip.group for clip in clips}, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    if len(groups) < count:
        raise FoldError(f"{len(groups)} groups cannot make {count} folds: ask for fewer")
    place = {group: index % count for index, group in enumerate(groups)}
    return [
        (
            [replace(clip, split="train") for clip in clips if place[clip.group] != fold],
            [replace(clip, split="test") for clip in clips if place[clip.group] == fold],
        )
        for fold in range(count)
    ]


def measure(train: list[Clip], measured: list[Clip], recipe: Recipe, cache: Path, graphs: Graphs) -> Table:
    """Train one fold; for each precision the figures of the clips left out."""
    table: Table = {"groups": sorted({clip.group for clip in measured}), "clips": counts(measured)}
    classes, groups = np.array(evaluate_actions.true_classes(measured, recipe)), [clip.group for clip in measured]
    for precision, path in graphs(train).items():
        scores = probabilities(windows_scored.score(measured, stream.session(path), recipe, cache))
        table[precision] = evaluate_actions.classified(scores, classes, groups, recipe)
    return table


def summary(made: list[Table]) -> Table:
    """All folds, and the mean and spread of each figure over them."""
    table: Table = {"folds": made, "mean": {}}
    for precision in ("fp32", "int8"):
        for key in ("top1", "top1_actions", "auc"):
            values = [fold[precision][key]["value"] for fold in made if key in fold[precision]]
            if values:
                table["mean"][f"{key} {precision}"] = {
                    "mean": round(float(np.mean(values)), 4),
                    "lowest": min(values),
                    "highest": max(values),
                }
    return table
