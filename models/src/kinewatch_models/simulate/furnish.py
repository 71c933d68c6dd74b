"""Random rooms, clothes and cameras. All randomness comes from the generator passed in."""

from __future__ import annotations

import math
from enum import Enum

import numpy as np

from .camera import Camera
from .draw import Wardrobe
from .room import Box, Room
from .texture import Colour, Material

Random = np.random.Generator


class View(Enum):
    """Where the camera hangs."""

    WALL = "wall"
    CEILING = "ceiling"


_HALF_X, _HALF_Z, _HEIGHT = 3.0, 3.5, 2.7
_CEILING_CAMERA_M = 2.65
STAGE_Z = -0.6  # the action is around (0, STAGE_Z); furniture stands behind and beside it


def _tone(random: Random, low: float, high: float, spread: float = 0.06) -> Colour:
    base = random.uniform(low, high)
    r, g, b = np.clip(base + random.uniform(-spread, spread, 3), 0.02, 0.95)
    return float(r), float(g), float(b)


def _brown(random: Random, light: float) -> Colour:
    return 0.55 * light * random.uniform(0.9, 1.1), 0.33 * light * random.uniform(0.9, 1.1), 0.18 * light


def room(random: Random) -> Room:
    """A living room, office or ward with furniture along the walls and free floor in the middle."""
    wood = _brown(random, random.uniform(0.5, 1.3))
    floors = [
        Material("planks", wood, tuple(0.6 * c for c in wood), 0.14),  # type: ignore[arg-type]
        Material("tiles", _tone(random, 0.4, 0.7), _tone(random, 0.3, 0.55), 0.4),
        Material("cloth", _tone(random, 0.12, 0.35), _tone(random, 0.1, 0.3), 0.3),
    ]
    walls = [
        Material("plain", _tone(random, 0.55, 0.85)),
        Material("stripes", _tone(random, 0.55, 0.8, 0.08), _tone(random, 0.5, 0.75, 0.08), 0.22),
        Material("plain", (0.55, 0.66, 0.6)),
    ]
    # Floor boards run along x, so their pattern's row coordinate is z.
    boxes = [*_window(random), *_rug(random)]
    slots = [-2.2, 0.0, 2.2]
    pieces = [_shelf, _sofa, _cabinet, _table, _shelf, _plant]
    random.shuffle(pieces)
    for x, piece in zip(slots, pieces, strict=False):
        boxes += [_shift(b, (x + random.uniform(-0.15, 0.15), 0.0, -_HALF_Z + 0.35)) for b in piece(random)]
    side = float(random.choice([-1, 1]))
    boxes += [
        _shift(_turned(b, -side * math.pi / 2), (side * (_HALF_X - 0.4), 0.0, random.uniform(-2.6, -1.8)))
        for b in pieces[3](random)
    ]
    boxes += _picture(random)
    return Room(
        _HALF_X,
        _HALF_Z,
        _HEIGHT,
        floors[random.integers(3)],
        walls[random.integers(3)],
        boxes,
        (float(random.uniform(-1.2, 1.2)), 2.6, float(random.uniform(-0.8, 1.0))),
        float(random.uniform(0.3, 0.5)),
        float(random.uniform(0.36, 0.52)),
        (1.0, float(random.uniform(0.9, 1.0)), float(random.uniform(0.78, 1.0))),
    )


def camera(view: View, random: Random, width: int, height: int) -> Camera:
    """A camera of the room, of ``width`` x ``height`` pixels."""
    return {View.WALL: _wall_camera, View.CEILING: _ceiling_camera}[view](random, width, height)


def _wall_camera(random: Random, width: int, height: int) -> Camera:
    """On a wall or shelf some four metres from the action: a standing person is about half the picture high."""
    angle = random.uniform(-0.45, 0.45)
    distance = random.uniform(3.5, 3.95)
    position = np.array([distance * math.sin(angle), random.uniform(1.6, 2.35), distance * math.cos(angle) + STAGE_Z])
    position[0] = np.clip(position[0], 0.3 - _HALF_X, _HALF_X - 0.3)
    target = np.array([random.uniform(-0.2, 0.2), random.uniform(0.65, 0.8), STAGE_Z])
    return Camera.looking(position, target, width, height, random.uniform(46, 52), random.uniform(-0.02, 0.02))


def _ceiling_camera(random: Random, width: int, height: int) -> Camera:
    """Under the ceiling above the action, straight down or tilted by up to 25 degrees, any side of the picture up."""
    x, z = random.uniform((-0.4, STAGE_Z - 0.3), (0.4, STAGE_Z + 0.5))
    way, aside = random.uniform(0, 2 * math.pi), _CEILING_CAMERA_M * math.tan(math.radians(random.uniform(1, 25)))
    position = np.array([x + aside * math.cos(way), _CEILING_CAMERA_M, z + aside * math.sin(way)])
    target = np.array([x, 0.0, z])
    return Camera.looking(position, target, width, height, random.uniform(55, 78), random.uniform(-math.pi, math.pi))


def wardrobe(random: Random) -> Wardrobe:
    """Everyday clothes."""
    skin = np.array([0.62, 0.40, 0.29]) * random.uniform(0.35, 1.15)
    hair = np.array([0.06, 0.04, 0.028]) * random.uniform(0.25, 1.8)
    shirts = [
        (0.45, 0.06, 0.06),
        (0.07, 0.14, 0.4),
        (0.6, 0.6, 0.58),
        (0.09, 0.28, 0.16),
        (0.55, 0.42, 0.1),
        (0.06, 0.06, 0.08),
        (0.35, 0.2, 0.4),
        (0.2, 0.35, 0.5),
    ]
    trousers = [(0.04, 0.06, 0.14), (0.05, 0.05, 0.05), (0.3, 0.24, 0.16), (0.14, 0.15, 0.17), (0.1, 0.13, 0.24)]
    shirt, trim = (shirts[i] for i in random.choice(len(shirts), 2, replace=False))
    return Wardrobe(
        _rgb(skin),
        _rgb(hair),
        shirt,
        trim,
        trousers[random.integers(len(trousers))],
        (0.05, 0.045, 0.04) if random.random() < 0.6 else (0.5, 0.5, 0.5),
        float(random.choice([0.0, 0.0, 0.09])),
    )


def chair(at: tuple[float, float], yaw: float, random: Random) -> list[Box]:
    """A chair whose seat (0.45 m) has its middle at ``at``; it faces the direction ``yaw``."""
    wood = Material("wood", _brown(random, 0.8), _brown(random, 0.5), 0.1)
    seat = Material("cloth", _tone(random, 0.1, 0.5, 0.1), _tone(random, 0.1, 0.4), 0.1)
    parts = [Box((0.0, 0.42, 0.0), (0.22, 0.03, 0.22), seat), Box((-0.23, 0.7, 0.0), (0.02, 0.25, 0.21), wood)]
    parts += [Box((x, 0.2, z), (0.02, 0.2, 0.02), wood) for x in (-0.2, 0.2) for z in (-0.2, 0.2)]
    return [_shift(_turned(b, yaw), (at[0], 0.0, at[1])) for b in parts]


def _rgb(values: np.ndarray) -> Colour:
    r, g, b = (float(v) for v in np.clip(values, 0.01, 0.95))
    return r, g, b


def _shift(box: Box, by: tuple[float, float, float]) -> Box:
    x, y, z = (a + b for a, b in zip(box.centre, by, strict=True))
    return Box((x, y, z), box.half, box.material, box.yaw)


def _turned(box: Box, angle: float) -> Box:
    """Turned about the vertical through the origin, from +x towards -z."""
    x, y, z = box.centre
    c, s = math.cos(angle), math.sin(angle)
    return Box((c * x + s * z, y, c * z - s * x), box.half, box.material, box.yaw + angle)


def _shelf(random: Random) -> list[Box]:
    wood = Material("wood", _brown(random, 1.2), _brown(random, 0.8), 0.15)
    books = Material("books", _tone(random, 0.1, 0.5, 0.2), _tone(random, 0.1, 0.6, 0.2), 0.36)
    out = [Box((x, 0.9, 0.0), (0.02, 0.9, 0.15), wood) for x in (-0.5, 0.5)]
    for level in range(5):
        out.append(Box((0.0, 0.1 + 0.36 * level, 0.0), (0.5, 0.015, 0.15), wood))
        if level < 4 and random.random() < 0.85:
            width = random.uniform(0.25, 0.46)
            out.append(Box((random.uniform(-0.03, 0.03), 0.28 + 0.36 * level, -0.02), (width, 0.15, 0.1), books))
    return out


def _sofa(random: Random) -> list[Box]:
    cloth = Material("cloth", _tone(random, 0.1, 0.5, 0.12), _tone(random, 0.08, 0.4, 0.1), 0.25)
    pillow = Material("stripes", _tone(random, 0.2, 0.7, 0.25), _tone(random, 0.2, 0.7, 0.25), 0.1)
    return [
        Box((0.0, 0.22, 0.25), (0.9, 0.2, 0.42), cloth),
        Box((0.0, 0.55, -0.1), (0.9, 0.3, 0.12), cloth),
        Box((-0.98, 0.32, 0.25), (0.1, 0.3, 0.42), cloth),
        Box((0.98, 0.32, 0.25), (0.1, 0.3, 0.42), cloth),
        Box((random.uniform(-0.6, 0.6), 0.56, 0.1), (0.2, 0.16, 0.07), pillow, 0.2),
    ]


def _cabinet(random: Random) -> list[Box]:
    wood = Material("wood", _brown(random, 1.0), _brown(random, 0.7), 0.2)
    dark = Material("plain", (0.03, 0.03, 0.035))
    out = [Box((0.0, 0.35, 0.05), (0.75, 0.33, 0.22), wood)]
    out += [Box((x, 0.5, 0.28), (0.06, 0.012, 0.01), dark) for x in (-0.37, 0.37)]
    out += [Box((x, 0.35, 0.272), (0.006, 0.3, 0.002), dark) for x in (0.0,)]
    out.append(Box((0.0, 1.03, 0.0), (0.48, 0.28, 0.03), dark))  # a television
    out.append(Box((0.0, 0.71, 0.0), (0.15, 0.03, 0.1), dark))
    return out


def _table(random: Random) -> list[Box]:
    wood = Material("wood", _brown(random, 1.1), _brown(random, 0.8), 0.15)
    out = [Box((0.0, 0.73, 0.15), (0.6, 0.02, 0.35), wood)]
    out += [Box((x, 0.36, 0.15 + z), (0.025, 0.36, 0.025), wood) for x in (-0.55, 0.55) for z in (-0.3, 0.3)]
    out.append(
        Box((random.uniform(-0.4, 0.4), 0.83, 0.1), (0.1, 0.08, 0.07), Material("plain", _tone(random, 0.2, 0.7, 0.2)))
    )
    out.append(Box((random.uniform(-0.3, 0.3), 0.765, 0.25), (0.14, 0.015, 0.1), Material("plain", (0.8, 0.8, 0.76))))
    return out


def _plant(random: Random) -> list[Box]:
    pot = Material("plain", _brown(random, 0.9))
    leaf = Material("cloth", (0.06, 0.22, 0.05), (0.14, 0.36, 0.1), 0.12)
    out = [Box((0.0, 0.2, 0.0), (0.16, 0.2, 0.16), pot, 0.3)]
    for _ in range(26):
        way, high = random.uniform(0, 2 * math.pi), random.uniform(0.5, 1.25)
        reach = random.uniform(0.02, 0.3) * (1.4 - abs(high - 0.85))
        out.append(
            Box(
                (reach * math.cos(way), high, 0.05 + reach * math.sin(way)),
                (random.uniform(0.05, 0.13), random.uniform(0.02, 0.09), 0.012),
                leaf,
                way,
            )
        )
    return out


def _window(random: Random) -> list[Box]:
    side = float(random.choice([-1, 1]))
    z = random.uniform(-2.2, -1.2)
    frame = Material("plain", (0.8, 0.8, 0.78))
    glass = Material("picture", (0.75, 0.85, 0.95), (0.9, 0.95, 1.0), 1.2, glow=0.9)
    wall = side * (_HALF_X - 0.01)
    curtain = Material("stripes", _tone(random, 0.2, 0.7, 0.2), _tone(random, 0.2, 0.7, 0.2), 0.09)
    return [
        Box((wall, 1.55, z), (0.03, 0.62, 0.6), frame),
        Box((wall - side * 0.03, 1.55, z), (0.012, 0.56, 0.54), glass),
        Box((wall - side * 0.06, 1.4, z - 0.65), (0.03, 0.95, 0.14), curtain),
        Box((wall - side * 0.06, 1.4, z + 0.65), (0.03, 0.95, 0.14), curtain),
    ]


def _rug(random: Random) -> list[Box]:
    if random.random() < 0.4:
        return []
    pattern = str(random.choice(["checks", "stripes", "cloth"]))
    material = Material(pattern, _tone(random, 0.15, 0.6, 0.15), _tone(random, 0.15, 0.6, 0.15), 0.25)
    return [Box((random.uniform(-0.5, 0.5), 0.002, STAGE_Z + random.uniform(-0.4, 0.5)), (1.3, 0.002, 0.85), material)]


def _picture(random: Random) -> list[Box]:
    out = []
    for x in random.uniform(-2.6, 2.6, 2):
        height = random.uniform(1.6, 1.85)
        art = Material("picture", _tone(random, 0.1, 0.7, 0.3), _tone(random, 0.1, 0.7, 0.3), random.uniform(0.3, 0.8))
        frame = Material("plain", _tone(random, 0.02, 0.3))
        out += [
            Box((float(x), height, 0.012 - _HALF_Z), (0.34, 0.26, 0.012), frame),
            Box((float(x), height, 0.026 - _HALF_Z), (0.3, 0.22, 0.004), art),
        ]
    return out
