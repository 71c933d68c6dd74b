"""k-fold cross-validation by group, where labels are actions of their own: every clip is measured once by a net that
has seen no clip of its group.

Windows alone are measured, so no threshold is needed and no val split is set aside: all other folds train. Pooled
figures count every clip once and are the ones to quote: their intervals are over all groups (Stone 1974).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kinewatch_models import evaluate_actions, steps, windows_scored
from kinewatch_models.catalogue import Clip
from kinewatch_models.decode import probabilities
from kinewatch_models.error import ToolError
from kinewatch_models.evaluate import counts
from kinewatch_models.recipe import Recipe
from kinewatch_models.stream import Graph

Table = dict[str, Any]
Graphs = Callable[[list[Clip]], dict[str, Path]]
"""Trains on clips and returns the graphs by precision."""


class FoldError(ToolError):
    """The folds cannot be made, or the run directory holds others; the message says what to do."""


def folds(clips: list[Clip], recipe: Recipe, count: int) -> list[tuple[list[Clip], list[Clip]]]:
    """(train, measured) of every fold; groups are dealt out in an order that their names alone decide."""
    if recipe.sequences:
        raise FoldError("crossval measures windows, and this recipe has sequences: use leave-out")
    groups = sorted({clip.group for clip in clips}, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    if len(groups) < count:
        raise FoldError(f"{len(groups)} groups cannot make {count} folds: ask for fewer")
    place = {group: index % count for index, group in enumerate(groups)}
    made = [
        (
            [replace(clip, split="train") for clip in clips if place[clip.group] != fold],
            [replace(clip, split="test") for clip in clips if place[clip.group] == fold],
        )
        for fold in range(count)
    ]
    for train, _ in made:
        missing = set(recipe.labels) - {clip.shows(recipe.background) for clip in train}
        if missing:
            raise FoldError(f"a fold would train without {min(missing)}: record it in more groups")
    return made


def measure(train: list[Clip], measured: list[Clip], recipe: Recipe, cache: Path, graphs: Graphs) -> Table:
    """Train one fold; for each precision the figures of the clips left out."""
    table: Table = {"groups": sorted({clip.group for clip in measured}), "clips": counts(measured), "scores": {}}
    classes, groups = np.array(evaluate_actions.true_classes(measured, recipe)), [clip.group for clip in measured]
    table["rows"] = {"class": classes.tolist(), "group": groups}
    for precision, path in graphs(train).items():
        scores = probabilities(windows_scored.score(measured, Graph(path), recipe, cache))
        table[precision] = evaluate_actions.classified(scores, classes, groups, recipe)
        table["scores"][precision] = scores.round(5).tolist()
    return table


def summary(made: list[Table], recipe: Recipe) -> Table:
    """All folds, the figures of all clips pooled, and the mean and spread of each figure over the folds."""
    table: Table = {"seed": recipe.train.seed, "folds": made, "pooled": {}, "mean": {}}
    classes = np.array([one for fold in made for one in fold["rows"]["class"]])
    groups = [one for fold in made for one in fold["rows"]["group"]]
    for precision in steps.PRECISIONS:
        scores = np.concatenate([np.array(fold["scores"][precision]) for fold in made])
        table["pooled"][precision] = evaluate_actions.classified(scores, classes, groups, recipe)
        for key in ("top1", "top1_actions", "auc"):
            figures = [fold[precision][key]["value"] for fold in made if key in fold[precision]]
            values = [one for one in figures if one is not None]
            if values:
                table["mean"][f"{key} {precision}"] = {
                    "mean": round(float(np.mean(values)), 4),
                    "lowest": min(values),
                    "highest": max(values),
                }
    return table
