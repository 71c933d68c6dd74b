"""TEINet: temporal enhancement and interaction (Liu et al. 2020, arXiv 1911.09435).

On the input of every residual branch, with x of T frames and C channels, and ``s[t]`` the mean of ``x[t]`` over the
picture:

- MEM, the motion enhanced module: ``g[t] = sigmoid(D · relu(B · s[t+1] - A · s[t]))``, A and B from C to C/8, D back to
  C; ``u[t] = g[t]·x[t]``, and ``u[T-1] = x[T-1]``, which has no next frame;
- TIM, the temporal interaction module: ``y = P u``, P a convolution over time of width 3 for each channel by itself,
  which begins as a shift of an eighth of the channels each way.

No code of the authors is known, and the equations above come from descriptions of the paper. Ours: the relu, and a bias
in A, B and D.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kinewatch_models.arch.backbone import Trunk
from kinewatch_models.arch.temporal import TemporalConv
from kinewatch_models.arch.window import Shape, WindowNet, residual_blocks

NARROWER, DIV = 8, 8


def build(trunk: Trunk, shape: Shape) -> WindowNet:
    """MEM and TIM before every residual branch."""
    for block in residual_blocks(trunk):
        block.before = Tei(block.inputs, shape.frames)
    return WindowNet(trunk, shape)


class Tei(nn.Module):
    """Frames ``[N·T, C, H, W]`` in and out: MEM, then TIM."""

    def __init__(self, channels: int, frames: int):
        super().__init__()
        fold = channels // DIV
        self.gate = MotionGate(channels, frames)
        self.temporal = TemporalConv(channels, frames, past=fold, future=fold)

    def forward(self, x: Tensor) -> Tensor:
        """The frames with their moving channels enhanced, mixed in time."""
        mixed: Tensor = self.temporal(x * self.gate(x))
        return mixed


class MotionGate(nn.Module):
    """Frames ``[N·T, C, H, W]`` to a gate for each channel, ``[N·T, C, 1, 1]``: one for the last frame."""

    def __init__(self, channels: int, frames: int):
        super().__init__()
        self.frames = frames
        narrow = max(1, channels // NARROWER)
        self.now, self.after = nn.Conv2d(channels, narrow, 1), nn.Conv2d(channels, narrow, 1)
        self.restore = nn.Conv2d(narrow, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The gates, between zero and one."""
        means = x.mean((2, 3), keepdim=True)
        now, after = (self._clips(part(means)) for part in (self.now, self.after))
        changes = torch.relu(after[:, 1:] - now[:, :-1]).flatten(0, 1)
        gates = torch.sigmoid(self.restore(changes))
        gates = gates.view(-1, self.frames - 1, *gates.shape[1:])
        return torch.cat([gates, gates[:, :1] * 0.0 + 1.0], 1).flatten(0, 1)

    def _clips(self, x: Tensor) -> Tensor:
        return x.view(-1, self.frames, *x.shape[1:])
