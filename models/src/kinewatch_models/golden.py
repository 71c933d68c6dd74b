"""Golden clips: a drawn, textured figure in a drawn room. No camera was involved, so they may ship with a package.

They prove that a back end computes what the packager computed; they are no evidence of accuracy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kinewatch_models.capture import Frames

FRAMES = 12
FIGURE_HEIGHT = 0.55
NOISE = 2.0


def clips(size: int, frames: int = FRAMES) -> dict[str, Frames]:
    """The golden clips by name, uint8 ``[frames, size, size, 3]``."""
    steps = np.linspace(0, 1, frames)
    walk = [(0.25 + 0.5 * step, 0.12 * np.sin(9 * step)) for step in steps]
    tilt = np.clip((steps - 0.3) / 0.4, 0, 1) ** 2 * np.pi / 2
    fall = [(0.45 - 0.1 * step, float(angle)) for step, angle in zip(steps, tilt, strict=True)]
    return {"walk": _draw(walk, size, 1), "fall": _draw(fall, size, 2)}


def _draw(poses: list[tuple[float, float]], size: int, seed: int) -> Frames:
    """One frame per (place of the feet, 0..1 from the left; tilt in radians, 0 upright)."""
    rng = np.random.default_rng(seed)
    room = _room(size)
    drawn = []
    for place, tilt in poses:
        picture = _figure(room, place, tilt, size) + rng.normal(0, NOISE, room.shape)
        drawn.append(np.clip(np.rint(picture), 0, 255).astype(np.uint8))
    return np.stack(drawn)


def _room(size: int) -> npt.NDArray[np.float64]:
    y, x = np.mgrid[0:size, 0:size] / size
    wall = 150 + 25 * np.sin(40 * x) * np.sin(22 * y)
    floor = 95 + 30 * np.sign(np.sin(30 * x / (0.4 + y)) * np.sin(60 * y * y))
    grey = np.where(y < 0.6, wall, floor)
    return np.stack([grey, grey * 0.95, grey * 0.85], -1)


def _figure(room: npt.NDArray[np.float64], place: float, tilt: float, size: int) -> npt.NDArray[np.float64]:
    y, x = np.mgrid[0:size, 0:size] / size
    across, up = x - place, 0.88 - y
    along = (up * np.cos(tilt) + across * np.sin(tilt)) / FIGURE_HEIGHT
    beside = (across * np.cos(tilt) - up * np.sin(tilt)) / FIGURE_HEIGHT
    head = (along - 0.91) ** 2 + beside**2 < 0.085**2
    body = (np.abs(beside) < 0.14) & (along > 0.45) & (along < 0.82)
    legs = (np.abs(np.abs(beside) - 0.07) < 0.05) & (along > 0) & (along <= 0.45)
    cloth = 25 * np.sin(70 * along) * np.sin(55 * beside)
    picture = room.copy()
    for part, colour in ((legs, (40, 50, 90)), (body, (170, 60, 50)), (head, (200, 160, 140))):
        picture[part] = np.array(colour) + cloth[part][:, None]
    return picture
