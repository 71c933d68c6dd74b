"""Small videos of a moving shape, for tests: what differs between the classes is only the direction of motion.

`python tests/moving_shapes.py FOLDER` writes a folder that `fit` can be tried on.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

SIDE, SHAPE, FPS = 96, 28, 15
DIRECTIONS = {"left": -1, "right": 1, "background": 0}


def write(path: Path, seed: int, parts: Sequence[tuple[int, float]]) -> None:
    """A textured square that crosses the picture; `parts`: (direction, seconds) one after the other.

    Direction 1 goes to the right, -1 to the left; with 0 the square trembles in its place, which is where the part
    before left it or the one after takes it up: a jump would be motion.
    """
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = []
    ground = cv2.resize(rng.integers(60, 120, (12, 12, 3), dtype=np.uint8), (SIDE, SIDE))
    shape = cv2.resize(rng.integers(120, 255, (4, 4, 3), dtype=np.uint8), (SHAPE, SHAPE))
    top = int(rng.integers(8, SIDE - SHAPE - 8))
    moves = [direction for direction, _ in parts if direction]
    place = int(rng.integers(0, SIDE - SHAPE)) if not moves else _across(0.0, moves[0])
    for direction, seconds in parts:
        count = int(seconds * FPS)
        for n in range(count):
            left = _across(n / count, direction) if direction else place + int(rng.integers(-1, 2))
            frames.append(_frame(ground, shape, top, left, rng).tobytes())
        place = _across(1.0, direction) if direction else place
    _encode(path, b"".join(frames))


def _across(share: float, direction: int) -> int:
    """Left edge of the square after a `share` of its way; a little of it is seen at either end."""
    return int((share if direction > 0 else 1 - share) * (SIDE + 20)) - SHAPE + 4


def _encode(path: Path, raw: bytes) -> None:
    source = ["-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{SIDE}x{SIDE}", "-r", str(FPS), "-i", "-"]
    target = ["-c:v", "libx264", "-preset", "veryfast", "-threads", "1", "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(["ffmpeg", "-v", "error", "-y", *source, *target], input=raw, check=True)


def _frame(ground: np.ndarray, shape: np.ndarray, top: int, left: int, rng: np.random.Generator) -> np.ndarray:
    frame = ground.copy()
    first, last = max(left, 0), min(left + SHAPE, SIDE)
    if first < last:
        frame[top : top + SHAPE, first:last] = shape[:, first - left : last - left]
    return np.clip(frame.astype(np.int16) + rng.integers(-4, 5, frame.shape), 0, 255).astype(np.uint8)


def folder(root: Path, each: int) -> Path:
    """A folder per class, `each` clips in each of ``left``, ``right`` and ``background``."""
    for name, direction in DIRECTIONS.items():
        for n in range(each):
            write(root / name / f"{n:02}.mp4", 1000 * direction + n + 5000, [(direction, 2.4)])
    return root


if __name__ == "__main__":
    folder(Path(sys.argv[1]), 12)
