"""People over the empty room: skin painted far to near, furniture in front kept, soft shadows on the floor.

Pictures are drawn at a multiple of the output size and averaged down, which is the anti-aliasing. `Film` is
the camera: exposure flicker, lens softness and sensor noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .body import HAIR, SHIRT, SHOES, SKIN, TROUSERS, Body
from .camera import Camera
from .quaternion import Array
from .room import LAMP_POWER, Backdrop, Room, display, lamp_points
from .texture import Colour, noise

_SUBPIXEL_BITS = 4
_SHADOW_CELL_M = 0.03
_SHADOW_SPAN_M = 8.0


@dataclass(frozen=True)
class Wardrobe:
    """Linear RGB of skin, hair and clothes; ``stripes`` > 0 makes the shirt striped in the second colour."""

    skin: Colour
    hair: Colour
    shirt: Colour
    trim: Colour
    trousers: Colour
    shoes: Colour
    stripes: float = 0.0


def albedo(body: Body, wardrobe: Wardrobe) -> Array:
    """Colour of each vertex, ``[V,3]`` linear RGB, with worn and woven variation."""
    base = np.empty((len(body.rest), 3))
    for material, colour in (
        (SKIN, wardrobe.skin),
        (HAIR, wardrobe.hair),
        (SHIRT, wardrobe.shirt),
        (TROUSERS, wardrobe.trousers),
        (SHOES, wardrobe.shoes),
    ):
        base[body.material == material] = colour
    x, y, z = body.rest.T
    if wardrobe.stripes > 0:
        base[(body.material == SHIRT) & ((y / wardrobe.stripes) % 1 > 0.6)] = wardrobe.trim
    cloth = (body.material == SHIRT) | (body.material == TROUSERS)
    folds = noise(y * 16 + 3 * x, np.arctan2(z, x) * 2.2 + y * 5) - 0.5
    return np.clip(base * (1 + np.where(cloth, 0.34, 0.08) * folds)[:, None], 0, 1)


class Painter:
    """Draws people in one room. Not thread-safe; holds no state between frames."""

    def __init__(self, room: Room, backdrop: Backdrop, camera: Camera, people: list[tuple[Body, Wardrobe]]) -> None:
        self._room, self._back, self._camera = room, backdrop, camera
        first = np.cumsum([0, *(len(body.rest) for body, _ in people[:-1])])
        self._faces = np.concatenate([body.faces + n for n, (body, _) in zip(first, people, strict=True)])
        self._albedo = np.concatenate([albedo(body, wardrobe) for body, wardrobe in people])
        self._lamps = lamp_points(room, 16)
        ground = np.nan_to_num(backdrop.ground, nan=1e3)
        self._cells = ((ground + _SHADOW_SPAN_M / 2) / _SHADOW_CELL_M).astype(np.float32)

    def paint(self, vertices: Array, normals: Array) -> Array:
        """BGR float32 picture at the camera's size of people whose skins, one after the other, are at ``vertices``."""
        picture = self._with_shadow(vertices)
        pixels, depth = self._camera.project(vertices)
        faces = self._faces
        corners = pixels[faces]
        along, across = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
        seen = along[:, 0] * across[:, 1] - along[:, 1] * across[:, 0]
        front = (seen < 0) & (depth[faces].min(1) > 0.2)
        if not front.any():
            return picture
        faces, corners = faces[front], corners[front]
        face_depth = depth[faces].mean(1)
        colours = display(self._light(vertices, normals))[faces].mean(1)
        low = np.maximum(np.floor(corners.min((0, 1))).astype(int) - 2, 0)
        high = np.minimum(np.ceil(corners.max((0, 1))).astype(int) + 3, [self._camera.width, self._camera.height])
        if (high <= low).any():
            return picture
        window = (slice(low[1], high[1]), slice(low[0], high[0]))
        order = np.argsort(-face_depth)
        points = np.round((corners[order] - low) * 2**_SUBPIXEL_BITS).astype(np.int32)
        layer = np.ascontiguousarray(picture[window])
        near = np.full(layer.shape[:2], np.inf, np.float32)
        for quad, tone, far in zip(points, colours[order].tolist(), face_depth[order].tolist(), strict=True):
            cv2.fillConvexPoly(layer, quad, tone, cv2.LINE_8, _SUBPIXEL_BITS)
            cv2.fillConvexPoly(near, quad, far, cv2.LINE_8, _SUBPIXEL_BITS)
        visible = near < self._back.depth[window] + 0.03
        picture[window] = np.where(visible[..., None], layer, picture[window])
        return picture

    def _light(self, vertices: Array, normals: Array) -> Array:
        to = np.array(self._room.lamp) - vertices
        far = np.linalg.norm(to, axis=1)
        facing = np.sum(to * normals, axis=1) / far
        direct = np.clip(facing * 0.85 + 0.15, 0, None) * np.clip(9 / (3 + far * far), 0, 1.6)
        direct = direct * (1 - 0.75 * self._self_shadow(vertices))
        near_floor = np.clip(vertices[:, 1] / 0.35, 0, 1)
        sky = (0.62 + 0.3 * normals[:, 1]) * (0.6 + 0.4 * near_floor)
        tint = np.array(self._room.warmth)
        light = self._room.daylight * sky[:, None] + LAMP_POWER * direct[:, None] * tint
        out: Array = self._albedo * light
        return out

    def _self_shadow(self, vertices: Array) -> Array:
        """How far the body hides each vertex from the lamp, 0..1, by a small shadow map."""
        lamp = np.array(self._room.lamp)
        to = vertices - lamp
        far = np.linalg.norm(to, axis=1)
        forward = to.mean(0) / np.linalg.norm(to.mean(0))
        right = np.cross(forward, [0.31, 0.2, 0.93])
        right /= np.linalg.norm(right)
        along = to @ forward
        plane = np.stack([to @ right, to @ np.cross(forward, right)], 1) / along[:, None]
        cell = np.clip((plane * 70 + 90).astype(int), 0, 179)
        nearest: Array = np.full((180, 180), 99.0, np.float32)
        np.minimum.at(nearest, (cell[:, 0], cell[:, 1]), far.astype(np.float32))
        nearest = cv2.erode(nearest, np.ones((3, 3), np.uint8))
        hidden = np.clip((far - nearest[cell[:, 0], cell[:, 1]] - 0.07) / 0.06, 0, 1)
        return np.asarray(hidden)

    def _with_shadow(self, vertices: Array) -> Array:
        size = round(_SHADOW_SPAN_M / _SHADOW_CELL_M)
        total = np.zeros((size, size), np.float32)
        for lamp in self._lamps:
            drop = vertices[:, 1] / (lamp[1] - vertices[:, 1])
            total += self._splat(vertices[:, [0, 2]] + (vertices[:, [0, 2]] - lamp[[0, 2]]) * drop[:, None], size)
        lamp_shadow = cv2.GaussianBlur(total / len(self._lamps), (0, 0), 1.6)
        low = vertices[vertices[:, 1] < 0.35]
        touch = cv2.GaussianBlur(self._splat(low[:, [0, 2]], size), (0, 0), 3.0) if len(low) else 0 * total
        shade = self._look_up(lamp_shadow)[..., None]
        contact = self._look_up(touch)[..., None]
        mixed = self._back.lit + (self._back.shaded - self._back.lit) * shade
        return np.ascontiguousarray(mixed * (1 - 0.3 * contact), dtype=np.float32)

    def _splat(self, points: Array, size: int) -> Array:
        mask = np.zeros((size, size), np.float32)
        cell = ((points + _SHADOW_SPAN_M / 2) / _SHADOW_CELL_M).astype(int)
        cell = cell[((cell >= 0) & (cell < size)).all(1)]
        mask[cell[:, 1], cell[:, 0]] = 1
        return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)))

    def _look_up(self, mask: Array) -> Array:
        return np.asarray(
            cv2.remap(
                mask,
                self._cells[..., 0],
                self._cells[..., 1],
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=0,
            )
        )


@dataclass(frozen=True)
class Sensor:
    """What the camera adds: noise (standard deviation in 8-bit steps), flicker (share), softness (pixels), vignette."""

    noise: float = 2.0
    flicker: float = 0.006
    softness: float = 0.5
    vignette: float = 0.12


class Film:
    """The camera behind the lens. Grain is drawn from a small bank of fields at random offsets: fresh noise is slow."""

    _MARGIN = 48

    def __init__(self, width: int, height: int, sensor: Sensor, random: np.random.Generator) -> None:
        self._size, self._sensor, self._random = (width, height), sensor, random
        shape = (6, height + self._MARGIN, width + self._MARGIN)
        grey, tint = random.standard_normal((*shape, 1), np.float32), random.standard_normal((*shape, 3), np.float32)
        self._grain = sensor.noise * (grey + 0.4 * tint)
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        self._gain = (1 - sensor.vignette * (x * x + y * y) / 2).astype(np.float32)[..., None]

    def develop(self, picture: Array) -> Array:
        """The uint8 BGR frame ``[height,width,3]`` of one painted picture."""
        width, height = self._size
        small: Array = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        if self._sensor.softness > 0:
            small = cv2.GaussianBlur(small, (0, 0), self._sensor.softness)
        field, y, x = self._random.integers([len(self._grain), self._MARGIN, self._MARGIN])
        small *= self._gain * np.float32(1 + self._sensor.flicker * self._random.standard_normal())
        small += self._grain[field, y : y + height, x : x + width]
        return np.clip(np.round(small), 0, 255).astype(np.uint8)
