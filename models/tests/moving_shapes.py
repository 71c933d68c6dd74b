"""Small videos of a moving shape, for tests: what differs between the classes is only the direction of motion."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SIDE, FPS = 96, 15


def write(path: Path, seed: int, direction: int, seconds: float = 2.4) -> None:
    """A textured square that crosses the picture: `direction` 1 to the right, -1 to the left, 0 stays and trembles."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), FPS, (SIDE, SIDE))
    ground = cv2.resize(rng.integers(60, 120, (12, 12, 3), dtype=np.uint8), (SIDE, SIDE))
    shape = cv2.resize(rng.integers(120, 255, (4, 4, 3), dtype=np.uint8), (28, 28))
    top, travel, count = int(rng.integers(8, SIDE - 36)), SIDE + 20, int(seconds * FPS)
    for n in range(count):
        share = n / count if direction > 0 else 1 - n / count
        left = int(share * travel) - 24 if direction else int(SIDE / 2 - 14 + rng.integers(-1, 2))
        frame = ground.copy()
        first, last = max(left, 0), min(left + 28, SIDE)
        if first < last:
            frame[top : top + 28, first:last] = shape[:, first - left : last - left]
        noisy = frame.astype(np.int16) + rng.integers(-4, 5, frame.shape)
        writer.write(np.clip(noisy, 0, 255).astype(np.uint8))
    writer.release()


def folder(root: Path, each: int) -> Path:
    """A folder per class, `each` clips in each of ``left``, ``right`` and ``background``."""
    for name, direction in (("left", -1), ("right", 1), ("background", 0)):
        for n in range(each):
            write(root / name / f"{n:02}.mp4", 1000 * direction + n + 5000, direction)
    return root
