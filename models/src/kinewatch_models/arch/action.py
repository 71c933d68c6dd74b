"""ACTION-Net: three ways of excitation (Wang et al. 2021, arXiv 2103.07372).

On the input of every residual branch, with x of T frames and C channels, ``x' = P x``, P a convolution over time of
width 3 for each channel by itself, which begins as a shift of an eighth of the channels each way; and three gates:

- STE, one for each pixel: ``g1 = sigmoid(L * mean(x'))``, the mean over channels, L of size 3x3x3 over time and
  picture, one channel in and out;
- CE, one for each channel: ``g2 = sigmoid(B · relu(A * (Q · mean(x'))))``, the mean over the picture, Q from C to C/16,
  A over time of width 3, B back to C;
- ME, one for each channel: ``u = bn(R x')``, R of size 1x1, C to C/16; ``d[t] = K * u[t+1] - u[t]``, K of size 3x3 for
  each channel by itself, and ``d[T-1] = 0``; ``g3 = sigmoid(E · mean(d))``, the mean over the picture, E back to C.

The branch sees the sum of the three gated inputs, each with its own added: ``y = Σ_i (x'·g_i + x')``. The authors run L
as a convolution in three dimensions; here it is one over the picture with an output for each of three moments, moved
in time and summed. They have the eighth of the frame after first: a matter of the order of channels.

Ours: with gates of a half, y is 4.5 times x'. Where the norm of the first convolution keeps the statistics it was
loaded with, which would not adapt to that, the weights of that convolution begin divided by 4.5.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kinewatch_models.arch.backbone import Trunk
from kinewatch_models.arch.tea import Motion
from kinewatch_models.arch.temporal import TemporalConv, earlier, later
from kinewatch_models.arch.window import Shape, WindowNet, residual_blocks

DIV, NARROWER = 8, 16
GATES = 3
AT_FIRST = GATES * 1.5
"""By how much a branch's input grows when all gates are a half."""


def build(trunk: Trunk, shape: Shape) -> WindowNet:
    """The three gates before every residual branch."""
    for block in residual_blocks(trunk):
        block.before = Action(block.inputs, shape.frames)
        if block.expand is not None and not block.expand.live:
            block.expand.weight.data.div_(AT_FIRST)
    return WindowNet(trunk, shape)


class Action(nn.Module):
    """Frames ``[N·T, C, H, W]`` in and out."""

    def __init__(self, channels: int, frames: int):
        super().__init__()
        fold = channels // DIV
        self.temporal = TemporalConv(channels, frames, past=fold, future=fold)
        self.pixels = PixelGate(frames)
        self.channels = ChannelGate(channels, frames)
        self.motion = MotionGate(channels, frames)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the three gated inputs."""
        moved = self.temporal(x)
        return moved * (self.pixels(moved) + (self.channels(moved) + self.motion(moved) + float(GATES)))


class PixelGate(nn.Module):
    """STE: frames ``[N·T, C, H, W]`` to a gate for each pixel, ``[N·T, 1, H, W]``."""

    def __init__(self, frames: int):
        super().__init__()
        self.frames = frames
        self.conv = nn.Conv2d(1, 3, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The gates."""
        before, now, after = self.conv(x.mean(1, keepdim=True)).split(1, 1)
        return torch.sigmoid(earlier(before, self.frames) + now + later(after, self.frames))


class ChannelGate(nn.Module):
    """CE: frames ``[N·T, C, H, W]`` to a gate for each channel, ``[N·T, C, 1, 1]``."""

    def __init__(self, channels: int, frames: int):
        super().__init__()
        self.frames, self.narrow = frames, max(1, channels // NARROWER)
        self.squeeze = nn.Conv2d(channels, self.narrow, 1, bias=False)
        self.conv = nn.Conv1d(self.narrow, self.narrow, 3, padding=1, bias=False)
        self.restore = nn.Conv2d(self.narrow, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The gates."""
        squeezed = self.squeeze(x.mean((2, 3), keepdim=True)).view(-1, self.frames, self.narrow)
        seen = torch.relu(self.conv(squeezed.transpose(1, 2))).transpose(1, 2)
        return torch.sigmoid(self.restore(seen.reshape(-1, self.narrow, 1, 1)))


class MotionGate(nn.Module):
    """ME: frames ``[N·T, C, H, W]`` to a gate for each channel, ``[N·T, C, 1, 1]``."""

    def __init__(self, channels: int, frames: int):
        super().__init__()
        self.motion = Motion(channels, frames)
        self.restore = nn.Conv2d(self.motion.narrow, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The gates."""
        return torch.sigmoid(self.restore(self.motion(x)))
