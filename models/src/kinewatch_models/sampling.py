"""Which frames of a stream a model looks at: by time, never by count, as the agent's sampler does.

Ticks lie `1 / rate_hz` apart from the first frame; a tick takes the first frame not earlier than the tick less an
eighth of that (frame times jitter around the grid). A tick without a frame near enough is left out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kinewatch_models.capture import Seconds

SLACK = 1 / 8
"""Of a tick; as in `agent/core/src/sampling/mod.rs`."""


def ticks(times: Seconds, rate_hz: float) -> npt.NDArray[np.int64]:
    """Indices of the frames that the ticks `k / rate_hz` take; strictly increasing."""
    slack_s = SLACK / rate_hz
    span = float(times[-1]) + slack_s
    count = int(np.floor(span * rate_hz + 1e-9)) + 1
    wanted = np.arange(max(count, 0)) / rate_hz
    taken = np.searchsorted(times, wanted - slack_s, side="left")
    taken = taken[taken < len(times)]
    return np.unique(taken).astype(np.int64)


def window(times: Seconds, end_s: float, rate_hz: float, length: int) -> npt.NDArray[np.int64]:
    """Indices of `length` frames on a grid of `rate_hz` whose last one is at `end_s`; clipped to the clip."""
    wanted = end_s - np.arange(length - 1, -1, -1) / rate_hz
    taken = np.searchsorted(times, wanted - SLACK / rate_hz, side="left")
    return np.clip(taken, 0, len(times) - 1).astype(np.int64)
