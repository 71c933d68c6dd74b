"""What one person does, frame by frame, and when it is a fall.

A `Performance` strings acts together: each act starts from where the last one ended and is blended in. Truth is
written where it is known exactly: at the frame that hands the body to physics, at the frame where physics comes to
rest, and at the frame where getting up begins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from . import quaternion as quat
from . import ragdoll, skeleton
from .mocap import motion
from .quaternion import Array
from .ragdoll import FallStyle
from .skeleton import Poses

_TURN_RATE = 1.9  # rad/s, how fast a walking person turns
_X, _Z = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
_SOLE_M = 0.052  # from the ankle to the ground


@dataclass(frozen=True)
class Interval:
    """A labelled span of frames: ``first`` is in it, ``end`` is not."""

    label: str
    first: int
    end: int


class Performance:
    """Acts of one person at ``fps``. Positions are on the floor, (x, z) in metres."""

    def __init__(
        self, fps: float, start: tuple[float, float], heading: float, random: np.random.Generator, scale: float = 1.0
    ) -> None:
        self._fps, self._random, self._scale = fps, random, scale
        self._phase = float(random.uniform(0, 1))
        self._parts: list[Poses] = []
        self._count = 0
        self._at = np.array(start, dtype=float) / scale
        self._heading = heading
        self.truth: list[Interval] = []

    @property
    def poses(self) -> Poses:
        """Everything so far."""
        return skeleton.join(self._parts)

    @property
    def count(self) -> int:
        """Frames so far."""
        return self._count

    @property
    def here(self) -> Array:
        """Where the person is, (x, z) in metres."""
        return self._at * self._scale

    @property
    def heading(self) -> float:
        """Where the person faces: yaw in radians, 0 along +x, positive towards -z."""
        return self._heading

    def walk_to(self, goal: tuple[float, float], speed: float = 1.0) -> None:
        """Walk to ``goal`` on a curve, at ``speed`` times the captured pace (about 1 m/s)."""
        gait = motion("walk")
        pace = float(np.linalg.norm(gait.stride)) / gait.duration * speed / self._fps
        target, at, heading = np.array(goal) / self._scale, self._at.copy(), self._heading
        track, headings = [], []
        for _ in range(round(20 * self._fps)):
            way = target - at
            if np.linalg.norm(way) < 0.12:
                break
            off = _wrapped(math.atan2(-way[1], way[0]) - heading)
            limit = _TURN_RATE / self._fps
            heading += float(np.clip(off * 0.12, -limit, limit))
            # A person slows down to turn.
            at = at + pace * max(0.25, math.cos(off)) * np.array([math.cos(heading), -math.sin(heading)])
            track.append(at)
            headings.append(heading)
        if not track:
            return
        moved = np.linalg.norm(np.diff(np.array([self._at, *track]), axis=0), axis=1)
        times = self._phase + np.cumsum(moved / (pace * self._fps)) * speed
        steps = gait.cyclic(times)
        forward = times / gait.duration * np.linalg.norm(gait.stride)
        sway = steps.position - forward[:, None] * np.array([1.0, 0.0, 0.0])
        turn = quat.yaw(np.array(headings))
        position = quat.rotate(turn, sway)
        position[:, [0, 2]] += np.array(track)
        self._phase = float(times[-1])
        self._add(Poses(position, quat.multiply(turn, steps.rotation), steps.joints), 0.35)
        self._at, self._heading = np.array(track[-1]), headings[-1]

    def stand(self, seconds: float) -> None:
        """Stand about, shifting weight a little."""
        self._add_in_place([(0.0, _standing())], seconds, 0.5)

    def pick_up(self) -> None:
        """Bend down to the floor and come up again: a hard negative."""
        self._add_in_place([(0.0, _standing()), (1.0, _bent()), (1.5, _bent()), (2.5, _standing())], 2.8, 0.4)

    def sit(self, seconds: float) -> None:
        """Sit down on a seat behind the person (0.45 m high), stay, and rise."""
        low = _sitting()
        self._add_in_place(
            [
                (0.0, _standing()),
                (0.45, _leaning()),
                (1.15, low),
                (1.15 + seconds, low),
                (1.75 + seconds, _leaning()),
                (2.4 + seconds, _standing()),
            ],
            seconds + 2.6,
            0.4,
        )

    def turn_to(self, heading: float) -> None:
        """Turn on the spot with small steps."""
        off = _wrapped(heading - self._heading)
        count = max(2, round(abs(off) / 2.2 * self._fps))
        ease = _smooth(np.arange(1, count + 1) / count)
        gait = motion("walk")
        steps = gait.cyclic(self._phase + np.arange(count) / self._fps * 0.9)
        calm = skeleton.blend(skeleton.repeat(_standing(), count), steps, np.full(count, 0.45))
        turn = quat.yaw(self._heading + off * ease)
        position = calm.position * np.array([0.0, 1.0, 0.0])
        position[:, [0, 2]] += self._at
        self._add(Poses(position, quat.multiply(turn, _level(calm.rotation)), calm.joints), 0.3)
        self._heading += off

    def move(self, name: str, speed: float = 1.0) -> None:
        """One pass of a captured motion (`jump`, `kick`, `punch`, `dance_a` …)."""
        clip = motion(name)
        count = round(clip.duration / speed * self._fps)
        self._placed(clip.once(np.arange(1, count + 1) / self._fps * speed), 0.35)

    def fall(self, style: FallStyle, lie_s: float) -> None:
        """Lose balance now, come to rest, lie for ``lie_s``. Adds the intervals ``fall`` and ``lying``."""
        done = ragdoll.fall(self.poses.last(2), style, self._fps)
        begin = self._count
        self._add(done.poses, 0.0)
        rest = begin + done.rest
        missing = max(0, round(lie_s * self._fps) - (len(done.poses) - done.rest))
        if missing:
            self._add(skeleton.repeat(done.poses.last(), missing), 0.0)
        self.truth += [Interval("fall", begin, rest), Interval("lying", rest, self._count)]
        self._settle()

    def lie_down(self, lie_s: float, speed: float = 1.0) -> None:
        """Lie down on purpose: getting up as captured, played backwards. Adds ``lying_down`` and ``lying``."""
        clip = motion(str(self._random.choice(["getup_faceup", "getup_facedown"])))
        count = round(clip.duration / speed * self._fps)
        down = clip.once(clip.duration - np.arange(1, count + 1) / self._fps * speed)
        turn = -float(quat.heading(down.rotation[0]))
        start = down[:1].moved(turn, np.zeros(3)).position[0] * np.array([1.0, 0.0, 1.0])
        begin = self._count
        self._placed(down.moved(turn, -start), 0.6)
        self.truth += [Interval("lying_down", begin, self._count), Interval("lying", self._count, self._count)]
        self.wait(lie_s)

    def wait(self, seconds: float) -> None:
        """Stand; who lies, lies on."""
        if not (self.truth and self.truth[-1].end == self._count):
            self.stand(seconds)
            return
        self._add(skeleton.repeat(self._parts[-1].last(), round(seconds * self._fps)), 0.0)
        self.truth[-1] = replace(self.truth[-1], end=self._count)

    def get_up(self, speed: float = 1.0) -> None:
        """Rise from the floor: roll into the captured starting pose, then as captured."""
        now = self.poses.last()
        chest = quat.rotate(now.rotation[0], np.array([1.0, 0.0, 0.0]))
        clip = motion("getup_faceup" if chest[1] > 0 else "getup_facedown")
        count = round(clip.duration / speed * self._fps)
        rise = clip.once(np.arange(1, count + 1) / self._fps * speed)
        # Lay the captured body along the spine of the one on the floor.
        self._heading = _spine(now) - _spine(rise[:1])
        self._placed(rise, 1.3)

    def _placed(self, poses: Poses, blend_s: float) -> None:
        """Add poses that start at the origin facing +x, from here and in the present heading."""
        placed = poses.moved(self._heading, np.array([self._at[0], 0.0, self._at[1]]))
        self._add(placed, blend_s)
        self._settle()

    def _add_in_place(self, keys: list[tuple[float, Poses]], seconds: float, blend_s: float) -> None:
        """Interpolate key poses with the feet kept where they are."""
        count = round(seconds * self._fps)
        times = np.arange(1, count + 1) / self._fps
        marks = np.array([k[0] for k in keys])
        poses = skeleton.join([k[1] for k in keys])
        index = np.clip(np.searchsorted(marks, times, side="right") - 1, 0, len(keys) - 1)
        following = np.minimum(index + 1, len(keys) - 1)
        span = np.maximum(marks[following] - marks[index], 1e-6)
        moved = poses.at(index + np.where(following > index, _smooth(np.clip((times - marks[index]) / span, 0, 1)), 0))
        joints = moved.joints.copy()
        sway = 0.02 * np.sin(2 * np.pi * (0.3 * times + self._random.uniform()))
        for name in ("right_shoulder", "left_shoulder", "neck"):
            i = skeleton.INDEX[name]
            joints[:, i] = quat.multiply(quat.axis_angle(_Z, sway), joints[:, i])
        moved = _feet_down(Poses(moved.position, moved.rotation, joints))
        self._add(moved.moved(self._heading, np.array([self._at[0], 0.0, self._at[1]])), blend_s)

    def _add(self, poses: Poses, blend_s: float) -> None:
        if self._parts and blend_s > 0:
            count = min(round(blend_s * self._fps), len(poses))
            ease = _smooth(np.arange(1, count + 1) / count)
            mixed = skeleton.blend(skeleton.repeat(self._parts[-1].last(), count), poses[:count], ease)
            poses = skeleton.join([mixed, poses[count:]]) if count < len(poses) else mixed
        self._parts.append(poses)
        self._count += len(poses)

    def _settle(self) -> None:
        last = self._parts[-1].last()
        self._at = last.position[0, [0, 2]]
        self._heading = float(quat.heading(last.rotation[0]))


def _standing() -> Poses:
    return skeleton.key_pose(
        {
            "right_shoulder": quat.axis_angle(_X, -0.1),
            "left_shoulder": quat.axis_angle(_X, 0.1),
            "right_elbow": quat.axis_angle(_Z, 0.25),
            "left_elbow": quat.axis_angle(_Z, 0.2),
            "right_hip": quat.axis_angle(_X, -0.04),
            "left_hip": quat.axis_angle(_X, 0.04),
        }
    )


def _bent() -> Poses:
    return _key(lean=-1.0, hip=1.25, knee=-1.2, ankle=0.45, chest=-0.45, arm=1.1)


def _leaning() -> Poses:
    return _key(lean=-0.6, hip=1.2, knee=-0.9, ankle=0.3, chest=-0.2, arm=0.5)


def _sitting() -> Poses:
    return _key(lean=-0.05, hip=1.5, knee=-1.5, ankle=0.05, chest=-0.1, arm=0.5)


def _key(lean: float, hip: float, knee: float, ankle: float, chest: float, arm: float) -> Poses:
    turn = {
        f"{s}_{part}": quat.axis_angle(_Z, a)
        for s in ("right", "left")
        for part, a in (("hip", hip), ("knee", knee), ("ankle", ankle), ("elbow", 0.5))
    }
    for side, out in (("right", -0.12), ("left", 0.12)):
        turn[f"{side}_shoulder"] = quat.multiply(quat.axis_angle(_Z, arm), quat.axis_angle(_X, out))
    return skeleton.key_pose(
        {**turn, "chest": quat.axis_angle(_Z, chest), "neck": quat.axis_angle(_Z, -0.1)}, quat.axis_angle(_Z, lean)
    )


def _feet_down(poses: Poses) -> Poses:
    """Shift the root so that the ankles' middle stays above the origin and the lower foot on the ground."""
    positions, _ = skeleton.forward(poses)
    feet = positions[:, [skeleton.LINKS.index("right_ankle"), skeleton.LINKS.index("left_ankle")]]
    shift = -feet.mean(1)
    shift[:, 1] = _SOLE_M - feet[:, :, 1].min(1)
    return Poses(poses.position + shift, poses.rotation, poses.joints)


def _spine(pose: Poses) -> float:
    """Direction over the floor from the root to the chest."""
    positions, _ = skeleton.forward(pose[:1])
    way = positions[0, skeleton.LINKS.index("neck")] - positions[0, 0]
    return math.atan2(-way[2], way[0])


def _level(rotation: Array) -> Array:
    """Take the heading out of a rotation."""
    return quat.multiply(quat.yaw(-quat.heading(rotation)), rotation)


def _smooth(t: Array) -> Array:
    return np.asarray(t * t * t * (10 - 15 * t + 6 * t * t))


def _wrapped(angle: float) -> float:
    return (angle + math.pi) % (2 * math.pi) - math.pi
