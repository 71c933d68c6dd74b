"""MSNet: TSM with one MotionSqueeze module, MS (Kwon et al. 2020, arXiv 2007.09933).

The module stands after the last stage whose map has an eighth of the input's side, the second of a ResNet. With frames
``x[t]`` of C channels, positions p of the map, and displacements δ of at most 7 along each axis:

- ``F[t] = r / sqrt(Σ r² + 1e-6)``, sum over channels, ``r = relu(bn(R · x[t]))``, R ``[64, C]``;
- correlation ``c[δ, p] = relu(⟨F[t][p], F[t+1][p + δ]⟩)``, zero where ``p + δ`` is outside the map;
- displacement by kernel-soft-argmax: ``δ* = argmax c[·, p]``, ``g[δ] = exp(-|δ - δ*|² / (2·5²))``,
  ``w = softmax(100 · g · c[·, p])`` over δ, ``(u, v) = Σ w·δ / 7``, u along the width; confidence ``max c[·, p]``;
- motion features of (u, v, confidence), where the last frame has those of the last pair: four times a convolution per
  channel (7x7, then 3x3) and a 1x1 one (to 16, 32, 64, C channels), a norm and ReLU after each;
- ``y[t] = x[t] + motion[t]``.

The authors correlate with a CUDA kernel. Here all positions are multiplied with all, ``[H·W, R] x [R, H·W]``, and one
constant index picks those that lie at a displacement. Ours:

- on maps of fewer than 8 rows or columns displacements end at the other side, and their unit stays 1/7;
- where there are fewer than 64 channels, R keeps their number;
- on a bare wall all displacements are alike but for rounding, which is not that of the next runtime:
  ``δ* = argmax (c[·, p] - 1e-5 · rank)``, where the shortest displacement has rank 0, the next 1, and so on.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from kinewatch_models.arch import tsm
from kinewatch_models.arch.backbone import Trunk
from kinewatch_models.arch.layers import ConvNorm
from kinewatch_models.arch.window import Shape, WindowNet

STRIDE, REDUCED, RADIUS = 8, 64, 7
SIGMA, TEMPERATURE, EPSILON, TIE = 5.0, 100.0, 1e-6, 1e-5
MAPS, KERNELS, WIDTHS = 3, (7, 3, 3, 3), (16, 32, 64)
conv = partial(ConvNorm, act="relu", live=True, even=True, epsilon=1e-5)


def build(trunk: Trunk, shape: Shape) -> WindowNet:
    """TSM, and one MS module where the map has an eighth of the input's side."""
    stage = max(index for index, stride in enumerate(trunk.strides()[1:]) if stride == STRIDE)
    net = tsm.build(trunk, shape)
    net.between[stage] = MotionSqueeze(trunk.stages[stage][-1].outputs, shape.frames)
    return net


class MotionSqueeze(nn.Module):
    """Frames ``[N·T, C, H, W]`` in and out, T at least 2."""

    def __init__(self, channels: int, frames: int):
        super().__init__()
        self.frames, self.reduced = frames, min(REDUCED, channels)
        self.reduce = conv(channels, self.reduced, 1)
        self.motion = motion_features(channels)

    def forward(self, x: Tensor) -> Tensor:
        """The frames and what their motion adds."""
        rows, columns = int(x.shape[2]), int(x.shape[3])
        clips = unit(self.reduce(x)).view(-1, self.frames, self.reduced, rows * columns)
        search = Search.of(rows, columns, x.device)
        maps = displacement(correlation(clips[:, :-1].flatten(0, 1), clips[:, 1:].flatten(0, 1), search), search)
        maps = maps.view(-1, self.frames - 1, MAPS, rows, columns)
        motion: Tensor = self.motion(torch.cat([maps, maps[:, -1:]], 1).flatten(0, 1))
        return x + motion


def motion_features(channels: int) -> nn.Sequential:
    """Maps ``[M, 3, H, W]`` of displacement and confidence to ``[M, channels, H, W]``."""
    layers: list[nn.Module] = []
    inputs = MAPS
    for kernel, outputs in zip(KERNELS, (*WIDTHS, channels), strict=True):
        layers += [conv(inputs, inputs, kernel, groups=inputs), conv(inputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*layers)


class Search(NamedTuple):
    """Where to look for the positions of a map of ``H x W``: at displacements of Y rows by X columns."""

    picks: Tensor
    """``[Y·X·H·W]``, into all positions of the first frame by all of the second."""
    rows_inside: Tensor
    """``[Y, 1, H, 1]``, 0 where a displacement leaves the map, else 1."""
    columns_inside: Tensor
    """``[X, 1, W]``, likewise."""
    down: Tensor
    """``[Y]``, displacements along the height."""
    right: Tensor
    """``[X]``, displacements along the width."""
    moves: Tensor
    """``[2, Y·X]``, displacements along the width, and along the height."""
    ranks: Tensor
    """``[Y·X, 1]``, from 0 for the shortest displacement."""

    @classmethod
    def of(cls, rows: int, columns: int, device: torch.device) -> Search:
        """That of a map."""
        (down, y, rows_inside), (right, x, columns_inside) = _along(rows), _along(columns)
        target = y[:, None, :, None] * columns + x[None, :, None, :]
        picks = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns) * (rows * columns) + target
        moves = np.stack(np.meshgrid(right, down)).reshape(2, -1)
        ranks = (moves**2).sum(0).argsort(kind="stable").argsort().astype(np.float32)[:, None]
        made = picks.ravel(), rows_inside[:, None, :, None], columns_inside[:, None, :], down, right, moves, ranks
        return cls(*(torch.from_numpy(one).to(device) for one in made))


def _along(side: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Displacements ``[D]`` along a side; where they lead from each place ``[D, side]``, and whether inside."""
    radius = min(RADIUS, side - 1)
    moves = np.arange(-radius, radius + 1, dtype=np.int32)
    target = np.arange(side, dtype=np.int32) + moves[:, None]
    within = np.clip(target, 0, side - 1)
    return moves.astype(np.float32), within, (within == target).astype(np.float32)


def unit(x: Tensor) -> Tensor:
    """``[M, R, H, W]`` at unit length over the channels."""
    return x / torch.sqrt((x * x).sum(1, keepdim=True) + EPSILON)


def correlation(first: Tensor, second: Tensor, search: Search) -> Tensor:
    """``[M, Y·X, H·W]`` of two frames' features ``[M, R, H·W]``: how alike each position is to those around it."""
    pairs = (first.transpose(1, 2) @ second).flatten(1).index_select(1, search.picks)
    high, rows = int(search.rows_inside.shape[0]), int(search.rows_inside.shape[2])
    wide, columns = int(search.columns_inside.shape[0]), int(search.columns_inside.shape[2])
    inside = pairs.view(-1, high, wide, rows, columns) * search.rows_inside * search.columns_inside
    return torch.relu(inside).view(-1, high * wide, rows * columns)


def displacement(c: Tensor, search: Search) -> Tensor:
    """``[M, 3, H·W]`` of correlations ``[M, Y·X, H·W]``: where each position went, (u, v), and confidence."""
    right, down = search.moves[:, (c - TIE * search.ranks).argmax(1)].unbind(0)
    kernel = _gauss(search.down, down).unsqueeze(2) * _gauss(search.right, right).unsqueeze(1)
    weight = torch.softmax(TEMPERATURE * kernel.flatten(1, 2) * c, 1)
    return torch.cat([(search.moves / RADIUS) @ weight, c.amax(1, keepdim=True)], 1)


def _gauss(moves: Tensor, peak: Tensor) -> Tensor:
    """``[M, D, H·W]``: how near displacements ``[D]`` along an axis are to the peak's ``[M, H·W]``."""
    return torch.exp((moves[:, None] - peak[:, None]).square() / (-2 * SIGMA**2))
