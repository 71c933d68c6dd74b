"""Whether the graphs of a package tell the same events in the agent, and how good its scores are frame by frame.

Every clip of test goes through `kinewatch replay`, fp32 in tract and int8 in ONNX Runtime: the two that users run.
Events are compared by label and boundaries. Where labels make up a sequence, the same scores are held against the
annotated frames as well: clips alone cannot say how well `falling` and `lying` are told apart.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kinewatch_models import agent, evaluate, manifest, metrics
from kinewatch_models.agent import Event
from kinewatch_models.catalogue import SIMULATED, Clip
from kinewatch_models.decode import Interval, probabilities
from kinewatch_models.error import ToolError
from kinewatch_models.measure import Tally, action_span, share
from kinewatch_models.recipe import Recipe
from kinewatch_models.scoring import Scored

SLACK_S = 1e-3
UNKNOWN = -1
"""Class of a frame that may be one of several."""

Table = dict[str, Any]


class NoClipsError(ToolError):
    """There is nothing to measure on."""


def readable(recipe: Recipe, folders: list[Path]) -> Recipe:
    """`recipe` without its simulated source, where no folder of simulated clips is given: test may need none."""
    if any(not (folder / "clips.csv").exists() for folder in folders):
        return recipe
    return replace(recipe, sources=[source for source in recipe.sources if source.dataset != SIMULATED])


def measure(program: Path, package: Path, clips: list[Clip], recipe: Recipe) -> Table:
    """The table of `package` on the test split of `clips`."""
    manifest_ = manifest.read(package / "model.toml")
    sets = {
        name: members for name, members in evaluate.held_out(clips, recipe).items() if name.endswith("test") and members
    }
    if not sets:
        raise NoClipsError("no clip is in the split test")
    table: Table = {
        "name": recipe.name,
        "version": manifest_["version"],
        "graphs": {key: evaluate.digest(package / row["model"]) for key, row in manifest_["graphs"].items()},
        "backends": agent.BACKENDS,
        "period_s": recipe.period_s,
        "sets": {},
    }
    annotated = [clip for one in sets.values() for clip in one if clip.spans is not None and recipe.sequences]
    scored = {key: agent.score(program, package, annotated, key, recipe) for key in agent.BACKENDS if annotated}
    judged = {(one.clip.root, one.clip.path): one.seconds for one in scored.get("int8", [])}
    for name, members in sets.items():
        first, second = (agent.events(program, package, members, key) for key in ("fp32", "int8"))
        table["sets"][name] = compared(first, second, recipe.period_s)
        if recipe.sequences:
            lasts_s = [judged.get((clip.root, clip.path), 0.0) for clip in members]  # counts for annotated clips alone
            table["sets"][name]["told"] = counted(members, second, lasts_s, recipe)
    table["all"] = _summed(list(table["sets"].values()))
    if scored:
        table["frames"] = {key: frames(rows, recipe) for key, rows in scored.items()}
        del table["frames"]["fp32"]["rows"]  # curves are drawn of int8 alone
    return table


def compared(first: list[list[Event]], second: list[list[Event]], period_s: float) -> Table:
    """Clips in which both told the same labels, and the same boundaries: to a judgement, and to the nanosecond."""
    labels = boundaries = exact = 0
    largest = 0.0
    for a, b in zip(first, second, strict=True):
        if [event.label for event in a] != [event.label for event in b]:
            continue
        shifts = [abs(x - y) for p, q in zip(a, b, strict=True) for x, y in ((p.start, q.start), (p.end, q.end))]
        most = max(shifts, default=0.0)
        labels += 1
        boundaries += most <= period_s + SLACK_S
        exact += most == 0.0
        largest = max(largest, most)
    count = len(first)
    return {
        "clips": count,
        "events_fp32": sum(map(len, first)),
        "events_int8": sum(map(len, second)),
        "same_labels": share(labels, count),
        "same_within_a_judgement": share(boundaries, count),
        "same_exactly": share(exact, count),
        "largest_shift_s": round(largest, 3),
    }


def counted(clips: list[Clip], told: list[list[Event]], lasts_s: list[float], recipe: Recipe) -> Table:
    """Actions found and daily clips that fire, by the events of the sequence that the agent `told` of each clip.

    `lasts_s`: until the last judgement of each clip.
    """
    wanted, tally = recipe.sequences[0], Tally()
    for clip, events, seconds in zip(clips, told, lasts_s, strict=True):
        fired = [Interval(event.start, event.end, event.end) for event in events if event.label == wanted.name]
        tally.add(clip, action_span(clip, wanted.parts), fired, seconds)
    whole = tally.summary()
    return {key: whole[key] for key in ("found", "found_where_shown", "daily_fired", "false_events")}


def _summed(rows: list[Table]) -> Table:
    keys = ("same_labels", "same_within_a_judgement", "same_exactly")
    count = sum(row["clips"] for row in rows)
    return {
        "clips": count,
        **{key: sum(row[key] for row in rows) for key in ("events_fp32", "events_int8")},
        **{key: share(sum(row[key]["hits"] for row in rows), count) for key in keys},
        "largest_shift_s": max(row["largest_shift_s"] for row in rows),
    }


def frames(streams: list[Scored], recipe: Recipe) -> Table:
    """Figures of every frame whose class is known: recall, confusion, calibration error, and what curves are made of.

    Frames of one clip are alike, so that intervals over frames would be too narrow: there are none.
    """
    names = recipe.labels
    classes = np.concatenate([true_classes(one, recipe) for one in streams])
    scores = probabilities(np.concatenate([one.logits for one in streams]))[classes != UNKNOWN]
    known = classes[classes != UNKNOWN]
    predicted = scores.argmax(1)
    return {
        "clips": len(streams),
        "frames": len(known),
        "recall": {
            name: [int((predicted[known == index] == index).sum()), int((known == index).sum())]
            for index, name in enumerate(names)
        },
        "confusion": metrics.confusion(predicted, known, len(names)),
        "calibration_error": round(metrics.calibration_error(scores, known), 4),
        "rows": [
            {"label": names[index], "p": [round(float(value), 3) for value in row]}
            for index, row in zip(known, scores, strict=True)
        ],
    }


def true_classes(one: Scored, recipe: Recipe) -> metrics.Ints:
    """The class of every score of an annotated clip; background where nothing is annotated."""
    classes = np.full(len(one.times), recipe.labels.index(recipe.background), np.int64)
    for span in one.clip.spans or ():
        index = recipe.labels.index(span.label) if span.label in recipe.labels else UNKNOWN
        classes[(one.times >= span.start) & (one.times < span.end)] = index
    return classes
