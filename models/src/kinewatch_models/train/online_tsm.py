"""Online TSM (Lin et al. 2019) on frame differences: causal clip net for training, one-frame step for the agent.

Frame `t` sees, in every residual block from `shift_from_block` on, the first `1 / shift_div` of the block's input
channels as they were at frame `t - 1`. Both forms share all weights and give the same logits frame by frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinewatch_models.recipe import NetSpec
from kinewatch_models.train.backbone import Trunk


class OnlineTsm(nn.Module):
    """Clip form. Input ``[N, T, 3, H, W]`` normalised frames, output ``[N, T, C]`` logits of every frame."""

    def __init__(self, spec: NetSpec, classes: int, trunk: Trunk):
        super().__init__()
        self.gain, self.shift_div = spec.difference_gain, spec.shift_div
        self.stem = trunk.stem
        self.body = nn.ModuleList(trunk.body)
        self.head = trunk.head
        self.drop = nn.Dropout(spec.dropout)
        self.classifier = nn.Linear(trunk.features, classes)
        nn.init.normal_(self.classifier.weight, 0, 0.01)
        nn.init.zeros_(self.classifier.bias)
        self.shifted = [block.residual and index >= spec.shift_from_block - 1 for index, block in enumerate(trunk.body)]
        for module in [self.stem, *self.body][: spec.frozen_modules]:
            module.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every frame; the first difference is zero, as at the start of a stream."""
        batch, length = x.shape[:2]
        y = self.stem(differences(x, self.gain).flatten(0, 1))
        for block, shift in zip(self.body, self.shifted, strict=True):
            y = block(y, causal_shift(y, length, self.shift_div) if shift else y)
        return self.classify(y).view(batch, length, -1)

    def classify(self, y: Tensor) -> Tensor:
        """Logits ``[N, C]`` from the last feature map."""
        logits: Tensor = self.classifier(self.drop(self.head(y).mean((2, 3))))
        return logits


def differences(x: Tensor, gain: float) -> Tensor:
    """``gain * (x[t] - x[t-1])`` along axis 1, zero for the first frame."""
    return gain * torch.cat([torch.zeros_like(x[:, :1]), x[:, 1:] - x[:, :-1]], 1)


def causal_shift(y: Tensor, length: int, div: int) -> Tensor:
    """Replace the first ``1 / div`` of the channels by those of the frame before (zero before the first)."""
    fold = y.shape[1] // div
    clips = y.view(-1, length, *y.shape[1:])
    past = F.pad(clips[:, :-1, :fold], (0, 0, 0, 0, 0, 0, 1, 0))
    return torch.cat([past, clips[:, :, fold:]], 2).flatten(0, 1)


class OnlineStep(nn.Module):
    """Step form: one frame and the states of the stream in, logits and the next states out.

    States in order: the previous frame ``[N, 3, H, W]``, `seen` ``[N, 1]`` (0 before the first frame), then the
    kept channels of each shifted block. All start at zero.
    """

    def __init__(self, net: OnlineTsm):
        super().__init__()
        self.net = net

    def forward(self, frame: Tensor, previous: Tensor, seen: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
        """Returns logits ``[N, C]``, then the next states in the order of the inputs."""
        net = self.net
        y = net.stem((frame - previous) * (net.gain * seen).unsqueeze(2).unsqueeze(3))
        past, nexts = iter(kept), []
        for block, shift in zip(net.body, net.shifted, strict=True):
            entry = y
            if shift:
                fold = y.shape[1] // net.shift_div
                nexts.append(y[:, :fold])
                entry = torch.cat([next(past), y[:, fold:]], 1)
            y = block(y, entry)
        return (net.classify(y), frame + 0.0, seen * 0.0 + 1.0, *nexts)


def state_shapes(net: OnlineTsm, size: int) -> list[tuple[int, ...]]:
    """Shapes of the step form's states, without the batch axis."""
    shapes: list[tuple[int, ...]] = [(3, size, size), (1,)]
    with torch.no_grad():
        y = net.stem(torch.zeros(1, 3, size, size))
        for block, shift in zip(net.body, net.shifted, strict=True):
            if shift:
                shapes.append((y.shape[1] // net.shift_div, *y.shape[2:]))
            y = block(y, y)
    return shapes


def zero_states(shapes: Sequence[tuple[int, ...]], batch: int = 1) -> list[Tensor]:
    """States of a stream that has not begun."""
    return [torch.zeros(batch, *shape) for shape in shapes]
