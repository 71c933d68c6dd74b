"""Learning curves: what a net trained on a share of the groups can do, on the same clips each time.

What still climbs at the right end lacks data; what is flat there lacks something else. With one seed, a smaller share
is part of a larger one; each seed draws its own.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kinewatch_models import crossval, leave_out
from kinewatch_models.catalogue import Clip
from kinewatch_models.error import ToolError
from kinewatch_models.leave_out import Fold
from kinewatch_models.recipe import Recipe

Table = dict[str, Any]
Graphs = Callable[[list[Clip], Path], dict[str, Path]]
"""Trains on clips in a run directory and returns the graphs by precision."""


class CurveError(ToolError):
    """A share cannot be trained on or measured; the message says why."""


def part(train: list[Clip], share: float, seed: int) -> list[Clip]:
    """The clips of a `share` of the groups of each data set, at least of one."""
    kept: set[tuple[str, str]] = set()
    for dataset in {clip.dataset for clip in train}:
        groups = {clip.group for clip in train if clip.dataset == dataset}
        drawn = sorted(groups, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).hexdigest())
        kept |= {(dataset, group) for group in drawn[: math.ceil(share * len(groups))]}
    return [clip for clip in train if (clip.dataset, clip.group) in kept]


def measure(clips: list[Clip], share: float, recipe: Recipe, cache: Path, run: Path, graphs: Graphs) -> Table:
    """Train on a share of the train split and measure on the test split; thresholds are from val."""
    split = {name: [clip for clip in clips if clip.split == name] for name in ("train", "val", "test")}
    train = part([clip for clip in split["train"] if clip.trainable], share, recipe.train.seed)
    taught = {"actions"} if any(clip.is_action for clip in train) else set()
    missing = (
        {"actions"} - taught
        if recipe.sequences
        else set(recipe.labels) - {clip.shows(recipe.background) for clip in train}
    )
    if missing:
        raise CurveError(
            f"a share of {share:g} with seed {recipe.train.seed} holds no {min(missing)}: take a larger one"
        )
    if not split["test"] or not split["val"]:
        raise CurveError("a learning curve needs clips in the splits val and test")
    if recipe.sequences:
        fold = Fold(f"share {share:g}", train, split["val"], split["test"])
        table = leave_out.measure(fold, recipe, cache, run, graphs)
    else:
        table = crossval.measure(train, split["test"], recipe, cache, lambda some: graphs(some, run))
    groups = len({(clip.dataset, clip.group) for clip in train})
    return {**table, "share": share, "seed": recipe.train.seed, "train_clips": len(train), "train_groups": groups}
