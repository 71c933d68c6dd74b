"""A clothed body: one closed skin over the skeleton, and where it lies in each frame.

The surface is the zero set of rounded cones melted into each other in a rest pose (arms and legs apart), meshed
once by surface nets; linear blend skinning then moves it. Colours are per vertex.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import quaternion as quat
from . import skeleton
from .quaternion import Array
from .skeleton import LINKS, Poses

SKIN, HAIR, SHIRT, TROUSERS, SHOES = range(5)

_MELT_M = 0.025  # over this distance neighbouring parts flow into each other
_CELL_M = 0.016  # edge of a surface cell

# link, first end, second end, radius there, radius here, material
_Part = tuple[str, tuple[float, float, float], tuple[float, float, float], float, float, int]
_TRUNK: tuple[_Part, ...] = (
    ("root", (-0.01, 0.0, -0.07), (-0.01, 0.0, 0.07), 0.108, 0.108, TROUSERS),
    ("root", (0.0, 0.11, -0.055), (0.0, 0.11, 0.055), 0.105, 0.105, SHIRT),
    ("chest", (0.0, 0.0, -0.06), (0.0, 0.0, 0.06), 0.106, 0.106, SHIRT),
    ("chest", (-0.005, 0.11, -0.085), (-0.005, 0.11, 0.085), 0.108, 0.108, SHIRT),
    ("chest", (-0.02, 0.215, -0.15), (-0.02, 0.215, 0.15), 0.072, 0.072, SHIRT),
    ("chest", (-0.015, 0.22, 0.0), (0.0, 0.31, 0.0), 0.058, 0.052, SKIN),
    ("neck", (0.025, 0.10, 0.0), (0.012, 0.185, 0.0), 0.066, 0.086, SKIN),
    ("neck", (0.098, 0.145, 0.0), (0.092, 0.165, 0.0), 0.016, 0.01, SKIN),
    ("neck", (-0.018, 0.165, 0.0), (-0.005, 0.205, 0.0), 0.09, 0.094, HAIR),
)


def _limbs(side: str, sleeve: int) -> tuple[_Part, ...]:
    z = 0.0
    return (
        (f"{side}_shoulder", (0.0, -0.01, z), (0.0, -0.19, z), 0.064, 0.053, SHIRT),
        (f"{side}_shoulder", (0.0, -0.15, z), (0.0, -0.275, z), 0.047, 0.043, sleeve),
        (f"{side}_elbow", (0.0, 0.0, z), (0.0, -0.22, z), 0.045, 0.036, sleeve),
        (f"{side}_elbow", (0.0, -0.20, z), (0.0, -0.27, z), 0.03, 0.034, SKIN),
        (f"{side}_elbow", (0.0, -0.27, z), (0.015, -0.355, z), 0.036, 0.022, SKIN),
        (f"{side}_hip", (0.0, -0.02, z), (0.0, -0.42, z), 0.094, 0.068, TROUSERS),
        (f"{side}_knee", (0.0, 0.0, z), (-0.012, -0.14, z), 0.066, 0.067, TROUSERS),
        (f"{side}_knee", (-0.012, -0.14, z), (0.0, -0.385, z), 0.067, 0.058, TROUSERS),
        (f"{side}_ankle", (-0.045, -0.008, z), (0.03, -0.004, z), 0.044, 0.05, SHOES),
        (f"{side}_ankle", (0.03, -0.012, z), (0.15, -0.022, z), 0.042, 0.03, SHOES),
    )


@dataclass(frozen=True)
class Body:
    """A meshed body: quads ``[F,4]``, rest vertices per link ``[V,4 links,3]`` with weights, material per vertex."""

    faces: Array
    links: Array
    local: Array
    local_normal: Array
    weights: Array
    material: Array
    rest: Array
    scale: float

    @property
    def chest(self) -> Array:
        """How much breathing moves each vertex, ``[V]`` in 0..1: the front of the trunk most."""
        x, y, z = self.rest.T
        high = np.exp(-(((y - 1.18) / 0.14) ** 2)) * np.exp(-((z / 0.16) ** 2))
        out: Array = high * np.clip(0.5 + x / 0.12, 0, 1)
        return out

    def vertices(self, poses: Poses) -> tuple[Array, Array]:
        """Skin positions and outward normals ``[N,V,3]`` for ``poses`` given at the skeleton's natural size."""
        positions, rotations = skeleton.forward(poses)
        turns = quat.matrix(rotations)[:, self.links]
        at = np.einsum("nvkij,vkj->nvki", turns, self.local) + positions[:, self.links]
        normal = np.einsum("nvkij,vkj,vk->nvi", turns, self.local_normal, self.weights)
        normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
        return np.einsum("nvki,vk->nvi", at, self.weights) * self.scale, normal


def rest_pose() -> Poses:
    """Arms well away from the trunk, legs apart, so that only what belongs together melts together."""
    x = (1.0, 0.0, 0.0)
    return skeleton.key_pose(
        {
            "right_shoulder": quat.axis_angle(x, -0.9),
            "left_shoulder": quat.axis_angle(x, 0.9),
            "right_hip": quat.axis_angle(x, -0.16),
            "left_hip": quat.axis_angle(x, 0.16),
        }
    )


def build(height_m: float = 1.72, girth: float = 1.0, sleeve: int = SHIRT, cell_m: float = _CELL_M) -> Body:
    """A body of ``height_m``; ``girth`` widens every part; ``sleeve`` is `SHIRT` (long) or `SKIN` (short)."""
    parts = (*_TRUNK, *_limbs("right", sleeve), *_limbs("left", sleeve))
    positions, rotations = skeleton.forward(rest_pose())
    turns = quat.matrix(rotations)[0]
    index = np.array([LINKS.index(p[0]) for p in parts])
    start = np.stack([positions[0, i] + turns[i] @ np.array(p[1]) for i, p in zip(index, parts, strict=True)])
    end = np.stack([positions[0, i] + turns[i] @ np.array(p[2]) for i, p in zip(index, parts, strict=True)])
    widen = np.where(np.isin([p[5] for p in parts], (SHIRT, TROUSERS)), girth, 1.0)
    radii = np.stack([np.array([p[3], p[4]]) for p in parts]) * widen[:, None]

    def distances(points: Array) -> Array:
        return np.stack([_cone(points, start[i], end[i], radii[i]) for i in range(len(parts))], axis=-1)

    rest, faces = _surface(distances, start, end, cell_m)
    each = distances(rest)
    # Material: the nearest part decides. Skin weights: nearness to each link's nearest part, four links kept.
    material = np.array([p[5] for p in parts])[np.argmin(each, axis=1)]
    by_link = np.stack(
        [each[:, index == i].min(1) if (index == i).any() else np.full(len(rest), 9.0) for i in range(len(LINKS))],
        axis=1,
    )
    links = np.argsort(by_link, axis=1)[:, :4]
    near = np.exp(-np.maximum(np.take_along_axis(by_link, links, 1), 0) / 0.018)
    normal = _gradient(distances, rest)
    local = np.einsum("vkji,vkj->vki", turns[links], rest[:, None] - positions[0, links])
    local_normal = np.einsum("vkji,vj->vki", turns[links], normal)
    return Body(
        faces,
        links,
        local,
        local_normal,
        near / near.sum(1, keepdims=True),
        material,
        rest,
        height_m / skeleton.STANDING_HEIGHT_M,
    )


def _cone(points: Array, a: Array, b: Array, radii: Array) -> Array:
    """Distance to the capsule a-b whose radius runs from ``radii[0]`` to ``radii[1]``."""
    axis = b - a
    t = np.clip((points - a) @ axis / (axis @ axis), 0, 1)
    out: Array = np.linalg.norm(points - a - t[:, None] * axis, axis=1) - (radii[0] + (radii[1] - radii[0]) * t)
    return out


def _melted(each: Array) -> Array:
    out: Array = -_MELT_M * np.log(np.exp(-np.clip(each, -0.3, 0.5) / _MELT_M).sum(-1)) + _MELT_M * 0.4
    return out


def _gradient(distances: Callable[[Array], Array], points: Array) -> Array:
    step = 0.004
    grad = np.stack(
        [_melted(distances(points + step * e)) - _melted(distances(points - step * e)) for e in np.eye(3)], axis=1
    )
    out: Array = grad / np.maximum(np.linalg.norm(grad, axis=1, keepdims=True), 1e-9)
    return out


def _surface(distances: Callable[[Array], Array], start: Array, end: Array, cell: float) -> tuple[Array, Array]:
    """Naive surface nets: one vertex in each cell that the surface crosses, one quad for each crossed edge."""
    low = np.minimum(start, end).min(0) - 0.17
    size = np.ceil((np.maximum(start, end).max(0) + 0.17 - low) / cell).astype(int)
    axes = [low[i] + cell * np.arange(size[i]) for i in range(3)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    field = _melted(distances(grid.reshape(-1, 3))).reshape(size)
    inside = field < 0
    total = np.zeros((*(size - 1), 3))
    count = np.zeros(size - 1)
    corners = [np.array([i, j, k]) for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    for a in corners:
        for axis in range(3):
            if a[axis]:
                continue
            b = a + np.eye(3, dtype=int)[axis]
            fa, fb = (field[tuple(slice(c[i], size[i] - 1 + c[i]) for i in range(3))] for c in (a, b))
            crossed = (fa < 0) != (fb < 0)
            t = np.where(crossed, fa / np.where(crossed, fa - fb, 1.0), 0.0)
            total += crossed[..., None] * (a + t[..., None] * np.eye(3)[axis])
            count += crossed
    used = count > 0
    number = np.full(size - 1, -1)
    number[used] = np.arange(used.sum())
    vertices = low + cell * (np.argwhere(used) + total[used] / count[used][:, None])
    return vertices, _quads(inside, number)


def _quads(inside: Array, number: Array) -> Array:
    faces = []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        n = inside.shape
        first = tuple(slice(0, n[i] - 1) if i == axis else slice(1, n[i] - 1) for i in range(3))
        second = tuple(slice(1, n[i]) if i == axis else slice(1, n[i] - 1) for i in range(3))
        at = np.argwhere(inside[first] != inside[second])
        at[:, u] += 1
        at[:, v] += 1
        eu, ev = np.eye(3, dtype=int)[u], np.eye(3, dtype=int)[v]
        ring = np.stack([number[tuple((at - d).T)] for d in (eu + ev, ev, 0 * eu, eu)], axis=1)
        flip = ~inside[tuple(at.T)]  # every quad's normal points out of the body
        ring[flip] = ring[flip][:, ::-1]
        faces.append(ring)
    return np.concatenate(faces)
