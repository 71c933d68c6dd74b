"""Measuring a model whose labels are actions of their own: windows of one length, streams, and what it relies on.

Writes figures, never prose. ``7-way`` is every label, ``6-way`` the clips of actions among the actions alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kinewatch_models import changes, metrics, quantise, scoring, shortcuts, windows_scored
from kinewatch_models.catalogue import Clip
from kinewatch_models.decode import Doubles, probabilities
from kinewatch_models.evaluate import begun, held_out, speed
from kinewatch_models.measure import share
from kinewatch_models.recipe import Recipe
from kinewatch_models.scoring import Scored
from kinewatch_models.stream import Graph

Table = dict[str, Any]


def evaluate(clips: list[Clip], recipe: Recipe, cache: Path, graphs: dict[str, Path], calibration: Table) -> Table:
    """The result table: `graphs` by precision, `calibration` as `calibrate` wrote it."""
    sets = held_out(clips, recipe)
    train = [clip for clip in clips if clip.split == "train" and clip.trainable]
    result = begun(recipe, graphs, calibration, train, sets)
    sessions = {precision: Graph(path) for precision, path in graphs.items()}
    for name, members in sets.items():
        for precision, graph in sessions.items():
            found = figures(members, graph, recipe, cache, calibration)
            shortcut = changed(members, graph, recipe, cache, calibration)
            result["sets"][name][precision] = {**found, "shortcuts": shortcut}
        result["sets"][name]["without a net"] = baselines(train, members, recipe, cache)
    result["ms_per_frame"] = {precision: speed(graph, sets, recipe, cache) for precision, graph in sessions.items()}
    inputs = [scoring.frames(clip, recipe, cache)[0] for members in sets.values() for clip in members]
    result["int8_against_fp32"] = {
        **quantise.agreement(graphs["fp32"], graphs["int8"], inputs),
        "clips_with_another_class": _changed(result, sets),
    }
    return result


def figures(members: list[Clip], graph: Graph, recipe: Recipe, cache: Path, calibration: Table) -> Table:
    """Figures of one set of clips with one graph."""
    temperature = calibration["temperature"]
    scores = probabilities(windows_scored.score(members, graph, recipe, cache), temperature)
    classes, groups = np.array(true_classes(members, recipe)), [clip.group for clip in members]
    table = {**classified(scores, classes, groups, recipe), "rows": _rows(members, scores, recipe)}
    table["calibration_error"] = round(metrics.calibration_error(scores, classes), 4)
    streams = scoring.score(members, graph, recipe, cache)
    table["streamed"] = _streamed(streams, recipe, calibration)
    return table


def changed(members: list[Clip], graph: Graph, recipe: Recipe, cache: Path, calibration: Table) -> Table:
    """Short figures of a set whose frames are changed, by change."""
    classes, groups = np.array(true_classes(members, recipe)), [clip.group for clip in members]
    table = {}
    for change in changes.CHANGES:
        scores = windows_scored.score(members, graph, recipe, cache, change)
        table[change] = _short(classified(probabilities(scores, calibration["temperature"]), classes, groups, recipe))
    return table


def true_classes(members: list[Clip], recipe: Recipe) -> list[int]:
    """Index of each clip's class."""
    return [recipe.labels.index(clip.shows(recipe.background)) for clip in members]


def classified(scores: Doubles, classes: metrics.Ints, groups: list[str], recipe: Recipe) -> Table:
    """Figures of ``[N, C]`` probabilities whose true classes and groups are given."""
    names = recipe.labels
    table: Table = {"top1": metrics.accuracy(scores, classes, groups)}
    predicted = scores.argmax(1)
    table["recall"] = {
        name: share(int((predicted[classes == index] == index).sum()), int((classes == index).sum()))
        for index, name in enumerate(names)
    }
    table["confusion"] = metrics.confusion(predicted, classes, len(names))
    if recipe.background in names:
        nothing = names.index(recipe.background)
        actions = [index for index in range(len(names)) if index != nothing]
        rows = np.flatnonzero(classes != nothing)
        quiet = classes == nothing
        table["background_called_action"] = share(int((predicted[quiet] != nothing).sum()), int(quiet.sum()))
        if len(actions) > 1:
            among = np.array([actions.index(index) for index in classes[rows]])
            table["top1_actions"] = metrics.accuracy(scores[rows][:, actions], among, [groups[row] for row in rows])
        else:
            table["auc"] = metrics.auc(scores[:, actions[0]], classes == actions[0], groups)
    return table


def _short(table: Table) -> Table:
    return {key: table[key] for key in ("top1", "top1_actions", "auc") if key in table}


def _rows(members: list[Clip], scores: Doubles, recipe: Recipe) -> list[Table]:
    """What curves and intervals are made of: label, number of the group and probabilities of every clip, nameless."""
    groups = sorted({clip.group for clip in members})
    return [
        {
            "label": clip.shows(recipe.background),
            "group": groups.index(clip.group),
            "p": [round(float(value), 4) for value in row],
        }
        for clip, row in zip(members, scores, strict=True)
    ]


def _streamed(streams: list[Scored], recipe: Recipe, calibration: Table) -> Table:
    """Clips streamed from their first frame: labels found, and intervals of labels that the clip does not show."""
    found = shown = false = 0
    for one in streams:
        for label, row in calibration["labels"].items():
            intervals = scoring.label_intervals(one, recipe, label, row, calibration["temperature"])
            if label in one.clip.shown:
                shown += 1
                found += bool(intervals)
            else:
                false += len(intervals)
    seconds = sum(one.seconds for one in streams)
    return {"found": share(found, shown), "false_events": false, "seconds": round(seconds, 1)}


def baselines(train: list[Clip], members: list[Clip], recipe: Recipe, cache: Path) -> Table:
    """Figures of what needs no net."""
    classes, groups = np.array(true_classes(members, recipe)), [clip.group for clip in members]
    found = shortcuts.scores(train, true_classes(train, recipe), members, len(recipe.labels), recipe, cache)
    return {name: _short(classified(scores, classes, groups, recipe)) for name, scores in found.items()}


def _changed(result: Table, sets: dict[str, list[Clip]]) -> Table:
    pairs = [
        (np.argmax(first["p"]), np.argmax(second["p"]))
        for name in sets
        for first, second in zip(
            result["sets"][name]["fp32"]["rows"], result["sets"][name]["int8"]["rows"], strict=True
        )
    ]
    return share(sum(int(a != b) for a, b in pairs), len(pairs))
