"""The humanoid's joints and their poses over time.

The skeleton is that of ``pybullet_data/humanoid/humanoid.urdf`` at its natural size (metres, y up, front +x,
right +z), so the same poses come from motion capture, from key poses and from physics. Forward kinematics are
done here on whole sequences at once; PyBullet is needed only where a body falls.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import quaternion as quat
from .quaternion import Array

URDF_SCALE = 0.25
STANDING_HEIGHT_M = 1.64


@dataclass(frozen=True)
class Joint:
    """One moving joint: its link in the URDF, its parent link and the offset from the parent's frame (m)."""

    name: str
    parent: str
    offset: tuple[float, float, float]
    hinge: bool = False


JOINTS: tuple[Joint, ...] = (
    Joint("chest", "root", (0.0, 0.236151, 0.0)),
    Joint("neck", "chest", (0.0, 0.223894, 0.0)),
    Joint("right_shoulder", "chest", (-0.02405, 0.2435, 0.18311)),
    Joint("right_elbow", "right_shoulder", (0.0, -0.274788, 0.0), hinge=True),
    Joint("left_shoulder", "chest", (-0.02405, 0.2435, -0.18311)),
    Joint("left_elbow", "left_shoulder", (0.0, -0.274788, 0.0), hinge=True),
    Joint("right_hip", "root", (0.0, 0.0, 0.084887)),
    Joint("right_knee", "right_hip", (0.0, -0.421546, 0.0), hinge=True),
    Joint("right_ankle", "right_knee", (0.0, -0.40987, 0.0)),
    Joint("left_hip", "root", (0.0, 0.0, -0.084887)),
    Joint("left_knee", "left_hip", (0.0, -0.421546, 0.0), hinge=True),
    Joint("left_ankle", "left_knee", (0.0, -0.40987, 0.0)),
)
LINKS: tuple[str, ...] = ("root", *(j.name for j in JOINTS))
INDEX: dict[str, int] = {j.name: i for i, j in enumerate(JOINTS)}
HINGE_AXIS = (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Poses:
    """A sequence of ``N`` poses: root position ``[N,3]``, root rotation ``[N,4]``, joint rotations ``[N,12,4]``."""

    position: Array
    rotation: Array
    joints: Array

    def __len__(self) -> int:
        return len(self.position)

    def __getitem__(self, key: slice) -> Poses:
        return Poses(self.position[key], self.rotation[key], self.joints[key])

    def last(self, count: int = 1) -> Poses:
        """The final ``count`` poses."""
        return self[slice(len(self) - count, len(self))]

    def at(self, indices: Array) -> Poses:
        """Poses at fractional ``indices``, interpolated, the ends held."""
        clipped = np.clip(indices, 0, len(self) - 1)
        low = np.minimum(clipped.astype(int), max(len(self) - 2, 0))
        high = np.minimum(low + 1, len(self) - 1)
        t = clipped - low
        return blend(
            Poses(self.position[low], self.rotation[low], self.joints[low]),
            Poses(self.position[high], self.rotation[high], self.joints[high]),
            t,
        )

    def moved(self, turn: float, offset: Array) -> Poses:
        """The same movement turned by ``turn`` about the vertical through the origin, then shifted."""
        q = quat.yaw(np.full(len(self), turn))
        return Poses(quat.rotate(q, self.position) + offset, quat.multiply(q, self.rotation), self.joints)


def blend(a: Poses, b: Poses, t: Array) -> Poses:
    """From ``a`` (t = 0) to ``b`` (t = 1), pose by pose; ``t`` is ``[N]``; a single pose broadcasts."""
    t = np.asarray(t, dtype=float)
    return Poses(
        a.position + (b.position - a.position) * t[:, None],
        quat.slerp(a.rotation, b.rotation, t),
        quat.slerp(a.joints, b.joints, t[:, None]),
    )


def join(parts: list[Poses]) -> Poses:
    """One sequence after the other."""
    return Poses(
        np.concatenate([p.position for p in parts]),
        np.concatenate([p.rotation for p in parts]),
        np.concatenate([p.joints for p in parts]),
    )


def repeat(pose: Poses, count: int) -> Poses:
    """A single pose held for ``count`` frames."""
    return Poses(
        np.repeat(pose.position, count, 0), np.repeat(pose.rotation, count, 0), np.repeat(pose.joints, count, 0)
    )


def key_pose(joints: dict[str, Array], root: Array = quat.IDENTITY) -> Poses:
    """One pose at standing height by named joint rotations; what is not named stays straight."""
    rotations = np.tile(quat.IDENTITY, (1, len(JOINTS), 1))
    for name, rotation in joints.items():
        rotations[0, INDEX[name]] = rotation
    return Poses(np.array([[0.0, 0.88, 0.0]]), root[None], rotations)


def forward(poses: Poses) -> tuple[Array, Array]:
    """World positions ``[N,13,3]`` and rotations ``[N,13,4]`` of all `LINKS`."""
    positions = np.empty((len(poses), len(LINKS), 3))
    rotations = np.empty((len(poses), len(LINKS), 4))
    positions[:, 0], rotations[:, 0] = poses.position, poses.rotation
    for i, joint in enumerate(JOINTS):
        parent = LINKS.index(joint.parent)
        offset = np.broadcast_to(np.array(joint.offset), (len(poses), 3))
        positions[:, i + 1] = positions[:, parent] + quat.rotate(rotations[:, parent], offset)
        rotations[:, i + 1] = quat.multiply(rotations[:, parent], poses.joints[:, i])
    return positions, rotations
