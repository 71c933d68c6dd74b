"""A furnished room, drawn once per clip: colour with the lamp, colour without it, and depth.

Everything is a box. Rays are cast from the camera; procedural textures give colour, an area lamp with shadow rays
and a fixed set of short rays (corners and gaps grow dark) give light. The person is drawn over it by `draw`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .camera import Camera
from .quaternion import Array
from .texture import Material, colour

LAMP_POWER = 0.8
_CHUNK = 1 << 15


@dataclass(frozen=True)
class Box:
    """Centre and half extents in metres, turned by ``yaw`` about the vertical."""

    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    material: Material
    yaw: float = 0.0


@dataclass(frozen=True)
class Room:
    """Boxes inside a shell of ``half`` width, depth and ``height``, lit by one lamp near the ceiling."""

    half_x: float
    half_z: float
    height: float
    floor: Material
    walls: Material
    boxes: list[Box] = field(default_factory=list)
    lamp: tuple[float, float, float] = (0.5, 2.5, 0.8)
    lamp_radius: float = 0.35
    daylight: float = 0.5  # share of the light that comes from everywhere
    warmth: tuple[float, float, float] = (1.0, 0.97, 0.92)


@dataclass(frozen=True)
class Backdrop:
    """The empty room as the camera sees it: BGR in 0..255, ``lit`` and in the lamp's shadow; depth (m); floor x, z."""

    lit: Array
    shaded: Array
    depth: Array
    ground: Array  # [H,W,2] world x, z where the floor is seen, NaN elsewhere


def draw_room(room: Room, camera: Camera) -> Backdrop:
    """Cast one ray per pixel; light is worked out for one pixel in each 2x2 block and shared by like surfaces."""
    shape = (camera.height, camera.width)
    rays = camera.rays().reshape(-1, 3).astype(np.float32)
    start = np.broadcast_to(camera.position.astype(np.float32), rays.shape)
    chunks = [slice(i, i + _CHUNK) for i in range(0, len(rays), _CHUNK)]
    hit, normal, which = (
        np.concatenate(p) for p in zip(*(_nearest(room, start[c], rays[c]) for c in chunks), strict=True)
    )
    at = start + rays * hit[:, None]
    albedo, glow = _surface_colour(room, at, normal, which)
    lamp, sky = _shared_light(room, at, normal, which, shape)
    ambient = albedo * (room.daylight * sky)[:, None] + glow
    lit = ambient + albedo * lamp[:, None] * np.array(room.warmth, np.float32)
    level = (normal[:, 1] > 0.5) & (at[:, 1] < 0.03)  # floor and rugs take shadows
    ground = np.where(level[:, None], at[:, [0, 2]], np.nan).astype(np.float32)
    depth = (hit * (rays @ camera.axes[2].astype(np.float32))).reshape(shape)
    return Backdrop(
        display(lit).reshape(*shape, 3), display(ambient).reshape(*shape, 3), depth, ground.reshape(*shape, 2)
    )


def lamp_points(room: Room, count: int) -> Array:
    """Points spread over the lamp's disc, ``[count,3]``."""
    k = np.arange(count) + 0.5
    radius, angle = room.lamp_radius * np.sqrt(k / count), k * 2.399963
    out: Array = np.array(room.lamp) + np.stack([radius * np.cos(angle), np.zeros(count), radius * np.sin(angle)], 1)
    return out


def display(linear: Array) -> Array:
    """Linear RGB ``[...,3]`` to display BGR in 0..255, highlights rolled off."""
    soft = linear / (1 + 0.18 * linear)
    return np.asarray(np.clip(soft[..., ::-1], 0, 1) ** (1 / 2.2) * 255, dtype=np.float32)


def _shared_light(room: Room, at: Array, normal: Array, which: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Lamp and sky light of every pixel, taken from the nearest lit pixel of the same face."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
    centre = np.zeros(shape, bool)
    centre[::2, ::2] = True
    chosen = np.flatnonzero(centre)
    parts = [_light(room, at[c], normal[c]) for c in np.array_split(chosen, max(1, len(chosen) // _CHUNK))]
    light = np.zeros((len(at), 2), np.float32)
    light[chosen] = np.concatenate(parts)
    face = which * 7 + (normal @ np.array([1.0, 2.0, 3.0], np.float32)).round().astype(int)
    source = (rows // 2 * 2 * shape[1] + columns // 2 * 2).ravel()
    for down, right in ((0, 2), (2, 0), (2, 2)):
        row, column = rows // 2 * 2 + down, columns // 2 * 2 + right
        other = (
            np.minimum(row, (shape[0] - 1) // 2 * 2) * shape[1] + np.minimum(column, (shape[1] - 1) // 2 * 2)
        ).ravel()
        source = np.where((face[source] != face) & (face[other] == face), other, source)
    alone = face[source] != face
    light = light[source]
    if alone.any():
        light[alone] = _light(room, at[alone], normal[alone])
    return light[:, 0], light[:, 1]


def _light(room: Room, at: Array, normal: Array) -> Array:
    """Lamp and sky light ``[N,2]`` that reach points."""
    start = at + normal * np.float32(2e-3)
    lamp = np.zeros(len(at), np.float32)
    points = lamp_points(room, 8).astype(np.float32)
    for point in points:
        to = point - start
        far = np.linalg.norm(to, axis=1)
        to /= far[:, None]
        facing = np.clip((to * normal).sum(1), 0, None)
        lamp += facing * _clear(room, start, to, far - 0.05) * np.clip(9 / (3 + far * far), 0, 1.6) / len(points)
    sky = np.zeros(len(at), np.float32)
    for way in _hemisphere(8):
        sky += _clear(room, start, _around(normal, way), np.full(len(at), 0.8, np.float32)) / 8
    return np.stack([LAMP_POWER * lamp, (0.45 + 0.55 * sky) * (0.9 + 0.1 * normal[:, 1])], 1)


def _surface_colour(room: Room, at: Array, normal: Array, which: Array) -> tuple[Array, Array]:
    albedo = np.empty((len(at), 3), np.float32)
    glow = np.zeros((len(at), 3), np.float32)
    shell = which == -1
    level = shell & (np.abs(normal[:, 1]) > 0.5)
    floor = level & (normal[:, 1] > 0)
    albedo[level & ~floor] = 0.82
    albedo[floor] = colour(room.floor, at[floor], normal[floor])
    wall = shell & ~level
    albedo[wall] = colour(room.walls, at[wall], normal[wall])
    skirting = wall & (at[:, 1] < 0.09)
    albedo[skirting] = 0.75
    for i, box in enumerate(room.boxes):
        mine = which == i
        if mine.any():
            local, turned = _into(box, at[mine] - np.array(box.centre, np.float32)), _into(box, normal[mine])
            albedo[mine] = colour(box.material, local, turned)
            glow[mine] = albedo[mine] * box.material.glow
    return albedo, glow


def _into(box: Box, v: Array) -> Array:
    """World vectors in the box's frame."""
    if box.yaw == 0.0:
        return v
    c, s = math.cos(box.yaw), math.sin(box.yaw)
    return np.stack([c * v[:, 0] - s * v[:, 2], v[:, 1], s * v[:, 0] + c * v[:, 2]], 1).astype(np.float32)


def _nearest(room: Room, start: Array, rays: Array) -> tuple[Array, Array, Array]:
    """Distance, normal and box (-1: the shell) of the first surface along each ray."""
    size = np.array([room.half_x, room.height / 2, room.half_z], np.float32)
    middle = np.array([0, room.height / 2, 0], np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        leave = (np.sign(rays) * size - (start - middle)) / rays
    leave = np.where(np.isfinite(leave), leave, np.inf)
    axis = np.argmin(leave, 1)
    row = np.arange(len(rays))
    best = leave[row, axis]
    normal = np.zeros_like(rays)
    normal[row, axis] = -np.sign(rays[row, axis])
    which = np.full(len(rays), -1)
    for i, box in enumerate(room.boxes):
        enter, axis_in, through = _slab(box, start, rays)
        closer = through & (enter < best) & (enter > 1e-4)
        if not closer.any():
            continue
        best = np.where(closer, enter, best)
        which[closer] = i
        local = np.zeros((int(closer.sum()), 3), np.float32)
        direction = _into(box, rays[closer])
        pick = axis_in[closer]
        local[np.arange(len(local)), pick] = -np.sign(direction[np.arange(len(local)), pick])
        normal[closer] = _into(Box(box.centre, box.half, box.material, -box.yaw), local)
    return best, normal, which


def _slab(box: Box, start: Array, rays: Array) -> tuple[Array, Array, Array]:
    at, way = _into(box, start - np.array(box.centre, np.float32)), _into(box, rays)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(np.abs(way) > 1e-9, 1 / way, np.float32(1e9))
    middle, reach = -at * inverse, np.array(box.half, np.float32) * np.abs(inverse)
    into, out = middle - reach, middle + reach
    axis = np.argmax(into, 1)
    enter = into[np.arange(len(rays)), axis]
    return enter, axis, (enter <= out.min(1)) & (enter > 0)


def _clear(room: Room, start: Array, rays: Array, limit: Array) -> Array:
    """1 where nothing but the shell's openness lies within ``limit``, else 0."""
    free = np.ones(len(rays), bool)
    size = np.array([room.half_x, room.height, room.half_z], np.float32)
    end = start + rays * limit[:, None]
    free &= (np.abs(end[:, 0]) <= size[0]) & (np.abs(end[:, 2]) <= size[2]) & (end[:, 1] >= 0) & (end[:, 1] <= size[1])
    for box in room.boxes:
        if box.material.glow > 0:
            continue
        # Only rays still free, and near enough to this box, need the full test.
        reach = limit + np.float32(math.hypot(*box.half))
        away = start - np.array(box.centre, np.float32)
        near = np.flatnonzero(free & ((away * away).sum(1) < reach * reach))
        enter, _, through = _slab(box, start[near], rays[near])
        free[near[through & (enter < limit[near])]] = False
    return free.astype(np.float32)


def _hemisphere(count: int) -> Array:
    """Cosine-weighted directions about +z, the same for every pixel."""
    k = np.arange(count) + 0.5
    radius, angle = np.sqrt(k / count), k * 2.399963
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), np.sqrt(1 - k / count)], 1).astype(np.float32)


def _around(normal: Array, direction: Array) -> Array:
    helper = np.where(np.abs(normal[:, 1:2]) > 0.7, np.eye(3, dtype=np.float32)[:1], np.eye(3, dtype=np.float32)[1:2])
    u = np.cross(helper, normal)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    v = np.cross(normal, u)
    out: Array = u * direction[0] + v * direction[1] + normal * direction[2]
    return out
