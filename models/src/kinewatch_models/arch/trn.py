"""TRN: temporal relation network (Zhou et al. 2018, arXiv 1711.08496), single-scale and multi-scale.

Each frame alone gives ``f[t] = W · cnn(x[t]) + b``, 256 numbers; these are kept, so a new frame costs one pass of the
2D net (plan `cached`). What compares frames sees nothing else:

- single-scale: ``z = B · relu(A · relu([f[0], …, f[T-1]]))``, A ``[512, 256·T]`` and B ``[K, 512]``, both with a bias;
- multi-scale: for each k from T down to 2, an A ``[256, 256·k]`` and a B ``[K, 256]`` of its own, over ordered k-tuples
  of frames; z is the sum over all scales and tuples. Of a scale with more than three tuples, three are taken.

The authors draw these three anew in every pass, in tests, too, so that the same window has many scores. Here they are
fixed: those at 1/6, 3/6 and 5/6 of the tuples in lexicographic order, which begin and span differently. Ours: a
backbone that gives fewer than 256 numbers keeps their number D, and A has 2·D rows, or D.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kinewatch_models.arch.backbone import Trunk
from kinewatch_models.arch.resnet import resnet_thin
from kinewatch_models.arch.window import Shape, WindowNet
from kinewatch_models.error import ToolError

FEATURES, WIDER = 256, 2
TUPLES = 3


def build(trunk: Trunk, shape: Shape) -> WindowNet:
    """One relation over all frames."""
    features = _features(trunk)
    everything = [tuple(range(shape.frames))]
    return Trn(trunk, shape, Relation(everything, features, WIDER * features, shape.classes))


def build_multiscale(trunk: Trunk, shape: Shape) -> WindowNet:
    """Relations over 2, 3, … and all frames."""
    return Trn(trunk, shape, Relations(shape, _features(trunk)))


def thin() -> Trunk:
    """A thinner ResNet than other architectures need: relations grow with the square of its width."""
    return resnet_thin(2)


def _features(trunk: Trunk) -> int:
    return min(FEATURES, trunk.features)


class Trn(WindowNet):
    """A window net whose features are made short by a linear layer that learns with the relations."""

    def __init__(self, trunk: Trunk, shape: Shape, consensus: nn.Module):
        super().__init__(trunk, shape, consensus)
        self.drop = nn.Dropout(shape.dropout)
        self.embedding = nn.Linear(trunk.features, _features(trunk))

    def features(self, frames: Tensor) -> Tensor:
        """Features ``[N·T, D]`` of frames ``[N·T, 3, H, W]``."""
        feature: Tensor = self.embedding(self.drop(super().features(frames)))
        return feature


class Relation(nn.Module):
    """Features ``[N, T, D]`` to logits ``[N, K]``, summed over some tuples of frames of one length."""

    chosen: Tensor

    def __init__(self, tuples: Sequence[tuple[int, ...]], features: int, hidden: int, classes: int):
        super().__init__()
        self.tuples, self.inputs = len(tuples), len(tuples[0]) * features
        self.register_buffer("chosen", torch.tensor(tuples).flatten(), persistent=False)
        self.hidden = nn.Linear(self.inputs, hidden)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, features: Tensor) -> Tensor:
        """All tuples in one pass."""
        joined = torch.relu(features).index_select(1, self.chosen).view(-1, self.tuples, self.inputs)
        logits: Tensor = self.classifier(torch.relu(self.hidden(joined))).sum(1)
        return logits


class Relations(nn.Module):
    """Features ``[N, T, D]`` to logits ``[N, K]``, summed over relations of every length."""

    def __init__(self, shape: Shape, features: int):
        super().__init__()
        if shape.frames < 2:
            raise ToolError("trn-multiscale compares frames: train.window must be at least 2")
        lengths = range(shape.frames, 1, -1)
        self.scales = nn.ModuleList(
            [Relation(tuples(shape.frames, length), features, features, shape.classes) for length in lengths]
        )

    def forward(self, features: Tensor) -> Tensor:
        """The sum over scales."""
        return torch.stack([scale(features) for scale in self.scales]).sum(0)


def tuples(frames: int, length: int) -> list[tuple[int, ...]]:
    """The ordered tuples of a scale: all where there are at most three, else three evenly spread ones."""
    count = math.comb(frames, length)
    taken = min(count, TUPLES)
    return [_tuple_at((2 * one + 1) * count // (2 * taken), frames, length) for one in range(taken)]


def _tuple_at(index: int, frames: int, length: int) -> tuple[int, ...]:
    """The tuple at `index` in lexicographic order, found without listing those before it."""
    chosen, frame = [], 0
    for left in range(length - 1, -1, -1):
        while (beginning := math.comb(frames - frame - 1, left)) <= index:
            index -= beginning
            frame += 1
        chosen.append(frame)
        frame += 1
    return tuple(chosen)
