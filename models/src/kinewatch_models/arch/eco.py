"""ECO (Zolfaghari et al. 2018, arXiv 1804.09066), Lite and Full: a 2D net a frame, a 3D net a window.

BN-Inception up to the first 3x3 of the branch of two in its unit 3c gives each frame a map, ``96 x H/8 x W/8``; these
are kept, so a new frame costs one pass of the 2D net (plan `cached`). The maps of T frames, stacked in time, go through
a 3D ResNet of 18 layers that lacks its first ones. All kernels are 3x3x3, ``a(x) = relu(bn(x))``:

- 3a: ``s = conv(maps)``, 96 to 128 channels;
- 3b, 4b and 5b: ``s = conv(a(conv(a(s)))) + s``;
- 4a and 5a, which halve time and picture and double the channels: ``s = conv(a(conv2(a(s)))) + down2(a(s))``.

The mean of ``a(s)`` over time and picture, 512 numbers, goes to the classifier. In Full the rest of BN-Inception makes
each frame 1024 more, and the classifier sees ``[mean over T of these, 512]``. T must be a multiple of 4.

Decisions of ours: one dropout for both streams (the authors' files have 0.6 and 0.5); convolutions without bias, which
every path here takes away in a norm; Full keeps map and feature of a frame as one flat row, and the map is taken to be
square when it is unfolded.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kinewatch_models.arch.backbone import Trunk
from kinewatch_models.arch.bninception import BnInception, narrowed
from kinewatch_models.arch.window import Shape, WindowNet
from kinewatch_models.error import ToolError

MAP, VOLUME = 96, (128, 256, 512)
TIME_STRIDE = 4


def build_lite(trunk: BnInception, shape: Shape) -> WindowNet:
    """The 3D net alone."""
    _check(shape)
    return EcoLite(trunk, shape)


def build_full(trunk: BnInception, shape: Shape) -> WindowNet:
    """The 3D net beside the rest of the 2D net."""
    _check(shape)
    return EcoFull(trunk, shape)


class EcoLite(WindowNet):
    """Features of frames are maps, ``[N·T, 96, H/8, W/8]``."""

    def __init__(self, trunk: BnInception, shape: Shape):
        super().__init__(_until_map(trunk), shape, LiteHead(trunk, shape))

    def features(self, frames: Tensor) -> Tensor:
        """The map of each frame ``[N·T, 3, H, W]``."""
        maps: Tensor = self.head(self.stem(frames))
        return maps


class EcoFull(WindowNet):
    """Features of frames are a map and 1024 numbers, flat: ``[N·T, 96·H/8·W/8 + 1024]``."""

    def __init__(self, trunk: BnInception, shape: Shape):
        super().__init__(_until_map(trunk), shape, FullHead(trunk, shape))
        self.join, self.late = trunk.middle.join, trunk.late

    def features(self, frames: Tensor) -> Tensor:
        """Map and feature of each frame ``[N·T, 3, H, W]``."""
        seen = self.stem(frames)
        maps = self.head(seen)
        feature = self.late(self.join(seen, maps)).mean((2, 3))
        return torch.cat([maps.flatten(1), feature], 1)


class LiteHead(nn.Module):
    """Maps ``[N, T, 96, H, W]`` to logits ``[N, K]``."""

    def __init__(self, trunk: BnInception, shape: Shape):
        super().__init__()
        self.volume = Volume(trunk.divisor)
        self.drop = nn.Dropout(shape.dropout)
        self.classifier = _classifier(self.volume.outputs, shape)

    def forward(self, maps: Tensor) -> Tensor:
        """The window as a volume."""
        logits: Tensor = self.classifier(self.drop(self.volume(maps)))
        return logits


class FullHead(nn.Module):
    """Maps and features, flat ``[N, T, 96·H·W + 1024]``, to logits ``[N, K]``."""

    def __init__(self, trunk: BnInception, shape: Shape):
        super().__init__()
        self.frames, self.channels, self.length = shape.frames, narrowed(MAP, trunk.divisor), trunk.features
        self.volume = Volume(trunk.divisor)
        self.drop = nn.Dropout(shape.dropout)
        self.classifier = _classifier(trunk.features + self.volume.outputs, shape)

    def forward(self, rows: Tensor) -> Tensor:
        """The window as a volume, and its frames one by one."""
        pixels = int(rows.shape[2]) - self.length
        side = math.isqrt(pixels // self.channels)
        maps = rows[:, :, :pixels].reshape(-1, self.frames, self.channels, side, side)
        frames = self.drop(rows[:, :, pixels:]).mean(1)
        logits: Tensor = self.classifier(torch.cat([frames, self.drop(self.volume(maps))], 1))
        return logits


class Volume(nn.Module):
    """The 3D net: maps ``[N, T, 96, H, W]`` to ``[N, 512]``."""

    def __init__(self, divisor: int = 1):
        super().__init__()
        third, fourth, fifth = (narrowed(channels, divisor) for channels in VOLUME)
        self.outputs = fifth
        self.layers = nn.Sequential(
            _conv(narrowed(MAP, divisor), third),
            Unit(third, third),
            Unit(third, fourth, 2),
            Unit(fourth, fourth),
            Unit(fourth, fifth, 2),
            Unit(fifth, fifth),
            _activation(fifth),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Means over time and picture."""
        feature: Tensor = self.layers(maps.transpose(1, 2)).mean((2, 3, 4))
        return feature


class Unit(nn.Module):
    """A residual unit of sums ``[N, C, T, H, W]`` that were not yet activated; the next sum comes out."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.before = _activation(inputs)
        self.first = _conv(inputs, outputs, stride)
        self.between = _activation(outputs)
        self.second = _conv(outputs, outputs)
        self.down = _conv(inputs, outputs, stride) if stride > 1 else None

    def forward(self, total: Tensor) -> Tensor:
        """Where sizes change, the skip is a convolution of the activated sum."""
        x = self.before(total)
        branch: Tensor = self.second(self.between(self.first(x)))
        return branch + (total if self.down is None else self.down(x))


def _until_map(trunk: BnInception) -> Trunk:
    """The part of the 2D net that both nets have; the map is made by its head."""
    return Trunk(trunk.early, [], trunk.middle.start, narrowed(MAP, trunk.divisor))


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv3d:
    conv = nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    return conv


def _activation(channels: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm3d(channels), nn.ReLU())


def _classifier(features: int, shape: Shape) -> nn.Linear:
    layer = nn.Linear(features, shape.classes)
    nn.init.normal_(layer.weight, 0, 0.01)
    nn.init.zeros_(layer.bias)
    return layer


def _check(shape: Shape) -> None:
    if shape.frames % TIME_STRIDE:
        raise ToolError(f"eco halves time twice: train.window must be a multiple of {TIME_STRIDE}, not {shape.frames}")
