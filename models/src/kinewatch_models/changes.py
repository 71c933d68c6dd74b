"""Frames ``[T, S, S, 3]`` changed so that they show what a net relies on.

Time order (shuffled, reversed), motion (one frozen frame), the scene around the people (border only), left and right
(mirrored).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kinewatch_models.capture import Frames

BORDER = 0.24
GREY = 114


def _shuffled(frames: Frames) -> Frames:
    """An order of its own for every clip: a common one may go rather forwards, and then tells direction."""
    return frames[np.random.default_rng(frames.sum(dtype=np.uint64)).permutation(len(frames))]


def _frozen(frames: Frames) -> Frames:
    return np.repeat(frames[len(frames) // 2][None], len(frames), 0)


def _border(frames: Frames) -> Frames:
    side = frames.shape[1]
    edge = round(side * BORDER)
    changed = frames.copy()
    changed[:, edge : side - edge, edge : side - edge] = GREY
    return changed


CHANGES: dict[str, Callable[[Frames], Frames]] = {
    "shuffled": _shuffled,
    "reversed": lambda frames: frames[::-1],
    "frozen": _frozen,
    "border only": _border,
    "mirrored": lambda frames: frames[:, :, ::-1],
}
