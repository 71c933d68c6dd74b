"""A fall: the body is handed from motion capture to rigid-body physics at the frame where balance is lost.

The body keeps the speed it had, is pushed off its feet, and its muscle tone fades: joint motors hold a bracing pose
weakly, then only damp. `fall` needs PyBullet (extra ``[simulate]``). It runs in its own physics server, so it is
deterministic and may run beside others.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import quaternion as quat
from . import skeleton
from .error import FallError
from .quaternion import Array
from .skeleton import JOINTS, URDF_SCALE, Poses

_SUBSTEPS = 10
_REST_SPEED = 0.3  # m/s: below this, every part of the trunk and the legs counts as still
_TRUNK = ("chest", "neck", "right_hip", "right_knee", "left_hip", "left_knee")


@dataclass(frozen=True)
class FallStyle:
    """How balance is lost. ``lean`` is the direction of the push relative to the body: 0 forward, pi backward."""

    lean: float
    push: float  # m/s added to the trunk
    spin: float  # rad/s of the trunk in the direction of the push
    tone: float  # N·m that the joints can hold at first
    fade_s: float  # time in which the tone is lost
    knees: float = 0.0  # rad by which the bracing pose bends the knees


@dataclass(frozen=True)
class Fall:
    """The poses of a fall and the index of the first frame at which the body is at rest."""

    poses: Poses
    rest: int


def fall(before: Poses, style: FallStyle, fps: float, settle_s: float = 1.0, limit_s: float = 4.0) -> Fall:
    """Let the body fall on from the last two poses of ``before``; ends ``settle_s`` after it came to rest.

    Raises `FallError` when it does not come to rest within ``limit_s``.
    """
    with _quiet():
        import pybullet
    import pybullet_data
    from pybullet_utils.bullet_client import BulletClient

    with _quiet():
        world = BulletClient(connection_mode=pybullet.DIRECT)
    try:
        world.setAdditionalSearchPath(pybullet_data.getDataPath())
        world.setGravity(0, -9.81, 0)
        world.setTimeStep(1 / (fps * _SUBSTEPS))
        flat = world.createCollisionShape(pybullet.GEOM_BOX, halfExtents=[20, 0.5, 20])
        floor = world.createMultiBody(0, flat, basePosition=[0, -0.5, 0])
        world.changeDynamics(floor, -1, lateralFriction=0.9, restitution=0.0)
        body = Ragdoll(world)
        body.launch(before, style, fps)
        return _run(body, before, style, fps, settle_s, limit_s)
    finally:
        world.disconnect()


class Ragdoll:
    """The humanoid in a physics world, spoken to in poses."""

    def __init__(self, world: Any) -> None:
        self.world = world
        flags = world.URDF_MAINTAIN_LINK_ORDER
        with _quiet():
            self.body = world.loadURDF("humanoid/humanoid.urdf", globalScaling=URDF_SCALE, flags=flags)
        numbers = range(world.getNumJoints(self.body))
        self._link = {world.getJointInfo(self.body, n)[12].decode(): n for n in numbers}
        for link in (-1, *numbers):
            world.changeDynamics(
                self.body,
                link,
                lateralFriction=0.8,
                restitution=0.0,
                linearDamping=0.02,
                angularDamping=0.05,
                rollingFriction=0.02,
                spinningFriction=0.02,
            )

    def launch(self, before: Poses, style: FallStyle, fps: float) -> None:
        """Take over the last pose with its speed, and push."""
        world, body = self.world, self.body
        now, previous = before.last(1), before.last(2)
        world.resetBasePositionAndOrientation(body, now.position[0], now.rotation[0])
        for i, joint in enumerate(JOINTS):
            earlier, later = previous.joints[0, i], previous.joints[1, i]
            speed = quat.rotate(quat.conjugate(earlier), quat.angular_velocity(earlier, later, 1 / fps))
            if joint.hinge:
                world.resetJointState(body, self._link[joint.name], _angle(later), float(speed[2]))
            else:
                world.resetJointStateMultiDof(body, self._link[joint.name], later.tolist(), speed.tolist())
        facing = float(quat.heading(now.rotation[0])) + style.lean
        toward = np.array([math.cos(facing), 0.0, -math.sin(facing)])
        linear = (previous.position[1] - previous.position[0]) * fps + style.push * toward
        turning = quat.angular_velocity(previous.rotation[0], previous.rotation[1], 1 / fps)
        tip = np.cross([0.0, 1.0, 0.0], toward) * style.spin
        world.resetBaseVelocity(body, linear.tolist(), (turning + tip).tolist())

    def hold(self, target: Array, torque: float, gain: float) -> None:
        """Pull every joint towards ``target`` with at most ``torque`` (N·m); a ``gain`` of 0 only damps."""
        world = self.world
        for i, joint in enumerate(JOINTS):
            if joint.hinge:
                world.setJointMotorControl2(
                    self.body,
                    self._link[joint.name],
                    world.POSITION_CONTROL,
                    _angle(target[i]),
                    positionGain=gain,
                    velocityGain=0.4,
                    force=torque,
                )
                continue
            # The trunk keeps some tone: a spine does not fold like an arm.
            spine = joint.name in ("chest", "neck")
            world.setJointMotorControlMultiDof(
                self.body,
                self._link[joint.name],
                world.POSITION_CONTROL,
                target[i].tolist(),
                positionGain=max(gain, 0.03) if spine else gain,
                velocityGain=0.4,
                force=[torque * (4.0 if spine else 1.0)] * 3,
            )

    def joints(self) -> Array:
        """Joint rotations ``[12,4]``."""
        out = np.empty((len(JOINTS), 4))
        for i, joint in enumerate(JOINTS):
            link = self._link[joint.name]
            if joint.hinge:
                out[i] = quat.axis_angle(skeleton.HINGE_AXIS, self.world.getJointState(self.body, link)[0])
            else:
                out[i] = self.world.getJointStateMultiDof(self.body, link)[0]
        return out

    def positions(self) -> Array:
        """World positions ``[13,3]`` of all links, as PyBullet has them."""
        root = self.world.getBasePositionAndOrientation(self.body)[0]
        numbers = [self._link[joint.name] for joint in JOINTS]
        states = self.world.getLinkStates(self.body, numbers, computeForwardKinematics=1)
        return np.array([root, *(s[4] for s in states)])

    def speed(self) -> float:
        """The fastest part of trunk and legs, m/s."""
        states = self.world.getLinkStates(self.body, [self._link[n] for n in _TRUNK], computeLinkVelocity=1)
        return max(float(np.linalg.norm(s[6])) for s in states)


def _run(ragdoll: Ragdoll, before: Poses, style: FallStyle, fps: float, settle_s: float, limit_s: float) -> Fall:
    brace = _bracing(before, style)
    position, rotation, joints = [], [], []
    still = 0
    for frame in range(round((limit_s + settle_s) * fps)):
        held = max(0.0, 1 - frame / fps / style.fade_s)
        ragdoll.hold(brace, 2.0 + style.tone * held, 0.12 * held)
        for _ in range(_SUBSTEPS):
            ragdoll.world.stepSimulation()
        at, turned = ragdoll.world.getBasePositionAndOrientation(ragdoll.body)
        position.append(at)
        rotation.append(turned)
        joints.append(ragdoll.joints())
        still = still + 1 if ragdoll.speed() < _REST_SPEED and at[1] < 0.4 else 0
        if still >= settle_s * fps:
            break
    else:
        raise FallError(f"the body did not come to rest within {limit_s:g} s; take another seed")
    poses = Poses(np.array(position), np.array(rotation), np.array(joints))
    return Fall(poses, len(poses) - still)


def _bracing(before: Poses, style: FallStyle) -> Array:
    """The pose that the reflex holds: arms towards the ground, knees giving way."""
    z = (0.0, 0.0, 1.0)
    target: Array = before.joints[-1].copy()
    forward = math.cos(style.lean)
    reach = 0.9 * forward if forward > 0 else 0.5 * forward
    for side, out in (("right", -0.35), ("left", 0.35)):
        target[skeleton.INDEX[f"{side}_shoulder"]] = quat.multiply(
            quat.axis_angle(z, reach), quat.axis_angle((1.0, 0.0, 0.0), out)
        )
        target[skeleton.INDEX[f"{side}_elbow"]] = quat.axis_angle(z, 0.6)
        target[skeleton.INDEX[f"{side}_hip"]] = quat.axis_angle(z, 0.35 * style.knees)
        target[skeleton.INDEX[f"{side}_knee"]] = quat.axis_angle(z, -0.2 - style.knees)
        target[skeleton.INDEX[f"{side}_ankle"]] = quat.IDENTITY
    target[skeleton.INDEX["chest"]] = quat.axis_angle(z, -0.15 * forward)
    target[skeleton.INDEX["neck"]] = quat.axis_angle(z, 0.15 * forward)
    return target


def _angle(q: Array) -> float:
    """Angle of a hinge's rotation about its axis."""
    return float(2 * math.atan2(q[2], q[3]))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyBullet's C code from writing to the terminal; process-wide, so only around short calls."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = [os.dup(1), os.dup(2)]
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        yield
    finally:
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        os.close(sink)
