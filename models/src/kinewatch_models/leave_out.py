"""Leaving a data set or a group (an actor) out of training in turn, and measuring on what was left out.

The plainest question a user asks, "does it work here, on me?", has no other answer. A fold trains on the train split
and calibrates on the val split, both without what it leaves out; the test split stays out of every training. Each fold
is a run directory of its own, and one that has its `fold.json` is not run again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kinewatch_models import agree, calibrate, evaluate, sampling
from kinewatch_models.agent import Event
from kinewatch_models.catalogue import Clip
from kinewatch_models.error import ToolError
from kinewatch_models.evaluate import Table
from kinewatch_models.recipe import Recipe
from kinewatch_models.stream import Graph

Graphs = Callable[[list[Clip], Path], dict[str, Path]]
"""Trains on clips in a run directory and returns the graphs by precision."""


Told = Callable[[dict[str, Path], Table, list[Clip]], list[list[Event]]]
"""The events that the agent tells of clips, by the graphs and calibration of a fold."""


class FoldError(ToolError):
    """The fold cannot be made; the message names what was to be left out."""


@dataclass(frozen=True)
class Fold:
    """Clips by their use; `left_out` is a data set, or ``dataset/group``."""

    left_out: str
    train: list[Clip]
    val: list[Clip]
    measured: list[Clip]

    @property
    def folder(self) -> str:
        """Name of the run directory."""
        return self.left_out.replace("/", "-")


def fold(clips: list[Clip], left_out: str) -> Fold:
    """The clips of one fold."""
    measured = [clip for clip in clips if left_out in (clip.dataset, f"{clip.dataset}/{clip.group}")]
    rest = [clip for clip in clips if clip not in measured]
    train = [clip for clip in rest if clip.split == "train" and clip.trainable]
    val = [clip for clip in rest if clip.split == "val"]
    if not any(clip.is_action for clip in measured):
        raise FoldError(f"no clip of an action in {left_out}: name a data set of the recipe, or DATASET/GROUP")
    for name, members in (("train", train), ("val", val)):
        if not any(clip.is_action for clip in members):
            raise FoldError(f"without {left_out}, no clip of an action is left in {name}")
    return Fold(left_out, train, val, measured)


def measure(one: Fold, recipe: Recipe, cache: Path, run: Path, graphs: Graphs, told: Told | None = None) -> Table:
    """Train, calibrate and measure one fold: for each precision the figures of the clips left out.

    With `told`, also what the agent makes of the whole videos with the int8 graph and these settings.
    """
    paths = graphs(one.train, run)
    sessions = {precision: Graph(paths[precision]) for precision in paths}
    chosen = calibrate.on_graphs(one.val, list(sessions.values()), recipe, cache)
    table: Table = {
        "left_out": one.left_out,
        "training": evaluate.counts(one.train),
        "clips": evaluate.counts(one.measured),
        "calibration": chosen,
    }
    for precision, graph in sessions.items():
        table[precision] = evaluate.measured(one.measured, graph, recipe, cache, chosen)
    if told is not None:
        times = [np.load(clip.folder(cache) / "times.npy") for clip in one.measured]
        lasts_s = [float(some[sampling.ticks(some, recipe.rate_hz)[-1]]) for some in times]
        table["told"] = agree.counted(one.measured, told(paths, chosen, one.measured), lasts_s, recipe)
    return table
