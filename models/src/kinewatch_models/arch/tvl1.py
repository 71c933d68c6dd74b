"""TV-L1 optical flow: Zach, Pock and Bischof 2007, as in Sánchez Pérez, Meinhardt-Llopis and Facciolo 2013 (IPOL).

For grey pictures I0 and I1 it looks for the flow u that minimises ``Σ |∇u1| + |∇u2| + λ |I1(x + u(x)) - I0(x)|``. From
the coarsest level of a pyramid to the finest, `warps` times each, I1 is linearised around the flow v found so far:

    g = ∇I1(x + v)        r(u) = I1(x + v) + g·(u - v) - I0(x)

and `iterations` steps alternate between the data, pixel by pixel, and smoothness, with a dual variable p for each
component of the flow (zero at the start of each level):

    u ← u + g · clamp(-r(u) / |g|², -λθ, λθ) + θ div p        p ← (p + τ/θ ∇u) / (1 + τ/θ |∇u|)

The clamp is the paper's thresholding, its three cases in one. ∇u are forward differences, zero in the last column and
row, and div is their adjoint; ∇I1 are central differences. Both pictures are smoothed first.

So that the graph is static and of operators that every runtime has, these differ from the article: levels shrink by 2,
the number of steps is fixed (no test of convergence), I1 is warped bilinearly and continued beyond its border, and the
coarser pixels lie in the middle of four finer ones, as `Resize` wants it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAU, LAMBDA, THETA = 0.25, 0.15, 0.3
PRESMOOTHING, PRESMOOTHING_SIDE = 0.8, 5
SHRINKING, SHRINKING_SIDE = 0.6 * math.sqrt(3.0), 6
"""The article's ``0.6 √(1/η² - 1)`` at η = 1/2; an even side puts coarser pixels between finer ones."""
FLAT = 1e-10
"""Added to ``|g|²``: where the picture is flat, the data say nothing."""


class Tvl1(nn.Module):
    """Grey pictures ``[N, 1, H, W]`` in units of 0 to 255 to the flow from the first to the second, in pixels.

    Sides of the picture are at least ``2^levels``. With the defaults the median error on an object of 32 by 60 pixels
    is 0.2 pixels when it moves by 3 or 6, 0.4 at 11, 1.1 at 15; three levels lose it at 11.
    """

    smoothing: Tensor
    shrinking: Tensor
    central: Tensor
    ahead_x: Tensor
    ahead_y: Tensor
    behind_x: Tensor
    behind_y: Tensor
    next_x: Tensor
    next_y: Tensor

    def __init__(self, levels: int = 4, warps: int = 2, iterations: int = 6):
        super().__init__()
        self.levels, self.warps, self.iterations = levels, warps, iterations
        for name, kernel in _kernels().items():
            self.register_buffer(name, kernel.contiguous())

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Flow ``[N, 2, H, W]``, x and y: what is at x in the first picture is at x + u(x) in the second."""
        pyramid = [_filtered(torch.cat([first, second], 1), self.smoothing)]
        while len(pyramid) < self.levels:
            pyramid.append(_filtered(pyramid[-1], self.shrinking, 2))
        flow = self._refined(pyramid[-1] * 0.0, pyramid[-1])
        for pair in pyramid[-2::-1]:
            size = [int(side) for side in pair.shape[2:]]
            flow = self._refined(F.interpolate(flow, size=size, mode="bilinear") * 2.0, pair)
        return flow

    def _refined(self, flow: Tensor, pair: Tensor) -> Tensor:
        """The flow after all warps of one level; `pair` ``[N, 2, H, W]`` are its two pictures."""
        first, second = pair[:, :1], pair[:, 1:]
        target = torch.cat([second, F.conv2d(F.pad(second, (1, 1, 1, 1), "replicate"), self.central)], 1)
        lattice, inside = _lattice(pair), self._inside(first)
        dual = flow * 0.0, flow * 0.0
        for _ in range(self.warps):
            warped = _warped(target, flow, lattice)
            gradient = warped[:, 1:]
            square = (gradient * gradient).sum(1, keepdim=True) + FLAT
            slope = -gradient / square
            offset = (first - warped[:, :1]) / square - (slope * flow).sum(1, keepdim=True)
            for _ in range(self.iterations):
                step = (offset + (slope * flow).sum(1, keepdim=True)).clamp(-LAMBDA * THETA, LAMBDA * THETA)
                flow = flow + gradient * step + self._divergence(*dual)
                dual = self._dual(flow, *dual, inside)
        return flow

    def _inside(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Zero in the last column, and in the last row, one elsewhere ``[1, 1, H, W]``: where there is a next one."""
        ones = picture[:1] * 0.0 + 1.0
        return F.conv2d(ones, self.next_x, padding=(0, 1)), F.conv2d(ones, self.next_y, padding=(1, 0))

    def _divergence(self, dual_x: Tensor, dual_y: Tensor) -> Tensor:
        """``θ div p`` ``[N, 2, H, W]``; p is zero in the last column and row, as ∇u is, so that zero padding does."""
        along_x = F.conv2d(dual_x, self.behind_x, padding=(0, 1), groups=2)
        return along_x + F.conv2d(dual_y, self.behind_y, padding=(1, 0), groups=2)

    def _dual(
        self, flow: Tensor, dual_x: Tensor, dual_y: Tensor, inside: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The next p along x and along y, each ``[N, 2, H, W]`` with a channel for each component of the flow."""
        along_x = F.conv2d(flow, self.ahead_x, padding=(0, 1), groups=2) * inside[0]
        along_y = F.conv2d(flow, self.ahead_y, padding=(1, 0), groups=2) * inside[1]
        norm = torch.sqrt(along_x * along_x + along_y * along_y) + 1.0
        return (dual_x + along_x) / norm, (dual_y + along_y) / norm


def _kernels() -> dict[str, Tensor]:
    """Kernels by name; they carry the factors θ and τ/θ. As persistent buffers, the graph has each of them once."""
    central = torch.tensor([[0.0, 0.0, 0.0], [-0.5, 0.0, 0.5], [0.0, 0.0, 0.0]])
    ahead = torch.tensor([0.0, -1.0, 1.0]).repeat(2, 1, 1, 1) * (TAU / THETA)
    behind = torch.tensor([-1.0, 1.0, 0.0]).repeat(2, 1, 1, 1) * THETA
    beyond = torch.tensor([[[[0.0, 0.0, 1.0]]]])
    return {
        "smoothing": _gaussian(PRESMOOTHING, PRESMOOTHING_SIDE),
        "shrinking": _gaussian(SHRINKING, SHRINKING_SIDE),
        "central": torch.stack([central, central.T]).unsqueeze(1),
        "ahead_x": ahead,
        "ahead_y": ahead.transpose(2, 3),
        "behind_x": behind,
        "behind_y": behind.transpose(2, 3),
        "next_x": beyond,
        "next_y": beyond.transpose(2, 3),
    }


def _gaussian(sigma: float, side: int) -> Tensor:
    """A Gaussian kernel ``[2, 1, side, side]`` for two pictures, of sum 1."""
    distance = torch.arange(side) - (side - 1) / 2
    weight = torch.exp(-(distance**2) / (2 * sigma**2))
    weight = weight / weight.sum()
    return (weight[:, None] * weight).repeat(2, 1, 1, 1)


def _filtered(pair: Tensor, kernel: Tensor, stride: int = 1) -> Tensor:
    """Two pictures ``[N, 2, H, W]``, continued beyond their borders, under a kernel for each."""
    margin = (int(kernel.shape[-1]) - 1) // 2
    return F.conv2d(F.pad(pair, (margin,) * 4, "replicate"), kernel, stride=stride, groups=2)


def _warped(target: Tensor, flow: Tensor, lattice: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """``target(x + u(x))``, bilinear."""
    pixel, columns, rows = lattice
    where = (flow * pixel + columns + rows).permute(0, 2, 3, 1)
    return F.grid_sample(target, where, mode="bilinear", padding_mode="border", align_corners=True)


def _lattice(like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """In GridSample's units, from -1 to 1: a pixel's size, x of columns ``[1, 2, 1, W]``, y of rows ``[1, 2, H, 1]``.

    The last two added up would be one constant as large as the picture.
    """
    height, width = _sides(like)
    pixel = torch.tensor([2.0 / (width - 1), 2.0 / (height - 1)]).view(1, 2, 1, 1)
    columns = torch.stack([torch.linspace(-1.0, 1.0, width), torch.zeros(width)]).view(1, 2, 1, width)
    rows = torch.stack([torch.zeros(height), torch.linspace(-1.0, 1.0, height)]).view(1, 2, height, 1)
    return pixel.to(like.device), columns.to(like.device), rows.to(like.device)


def _sides(picture: Tensor) -> tuple[int, int]:
    return int(picture.shape[2]), int(picture.shape[3])
