"""From per-frame scores to intervals: two-sided CUSUM per label, then sequences of labels.

The same mathematics as the agent's decoder, kept small so that thresholds can be chosen without the agent:
``U = max(0, U + clip(logit(p) - logit(on), -4, 4) * dt)``; an interval opens when ``U >= h_on`` and began with the
first score of that rise. Its end mirrors that with `off` and `h_off`. Left out: gaps, and `max_duration_s` of a label,
which no training clip reaches. Figures that are published for the product come from the agent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

CLIP = 4.0
EPSILON = 1e-7
LONGEST_STEP = 2.0

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """Seconds of the stream. `end` is None where the stream stopped first.

    `resumed`: where it went on after a pause shorter than the merge gap, and when that was decided.
    """

    start: float
    end: float | None
    decided_at: float
    resumed: tuple[tuple[float, float], ...] = ()


def probabilities(logits: npt.NDArray[np.float32], temperature: float = 1.0) -> Doubles:
    """Softmax over the last axis."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(-1, keepdims=True))
    shares: Doubles = powers / powers.sum(-1, keepdims=True)
    return shares


def intervals(times: Doubles, scores: Doubles, settings: dict[str, Any], period: float) -> list[Interval]:
    """Intervals of one label. `scores` are probabilities at `times`; `settings` a decoder table of the manifest."""
    if not len(times):
        return []
    evidence = np.log(scores + EPSILON) - np.log(1 - scores + EPSILON)
    steps = np.minimum(np.diff(times, prepend=times[0] - period), LONGEST_STEP * period)
    track = _Track(settings)
    for now, score, step in zip(times.tolist(), evidence.tolist(), steps.tolist(), strict=True):
        track.step(now, score, step)
    return track.all()


class _Cusum:
    """The detector: `change` is where the present rise (or fall, while active) of the evidence began."""

    def __init__(self, settings: dict[str, Any]):
        self._on, self._off = _logit(settings["on"]), _logit(settings["off"])
        self._h_on, self._h_off = settings["h_on"], settings["h_off"]
        self.active, self.level, self.change = False, 0.0, 0.0

    def step(self, now: float, score: float, step: float) -> bool:
        """Whether the label just turned active or inactive, as of `change`."""
        if self.level == 0.0:
            self.change = now
        gain = self._off - score if self.active else score - self._on
        self.level = max(0.0, self.level + min(max(gain, -CLIP), CLIP) * step)
        if self.level < (self._h_off if self.active else self._h_on):
            return False
        self.level, self.active = 0.0, not self.active
        return True


class _Track:
    """What the detector's turns mean: an interval is told once it lasts long enough, its end after the merge gap."""

    def __init__(self, settings: dict[str, Any]):
        self._settings, self._cusum = settings, _Cusum(settings)
        self._done: list[Interval] = []
        self._start: float | None = None
        self._decided_at: float | None = None
        self._end: float | None = None
        self._resumed: list[tuple[float, float]] = []

    def step(self, now: float, score: float, step: float) -> None:
        lag, gap = self._settings["lag_start_s"], self._settings["merge_gap_s"]
        if self._cusum.step(now, score, step):
            if self._cusum.active:
                self._rise(min(self._cusum.change - lag, now), gap, now)
            elif self._decided_at is None:
                self._start = None
            elif self._start is not None:
                self._end = min(max(self._cusum.change - self._settings["lag_end_s"], self._start), now)
        if self._start is not None and self._decided_at is None:
            seen = self._cusum.change if self._cusum.level > 0 else now
            if seen - self._settings["lag_end_s"] - self._start >= self._settings["min_duration_s"] - 1e-9:
                self._decided_at = now
        if self._end is not None and now - lag - self._end >= gap:
            self._finish()

    def all(self) -> list[Interval]:
        """Every interval told, the open one last."""
        self._finish()
        return self._done

    def _rise(self, start: float, gap: float, now: float) -> None:
        if self._end is not None and start - self._end < gap:
            self._resumed.append((max(start, self._end), now))
            self._end = None
            return
        self._finish()
        last = self._done[-1].end if self._done else None
        self._start = max(start, 0.0 if last is None else last)

    def _finish(self) -> None:
        if self._start is not None and self._decided_at is not None:
            self._done.append(Interval(self._start, self._end, self._decided_at, tuple(self._resumed)))
        self._start = self._decided_at = self._end = None
        self._resumed = []


def sequence(parts: Sequence[list[Interval]], within_s: float, max_duration_s: float = math.inf) -> list[Interval]:
    """Actions made of `parts` in order: the next begins, or goes on, at most `within_s` after the one before ended.

    A part continues the last one that was decided before it, which is then used up. An action lasts from the start of
    its first part to the start of its last, `max_duration_s` at most: what went on before was another motion.
    """
    chains = [[one] for one in parts[0]]
    for following in parts[1:]:
        begun = _begun(following)
        chains = [[*chain, one] for one, since in begun for chain in [_take(chains, one, since, within_s)] if chain]
    whole = [(chain[0].start, chain[-1].start, chain[-1].decided_at) for chain in chains]
    return [Interval(max(start, end - max_duration_s), end, decided) for start, end, decided in whole]


def _begun(part: list[Interval]) -> list[tuple[Interval, float]]:
    """Where a part begins, or goes on after a pause, and since when it did before: no time, where it begins."""
    again = [(Interval(start, one.end, decided_at), one.start) for one in part for start, decided_at in one.resumed]
    return sorted([*((one, math.inf) for one in part), *again], key=lambda begun: begun[0].decided_at)


def _take(chains: list[list[Interval]], one: Interval, since: float, within_s: float) -> list[Interval] | None:
    """What flickered just before goes on; one that had gone on for longer is no sign of what came between."""
    decided = [chain for chain in chains if chain[-1].decided_at <= one.decided_at]
    if not decided or since < decided[-1][0].start - within_s:
        return None
    del chains[: len(decided)]
    before = decided[-1][-1]
    over = before.end is not None and before.end <= one.decided_at
    return None if over and one.start > (before.end or 0.0) + within_s else decided[-1]


def _logit(probability: float) -> float:
    return float(np.log(probability) - np.log1p(-probability))
