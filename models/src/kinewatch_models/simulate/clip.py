"""One clip: a seed becomes a room, a person, what they do, and frames with truth.

Frames come one at a time, so a long clip needs little memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from . import body as bodies
from . import furnish, scenario, skeleton
from .draw import Film, Painter, Sensor
from .error import FallError
from .performance import Interval
from .quaternion import Array
from .room import Box, draw_room
from .scenario import Script
from .skeleton import Poses

_BATCH = 50
_TRIES = 8


@dataclass(frozen=True)
class Picture:
    """Size and rate of the video; ``oversample`` pixels are drawn per pixel and direction.

    ``mesh_m`` is the size of the skin's faces; coarser is faster.
    """

    width: int = 640
    height: int = 480
    fps: int = 25
    oversample: int = 2
    mesh_m: float = 0.016


@dataclass(frozen=True)
class Clip:
    """A staged clip, not yet drawn. The same script, seed and picture give the same frames, byte by byte."""

    seed: tuple[int, ...]
    picture: Picture
    poses: Poses
    truth: list[Interval]
    props: list[Box]
    height_m: float
    view: furnish.View

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.poses) / self.picture.fps

    def frames(self) -> Iterator[Array]:
        """BGR uint8 frames ``[height,width,3]`` in order."""
        look = np.random.default_rng([*self.seed, 1])
        room = furnish.room(look)
        room = replace(room, boxes=[*room.boxes, *self.props])
        size = self.picture
        camera = furnish.camera(self.view, look, size.width * size.oversample, size.height * size.oversample)
        sleeve = bodies.SKIN if look.random() < 0.5 else bodies.SHIRT
        body = bodies.build(self.height_m, float(look.uniform(0.94, 1.12)), sleeve, size.mesh_m)
        painter = Painter(room, draw_room(room, camera), camera, body, furnish.wardrobe(look))
        sensor = Sensor(noise=float(look.uniform(1.5, 3.0)), flicker=float(look.uniform(0.002, 0.006)))
        film = Film(size.width, size.height, sensor, np.random.default_rng([*self.seed, 2]))
        breath = _breathing(len(self.poses), size.fps, body)
        for first in range(0, len(self.poses), _BATCH):
            skin, normals = body.vertices(self.poses[first : first + _BATCH])
            skin += breath[first : first + _BATCH, None, None] * body.chest[None, :, None] * normals
            # Nothing sinks into the floor: captured and blended poses are lifted, physics already rests on it.
            skin[..., 1] += np.maximum(0.0, 0.002 - skin[..., 1].min(1))[:, None]
            for k in range(len(skin)):
                yield film.develop(painter.paint(skin[k], normals[k]))


def stage(script: Script, seed: tuple[int, ...], picture: Picture) -> Clip:
    """Decide everything that happens in the clip; a body that does not come to rest after a fall falls anew.

    Raises `FallError` when it never does.
    """
    for again in range(_TRIES):
        drawn = [*seed, 0] if again == 0 else [*seed, 0, again]
        try:
            return _stage(script, seed, picture, np.random.default_rng(drawn))
        except FallError as error:
            failed = error
    raise failed


def _stage(script: Script, seed: tuple[int, ...], picture: Picture, random: np.random.Generator) -> Clip:
    height = float(random.uniform(1.6, 1.85))
    scale = height / skeleton.STANDING_HEIGHT_M
    staged = scenario.stage(script.acts, picture.fps, scale, random)
    poses, truth = staged.performance.poses, staged.performance.truth
    if script.label:
        poses = poses[staged.last_begins if script.last else 0 :][:: -1 if script.backwards else 1]
        truth = [Interval(script.label, 0, len(poses))]
    return Clip(seed, picture, poses, truth, staged.props, height, script.view)


def _breathing(count: int, fps: float, body: bodies.Body) -> Array:
    """How far the chest stands out in each frame (m): 15 breaths a minute, 6 mm."""
    out: Array = 0.006 * body.scale * (0.5 - 0.5 * np.cos(2 * np.pi * 0.25 * np.arange(count) / fps))
    return out
