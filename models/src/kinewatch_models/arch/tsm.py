"""TSM: temporal shift module (Lin et al. 2019, arXiv 1811.08383), the form that sees both ways inside a window.

On the input of every residual branch, with ``f = C / 8``: ``y[t, :f] = x[t-1, :f]``, ``y[t, f:2f] = x[t+1, f:2f]``, the
other channels as they are; zero beyond the window. Its one-way form for streams, with states, is in `train.net`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kinewatch_models.arch.backbone import Trunk
from kinewatch_models.arch.temporal import earlier, later
from kinewatch_models.arch.window import Shape, WindowNet, residual_blocks

DIV = 8


def build(trunk: Trunk, shape: Shape) -> WindowNet:
    """A shift before every residual branch."""
    for block in residual_blocks(trunk):
        block.before = Shift(shape.frames)
    return WindowNet(trunk, shape)


class Shift(nn.Module):
    """Frames ``[N·T, C, H, W]`` in and out."""

    def __init__(self, frames: int, div: int = DIV):
        super().__init__()
        self.frames, self.div = frames, div

    def forward(self, x: Tensor) -> Tensor:
        """The shift."""
        return shift(x, self.frames, self.div)


def shift(x: Tensor, frames: int, div: int) -> Tensor:
    """``1 / div`` of the channels from the frame before, as many from the frame after, the others as they are."""
    fold = int(x.shape[1]) // div
    past, future = earlier(x[:, :fold], frames), later(x[:, fold : 2 * fold], frames)
    return torch.cat([past, future, x[:, 2 * fold :]], 1)
