"""Choosing thresholds and lags on the validation clips, and on nothing else.

A grid over `on` and `h_on` of every part of the sequence. Wanted: first, few false events (published labels in daily
clips too); then, few actions missed or found backwards. An action whose last part is hardly shown before its clip ends
(`measure.SHOWN_S`) is not missed: it would choose settings that believe anything at once. With few clips many settings
tie, so the middle of the tied ones is taken: it is the setting that a small change of the scores upsets least. A clip
may be given once per graph: a package has one setting for all its graphs, so their counts are added. Every setting is
tried with its own lags, because lags move what a sequence is made of.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from kinewatch_models import scoring
from kinewatch_models.catalogue import Clip, Span
from kinewatch_models.decode import Interval, sequence
from kinewatch_models.error import ToolError
from kinewatch_models.measure import SHOWN_S, Tally, action_span, shown
from kinewatch_models.recipe import DecoderSpec, Recipe, SequenceSpec
from kinewatch_models.scoring import Scored, Variant
from kinewatch_models.stream import Graph

ON = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
H_ON = (0.05, 0.1, 0.2, 0.4, 0.8)
LEAST_UNCERTAINTY_MS = 100.0
MOST_FIRED = 0.05
"""Share of the daily clips that may fire where only the most is asked that can be found."""

Choice = tuple[float, float]
"""`on` and `h_on`."""
Settings = dict[str, float]
Table = dict[str, Any]


class CalibrationError(ToolError):
    """There is nothing to calibrate on."""


def on_graphs(val: list[Clip], graphs: list[Graph], recipe: Recipe, cache: Path) -> Table:
    """`choose` from the scores of all `graphs` on the validation clips and on their actions played backwards."""
    normal = scoring.score_all(val, graphs, recipe, cache)
    return choose(normal, backwards(val, graphs, recipe, cache), recipe)


def backwards(val: list[Clip], graphs: list[Graph], recipe: Recipe, cache: Path) -> list[Scored]:
    """The scores of all `graphs` on the actions of `val` played backwards."""
    actions = [clip for clip in val if clip.is_action]
    return scoring.score_all(actions, graphs, recipe, cache, Variant.REVERSED)


def choose(normal: list[Scored], reversed_: list[Scored], recipe: Recipe) -> Table:
    """The `calibration` table of a package: temperature, and per label `on`, `off`, `h_on`, lags, uncertainties."""
    actions = [one for one in normal if one.clip.is_action]
    if not actions:
        raise CalibrationError("no action among the validation clips: thresholds cannot be chosen")
    parts = recipe.sequences[0].parts
    hardly_shown = [one for one in actions if (span := action_span(one.clip, parts)) and not shown(span, one.seconds)]
    if len(hardly_shown) == len(actions):
        raise CalibrationError(
            f"every action among the validation clips ends within {SHOWN_S:g} s of its last part: film longer, or "
            "thresholds cannot be chosen"
        )
    lagged = {
        label: {values: _with_lags(normal, recipe, label, row) for values, row in rows.items()}
        for label, rows in _grid(recipe).items()
    }
    found = _found([*normal, *reversed_], recipe, lagged)
    candidates = _candidates(parts)
    ranked = [
        _rank(normal, reversed_, recipe, {part: found[part][one] for part, one in zip(parts, values, strict=True)})
        for values in candidates
    ]
    best = min(ranked)
    tied = [index for index, rank in enumerate(ranked) if rank == best]
    rows = np.array([np.ravel(candidates[index]) for index in tied])
    central = candidates[tied[most_central(rows, (np.array(ON), np.array(H_ON)))]]
    labels = {part: lagged[part][one] for part, one in zip(parts, central, strict=True)}
    return {
        "temperature": 1.0,
        "labels": labels,
        "chosen_on": {
            "clips": len({one.clip.path for one in normal}),
            "hardly_shown": len({one.clip.path for one in hardly_shown}),
            "false_events": best[0],
            "missed_or_found_backwards": best[1],
            "tied_settings": len(tied),
        },
    }


def most_found(streams: list[Scored], recipe: Recipe) -> dict[str, Settings]:
    """Settings that find most actions of `streams` while at most `MOST_FIRED` of their daily clips fire.

    Where none keeps that, those that come nearest. Chosen on the very clips, without lags: no figure of a model, but
    about what it could be with the best thresholds, which tells whether the net is at fault or what chose them. Without
    daily clips nothing holds the settings down.
    """
    wanted, rows = recipe.sequences[0], _grid(recipe)
    found = _found(streams, recipe, rows)

    def reached(values: tuple[Choice, ...]) -> tuple[float, int, int]:
        tally = Tally()
        events = _events({part: found[part][one] for part, one in zip(wanted.parts, values, strict=True)}, wanted)
        for one, told in zip(streams, events, strict=True):
            tally.add(one.clip, action_span(one.clip, wanted.parts), told, one.seconds)
        return min(0.0, MOST_FIRED * tally.daily - tally.daily_fired), tally.found, -tally.daily_fired

    best = max(_candidates(wanted.parts), key=reached)
    return {part: rows[part][one] for part, one in zip(wanted.parts, best, strict=True)}


def _grid(recipe: Recipe) -> dict[str, dict[Choice, Settings]]:
    """The settings tried for every part of the sequence, without lags."""
    specs = {spec.label: spec for spec in recipe.decoders}
    return {
        label: {values: decoder_settings(specs[label], *values) for values in itertools.product(ON, H_ON)}
        for label in recipe.sequences[0].parts
    }


def _candidates(parts: list[str]) -> list[tuple[Choice, ...]]:
    return list(itertools.product(itertools.product(ON, H_ON), repeat=len(parts)))


def _found(
    streams: list[Scored], recipe: Recipe, rows: dict[str, dict[Choice, Settings]]
) -> dict[str, dict[Choice, list[list[Interval]]]]:
    """The intervals of each part in each stream, under each setting."""
    return {
        label: {values: [_intervals(one, recipe, label, row) for one in streams] for values, row in some.items()}
        for label, some in rows.items()
    }


def _events(found: dict[str, list[list[Interval]]], wanted: SequenceSpec) -> list[list[Interval]]:
    """The sequences in each stream; `found` by part and stream."""
    return [
        sequence(list(parts), wanted.within_s, wanted.max_duration_s) for parts in zip(*found.values(), strict=True)
    ]


def decoder_settings(spec: DecoderSpec, on: float, level: float) -> Settings:
    return {
        "on": on,
        "off": min(spec.off, on),
        "h_on": level,
        "h_off": spec.h_off,
        "min_duration_s": spec.min_duration_s,
        "merge_gap_s": spec.merge_gap_s,
        "lag_start_s": 0.0,
        "lag_end_s": 0.0,
    }


def right(streams: list[Scored], table: Table, recipe: Recipe) -> int:
    """Clips whose action is found, or in which nothing fires where there is none."""
    count = 0
    for one in streams:
        tally = Tally()
        events = scoring.events(one, recipe, table["labels"], table["temperature"])
        tally.add(one.clip, action_span(one.clip, recipe.sequences[0].parts), events, one.seconds)
        count += tally.found if one.clip.is_action else not tally.false
    return count


def _intervals(one: Scored, recipe: Recipe, label: str, settings: Settings) -> list[Interval]:
    return scoring.label_intervals(one, recipe, label, settings, 1.0)


def _rank(
    normal: list[Scored], reversed_: list[Scored], recipe: Recipe, found: dict[str, list[list[Interval]]]
) -> tuple[int, int]:
    """(false events and published labels, actions missed or found backwards); `found` by part and clip."""
    wanted, tally = recipe.sequences[0], Tally()
    events = _events(found, wanted)
    false = 0
    for index, one in enumerate(normal):
        tally.add(one.clip, action_span(one.clip, wanted.parts), events[index], one.seconds)
        if not one.clip.is_action:
            false += sum(len(found[label][index]) for label in _unwanted(one.clip, recipe) if label in found)
    backwards = sum(bool(made) for made in events[len(normal) :])
    return tally.false + false, tally.missed + backwards


def _unwanted(clip: Clip, recipe: Recipe) -> list[str]:
    """Published labels that a daily clip does not show."""
    shown = {name for span in clip.spans or () for name in span.label.split("|")}
    return [spec.label for spec in recipe.decoders if spec.publish and spec.label not in shown]


def most_central(tied: np.ndarray, steps: tuple[np.ndarray, np.ndarray]) -> int:
    """Row nearest to the median of all rows, measured in grid steps."""
    places = np.stack([np.searchsorted(steps[column % 2], tied[:, column]) for column in range(tied.shape[1])], 1)
    return int(np.abs(places - np.median(places, 0)).sum(1).argmin())


def _with_lags(normal: list[Scored], recipe: Recipe, label: str, settings: Settings) -> Settings:
    """`settings` with the median start error as its lag and the 90th percentile of what remains as uncertainty."""
    starts, ends = [], []
    for one in normal:
        span = next((span for span in one.clip.spans or () if span.label == label), None)
        if span is None or not one.clip.is_action:
            continue
        nearest = _nearest(_intervals(one, recipe, label, settings), span)
        if nearest is not None:
            starts.append(nearest[0] - span.start)
            if nearest[1] is not None and span.end < one.seconds - 0.5:
                ends.append(nearest[1] - span.end)
    result = dict(settings)
    for side, errors in (("start", starts), ("end", ends)):
        lag = float(np.median(errors)) if errors else 0.0
        rest = float(np.quantile(np.abs(np.array(errors) - lag), 0.9)) * 1000 if errors else 500.0
        result[f"lag_{side}_s"] = round(lag, 3)
        result[f"uncertainty_{side}_ms"] = round(max(rest, LEAST_UNCERTAINTY_MS), 0)
    return result


def _nearest(found: list[Any], span: Span) -> tuple[float, float | None] | None:
    near = [one for one in found if abs(one.start - span.start) < 1.0]
    best = min(near, key=lambda one: abs(one.start - span.start), default=None)
    return None if best is None else (best.start, best.end)
