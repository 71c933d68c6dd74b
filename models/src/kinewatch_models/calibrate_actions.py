"""Choosing a temperature and thresholds where labels are actions of their own, on the validation clips alone.

Temperature: the one under which the windows of val are likeliest (Guo et al. 2017), but sharper than the net (below 1)
only where val can tell, see `fit_temperature`. Thresholds: every val clip is
streamed; per label, few false intervals (in clips of other labels) and clips missed, together; then few false ones;
among ties the middle.
A clip may be given once per graph: a package has one setting for all its graphs.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from kinewatch_models import scoring
from kinewatch_models.calibrate import H_ON, CalibrationError, decoder_settings, most_central
from kinewatch_models.decode import probabilities
from kinewatch_models.recipe import DecoderSpec, Recipe
from kinewatch_models.scoring import Scored
from kinewatch_models.stream import Floats

ON = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
TEMPERATURES = np.geomspace(0.25, 4.0, 81)
LEAST_CLIPS, LEAST_WRONG = 30, 2
"""Of val, for a temperature below 1."""
UNCERTAINTY_MS = 500.0

Table = dict[str, Any]


def choose(streams: list[Scored], windows: Floats, classes: list[int], recipe: Recipe) -> Table:
    """The `calibration` table: `streams` of the val clips, logits ``[N, C]`` of their `windows` with true `classes`."""
    shown = {name for one in streams for name in one.clip.shown}
    missing = [name for name in recipe.actions if name not in shown]
    if missing:
        raise CalibrationError(f"no val clip shows {missing[0]}: its threshold cannot be chosen; move a group to val")
    temperature = fit_temperature(windows, np.array(classes), len({one.clip.path for one in streams}))
    labels = {spec.label: _threshold(streams, spec, recipe, temperature) for spec in recipe.decoders}
    return counted({"temperature": temperature, "labels": labels}, streams, recipe)


def counted(table: Table, streams: list[Scored], recipe: Recipe) -> Table:
    """`table` with what its settings make of the `streams` that they were chosen on."""
    rows = table["labels"].items()
    counts = [_count(streams, label, row, recipe, table["temperature"]) for label, row in rows]
    chosen_on = {
        "clips": len({one.clip.path for one in streams}),
        "false_events": sum(false for false, _ in counts),
        "missed": sum(missed for _, missed in counts),
    }
    return {**table, "chosen_on": chosen_on}


def fit_temperature(logits: Floats, classes: np.ndarray, clips: int) -> float:
    """The temperature of the least negative log-likelihood, from a grid of quarter to four; `clips` were scored, each
    by as many graphs as there are rows for it.

    Below 1 only where at least `LEAST_CLIPS` clips were scored and `LEAST_WRONG` of them wrongly. Where every clip is
    right, the likelihood grows without end as the temperature falls: what is found is the end of the grid, and any
    picture is then named with a confidence of one. One error may be a wrong label, and few clips are right by luck.
    Above 1, where a net is called less sure than it claims, no such harm is done: a few clips may ask for it. The val
    sets of `interactions` and `fights` (52 and 36 clips, 2 and 5 errors) ask for less than 1, and on their test sets
    that fits better than 1 does: the report has the figures.
    """
    rows = np.arange(len(classes))
    losses = [-np.log(probabilities(logits, value)[rows, classes] + 1e-12).mean() for value in TEMPERATURES]
    best = round(float(TEMPERATURES[int(np.argmin(losses))]), 3)
    wrong = (logits.argmax(1) != classes).sum() * clips / max(1, len(classes))
    return best if clips >= LEAST_CLIPS and wrong >= LEAST_WRONG else max(1.0, best)


def _threshold(streams: list[Scored], spec: DecoderSpec, recipe: Recipe, temperature: float) -> dict[str, float]:
    grid = list(itertools.product(ON, H_ON))
    ranked = [_count(streams, spec.label, decoder_settings(spec, *values), recipe, temperature) for values in grid]
    best = min(ranked, key=lambda rank: (sum(rank), rank))
    tied = np.array([values for values, rank in zip(grid, ranked, strict=True) if rank == best])
    row = decoder_settings(spec, *tied[most_central(tied, (np.array(ON), np.array(H_ON)))].tolist())
    row["uncertainty_start_ms"] = row["uncertainty_end_ms"] = UNCERTAINTY_MS
    return row


def _count(
    streams: list[Scored], label: str, row: dict[str, float], recipe: Recipe, temperature: float
) -> tuple[int, int]:
    """(false intervals in clips of other labels, clips of `label` without an interval)."""
    false = missed = 0
    for one in streams:
        found = scoring.label_intervals(one, recipe, label, row, temperature)
        if label in one.clip.shown:
            missed += not found
        else:
            false += len(found)
    return false, missed
