"""Counting: which annotated actions a stream's events find, which events are false, and how sure a share is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kinewatch_models.catalogue import Clip, Span
from kinewatch_models.decode import Interval

NEAR_S = 1.0
SHOWN_S = 0.5
"""An action whose last part is shown for less, before the clip ends, can hardly be told in time."""


def wilson(hits: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """95 % Wilson score interval of a share; (0, 1) where nothing was tried."""
    if trials == 0:
        return 0.0, 1.0
    share, square = hits / trials, z * z
    middle = share + square / 2 / trials
    half = z * math.sqrt(share * (1 - share) / trials + square / 4 / trials / trials)
    scale = 1 + square / trials
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def share(hits: int, trials: int) -> dict[str, float | int]:
    """A count as it appears in result files."""
    low, high = wilson(hits, trials)
    return {"hits": hits, "of": trials, "low": round(low, 3), "high": round(high, 3)}


def together(rows: Iterable[dict[str, Any]]) -> dict[str, float | int]:
    """Counts of result files, added."""
    counts = [(row["hits"], row["of"]) for row in rows]
    return share(sum(hits for hits, _ in counts), sum(of for _, of in counts))


def spread(values: list[float]) -> dict[str, float | int] | None:
    """Median and 90th percentile of `values`; None where there are none."""
    if not values:
        return None
    middle, high = np.quantile(values, [0.5, 0.9])
    return {"n": len(values), "median_s": round(float(middle), 3), "p90_s": round(float(high), 3)}


@dataclass
class Tally:
    """What the events of some clips amount to."""

    actions: int = 0
    found: int = 0
    missed: int = 0
    shown: int = 0
    shown_found: int = 0
    false: int = 0
    daily: int = 0
    daily_fired: int = 0
    seconds: float = 0.0
    start_errors: list[float] = field(default_factory=list)
    end_errors: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)

    def add(self, clip: Clip, truth: tuple[float, float] | None, events: list[Interval], seconds: float) -> None:
        """Count one clip. A clip of an action without annotation counts as found if anything fires in it."""
        self.seconds += seconds
        if not clip.is_action:
            self.daily += 1
            self.daily_fired += bool(events)
            self.false += len(events)
            return
        self.actions += 1
        if truth is None:
            self.found += bool(events)
            self.missed += not events
            return
        hits = [event for event in events if truth[0] - NEAR_S <= event.start <= truth[1] + NEAR_S]
        self.false += len(events) - min(len(hits), 1)
        is_shown = shown(truth, seconds)
        self.shown += is_shown
        self.missed += is_shown and not hits
        if hits:
            self.found += 1
            self.shown_found += is_shown
            self._errors(hits[0], truth)

    def _errors(self, event: Interval, truth: tuple[float, float]) -> None:
        self.start_errors.append(event.start - truth[0])
        self.delays.append(event.decided_at - truth[1])
        if event.end is not None:
            self.end_errors.append(event.end - truth[1])

    def summary(self) -> dict[str, object]:
        """The counts for a result file. Errors are absolute; a delay counts from the true end of the action."""
        return {
            "found": share(self.found, self.actions),
            "found_where_shown": share(self.shown_found, self.shown),
            "daily_fired": share(self.daily_fired, self.daily),
            "false_events": self.false,
            "seconds": round(self.seconds, 1),
            "start_error": spread([abs(value) for value in self.start_errors]),
            "end_error": spread([abs(value) for value in self.end_errors]),
            "delay": spread(self.delays),
        }


def shown(span: tuple[float, float], seconds: float) -> bool:
    """Whether the last part of an action at `span` is shown for long enough, in a clip of `seconds`."""
    return seconds - span[1] >= SHOWN_S


def action_span(clip: Clip, parts: list[str]) -> tuple[float, float] | None:
    """The annotated sequence `parts` of a clip: start of the first part, start of the last."""
    spans: tuple[Span, ...] = clip.spans or ()
    starts = [min((span.start for span in spans if span.label == part), default=None) for part in parts]
    if any(start is None for start in starts):
        return None
    return float(starts[0] or 0.0), float(starts[-1] or 0.0)
