"""Figures of a classifier over clips, each with a 95 % bootstrap interval over groups (Efron 1979).

Clips of one group (a camera, a sequence, a person) are not independent, so whole groups are drawn. With fewer than
five groups the interval says little, and the number of groups stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

DRAWS = 1000
BINS = 10

Table = dict[str, Any]
Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


def interval(figure: Callable[[Ints], float], groups: list[str]) -> Table:
    """`figure` of all rows, and its interval; it is given the indices of the rows to count."""
    names = sorted(set(groups))
    members = [np.flatnonzero([group == name for group in groups]) for name in names]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS if len(names) > 1 else 0):
        rows = np.concatenate([members[index] for index in rng.integers(len(names), size=len(names))])
        value = figure(rows)
        if np.isfinite(value):
            drawn.append(value)
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn else (0.0, 1.0)
    value = figure(np.arange(len(groups)))
    return {
        "value": round(float(value), 4) if np.isfinite(value) else None,
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "clips": len(groups),
        "groups": len(names),
    }


def accuracy(scores: Doubles, classes: Ints, groups: list[str]) -> Table:
    """Share of rows whose highest score is the true class."""
    hits = scores.argmax(1) == classes
    return interval(lambda rows: float(hits[rows].mean()) if len(rows) else np.nan, groups)


def auc(scores: Doubles, positive: npt.NDArray[np.bool_], groups: list[str]) -> Table:
    """Area under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    def of(rows: Ints) -> float:
        both = positive[rows].any() and not positive[rows].all()
        return float(roc_auc_score(positive[rows], scores[rows])) if both else np.nan

    return interval(of, groups)


def calibration_error(scores: Doubles, classes: Ints) -> float:
    """Expected calibration error over ten bins of confidence (Naeini et al. 2015)."""
    sure, right = scores.max(1), scores.argmax(1) == classes
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    parts = [(bins == index) for index in range(BINS)]
    return float(sum(abs(right[part].mean() - sure[part].mean()) * part.mean() for part in parts if part.any()))


def confusion(predicted: Ints, classes: Ints, count: int) -> list[list[int]]:
    """Rows: true classes; columns: predicted ones."""
    table = np.zeros((count, count), int)
    np.add.at(table, (classes, predicted), 1)
    return [[int(cell) for cell in row] for row in table]
