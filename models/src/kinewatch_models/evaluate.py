"""Measuring a trained model: every clip set that training did not see, both precisions, and the shortcut checks.

Writes figures, never prose. A set is one data set and split; validation chose the thresholds and says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from kinewatch_models import quantise, scoring, shortcuts
from kinewatch_models.catalogue import SIMULATED, Clip
from kinewatch_models.measure import NEAR_S, Tally, action_span, share, spread
from kinewatch_models.recipe import Recipe
from kinewatch_models.scoring import Scored, Variant
from kinewatch_models.stream import Graph

Table = dict[str, Any]

EXACT_S = 0.25


def evaluate(clips: list[Clip], recipe: Recipe, cache: Path, graphs: dict[str, Path], calibration: Table) -> Table:
    """The result table of a model: `graphs` by precision, `calibration` as `calibrate` wrote it."""
    sets = held_out(clips, recipe)
    train = [clip for clip in clips if clip.split == "train"]
    result = begun(recipe, graphs, calibration, train, sets)
    for name, members in sets.items():
        result["sets"][name]["without a net"] = _without(train, members, recipe, cache)
    normal: dict[str, dict[str, list[Scored]]] = {}
    for precision, path in graphs.items():
        graph = Graph(path)
        for name, members in sets.items():
            rows = scoring.score(members, graph, recipe, cache)
            normal.setdefault(name, {})[precision] = rows
            result["sets"][name][precision] = _figures(
                rows, _played(members, graph, recipe, cache), recipe, calibration
            )
        result.setdefault("ms_per_frame", {})[precision] = speed(graph, sets, recipe, cache)
    first, second = graphs["fp32"], graphs["int8"]
    inputs = [scoring.frames(clip, recipe, cache)[0] for members in sets.values() for clip in members]
    result["int8_against_fp32"] = {
        **quantise.agreement(first, second, inputs),
        "clips_with_other_events": _changed(normal, recipe, calibration),
    }
    return result


def begun(
    recipe: Recipe, graphs: dict[str, Path], calibration: Table, train: list[Clip], sets: dict[str, list[Clip]]
) -> Table:
    """What every result table begins with."""
    return {
        "name": recipe.name,
        "version": recipe.version,
        "seed": recipe.train.seed,
        "graphs": {precision: digest(path) for precision, path in graphs.items()},
        "calibration": calibration,
        "training": counts(train),
        "sets": {name: {"clips": counts(members)} for name, members in sets.items()},
    }


def measured(clips: list[Clip], graph: Graph, recipe: Recipe, cache: Path, calibration: Table) -> Table:
    """Figures of `clips` as one set, shortcut checks among them."""
    rows = scoring.score(clips, graph, recipe, cache)
    return _figures(rows, _played(clips, graph, recipe, cache), recipe, calibration)


def held_out(clips: list[Clip], recipe: Recipe) -> dict[str, list[Clip]]:
    """Clips by ``cite split``, validation first; what was trained on is left out."""
    sets: dict[str, list[Clip]] = {}
    for split in ("val", "test"):
        for source in recipe.sources:
            members = [clip for clip in clips if clip.dataset == source.dataset and clip.split == split]
            if members:
                sets[f"{source.cite} {split}"] = members
    return sets


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def made_with() -> Table:
    """Digest of this package's sources, and versions of what trains and quantises."""
    root = Path(__file__).parent
    files = sorted(path for path in root.rglob("*") if path.suffix in (".py", ".toml"))
    whole = hashlib.sha256()
    for path in files:
        whole.update(f"{path.relative_to(root).as_posix()} {digest(path)}\n".encode())
    versions = {}
    for name in ("torch", "numpy", "onnxruntime"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {"code": whole.hexdigest()[:16], "versions": versions}


def counts(clips: list[Clip]) -> dict[str, int]:
    """How many clips of each kind."""
    return {
        "actions": sum(clip.is_action for clip in clips),
        "actions_annotated": sum(clip.is_action and clip.spans is not None for clip in clips),
        "daily": sum(not clip.is_action for clip in clips),
        "simulated": sum(clip.dataset == SIMULATED for clip in clips),
    }


def _played(clips: list[Clip], graph: Graph, recipe: Recipe, cache: Path) -> dict[Variant, list[Scored]]:
    """The actions of `clips`, changed in every way."""
    actions = [clip for clip in clips if clip.is_action]
    return {
        variant: scoring.score(actions, graph, recipe, cache, variant)
        for variant in Variant
        if variant is not Variant.NORMAL
    }


def _figures(rows: list[Scored], played: dict[Variant, list[Scored]], recipe: Recipe, calibration: Table) -> Table:
    decoders, temperature = calibration["labels"], calibration["temperature"]
    parts = recipe.sequences[0].parts
    whole, alone = Tally(), Tally()
    for one in rows:
        truth, seconds = action_span(one.clip, parts), one.seconds
        whole.add(one.clip, truth, scoring.events(one, recipe, decoders, temperature), seconds)
        first = scoring.label_intervals(one, recipe, parts[0], decoders[parts[0]], temperature)
        alone.add(one.clip, truth, first, seconds)
    table: Table = {recipe.sequences[0].name: whole.summary(), f"{parts[0]} alone": alone.summary()}
    table["onset"] = _onset(rows, recipe, calibration)
    for variant, scored in played.items():
        fired = sum(bool(scoring.events(one, recipe, decoders, temperature)) for one in scored)
        table.setdefault("changed", {})[variant.value] = share(fired, len(scored))
    return table


def _without(train: list[Clip], members: list[Clip], recipe: Recipe, cache: Path) -> Table:
    """Clips that are said to show the action by what needs no net: of those that do, and of daily life."""
    known = [int(clip.is_action) for clip in train]
    found = shortcuts.scores(train, known, members, 2, recipe, cache)
    actions = np.array([clip.is_action for clip in members])
    table: Table = {}
    for name, scores in found.items():
        called = scores.argmax(1) == 1
        table[name] = {
            "actions": share(int(called[actions].sum()), int(actions.sum())),
            "daily": share(int(called[~actions].sum()), int((~actions).sum())),
        }
    return table


def _onset(rows: list[Scored], recipe: Recipe, calibration: Table) -> Table:
    """How far the beginning of the sequence's last part is from the truth, where it is found near."""
    label = recipe.sequences[0].parts[-1]
    errors, actions = [], 0
    for one in rows:
        truth = next((span.start for span in one.clip.spans or () if span.label == label), None)
        if truth is None or not one.clip.is_action:
            continue
        actions += 1
        found = scoring.label_intervals(one, recipe, label, calibration["labels"][label], calibration["temperature"])
        close = [abs(interval.start - truth) for interval in found if abs(interval.start - truth) < NEAR_S]
        errors += [min(close)] if close else []
    exact = sum(error <= EXACT_S for error in errors)
    return {
        "label": label,
        "found": share(len(errors), actions),
        "error": spread(errors),
        "near": share(exact, actions),
    }


def _changed(normal: dict[str, dict[str, list[Scored]]], recipe: Recipe, calibration: Table) -> dict[str, float | int]:
    decoders, temperature = calibration["labels"], calibration["temperature"]
    pairs = [pair for rows in normal.values() for pair in zip(rows["fp32"], rows["int8"], strict=True)]
    other = sum(
        len(scoring.events(a, recipe, decoders, temperature)) != len(scoring.events(b, recipe, decoders, temperature))
        for a, b in pairs
    )
    return share(other, len(pairs))


def speed(graph: Graph, sets: dict[str, list[Clip]], recipe: Recipe, cache: Path) -> float:
    """CPU milliseconds per frame of one thread, over one clip."""
    pixels, _ = scoring.frames(next(iter(sets.values()))[0], recipe, cache)
    graph.logits(pixels)
    began = time.process_time()
    for _ in range(3):
        graph.logits(pixels)
    return round((time.process_time() - began) * 1000 / (3 * len(pixels)), 2)
