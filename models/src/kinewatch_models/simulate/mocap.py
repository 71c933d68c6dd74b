"""Motion capture that comes with PyBullet (``pybullet_data/data/motions``, the DeepMimic clips).

A `Motion` starts with the root above the origin, facing +x; a cyclic one repeats and moves on by its own stride.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from . import quaternion as quat
from .quaternion import Array
from .skeleton import HINGE_AXIS, INDEX, JOINTS, Poses

# Where each joint's rotation lies in a frame: (first column, number of values); quaternions are stored w x y z.
_COLUMNS = {
    "chest": (8, 4),
    "neck": (12, 4),
    "right_hip": (16, 4),
    "right_knee": (20, 1),
    "right_ankle": (21, 4),
    "right_shoulder": (25, 4),
    "right_elbow": (29, 1),
    "left_hip": (30, 4),
    "left_knee": (34, 1),
    "left_ankle": (35, 4),
    "left_shoulder": (39, 4),
    "left_elbow": (43, 1),
}


@dataclass(frozen=True)
class Motion:
    """Captured poses at a fixed interval ``dt`` (s)."""

    poses: Poses
    dt: float

    @property
    def duration(self) -> float:
        """Length of one pass in seconds."""
        return self.dt * (len(self.poses) - 1)

    @property
    def stride(self) -> Array:
        """How far one pass moves the root over the floor, ``[3]`` with y = 0."""
        step = self.poses.position[-1] - self.poses.position[0]
        out: Array = step * np.array([1.0, 0.0, 1.0])
        return out

    def once(self, times: Array) -> Poses:
        """Poses at ``times`` (s), the ends held."""
        return self.poses.at(np.asarray(times) / self.dt)

    def cyclic(self, times: Array) -> Poses:
        """Poses at ``times`` of the endless repetition, the root moving on by `stride` each pass."""
        passes, phase = np.divmod(np.asarray(times, dtype=float), self.duration)
        poses = self.once(phase)
        return Poses(poses.position + passes[:, None] * self.stride, poses.rotation, poses.joints)


@cache
def motion(name: str) -> Motion:
    """The clip ``humanoid3d_<name>``; an unknown name raises ``FileNotFoundError``."""
    import pybullet_data

    path = Path(pybullet_data.getDataPath()) / "data" / "motions" / f"humanoid3d_{name}.txt"
    frames = np.array(json.loads(path.read_text())["Frames"], dtype=float)
    joints = np.empty((len(frames), len(JOINTS), 4))
    for joint, (column, width) in _COLUMNS.items():
        values = frames[:, column : column + width]
        rotation = quat.axis_angle(HINGE_AXIS, values[:, 0]) if width == 1 else np.roll(values, -1, axis=1)
        joints[:, INDEX[joint]] = rotation
    position = frames[:, 1:4] - frames[0, 1:4] * np.array([1.0, 0.0, 1.0])
    return Motion(Poses(position, _unit(np.roll(frames[:, 4:8], -1, axis=1)), _unit(joints)), float(frames[0, 0]))


def _unit(q: Array) -> Array:
    out: Array = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return out
