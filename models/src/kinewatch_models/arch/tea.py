"""TEA: temporal excitation and aggregation (Li et al. 2020, arXiv 2004.01398), on Res2Net (Gao et al. 2019, 26w4s).

In every residual unit, with x of T frames and C channels after the first convolution of the unit:

- ME, in the middle: ``u = bn(Q x)``, Q of size 1x1, C to C/16; ``d[t] = K * u[t+1] - u[t]``, K of size 3x3 for each
  channel by itself, and ``d[T-1] = 0``; ``a = sigmoid(bn(R · mean(d)))``, the mean over the picture, R from C/16 back
  to C; ``y = x + x·(a - 0.5)``;
- MTA, in place of the convolution over the picture: y in four groups of channels, P_i convolutions over time of width 3
  for each channel by itself, S_i convolutions over the picture with their norm and activation;
  ``z1 = S1(P1(y1))``, ``z_i = S_i(P_i(y_i + z_{i-1}))`` for i = 2, 3, and ``z4 = P4(y4)``. In the first unit of a stage
  nothing is added and z4 is averaged over 3x3 pixels, with the stride of the unit. P1 to P3 begin as the identity, P4
  with the first half of its channels from the frame after, the other half from the frame before.

Bottlenecks of ResNets are rebuilt as wide as Res2Net has them: four groups of ``floor(26/64 · planes)`` channels.

Ours: elsewhere the width stays, and each S_i is of the kind that was there; one that is per channel keeps its weights.
The last norm of ME begins at zero, so that ME begins as the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kinewatch_models.arch.backbone import Block, Trunk
from kinewatch_models.arch.layers import ConvNorm
from kinewatch_models.arch.temporal import TemporalConv, to_next
from kinewatch_models.arch.window import Shape, WindowNet

NARROWER, GROUPS = 16, 4
WIDTH, OF = 26, 64
"""Channels of a group of Res2Net for so many of ResNet."""


def build(trunk: Trunk, shape: Shape) -> WindowNet:
    """ME and MTA in every residual unit."""
    for stage in trunk.stages:
        for index, block in enumerate(stage):
            if not block.residual:
                continue
            widen(block)
            assert isinstance(block.spatial, ConvNorm)
            block.middle = MotionExcitation(block.hidden, shape.frames)
            block.spatial = Aggregation(block.spatial, shape.frames, first=index == 0)
    return WindowNet(trunk, shape)


def widen(block: Block) -> None:
    """Rebuild the convolutions of a ResNet bottleneck, untrained, at the width of Res2Net; leave other units."""
    expand, spatial, project = block.expand, block.spatial, block.project
    assert isinstance(spatial, ConvNorm)
    if expand is None or project is None or spatial.groups > 1:
        return
    block.hidden = GROUPS * (block.hidden * WIDTH // OF)
    block.expand = like(expand, expand.inputs, block.hidden)
    block.spatial = like(spatial, block.hidden, block.hidden)
    block.project = like(project, block.hidden, project.outputs)


def like(conv: ConvNorm, inputs: int, outputs: int) -> ConvNorm:
    """An untrained layer that differs from `conv` in its channels alone."""
    return ConvNorm(
        inputs,
        outputs,
        conv.kernel,
        conv.stride,
        inputs if conv.groups > 1 else 1,
        conv.act,
        live=conv.live,
        even=conv.even,
        epsilon=conv.epsilon,
    )


class Motion(nn.Module):
    """Frames ``[N·T, C, H, W]`` to how the next one differs on average, ``[N·T, C/16, 1, 1]``."""

    def __init__(self, channels: int, frames: int):
        super().__init__()
        self.frames, self.narrow = frames, max(1, channels // NARROWER)
        self.squeeze = ConvNorm(channels, self.narrow, 1, act="", live=True, even=True, epsilon=1e-5)
        self.transform = nn.Conv2d(self.narrow, self.narrow, 3, padding=1, groups=self.narrow, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Zero for the last frame."""
        return to_next(self.squeeze(x), self.frames, self.transform).mean((2, 3), keepdim=True)


class MotionExcitation(nn.Module):
    """ME: frames ``[N·T, C, H, W]`` in and out, each channel times 0.5 to 1.5."""

    def __init__(self, channels: int, frames: int):
        super().__init__()
        self.motion = Motion(channels, frames)
        restore = ConvNorm(self.motion.narrow, channels, 1, act="", live=True, even=True, epsilon=1e-5)
        nn.init.zeros_(restore.gamma)
        self.gate = nn.Sequential(restore, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """The frames with their moving channels excited."""
        excited: Tensor = x * (self.gate(self.motion(x)) + 0.5)
        return excited


class Aggregation(nn.Module):
    """MTA: frames ``[N·T, C, H, W]`` to ``[N·T, C, H', W']``, in place of `spatial`; `first` in its stage."""

    def __init__(self, spatial: ConvNorm, frames: int, first: bool):
        super().__init__()
        self.first, self.width = first, spatial.inputs // GROUPS
        self.temporal = nn.ModuleList([TemporalConv(self.width, frames) for _ in range(GROUPS - 1)])
        self.spatial = nn.ModuleList([group_of(spatial, index) for index in range(GROUPS - 1)])
        self.last = exchanging(self.width, frames)
        self.pool = nn.AvgPool2d(3, spatial.stride, 1) if first else nn.Identity()

    def forward(self, y: Tensor) -> Tensor:
        """The groups, each of the first three seen after the one before it."""
        *groups, last = y.split(self.width, 1)
        made: list[Tensor] = []
        for group, temporal, spatial in zip(groups, self.temporal, self.spatial, strict=True):
            made.append(spatial(temporal(group if self.first or not made else group + made[-1])))
        return torch.cat([*made, self.pool(self.last(last))], 1)


def group_of(spatial: ConvNorm, index: int) -> ConvNorm:
    """A layer like `spatial` for one group of channels; with its weights, where they are per channel."""
    width = spatial.inputs // GROUPS
    group = like(spatial, width, width)
    if spatial.groups > 1:
        own = slice(index * width, (index + 1) * width)
        group.load_state_dict({name: value[own] for name, value in spatial.state_dict().items()})
    return group


def exchanging(channels: int, frames: int) -> TemporalConv:
    """A convolution over time whose first half of channels begins as the future, the second as the past."""
    half = channels // 2
    conv = TemporalConv(channels, frames, past=half, future=half)
    conv.weight.data.copy_(conv.weight.data.flip(0))
    return conv
