"""Random views of a window: one affine map, flip and colour for all frames; noise and shake for each.

Meant to break the bond to the few rooms of the training set: the person's place, size and tilt, the light and the
camera's noise must not matter. A still camera stays still (one map for the window), so differences stay honest.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kinewatch_models.capture import Frames

EXPOSURE_STEP = 0.1
TILT_DEG, ANY_TURN_DEG = 15.0, 180.0


def random_view(
    frames: Frames,
    size: int,
    mean: list[float],
    std: list[float],
    rng: np.random.Generator,
    rendered: bool = False,
    mirror: bool = True,
    strength: float = 1.0,
    overhead: bool = False,
) -> Tensor:
    """Frames ``[T, H, W, 3]`` as normalised ``[T, 3, size, size]``, seen through another camera.

    `rendered` frames always get a sensor's noise and often flicker.

    `strength` scales how far place, size and colours go from what was filmed: 1 for cameras never seen, 0 for none.
    Views from `overhead` are turned by any angle.
    """
    x = torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).float()
    x = _warp(x, size, rng, mirror, strength, ANY_TURN_DEG if overhead else TILT_DEG * strength)
    x = _recolour(x, rng, strength)
    x = _camera_noise(x, rng, *((1.0, 0.5) if rendered else (0.6, 0.2)))
    return _normalise(x.clamp(0, 255), mean, std)


def _normalise(x: Tensor, mean: list[float], std: list[float]) -> Tensor:
    return (x - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


def _warp(x: Tensor, size: int, rng: np.random.Generator, mirror: bool, strength: float, turn_deg: float) -> Tensor:
    angle = math.radians(rng.uniform(-turn_deg, turn_deg))
    wide, high = rng.uniform(0.65, 1.35) ** strength * rng.uniform(0.85, 1.18, 2) ** strength
    shear = strength * rng.uniform(-0.15, 0.15)
    flip = -1.0 if rng.random() < 0.5 and mirror else 1.0
    left, top = strength * rng.uniform(-0.2, 0.2, 2)
    linear = np.array([[math.cos(angle), -math.sin(angle) + shear], [math.sin(angle), math.cos(angle)]])
    linear = linear @ np.diag([wide * flip, high])
    maps = np.tile(np.concatenate([linear, [[left], [top]]], 1), (len(x), 1, 1))
    if rng.random() < 0.2:
        maps[:, :, 2] += rng.normal(0, 0.004, (len(x), 2))
    grid = F.affine_grid(torch.tensor(maps, dtype=torch.float32), [len(x), 3, size, size], align_corners=False)
    tilt = torch.tensor(strength * rng.uniform(-0.15, 0.15, 2), dtype=torch.float32)
    grid = grid / (1 + (grid * tilt).sum(-1, keepdim=True))
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _recolour(x: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    x = x * float(rng.uniform(0.55, 1.4) ** strength)
    middle = x.mean()
    x = (x - middle) * float(rng.uniform(0.55, 1.45) ** strength) + middle
    mixing = np.eye(3) + strength * rng.uniform(-0.35, 0.35, (3, 3))
    mixing /= mixing.sum(1, keepdims=True)
    x = torch.einsum("ij,tjhw->tihw", torch.tensor(mixing, dtype=torch.float32), x)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * (0.0 if rng.random() < 0.25 * strength else float(rng.uniform(0.2, 1.4) ** strength))
    return x + torch.tensor(strength * rng.uniform(-20, 20, (1, 3, 1, 1)), dtype=torch.float32)


def _camera_noise(x: Tensor, rng: np.random.Generator, noisy: float, flickering: float) -> Tensor:
    if rng.random() < noisy:
        noise = rng.standard_normal(x.shape, dtype=np.float32)
        x = x + torch.from_numpy(noise) * float(rng.uniform(0, 5))
    if rng.random() < flickering:
        x = x * torch.from_numpy(rng.normal(1, 0.015, (len(x), 1, 1, 1)).astype(np.float32))
    if rng.random() < EXPOSURE_STEP:
        first = int(rng.integers(1, len(x))) if len(x) > 1 else 0
        x = torch.cat([x[:first], x[first:] * float(rng.uniform(0.85, 1.18))])
    return x
