"""I3D (Carreira and Zisserman 2017, arXiv 1705.07750) as a ResNet (Wang et al. 2018, arXiv 1711.07971), without its
classifier. Untrained.

A ResNet of bottlenecks whose kernels are inflated to see time too. A clip of T frames goes through

- a convolution 5x7x7 (time, height, width) of stride 1x2x2 and a maximum over 1x3x3 of stride 1x2x2;
- four stages of units ``3x1x1 or 1x1x1, 1x3x3, 1x1x1``. The first kernel of a unit sees three frames in all units of
  the first stage, in every other of those behind, beginning with the first, and in the second of the last stage;
- between the first two stages, a maximum over 2x1x1 of stride 2x1x1.

Stages two and three halve the picture. The last one does not, so that regions can be cut out of its map
``2048 x T/2 x H/16 x W/16`` (Wang and Gupta 2018). The pool between stages is 2x1x1 in the authors' code and 3x1x1 in
their table; here as in the code. T must be even.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinewatch_models.arch.backbone import Block
from kinewatch_models.arch.layers import ConvNorm

STAGE_STRIDES = (1, 2, 2, 1)
EXPANSION = 4


class Conv3dNorm(ConvNorm):
    """Convolution over ``[N, C, T, H, W]``, batch-norm and an activation; the norm is folded in evaluation.

    `kernel` is in time, height and width, `stride` in height and width alone. All ends are padded by half the kernel.
    """

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int, int], stride: int = 1, act: str = "relu"):
        super().__init__(inputs, outputs, kernel[-1], stride, act=act, live=True, even=True, epsilon=1e-5)
        self.padding = tuple(side // 2 for side in kernel)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *kernel))
        nn.init.kaiming_normal_(self.weight)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the equivalent plain convolution."""
        if self.fixed is not None:
            return self.fixed
        scale = self.gamma / torch.sqrt(self.variance + self.epsilon)
        return self.weight * scale[:, None, None, None, None], self.beta - self.mean * scale

    def _convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv3d(x, weight, bias, (1, self.stride, self.stride), self.padding)


class Unit(Block):
    """A residual unit over ``[N, C, T, H, W]``; `after` sees its activated sum."""

    def __init__(self, inputs: int, planes: int, stride: int, taps: int):
        outputs = planes * EXPANSION
        same = stride == 1 and inputs == outputs
        super().__init__(
            Conv3dNorm(inputs, planes, (taps, 1, 1)),
            Conv3dNorm(planes, planes, (1, 3, 3), stride),
            Conv3dNorm(planes, outputs, (1, 1, 1), act=""),
            nn.Identity() if same else Conv3dNorm(inputs, outputs, (1, 1, 1), stride, act=""),
            nn.ReLU(),
        )
        self.after: nn.Module = nn.Identity()

    def forward(self, x: Tensor, entry: Tensor | None = None) -> Tensor:
        """As in any residual unit, then `after`."""
        result: Tensor = self.after(super().forward(x, entry))
        return result


class I3d(nn.Module):
    """Clip ``[N, T, 3, H, W]`` to its last map ``[N, features, T/2, H/16, W/16]``; `blocks` units in each stage."""

    def __init__(self, width: int, blocks: tuple[int, int, int, int]):
        super().__init__()
        pool = partial(nn.MaxPool3d, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.stem = nn.Sequential(Conv3dNorm(3, width, (5, 7, 7), 2), pool())
        self.halve = nn.MaxPool3d((2, 1, 1))
        stages, self.features = [], width
        for stage, (count, stride) in enumerate(zip(blocks, STAGE_STRIDES, strict=True)):
            planes = width << stage
            units = []
            for index in range(count):
                units.append(Unit(self.features, planes, 1 if index else stride, _taps(stage, index)))
                self.features = planes * EXPANSION
            stages.append(nn.Sequential(*units))
        self.stages = nn.ModuleList(stages)

    def forward(self, clip: Tensor) -> Tensor:
        """The map."""
        first, *others = self.stages
        x: Tensor = self.halve(first(self.stem(clip.transpose(1, 2))))
        for stage in others:
            x = stage(x)
        return x


def i3d_resnet50() -> I3d:
    """3, 4, 6 and 3 units, 2048 features."""
    return I3d(64, (3, 4, 6, 3))


def i3d_thin() -> I3d:
    """For tests and golden packages: every kind of layer, 96 features."""
    return I3d(3, (1, 2, 2, 1))


def _taps(stage: int, index: int) -> int:
    """Frames that the first kernel of a unit sees."""
    last = len(STAGE_STRIDES) - 1
    return 3 if stage == 0 or index % 2 == (stage == last) else 1
