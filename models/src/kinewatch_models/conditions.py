"""Under which conditions clips are judged wrongly: what can be measured of each, and who is right in each part of it.

For folds alone (`crossval`, `leave-out`), where each clip was judged by a net that had seen nothing of its group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from kinewatch_models import calibrate, catalogue, crossval, leave_out, sampling, scoring
from kinewatch_models.catalogue import Clip
from kinewatch_models.decode import Doubles
from kinewatch_models.error import ToolError
from kinewatch_models.measure import action_span, share
from kinewatch_models.recipe import Recipe
from kinewatch_models.stream import Graph

PARTS = 3
MOVED_LEVELS = 12
"""So many grey levels between two frames are motion, not noise."""
PEAK = 0.95
AT_BEST = "camera; thresholds chosen on these very clips"

Table = dict[str, Any]
Condition = Callable[[Clip, Recipe, Path], float | str | None]


@dataclass(frozen=True)
class Judged:
    """A clip, and whether int8 was right: its action found or named, or nothing told where there is none."""

    clip: Clip
    right: bool
    right_at_best: bool | None = None
    """With thresholds chosen on the very clips (`calibrate.most_found`); None where no daily clip holds them down."""


class NoFoldsError(ToolError):
    """The run directory holds no folds to look at."""


def of_crossval(table: Table, clips: list[Clip], recipe: Recipe) -> list[Judged]:
    """The clips of a cross-validation, from what it left in `table`."""
    folds = crossval.folds(clips, recipe, len(table["folds"]))
    if [[clip.group for clip in measured] for _, measured in folds] != [
        fold["rows"]["group"] for fold in table["folds"]
    ]:
        raise NoFoldsError("the folds were made of other clips: run crossval again")
    return [
        Judged(clip, recipe.labels[int(np.argmax(scores))] == clip.shows(recipe.background))
        for fold, (_, measured) in zip(table["folds"], folds, strict=True)
        for clip, scores in zip(measured, fold["scores"]["int8"], strict=True)
    ]


def of_left_out(
    table: Table, run: Path, clips: list[Clip], recipe: Recipe, cache: Path, names: list[str]
) -> list[Judged]:
    """The clips of what was left out under one of `names`, streamed again; without names, of every group.

    A data set left out whole is another question than its groups in turn, so it is taken only by its name.
    """
    folds = {fold["left_out"]: fold for fold in table["folds"]}
    if missing := set(names) - set(folds):
        raise NoFoldsError(f"{run}: {', '.join(sorted(missing))} was not left out, but {', '.join(folds)}")
    wanted = names or [name for name in folds if "/" in name]
    if not wanted:
        raise NoFoldsError(f"{run}: no group was left out (DATASET/GROUP), so there is nothing to look at")
    judged: list[Judged] = []
    for name in wanted:
        one, chosen = leave_out.fold(clips, name), folds[name]["calibration"]
        graph = Graph(run / one.folder / f"{recipe.name}.int8.onnx")
        streams = scoring.score(one.measured, graph, recipe, cache)
        right = [bool(calibrate.right([scored], chosen, recipe)) for scored in streams]
        at_best: list[bool | None] = [None] * len(streams)
        if not all(clip.is_action for clip in one.measured):
            best = {**chosen, "labels": calibrate.most_found(streams, recipe)}
            at_best = [bool(calibrate.right([scored], best, recipe)) for scored in streams]
        judged += map(Judged, one.measured, right, at_best)
    return judged


def measure(judged: list[Judged], recipe: Recipe, cache: Path) -> Table:
    """For each condition, its values or thirds, and who is right there: clips of actions, and of none."""
    table: Table = {"clips": len(judged), "conditions": {}}
    for name, condition in CONDITIONS.items():
        table["conditions"] |= _rows(name, condition, judged, recipe, cache)
    best = [Judged(one.clip, one.right_at_best) for one in judged if one.right_at_best is not None]
    table["conditions"] |= _rows(AT_BEST, _view, best, recipe, cache)
    return table


def _rows(name: str, condition: Condition, judged: list[Judged], recipe: Recipe, cache: Path) -> Table:
    """The parts of one condition; nothing where all clips are alike."""
    values = [condition(one.clip, recipe, cache) for one in judged]
    known = [(one, value) for one, value in zip(judged, values, strict=True) if value is not None]
    if len({_told(value) for _, value in known}) < 2:
        return {}
    return {name: [{"part": part, **_counted(members)} for part, members in _parts(known)]}


def _counted(members: list[Judged]) -> Table:
    actions = [one.right for one in members if one.clip.is_action]
    rest = [one.right for one in members if not one.clip.is_action]
    return {"actions": share(sum(actions), len(actions)), "rest": share(sum(rest), len(rest))}


def _parts(known: list[tuple[Judged, float | str]]) -> list[tuple[str, list[Judged]]]:
    """Each value by itself where values are names, else thirds of the clips by value."""
    if isinstance(known[0][1], str):
        names = sorted({str(value) for _, value in known})
        return [(name, [one for one, value in known if value == name]) for name in names]
    ordered = sorted(known, key=lambda pair: float(pair[1]))
    cuts = [
        _next_change([_told(value) for _, value in ordered], len(ordered) * part // PARTS) for part in range(PARTS + 1)
    ]
    thirds = [ordered[low:high] for low, high in pairwise(cuts) if high > low]
    return [(f"{_told(part[0][1])} to {_told(part[-1][1])}", [one for one, _ in part]) for part in thirds]


def _next_change(values: list[str], cut: int) -> int:
    """The first place at or behind `cut` where a new value begins: equal ones stay together."""
    while 0 < cut < len(values) and values[cut] == values[cut - 1]:
        cut += 1
    return cut


def _told(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def _view(clip: Clip, recipe: Recipe, _: Path) -> str | None:
    if not any(source.dataset == clip.dataset and source.overhead for source in recipe.sources):
        return None
    return "ceiling" if catalogue.looks_down(clip, recipe) else "wall"


def _rest_shown(clip: Clip, recipe: Recipe, cache: Path) -> float | None:
    if not recipe.sequences or not clip.is_action:
        return None
    truth = action_span(clip, recipe.sequences[0].parts)
    return None if truth is None else float(clip.frames(cache, recipe.input.size)[1][-1]) - truth[1]


def _changes(clip: Clip, recipe: Recipe, cache: Path) -> Doubles:
    """``[F - 1, H, W]`` grey levels that each pixel changes by, from frame to frame at the recipe's rate."""
    frames, times = clip.frames(cache, recipe.input.size)
    grey = np.array(frames[sampling.ticks(times, recipe.rate_hz)]).mean(3)
    changes: Doubles = np.abs(np.diff(grey, axis=0))
    return changes


def _moving_share(clip: Clip, recipe: Recipe, cache: Path) -> float | None:
    moved = _changes(clip, recipe, cache)
    return float(np.quantile((moved > MOVED_LEVELS).mean((1, 2)), PEAK)) if len(moved) else None


def _unrest(clip: Clip, recipe: Recipe, cache: Path) -> float | None:
    """Where the camera is still, most pixels are, too."""
    moved = _changes(clip, recipe, cache)
    return float(np.median(moved)) if len(moved) else None


def _light(clip: Clip, recipe: Recipe, cache: Path) -> float:
    frames, _ = clip.frames(cache, recipe.input.size)
    return float(frames[:: max(1, len(frames) // 8)].mean())


def _rate(clip: Clip, recipe: Recipe, cache: Path) -> float | None:
    _, times = clip.frames(cache, recipe.input.size)
    return (len(times) - 1) / float(times[-1]) if len(times) > 1 else None


CONDITIONS: dict[str, Condition] = {
    "camera": _view,
    "seconds shown after the action": _rest_shown,
    "share of the picture that moves": _moving_share,
    "median change of a pixel (grey levels)": _unrest,
    "brightness (0 to 255)": _light,
    "frames a second of the file": _rate,
}
"""What can be said of a clip without a net; None where it cannot."""
