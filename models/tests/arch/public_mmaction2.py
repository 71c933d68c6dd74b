"""Stand-ins for mmaction2's TSN, TSM, TRN and TANet on ResNet-50."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from public_nets import COLOURS, Maker, Shifted, seen_at, stages
from torch import Tensor, nn


class ConvModule(nn.Module):
    """mmcv's."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, active: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn, self.active = nn.BatchNorm2d(outputs), active

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        return torch.relu(y) if self.active else y


class MmUnit(nn.Module):
    def __init__(self, inputs: int, planes: int, stride: int, first: bool):
        super().__init__()
        self.conv1 = ConvModule(inputs, planes, 1)
        self.conv2 = ConvModule(planes, planes, 3, stride)
        self.conv3 = ConvModule(planes, 4 * planes, 1, active=False)
        if first:
            self.downsample = ConvModule(inputs, 4 * planes, 1, stride, active=False)

    def forward(self, x: Tensor, middle: nn.Module | None = None) -> Tensor:
        y = self.conv1(x)
        y = self.conv3(self.conv2(y if middle is None else middle(y)))
        return torch.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class Tam(nn.Module):
    def __init__(self, channels: int, frames: int):
        super().__init__()
        self.frames = frames
        self.G = nn.Sequential(
            nn.Linear(frames, 2 * frames, bias=False),
            nn.BatchNorm1d(2 * frames),
            nn.ReLU(),
            nn.Linear(2 * frames, 3, bias=False),
            nn.Softmax(-1),
        )
        self.L = nn.Sequential(
            nn.Conv1d(channels, channels // 4, 3, padding=1, bias=False),
            nn.BatchNorm1d(channels // 4),
            nn.ReLU(),
            nn.Conv1d(channels // 4, channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3)).unflatten(0, (-1, self.frames)).transpose(1, 2)
        kernels = self.G(means.flatten(0, 1)).view(*means.shape[:2], 3)
        x = x * self.L(means).transpose(1, 2).flatten(0, 1)[..., None, None]
        made = []
        for tap in range(3):
            seen = seen_at(x, self.frames, tap - 1).unflatten(0, (-1, self.frames))
            made.append(seen * kernels[:, None, :, tap, None, None])
        return sum(made).flatten(0, 1)


class TamUnit(nn.Module):
    def __init__(self, inputs: int, planes: int, stride: int, first: bool, frames: int):
        super().__init__()
        self.block, self.tam = MmUnit(inputs, planes, stride, first), Tam(planes, frames)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x, self.tam)


class MmResNet(nn.Module):
    def __init__(self, make: Maker, width: int):
        super().__init__()
        self.conv1 = ConvModule(COLOURS, width, 7, 2)
        for number, stage in enumerate(stages(make, width), 1):
            setattr(self, f"layer{number}", stage)

    def forward(self, frames: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv1(frames), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))


class Relations(nn.Module):
    """Of the tuples of a scale, those that are `chosen` of them."""

    def __init__(self, frames: int, classes: int, chosen: Callable[[int, int], list[tuple[int, ...]]]):
        super().__init__()
        self.frames, self.chosen = frames, chosen
        self.fc_fusion_scales = nn.ModuleList(
            [
                nn.Sequential(nn.ReLU(), nn.Linear(256 * scale, 256), nn.ReLU(), nn.Linear(256, classes))
                for scale in range(frames, 1, -1)
            ]
        )

    def forward(self, features: Tensor) -> Tensor:
        made = []
        for scale, layers in zip(range(self.frames, 1, -1), self.fc_fusion_scales, strict=True):
            made += [layers(features[:, list(one)].flatten(1)) for one in self.chosen(self.frames, scale)]
        return sum(made)


class Relation(nn.Module):
    def __init__(self, frames: int, classes: int):
        super().__init__()
        self.classifier = nn.Sequential(
            nn.ReLU(), nn.Linear(256 * frames, 512), nn.ReLU(), nn.Linear(512, classes)
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        return self.classifier(features.flatten(1))


class Recognizer(nn.Module):
    """mmaction2's: ``backbone`` and ``cls_head``."""

    def __init__(self, backbone: nn.Module, frames: int, last: nn.Module, consensus: nn.Module | None = None):
        super().__init__()
        self.backbone, self.frames = backbone, frames
        self.cls_head = nn.Module()
        self.cls_head.fc_cls = last
        if consensus is not None:
            self.cls_head.consensus = consensus

    def forward(self, clip: Tensor) -> Tensor:
        rows = self.cls_head.fc_cls(self.backbone(clip.flatten(0, 1))).unflatten(0, (-1, self.frames))
        return self.cls_head.consensus(rows) if hasattr(self.cls_head, "consensus") else rows.mean(1)


def mm_tsn(width: int, frames: int, classes: int) -> nn.Module:
    return Recognizer(MmResNet(MmUnit, width), frames, nn.Linear(32 * width, classes))


def mm_tsm(width: int, frames: int, classes: int) -> nn.Module:
    def make(*shape: int) -> nn.Module:
        unit = MmUnit(*shape)
        unit.conv1.conv = Shifted(unit.conv1.conv, frames)
        return unit

    return Recognizer(MmResNet(make, width), frames, nn.Linear(32 * width, classes))


def mm_trn(width: int, frames: int, classes: int) -> nn.Module:
    return Recognizer(MmResNet(MmUnit, width), frames, nn.Linear(32 * width, 256), Relation(frames, classes))


def mm_trn_multiscale(width: int, frames: int, classes: int) -> nn.Module:
    from kinewatch_models.arch.trn import tuples  # theirs are drawn at random

    consensus = Relations(frames, classes, tuples)
    return Recognizer(MmResNet(MmUnit, width), frames, nn.Linear(32 * width, 256), consensus)


def mm_tanet(width: int, frames: int, classes: int) -> nn.Module:
    backbone = MmResNet(lambda *shape: TamUnit(*shape, frames), width)
    return Recognizer(backbone, frames, nn.Linear(32 * width, classes))
