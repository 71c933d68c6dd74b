"""BN-Inception (Ioffe and Szegedy 2015, arXiv 1502.03167), the 2D net of ECO, without its classifier. Untrained.

The version whose weights TSN, TRN and ECO share: channels as in `UNITS`, pools of the first layers and of the units
that halve the picture without padding and rounded up, a maximum instead of a mean in the last unit. Sides of the
picture must be multiples of 32. Convolutions have no bias of their own: the norm behind each would take it away.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from kinewatch_models.arch.layers import ConvNorm

THIN, LEAST = 32, 6
"""What a thin net divides its channels by, and how many it keeps at least: with fewer, ReLU often lets nothing pass."""
STEM = (64, 64, 192)
# 1x1; 3x3 and what it sees; the two 3x3 and what they see; behind the pool
UNITS: dict[str, tuple[int, ...]] = {
    "3a": (64, 64, 64, 64, 96, 32),
    "3b": (64, 64, 96, 64, 96, 64),
    "3c": (128, 160, 64, 96),
    "4a": (224, 64, 96, 96, 128, 128),
    "4b": (192, 96, 128, 96, 128, 128),
    "4c": (160, 128, 160, 128, 160, 128),
    "4d": (96, 128, 192, 160, 192, 128),
    "4e": (128, 192, 192, 256),
    "5a": (352, 192, 320, 160, 224, 128),
    "5b": (352, 192, 320, 192, 224, 128),
}
conv = partial(ConvNorm, act="relu", live=True, even=True, epsilon=1e-5)


class Inception(nn.Module):
    """Four branches joined: 1x1; 3x3; two 3x3; a pool and 1x1. ``[N, C, H, W]`` to as many pixels."""

    def __init__(self, inputs: int, channels: tuple[int, ...], pool: nn.Module):
        super().__init__()
        one, before, three, before_two, two, behind = channels
        self.one = conv(inputs, one, 1)
        self.three = nn.Sequential(conv(inputs, before, 1), conv(before, three, 3))
        self.two = nn.Sequential(conv(inputs, before_two, 1), conv(before_two, two, 3), conv(two, two, 3))
        self.pooled = nn.Sequential(pool, conv(inputs, behind, 1))
        self.outputs = one + three + two + behind

    def forward(self, x: Tensor) -> Tensor:
        """Branches in the order of the paper's figure."""
        return torch.cat([self.one(x), self.three(x), self.two(x), self.pooled(x)], 1)


class Halving(nn.Module):
    """A unit that halves the picture: 3x3; two 3x3; a pool. ``[N, C, H, W]`` to ``[N, C', H/2, W/2]``."""

    def __init__(self, inputs: int, channels: tuple[int, ...]):
        super().__init__()
        before, three, before_two, two = channels
        self.start = nn.Sequential(conv(inputs, before_two, 1), conv(before_two, two, 3))
        self.join = HalvingJoin(inputs, before, three, two)
        self.outputs = three + two + inputs

    def forward(self, x: Tensor) -> Tensor:
        """All branches."""
        joined: Tensor = self.join(x, self.start(x))
        return joined


class HalvingJoin(nn.Module):
    """What a halving unit makes of its input and of the first 3x3 of its branch of two, a map of full size."""

    def __init__(self, inputs: int, before: int, three: int, two: int):
        super().__init__()
        self.three = nn.Sequential(conv(inputs, before, 1), conv(before, three, 3, 2))
        self.second = conv(two, two, 3, 2)
        self.pool = _halve()

    def forward(self, x: Tensor, started: Tensor) -> Tensor:
        """``[N, C, H, W]`` and ``[N, C2, H, W]`` to ``[N, C', H/2, W/2]``."""
        return torch.cat([self.three(x), self.second(started), self.pool(x)], 1)


@dataclass(frozen=True)
class BnInception:
    """`stem` makes 192 channels at an eighth of the side, `body` are units 3a to 5b, which end with `features`."""

    stem: nn.Module
    body: list[Inception | Halving]
    features: int
    divisor: int

    @property
    def early(self) -> nn.Module:
        """The stem and units 3a and 3b: frames ``[N, 3, H, W]`` to ``[N, 320, H/8, W/8]``."""
        return nn.Sequential(self.stem, *self.body[:2])

    @property
    def middle(self) -> Halving:
        """Unit 3c."""
        unit = self.body[2]
        assert isinstance(unit, Halving)
        return unit

    @property
    def late(self) -> nn.Module:
        """Units 4a to 5b: ``[N, 576, H/16, W/16]`` to ``[N, 1024, H/32, W/32]``."""
        return nn.Sequential(*self.body[3:])


def bninception(divisor: int = 1) -> BnInception:
    """The net with all numbers of channels over `divisor`."""
    first, before, inputs = (narrowed(channels, divisor) for channels in STEM)
    stem = nn.Sequential(conv(3, first, 7, 2), _halve(), conv(first, before, 1), conv(before, inputs, 3), _halve())
    body: list[Inception | Halving] = []
    for name, wide in UNITS.items():
        channels = tuple(narrowed(one, divisor) for one in wide)
        pool = nn.MaxPool2d(3, 1, 1) if name == "5b" else nn.AvgPool2d(3, 1, 1)
        body.append(Inception(inputs, channels, pool) if len(channels) == 6 else Halving(inputs, channels))
        inputs = body[-1].outputs
    return BnInception(stem, body, inputs, divisor)


def bninception_small() -> BnInception:
    """A quarter of the channels: what a few hundred clips train from nothing."""
    return bninception(4)


def bninception_thin() -> BnInception:
    """A thin one for tests and golden packages."""
    return bninception(THIN)


def narrowed(channels: int, divisor: int) -> int:
    """How many channels a net of this divisor has where the original has `channels`."""
    return max(channels // divisor, LEAST)


def _halve() -> nn.Module:
    return nn.MaxPool2d(3, 2, ceil_mode=True)
