"""TANet: temporal adaptive module, TAM (Liu et al. 2021, arXiv 2005.06803).

In every residual unit, between the first convolution and the one over the picture, with T frames, C channels, and
``s[c, t]`` the mean of ``x[t, c]`` over the picture:

- global branch, for each channel by itself: ``K[c] = softmax(W2 · relu(bn(W1 · s[c])))``, W1 ``[2T, T]`` and W2
  ``[3, 2T]``;
- local branch: ``V = sigmoid(B · relu(bn(A * s)))``, A a convolution over time of width 3, C to C/4, and B of width 1,
  back to C;
- ``y[t, c] = Σ_k K[c, k] · (V·x)[t + k - 1, c]``, zero beyond the window.

The authors run the last line as a grouped convolution whose weights are computed; here it is three multiplications.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kinewatch_models.arch.backbone import Trunk
from kinewatch_models.arch.temporal import earlier, later
from kinewatch_models.arch.window import Shape, WindowNet, residual_blocks

TAPS, WIDER, NARROWER = 3, 2, 4


def build(trunk: Trunk, shape: Shape) -> WindowNet:
    """A TAM in the middle of every residual unit."""
    for block in residual_blocks(trunk):
        block.middle = Tam(block.hidden, shape.frames)
    return WindowNet(trunk, shape)


class Tam(nn.Module):
    """Frames ``[N·T, C, H, W]`` in and out."""

    def __init__(self, channels: int, frames: int):
        super().__init__()
        self.channels, self.frames = channels, frames
        self.kernel = nn.Sequential(
            nn.Linear(frames, WIDER * frames, bias=False),
            nn.BatchNorm1d(WIDER * frames),
            nn.ReLU(),
            nn.Linear(WIDER * frames, TAPS, bias=False),
        )
        narrow = max(1, channels // NARROWER)
        self.importance = nn.Sequential(
            nn.Conv1d(channels, narrow, TAPS, padding=1, bias=False),
            nn.BatchNorm1d(narrow),
            nn.ReLU(),
            nn.Conv1d(narrow, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The adaptive convolution over time."""
        means = x.mean((2, 3)).view(-1, self.frames, self.channels).transpose(1, 2)
        taps = torch.softmax(self.kernel(means.reshape(-1, self.frames)), 1).view(-1, 1, self.channels, TAPS)
        weight = torch.sigmoid(self.importance(means)).transpose(1, 2).reshape(-1, self.channels, 1, 1)
        seen = x * weight

        def times(tap: int, moved: Tensor) -> Tensor:
            clips = moved.view(-1, self.frames, *moved.shape[1:])
            return (clips * taps[..., tap, None, None]).flatten(0, 1)

        return times(0, earlier(seen, self.frames)) + times(1, seen) + times(2, later(seen, self.frames))
