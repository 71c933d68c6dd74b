"""Procedural surfaces: what colour a point of a floor, wall or piece of furniture has.

Every pattern is a pure function of the position in metres, so a texture costs no file and no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .quaternion import Array

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Material:
    """A ``pattern`` (see `PATTERNS`) in two linear RGB colours; ``scale`` is its repeat in metres."""

    pattern: str
    first: Colour
    second: Colour = (0.5, 0.5, 0.5)
    scale: float = 0.2
    glow: float = 0.0


def colour(material: Material, at: Array, normal: Array) -> Array:
    """Linear RGB ``[N,3]`` of points ``[N,3]`` on faces with ``normal``."""
    axis = np.argmax(np.abs(normal), 1)
    u = np.where(axis == 0, at[:, 2], at[:, 0])
    v = np.where(axis == 1, at[:, 2], at[:, 1])
    mix, grain = PATTERNS[material.pattern](u / material.scale, v / material.scale)
    first, second = np.array(material.first), np.array(material.second)
    base = first + (second - first) * mix[:, None]
    dirt = 1 + 0.10 * (noise(u * 1.3 + 7.1, v * 1.3 + 3.7) - 0.5)
    out: Array = np.clip(base * (grain * dirt)[:, None], 0, 1).astype(np.float32)
    return out


def noise(u: Array, v: Array) -> Array:
    """Smooth value noise in 0..1 with a period of about one unit."""
    iu, iv = np.floor(u), np.floor(v)
    fu, fv = u - iu, v - iv
    fu, fv = fu * fu * (3 - 2 * fu), fv * fv * (3 - 2 * fv)
    low = cell(iu, iv) * (1 - fu) + cell(iu + 1, iv) * fu
    high = cell(iu, iv + 1) * (1 - fu) + cell(iu + 1, iv + 1) * fu
    out: Array = low * (1 - fv) + high * fv
    return out


def cell(iu: Array, iv: Array) -> Array:
    """A fixed random number in 0..1 for each whole-numbered cell."""
    a = iu.astype(np.int64).astype(np.uint32) * np.uint32(0x9E3779B1)
    h = a ^ (iv.astype(np.int64).astype(np.uint32) * np.uint32(0x85EBCA77))
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x2C1B3C6D)
    h ^= h >> np.uint32(12)
    h *= np.uint32(0x297A2D39)
    h ^= h >> np.uint32(15)
    return h.astype(np.float64) / 2**32


def _plain(u: Array, v: Array) -> tuple[Array, Array]:
    return np.zeros_like(u), 0.97 + 0.06 * noise(u * 9, v * 9)


def _planks(u: Array, v: Array) -> tuple[Array, Array]:
    row = np.floor(v)
    along = u / 6 + cell(row, row * 0) * 5
    tone = cell(row, np.floor(along))
    gap = (np.abs(v - row - 0.5) > 0.47) | (np.abs(along - np.floor(along) - 0.5) > 0.495)
    fibre = noise(u * 0.7, v * 9) * 0.6 + noise(u * 2.3, v * 31) * 0.4
    return np.clip(tone * 0.7 + fibre * 0.4, 0, 1), np.where(gap, 0.55, 0.94 + 0.12 * fibre)


def _wood(u: Array, v: Array) -> tuple[Array, Array]:
    fibre = noise(u * 1.1, v * 14) * 0.6 + noise(u * 2.9 + 5, v * 37) * 0.4
    return fibre, 0.92 + 0.12 * fibre


def _tiles(u: Array, v: Array) -> tuple[Array, Array]:
    iu, iv = np.floor(u), np.floor(v)
    joint = (np.abs(u - iu - 0.5) > 0.485) | (np.abs(v - iv - 0.5) > 0.485)
    return cell(iu, iv) * 0.5 + 0.3 * noise(u * 3, v * 3), np.where(joint, 0.7, 1.0)


def _checks(u: Array, v: Array) -> tuple[Array, Array]:
    return (np.floor(u) + np.floor(v)) % 2, 0.96 + 0.08 * noise(u * 5, v * 5)


def _stripes(u: Array, v: Array) -> tuple[Array, Array]:
    return ((u - np.floor(u)) > 0.5).astype(float), 0.97 + 0.06 * noise(u * 7, v * 7)


def _cloth(u: Array, v: Array) -> tuple[Array, Array]:
    weave = noise(u * 23, v * 23)
    return noise(u * 0.8, v * 0.8) * 0.6 + 0.4 * weave, 0.88 + 0.2 * weave


def _bricks(u: Array, v: Array) -> tuple[Array, Array]:
    row = np.floor(v * 3)
    along = u + 0.5 * (row % 2)
    joint = (np.abs(v * 3 - row - 0.5) > 0.43) | (np.abs(along - np.floor(along) - 0.5) > 0.47)
    tone = cell(row, np.floor(along)) * 0.7 + 0.3 * noise(u * 11, v * 11)
    return np.where(joint, 1.0, tone * 0.4), np.where(joint, 0.95, 0.9 + 0.15 * noise(u * 17, v * 17))


def _books(u: Array, v: Array) -> tuple[Array, Array]:
    column = np.floor(u * 7)
    height = 0.55 + 0.4 * cell(column, column * 0 + 3)
    inside = (v - np.floor(v)) < height
    return np.where(inside, cell(column, column * 0 + 9), 0.0), np.where(
        inside, 0.35 + 0.9 * cell(column, column * 0), 0.12
    )


def _picture(u: Array, v: Array) -> tuple[Array, Array]:
    return noise(u * 3 + 11, v * 3), 0.4 + 0.8 * noise(u * 5, v * 7 + 4)


PATTERNS: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {
    "plain": _plain,
    "planks": _planks,
    "wood": _wood,
    "tiles": _tiles,
    "checks": _checks,
    "stripes": _stripes,
    "cloth": _cloth,
    "bricks": _bricks,
    "books": _books,
    "picture": _picture,
}
