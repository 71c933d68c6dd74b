"""ResNet (He et al. 2016): 18 and 50 layers, and a thin one for tests and golden packages. All untrained.

As in PyTorch's version, the stride of a bottleneck is in its 3x3 convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from kinewatch_models.arch.backbone import Block, Trunk
from kinewatch_models.arch.layers import ConvNorm

THIN_STAGES = 3
EXPANSION = 4
conv = partial(ConvNorm, act="relu", live=True, even=True, epsilon=1e-5)


def resnet18() -> Trunk:
    """Two basic blocks a stage: the first convolution stands for `expand`, the second for `spatial`."""
    return _resnet([2, 2, 2, 2], 64, _basic, 1)


def resnet50() -> Trunk:
    """Bottlenecks, 3, 4, 6 and 3 a stage."""
    return _resnet([3, 4, 6, 3], 64, _bottleneck, EXPANSION)


def resnet_small() -> Trunk:
    """Three stages of one bottleneck, from 16 channels on: what a few hundred clips train from nothing."""
    return resnet_thin(16)


def resnet_thin(width: int = 8, blocks: int = 1) -> Trunk:
    """Three stages of `blocks` bottlenecks, of `width`, twice and four times that: small pictures are enough for it."""
    return _resnet([blocks] * THIN_STAGES, width, _bottleneck, EXPANSION)


def _resnet(blocks: list[int], width: int, block: Callable[[int, int, int], Block], expansion: int) -> Trunk:
    stem = nn.Sequential(conv(3, width, 7, 2), nn.MaxPool2d(3, 2, 1))
    stages, inputs = [], width
    for stage, count in enumerate(blocks):
        planes = width << stage
        made = []
        for index in range(count):
            stride = 2 if stage and not index else 1
            made.append(block(inputs, planes, stride))
            inputs = planes * expansion
        stages.append(made)
    return Trunk(stem, stages, nn.Identity(), inputs)


def _basic(inputs: int, planes: int, stride: int) -> Block:
    return Block(conv(inputs, planes, 3, stride), conv(planes, planes, 3, act=""), None, *_sum(inputs, planes, stride))


def _bottleneck(inputs: int, planes: int, stride: int) -> Block:
    outputs = planes * EXPANSION
    return Block(
        conv(inputs, planes, 1),
        conv(planes, planes, 3, stride),
        conv(planes, outputs, 1, act=""),
        *_sum(inputs, outputs, stride),
    )


def _sum(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, nn.Module]:
    same = stride == 1 and inputs == outputs
    return nn.Identity() if same else conv(inputs, outputs, 1, stride, act=""), nn.ReLU()
