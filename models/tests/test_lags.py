"""Lags of single actions: what the decoder is late by is what is subtracted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tiny
from kinewatch_models import lags, scoring
from kinewatch_models.catalogue import Clip, Span
from kinewatch_models.lags import Timed
from kinewatch_models.recipe import Recipe
from kinewatch_models.scoring import Scored

LABELS = ["background", "wave", "nod"]
ROW = {"on": 0.5, "off": 0.4, "h_on": 0.1, "h_off": 0.4, "min_duration_s": 0.2, "merge_gap_s": 0.4}


def recipe() -> Recipe:
    decoders = [replace(tiny.recipe().decoders[0], label=label) for label in LABELS[1:]]
    return replace(tiny.recipe(), labels=LABELS, decoders=decoders, sequences=[])


def late(label: str, by: float) -> Timed:
    """An action from second 2 to 4 that the scores show `by` seconds too late."""
    times = np.arange(40) / 5
    logits = np.zeros((40, 3), np.float32)
    logits[:, LABELS.index(label)] = np.where((times >= 2 + by - 1e-6) & (times < 4 + by - 1e-6), 5.0, -5.0)
    clip = Clip("a.mp4", "drawn", "val", "a", True, None, label=label)
    return Timed(Scored(clip, times, logits), Span(label, 2.0, 4.0))


def chosen() -> dict[str, object]:
    row = {**ROW, "lag_start_s": 0.0, "lag_end_s": 0.0, "uncertainty_start_ms": 500.0, "uncertainty_end_ms": 500.0}
    return {"temperature": 1.0, "labels": {label: dict(row) for label in LABELS[1:]}}


def test_a_lag_is_what_makes_the_start_right() -> None:
    timed = [late("wave", 0.6)] * 12
    row = lags.correct(chosen(), timed, recipe())["labels"]["wave"]
    assert row["lag_start_s"] == pytest.approx(0.6)
    assert row["uncertainty_start_ms"] == lags.LEAST_UNCERTAINTY_MS
    (found,) = scoring.label_intervals(timed[0].scored, recipe(), "wave", row, 1.0)
    assert found.start == pytest.approx(2.0)
    assert found.end == pytest.approx(4.0)


def test_a_rare_label_shares_the_lag_of_all() -> None:
    result = lags.correct(chosen(), [*[late("wave", 0.4)] * 12, late("nod", 0.8)], recipe())
    assert result["labels"]["nod"]["lag_start_s"] == result["labels"]["wave"]["lag_start_s"] == pytest.approx(0.4)
    assert result["lags_measured_on"] == {"actions": 13, "found": 13}


def test_few_actions_give_no_lag() -> None:
    row = lags.correct(chosen(), [late("wave", 0.4)] * 3, recipe())["labels"]["wave"]
    assert (row["lag_start_s"], row["uncertainty_start_ms"]) == (0.0, 500.0)
