"""One clip: a seed becomes a room, people, what they do, and frames with truth.

Frames come one at a time, so a long clip needs little memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from . import body as bodies
from . import furnish, scenario, skeleton
from .draw import Film, Painter, Sensor, Wardrobe
from .error import ClashError, FallError
from .performance import Interval
from .quaternion import Array
from .room import Box, draw_room
from .scenario import Act, Script
from .skeleton import Poses

_BATCH = 50
_TRIES_ALONE, _TRIES_WITH_OTHERS = 8, 400
_APART_M = 0.2
"""From any joint of one person to any of another; limbs are some 0.1 m thick."""


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
class Person:
    """Where somebody is in every frame, and how tall they are."""

    poses: Poses
    height_m: float


@dataclass(frozen=True)
class Clip:
    """A staged clip, not yet drawn. The same script, seed and picture give the same frames, byte by byte."""

    seed: tuple[int, ...]
    picture: Picture
    people: list[Person]
    truth: list[Interval]
    props: list[Box]
    view: furnish.View

    @property
    def poses(self) -> Poses:
        """Those of the first person, whose acts are as long as the clip."""
        return self.people[0].poses

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
        looks = [look, *(np.random.default_rng([*self.seed, 4, n]) for n in range(1, len(self.people)))]
        dressed = [_dressed(person, its, size.mesh_m) for person, its in zip(self.people, looks, strict=True)]
        painter = Painter(room, draw_room(room, camera), camera, dressed)
        sensor = Sensor(noise=float(look.uniform(1.5, 3.0)), flicker=float(look.uniform(0.002, 0.006)))
        film = Film(size.width, size.height, sensor, np.random.default_rng([*self.seed, 2]))
        for first in range(0, len(self.poses), _BATCH):
            skins = [
                _skin(person.poses[first : first + _BATCH], body, first, size.fps)
                for person, (body, _) in zip(self.people, dressed, strict=True)
            ]
            skin, normals = (np.concatenate(parts, axis=1) for parts in zip(*skins, strict=True))
            for k in range(len(skin)):
                yield film.develop(painter.paint(skin[k], normals[k]))


def _dressed(person: Person, look: np.random.Generator, mesh_m: float) -> tuple[bodies.Body, Wardrobe]:
    sleeve = bodies.SKIN if look.random() < 0.5 else bodies.SHIRT
    body = bodies.build(person.height_m, float(look.uniform(0.94, 1.12)), sleeve, mesh_m)
    return body, furnish.wardrobe(look)


def _skin(poses: Poses, body: bodies.Body, first: int, fps: float) -> tuple[Array, Array]:
    """Points and normals ``[N,V,3]`` of frames from number `first` on."""
    skin, normals = body.vertices(poses)
    breath = _breathing(np.arange(first, first + len(poses)), fps, body)
    skin += breath[:, None, None] * body.chest[None, :, None] * normals
    # Nothing sinks into the floor: captured and blended poses are lifted, physics already rests on it.
    skin[..., 1] += np.maximum(0.0, 0.002 - skin[..., 1].min(1))[:, None]
    return skin, normals


def stage(script: Script, seed: tuple[int, ...], picture: Picture) -> Clip:
    """Decide everything that happens in the clip.

    Where a body does not come to rest after a fall, or people walk into each other, it is decided anew; the error of
    the last try is raised when it always comes to that.
    """
    clip = _anew([*seed, 0], partial(_alone, script, seed, picture), _TRIES_ALONE)
    for n, acts in enumerate(script.others, 1):
        clip = _anew([*seed, 3, n], partial(_joined, clip, acts, scenario.LANES[n]), _TRIES_WITH_OTHERS)
    return clip


def _anew(seed: list[int], decide: Callable[[np.random.Generator], Clip], tries: int) -> Clip:
    for again in range(tries):
        try:
            return decide(np.random.default_rng(seed if again == 0 else [*seed, again]))
        except (FallError, ClashError) as error:
            failed = error
    raise failed


def _alone(script: Script, seed: tuple[int, ...], picture: Picture, random: np.random.Generator) -> Clip:
    person, staged = _person(script.acts, scenario.LANES[0], picture, random)
    poses, truth = person.poses, staged.performance.truth
    if script.label:
        poses = poses[staged.last_begins if script.last else 0 :][:: -1 if script.backwards else 1]
        truth = [Interval(script.label, 0, len(poses))]
    return Clip(seed, picture, [replace(person, poses=poses)], truth, staged.props, script.view)


def _person(
    acts: list[Act], lane: scenario.Lane, picture: Picture, random: np.random.Generator
) -> tuple[Person, scenario.Staged]:
    height = float(random.uniform(1.6, 1.85))
    staged = scenario.stage(acts, picture.fps, height / skeleton.STANDING_HEIGHT_M, random, lane)
    return Person(staged.performance.poses, height), staged


def _joined(clip: Clip, acts: list[Act], lane: scenario.Lane, random: np.random.Generator) -> Clip:
    """The clip with one more person, for as long as it is."""
    person, staged = _person(acts, lane, clip.picture, random)
    length, done = len(clip.poses), len(person.poses)
    if done < length:
        staged.performance.wait((length - done) / clip.picture.fps)
    person = replace(person, poses=staged.performance.poses[:length])
    apart = min(_nearest(person, other) for other in clip.people)
    if apart < _APART_M:
        raise ClashError(
            f"people always walk into each other (to {apart:.2f} m): try another seed, or let them do less"
        )
    truth = [replace(one, end=min(one.end, length)) for one in staged.performance.truth if one.first < length]
    return replace(clip, people=[*clip.people, person], truth=[*clip.truth, *truth], props=[*clip.props, *staged.props])


def _nearest(one: Person, other: Person) -> float:
    """The least distance between joints of two people, in metres."""
    here, there = (
        skeleton.forward(person.poses)[0] * (person.height_m / skeleton.STANDING_HEIGHT_M) for person in (one, other)
    )
    return float(min(np.linalg.norm(here - there[:, [joint]], axis=2).min() for joint in range(there.shape[1])))


def _breathing(frames: Array, fps: float, body: bodies.Body) -> Array:
    """How far the chest stands out in each frame (m): 15 breaths a minute, 6 mm."""
    out: Array = 0.006 * body.scale * (0.5 - 0.5 * np.cos(2 * np.pi * 0.25 * frames / fps))
    return out
