"""Two-stream nets (Simonyan and Zisserman 2014, arXiv 1406.2199), as in TSN (Wang et al. 2016, arXiv 1608.00859).

A window has T = L + 1 frames. A spatial net sees the middle frame, a temporal net of the same kind all the motion:

- optical flow: the L flow fields between consecutive frames (TV-L1, inside the graph), ``2L`` channels x, y, x, y ...;
- RGB difference, the cheap form: the L differences of consecutive frames, ``3L`` channels.

The temporal net's first convolution begins with the mean of the RGB kernel over its 3 channels in each of its own, and
its norm learns new statistics, for those of ImageNet do not fit (TSN's partial batch-norm). The logits are
``(1 · spatial + 1.5 · temporal) / 2.5``.

Motion is scaled to what ImageNet's weights expect. TSN stores flow as bytes, [-20, 20] pixels as [0, 255], and then
takes away 128 and divides by the mean of ImageNet's three standard deviations: here it is one factor, without the
rounding, and a motion of 20 pixels becomes 2.2. Differences are divided by twice the standard deviation.

Ours: TSN trains each net by itself, here both learn from the fused logits; the papers take 10 and 5 flow fields, here
the window decides; TSN sees several such stacks of a video, here a window is one.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from kinewatch_models.arch.backbone import Trunk
from kinewatch_models.arch.layers import ConvNorm
from kinewatch_models.arch.resnet import resnet_thin
from kinewatch_models.arch.tvl1 import Tvl1
from kinewatch_models.arch.window import Shape, WindowNet

SPATIAL, TEMPORAL = 1.0, 1.5
LIMIT = 20.0
"""Pixels of motion between two frames, beyond which flow is cut off."""
STD = (58.395, 57.12, 57.375)
"""Of the normalised input, in units of 0 to 255. Its means do not matter: motion only sees differences."""
LUMA = (0.299, 0.587, 0.114)
FLOW_SCALE = 127.5 / LIMIT / (sum(STD) / 3)
DIFFERENCE_SCALE = 0.5


def build(trunk: Trunk, shape: Shape, flow: Tvl1 | None = None) -> TwoStream:
    """The temporal net sees optical flow, of `flow` or TV-L1 with its defaults."""
    return TwoStream(trunk, shape, FlowStack(shape.frames, flow or Tvl1()))


def build_difference(trunk: Trunk, shape: Shape) -> TwoStream:
    """The temporal net sees RGB differences."""
    return TwoStream(trunk, shape, DifferenceStack(shape.frames))


class FlowStack(nn.Module):
    """Clip ``[N, T, 3, H, W]`` to the flow between consecutive frames ``[N, 2L, H, W]``."""

    grey: Tensor

    def __init__(self, frames: int, flow: Tvl1):
        super().__init__()
        self.channels, self.flow = 2 * (frames - 1), flow
        grey = torch.tensor(LUMA) * torch.tensor(STD)
        self.register_buffer("grey", grey.view(3, 1, 1), persistent=False)

    def forward(self, clip: Tensor) -> Tensor:
        """The flow, cut off and in units of ImageNet's input."""
        sides = clip.shape[3:]
        grey = (clip * self.grey).sum(2)
        flow = self.flow(grey[:, :-1].reshape(-1, 1, *sides), grey[:, 1:].reshape(-1, 1, *sides))
        return (flow.clamp(-LIMIT, LIMIT) * FLOW_SCALE).reshape(-1, self.channels, *sides)  # type: ignore[no-any-return]


class DifferenceStack(nn.Module):
    """Clip ``[N, T, 3, H, W]`` to the differences of consecutive frames ``[N, 3L, H, W]``."""

    def __init__(self, frames: int):
        super().__init__()
        self.channels = 3 * (frames - 1)

    def forward(self, clip: Tensor) -> Tensor:
        """The frame after minus the frame."""
        return ((clip[:, 1:] - clip[:, :-1]) * DIFFERENCE_SCALE).reshape(-1, self.channels, *clip.shape[3:])


class TwoStream(nn.Module):
    """Window ``[N, T, 3, H, W]`` to logits ``[N, C]``; `motion` makes the temporal net's input of the window."""

    def __init__(self, trunk: Trunk, shape: Shape, motion: FlowStack | DifferenceStack):
        super().__init__()
        still = replace(shape, frames=1)
        self.middle, self.motion = shape.frames // 2, motion
        self.temporal = WindowNet(widened(copy.deepcopy(trunk), motion.channels), still).requires_grad_(True)
        self.spatial = WindowNet(trunk, still)

    def forward(self, clip: Tensor) -> Tensor:
        """The weighted mean of both nets' logits."""
        spatial = _logits(self.spatial, clip[:, self.middle])
        temporal = _logits(self.temporal, self.motion(clip))
        return (spatial * SPATIAL + temporal * TEMPORAL) / (SPATIAL + TEMPORAL)


def widened(trunk: Trunk, channels: int) -> Trunk:
    """The same trunk, its first convolution changed to `channels` inputs that each see the mean of the RGB kernel."""
    first = next(module for module in trunk.stem.modules() if isinstance(module, ConvNorm))
    first.weight = nn.Parameter(first.weight.detach().mean(1, keepdim=True).repeat(1, channels, 1, 1))
    first.inputs, first.live = channels, True
    return trunk


def _logits(net: WindowNet, pictures: Tensor) -> Tensor:
    """Logits ``[N, C]`` of pictures of any number of channels."""
    return net.consensus(net.features(pictures).unsqueeze(1))  # type: ignore[no-any-return]


def thin() -> Trunk:
    """A thin ResNet of width 1: two of them, and the flow's hundreds of operators, make a small file."""
    return resnet_thin(1)
