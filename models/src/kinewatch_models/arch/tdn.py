"""TDN: temporal difference network (Wang et al. 2021, arXiv 2012.10071).

A segment is 5 consecutive frames ``I[1..5]``; the path of the pictures sees ``I[3]``.

Short-term difference, S-TDM, beside the stem and stage 1:

- ``D = (I[2]-I[1], I[3]-I[2], I[4]-I[3], I[5]-I[4])``, 12 channels; ``e1 = pool(relu(bn(conv7x7(mean2x2(D)))))``, the
  convolution of stride 2, its kernel that of the stem averaged over colours; ``e2 = copy of stage 1 (e1)``;
- ``x <- a·x + b·up(e1)`` after the stem, ``x <- a·x + b·up(e2)`` after stage 1: the path of differences has half the
  resolution, `up` repeats its nearest place. ``a = b = 1/2`` for 8 segments, 3/4 and 1/4 for any other number.

Long-term difference, L-TDM, in the middle of every residual unit of the later stages, with ``x[t]`` of C channels:

- ``u = bn(A · x)``, A ``[C/16, C]``; S a 3x3 convolution per channel; ``d⁺[t] = S(u)[t+1] - u[t]``, 0 for the last
  segment, ``d⁻[t] = S(u)[t-1] - u[t]``, 0 for the first;
- for both, with the same weights: ``m = (d + bn(conv3x3(d)) + up(bn(conv3x3(mean2x2(d))))) / 3`` and
  ``g = sigmoid(bn(B · m)) - 1/2``, B ``[C, C/16]``;
- ``y = x + x · (g⁺ + g⁻) / 2``, then a convolution over time for each channel that begins as the shift of TSM.

Ours, for nets of inverted residuals: stage 1 are the stages up to a quarter of the input's side; their stem has no
pooling, so that of the differences has none; its 7x7 kernel begins untrained, as theirs is 3x3. Norms of the copy learn
their statistics, whatever those of the trunk do: differences have others than pictures.
"""

from __future__ import annotations

import copy
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinewatch_models.arch.backbone import Trunk
from kinewatch_models.arch.layers import ConvNorm
from kinewatch_models.arch.temporal import TemporalConv, to_next, to_previous
from kinewatch_models.arch.window import Shape, WindowNet, residual_blocks

SNIPPET, COLOURS = 5, 3
NARROWER, SHIFTED = 16, 8
FIRST_STRIDE, STEM_KERNEL = 4, 7
EQUAL_SEGMENTS = 8
conv = partial(ConvNorm, act="relu", live=True, even=True, epsilon=1e-5)


def build(trunk: Trunk, shape: Shape) -> WindowNet:
    """S-TDM beside stage 1, L-TDM and a convolution over time in every residual unit after it."""
    first = sum(stride <= FIRST_STRIDE for stride in trunk.strides()[1:])
    for block in residual_blocks(trunk, slice(first, None)):
        part = block.hidden // SHIFTED
        over_time = TemporalConv(block.hidden, shape.frames, past=part, future=part)
        block.middle = nn.Sequential(LongTerm(block.hidden, shape.frames), over_time)
    return Tdn(trunk, shape, first)


class Tdn(WindowNet):
    """Windows ``[N, T·5, 3, H, W]`` to logits ``[N, C]``; stage 1 are the `first` stages of the trunk."""

    def __init__(self, trunk: Trunk, shape: Shape, first: int):
        super().__init__(trunk, shape, snippet=SNIPPET)
        self.first = first
        self.difference_stem = difference_stem(trunk)
        self.difference_stages = _live(copy.deepcopy(nn.Sequential(*self.stages[:first]))).requires_grad_(True)
        self.share = 1 / 2 if shape.frames == EQUAL_SEGMENTS else 1 / 4

    def features(self, frames: Tensor) -> Tensor:
        """Features ``[N·T, D]`` of snippets ``[N·T, 15, H, W]``."""
        middle = SNIPPET // 2 * COLOURS
        difference = self.difference_stem(frames)
        x = self._fused(self.stem(frames[:, middle : middle + COLOURS]), difference)
        for index, (stage, after) in enumerate(zip(self.stages, self.between, strict=True)):
            x = after(stage(x))
            if index + 1 == self.first:
                x = self._fused(x, self.difference_stages(difference))
        feature: Tensor = self.head(x).mean((2, 3))
        return feature

    def _fused(self, x: Tensor, difference: Tensor) -> Tensor:
        return (1 - self.share) * x + self.share * enlarged(difference, x)


def difference_stem(trunk: Trunk) -> nn.Sequential:
    """Snippets ``[M, 15, H, W]`` to a map of half the resolution of the stem's, with as many channels."""
    own = next(module for module in trunk.stem.modules() if isinstance(module, ConvNorm))
    first = conv(SNIPPET * COLOURS - COLOURS, own.outputs, STEM_KERNEL, 2)
    if own.kernel == STEM_KERNEL:
        first.weight.data.copy_(own.weight.data.mean(1, keepdim=True).expand_as(first.weight))
    layers = [Differences(), nn.AvgPool2d(2), first]
    if trunk.strides()[0] == FIRST_STRIDE:
        layers.append(nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*layers)


class Differences(nn.Module):
    """Snippets ``[M, 15, H, W]`` to the differences of their neighbouring frames, ``[M, 12, H, W]``."""

    def forward(self, frames: Tensor) -> Tensor:
        """Later less earlier."""
        return frames[:, COLOURS:] - frames[:, :-COLOURS]


class LongTerm(nn.Module):
    """L-TDM: frames ``[N·T, C, H, W]`` in and out, H and W at least 2."""

    def __init__(self, channels: int, frames: int):
        super().__init__()
        self.frames = frames
        narrow = max(1, channels // NARROWER)
        self.reduce = conv(channels, narrow, 1, act="")
        self.smooth = nn.Conv2d(narrow, narrow, 3, padding=1, groups=narrow, bias=False)
        self.gate = Gate(narrow, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Every place with a gain of 0.5 to 1.5."""
        u = self.reduce(x)
        smooth = self.smooth(u)
        onward = self.gate(to_next(u, self.frames, lambda _: smooth))
        back = self.gate(to_previous(u, self.frames, lambda _: smooth))
        return x + x * (0.5 * onward + 0.5 * back)


class Gate(nn.Module):
    """Differences ``[M, C/16, H, W]`` to what they add to a gain of 1, ``[M, C, H, W]``, between -1/2 and 1/2."""

    def __init__(self, narrow: int, channels: int):
        super().__init__()
        self.fine = conv(narrow, narrow, 3, act="")
        self.coarse = nn.Sequential(nn.AvgPool2d(2), conv(narrow, narrow, 3, act=""))
        self.widen = conv(narrow, channels, 1, act="")

    def forward(self, d: Tensor) -> Tensor:
        """From three scales."""
        m = (d + self.fine(d) + enlarged(self.coarse(d), d)) / 3
        return torch.sigmoid(self.widen(m)) - 0.5


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    """``[M, C, h, w]`` to the height and width of `like`, each place the nearest of `x`."""
    return F.interpolate(x, (int(like.shape[2]), int(like.shape[3])))


def _live(stages: nn.Sequential) -> nn.Sequential:
    """The same stages, whose norms learn their statistics."""
    for module in stages.modules():
        if isinstance(module, ConvNorm):
            module.live = True
    return stages
