"""A pinhole camera: x right, y down in the picture, z along the view."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .quaternion import Array


@dataclass(frozen=True)
class Camera:
    """A fixed camera of ``width`` x ``height`` pixels; ``axes`` are its right, down and forward directions."""

    position: Array
    axes: Array
    width: int
    height: int
    focal_px: float

    @staticmethod
    def looking(position: Array, target: Array, width: int, height: int, fov_deg: float, roll: float = 0.0) -> Camera:
        """A camera at ``position`` aimed at ``target``; ``fov_deg`` is the vertical field of view."""
        forward = np.asarray(target, dtype=float) - position
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 1.0, 0.0])
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        c, s = math.cos(roll), math.sin(roll)
        axes = np.stack([c * right + s * down, c * down - s * right, forward])
        return Camera(
            np.asarray(position, dtype=float), axes, width, height, height / 2 / math.tan(math.radians(fov_deg) / 2)
        )

    def rays(self) -> Array:
        """Unit directions through all pixel centres, ``[H,W,3]``."""
        u = (np.arange(self.width) + 0.5 - self.width / 2) / self.focal_px
        v = (np.arange(self.height) + 0.5 - self.height / 2) / self.focal_px
        x, y = np.meshgrid(u, v)
        way = x[..., None] * self.axes[0] + y[..., None] * self.axes[1] + self.axes[2]
        out: Array = way / np.linalg.norm(way, axis=-1, keepdims=True)
        return out

    def project(self, points: Array) -> tuple[Array, Array]:
        """Pixel coordinates ``[...,2]`` and depth along the view ``[...]`` (m) of world points."""
        seen = (points - self.position) @ self.axes.T
        depth = np.maximum(seen[..., 2], 0.05)
        pixel = seen[..., :2] / depth[..., None] * self.focal_px
        return pixel + np.array([self.width, self.height]) / 2 - 0.5, seen[..., 2]
