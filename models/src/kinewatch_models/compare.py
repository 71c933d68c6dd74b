"""Architectures side by side: each trained on the same clips with the same budget, measured on the same test split.

The recipe says what the budget is; only the net changes. Where a net takes snippets of consecutive frames, frames are
sampled that much closer, so that every window spans the same time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kinewatch_models import evaluate_actions, macs, steps, windows_scored
from kinewatch_models.arch.registry import ARCHITECTURES, PRETRAINED, SMALL
from kinewatch_models.catalogue import Clip
from kinewatch_models.decode import probabilities
from kinewatch_models.error import ToolError
from kinewatch_models.recipe import Recipe, check_choices
from kinewatch_models.stream import Graph, head_of, stride

ALL = ("tsm-online", *(row.name for row in ARCHITECTURES.values() if not row.boxes))
"""What can be trained on clips alone; nets that take boxes need someone to draw them."""
LOSS_FROM = 2
"""Frames of a window that an online net is not judged by."""

Table = dict[str, Any]
Graphs = Callable[[Recipe], dict[str, Path]]
"""Trains the net of a recipe and returns its graphs by precision."""
Speeds = Callable[[Recipe, dict[str, Path]], list[Table]]
"""What `kinewatch model bench` says of these graphs."""


class CompareError(ToolError):
    """The recipe cannot be compared with others."""


def recipe_of(recipe: Recipe, architecture: str) -> Recipe:
    """`recipe` with another net that sees pictures, its window as long as before."""
    if recipe.sequences:
        raise CompareError("compare measures windows, and this recipe has sequences: take one whose labels are actions")
    row = ARCHITECTURES.get(architecture)
    closer = (row.snippet if row else 1) / recipe.snippet
    backbone = recipe.net.backbone
    if row and backbone not in row.backbones:
        alike = [name for name in row.backbones if (name in SMALL) == (backbone in SMALL)]
        backbone = alike[0] if alike else row.backbones[0]
    net = replace(recipe.net, architecture=architecture, input="rgb", backbone=backbone, gru_units=0)
    if backbone not in PRETRAINED:
        net = replace(net, pretrained=False, frozen_modules=0)
    train = replace(recipe.train, window=round(recipe.train.window * closer), loss_from=0 if row else LOSS_FROM)
    made = replace(recipe, rate_hz=recipe.rate_hz * closer, net=net, train=train)
    check_choices(made, Path(architecture))
    return made


def measure(recipe: Recipe, clips: list[Clip], cache: Path, graphs: Graphs, speeds: Speeds) -> Table:
    """One architecture: what it costs, and its figures on the test split in both precisions."""
    paths = graphs(recipe)
    table: Table = {"architecture": recipe.net.architecture, "backbone": recipe.net.backbone, **_cost(recipe, paths)}
    classes, groups = np.array(evaluate_actions.true_classes(clips, recipe)), [clip.group for clip in clips]
    for precision, path in paths.items():
        scores = probabilities(windows_scored.score(clips, Graph(path), recipe, cache))
        table[precision] = evaluate_actions.classified(scores, classes, groups, recipe)
    table["speeds"] = speeds(recipe, paths)
    return table


def training(run: Path) -> Table:
    """How far a net got, and what it took: the loss of its last epoch, and CPU seconds."""
    rows = steps.history(run)
    return {"loss": rows[-1]["loss"], "training_cpu_s": sum(row["cpu_s"] for row in rows)}


def _cost(recipe: Recipe, paths: dict[str, Path]) -> Table:
    path = paths["fp32"]
    files = [one for one in (path, head_of(path)) if one.exists()]
    frames = recipe.train.window if len(files) == 2 or recipe.plan == "online" else 1
    per_run = macs.count(path)
    head = macs.count(files[1]) if len(files) == 2 else 0
    apart = stride(recipe.train.window) if recipe.plan == "clip" else 1
    return {
        "plan": recipe.plan,
        "parameters": sum(macs.parameters(one) for one in files),
        "macs_per_window": per_run * frames + head,
        "macs_per_new_frame": (per_run + head) / apart,
    }
