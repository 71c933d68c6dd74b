"""STM: spatiotemporal and motion encoding (Jiang et al. 2019, arXiv 1908.02486).

In every residual unit, in place of the convolution over the picture, with x of T frames and C channels after the first
convolution of the unit:

- CSTM: ``a[t] = S * (P x)[t]``, P a convolution over time of width 3 for each channel by itself, which begins with the
  first quarter of the channels from the frame before, the last quarter from the frame after and half as they are; S
  the convolution over the picture that was there;
- CMM: ``u = Q x``, Q of size 1x1, C to C/16; ``h[t] = K * u[t+1] - u[t]``, K of size 3x3 for each channel by itself,
  and ``h[T-1] = 0``; ``m = R h``, R of size 1x1, back to C;
- ``y = act(norm(a + m))``.

Ours, where the paper is silent: S keeps its stride and u is averaged over as many pixels; the norm and the activation
of the convolution that was there stand after the sum.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinewatch_models.arch.backbone import Trunk
from kinewatch_models.arch.layers import ACTIVATIONS, MOMENTUM, ConvNorm
from kinewatch_models.arch.temporal import TemporalConv, to_next
from kinewatch_models.arch.window import Shape, WindowNet, residual_blocks

NARROWER, SHIFTED = 16, 4


def build(trunk: Trunk, shape: Shape) -> WindowNet:
    """CSTM and CMM for the convolution over the picture of every residual unit."""
    for block in residual_blocks(trunk):
        assert isinstance(block.spatial, ConvNorm)
        block.spatial = Stm(block.spatial, shape.frames)
    return WindowNet(trunk, shape)


class Stm(ConvNorm):
    """Frames ``[N·T, C, H, W]`` to ``[N·T, C, H', W']``: `spatial` with its weights, norm and activation, and CMM.

    The norm stands after the sum, and is folded into both convolutions before it.
    """

    def __init__(self, spatial: ConvNorm, frames: int):
        channels = spatial.inputs
        super().__init__(
            channels,
            spatial.outputs,
            spatial.kernel,
            spatial.stride,
            spatial.groups,
            spatial.act,
            live=spatial.live,
            even=spatial.even,
            epsilon=spatial.epsilon,
        )
        self.load_state_dict(spatial.state_dict())
        self.temporal = shifting(channels, frames)
        self.motion = Motion(channels, spatial.stride, frames)
        self.restore = nn.Conv2d(self.motion.narrow, spatial.outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both modules, normalised and activated."""
        moved, motion = self.temporal(x), self.motion(x)
        if self.live and self.training:
            y = self._convolved(moved, self.weight, None) + self.restore(motion)
            y = F.batch_norm(y, self.mean, self.variance, self.gamma, self.beta, True, MOMENTUM, self.epsilon)
        else:
            scale = (self.gamma / torch.sqrt(self.variance + self.epsilon))[:, None, None, None]
            y = self._convolved(moved, *self.folded()) + F.conv2d(motion, self.restore.weight * scale)
        return ACTIVATIONS[self.act](y)


def shifting(channels: int, frames: int) -> TemporalConv:
    """A convolution over time whose first quarter of channels begins as the past, whose last as the future."""
    quarter = channels // SHIFTED
    conv = TemporalConv(channels, frames, past=quarter)
    conv.weight.data[:, channels - quarter :] = torch.tensor([[0.0], [0.0], [1.0]])
    return conv


class Motion(nn.Module):
    """Frames ``[N·T, C, H, W]`` to how the next one differs, ``[N·T, C/16, H', W']``: CMM without its last layer."""

    def __init__(self, channels: int, stride: int, frames: int):
        super().__init__()
        self.frames, self.narrow = frames, max(1, channels // NARROWER)
        self.squeeze = nn.Conv2d(channels, self.narrow, 1, bias=False)
        self.pool = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
        self.transform = nn.Conv2d(self.narrow, self.narrow, 3, padding=1, groups=self.narrow, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Zero for the last frame."""
        return to_next(self.pool(self.squeeze(x)), self.frames, self.transform)
