"""Unit quaternions as arrays ``[..., 4]`` in ``x y z w`` order, the order of PyBullet.

Everything broadcasts over leading axes. Nothing here normalises its input: callers pass unit quaternions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]  # float64 or float32, bool and int where it is a mask or an index

IDENTITY: Array = np.array([0.0, 0.0, 0.0, 1.0])


def axis_angle(axis: ArrayLike, angle: ArrayLike) -> Array:
    """Rotation by ``angle`` (radians, any shape) about one unit ``axis`` ``[3]``."""
    half = np.asarray(angle, dtype=float)[..., None] / 2
    return np.concatenate([np.asarray(axis, dtype=float) * np.sin(half), np.cos(half)], axis=-1)


def yaw(angle: ArrayLike) -> Array:
    """Rotation about the vertical axis; 0 faces +x, positive turns towards -z."""
    return axis_angle((0.0, 1.0, 0.0), angle)


def multiply(a: Array, b: Array) -> Array:
    """Rotation ``b`` first, then ``a``."""
    av, aw, bv, bw = a[..., :3], a[..., 3:], b[..., :3], b[..., 3:]
    vector = aw * bv + bw * av + np.cross(av, bv)
    scalar = aw * bw - np.sum(av * bv, axis=-1, keepdims=True)
    return np.concatenate([vector, scalar], axis=-1)


def conjugate(q: Array) -> Array:
    """The inverse rotation."""
    out: Array = q * np.array([-1.0, -1.0, -1.0, 1.0])
    return out


def rotate(q: Array, v: Array) -> Array:
    """Vectors ``[..., 3]`` turned by ``q``."""
    u, w = q[..., :3], q[..., 3:]
    t = 2 * np.cross(u, v)
    out: Array = v + w * t + np.cross(u, t)
    return out


def matrix(q: Array) -> Array:
    """Rotation matrices ``[..., 3, 3]``."""
    return np.stack([rotate(q, np.broadcast_to(e, (*q.shape[:-1], 3))) for e in np.eye(3)], axis=-1)


def slerp(a: Array, b: Array, t: ArrayLike) -> Array:
    """Shortest great-circle path from ``a`` (t = 0) to ``b`` (t = 1); ``t`` broadcasts over leading axes."""
    dot = np.sum(a * b, axis=-1, keepdims=True)
    b = np.where(dot < 0, -b, b)
    angle = np.arccos(np.clip(np.abs(dot), 0, 1))
    weight = np.asarray(t, dtype=float)[..., None]
    sine = np.sin(angle)
    near = sine < 1e-6
    safe = np.where(near, 1.0, sine)
    wa = np.where(near, 1 - weight, np.sin((1 - weight) * angle) / safe)
    wb = np.where(near, weight, np.sin(weight * angle) / safe)
    out: Array = wa * a + wb * b
    out /= np.linalg.norm(out, axis=-1, keepdims=True)
    return out


def angular_velocity(a: Array, b: Array, dt: float) -> Array:
    """World-frame angular velocity (rad/s) that turns ``a`` into ``b`` in ``dt`` seconds."""
    d = multiply(b, conjugate(a))
    d = np.where(d[..., 3:] < 0, -d, d)
    size = np.linalg.norm(d[..., :3], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(size, d[..., 3:])
    out: Array = d[..., :3] / np.maximum(size, 1e-12) * angle / dt
    return out


def heading(q: Array) -> Array:
    """Yaw of the direction in which ``q`` turns the body's front (+x)."""
    front = rotate(q, np.broadcast_to(np.array([1.0, 0.0, 0.0]), (*q.shape[:-1], 3)))
    return np.arctan2(-front[..., 2], front[..., 0])
