"""TSN, TSM and online TSM (Wang et al. 2016; Lin et al. 2019): a clip net for training, a one-frame step for the agent.

An online net sees, in every residual block from `shift_from_block` on, the first `1 / shift_div` of the block's input
channels as they were at the frame before; TSM also sees the next eighth as it will be, TSN nothing of other frames.
Clip and step form of an online net share all weights and give the same logits frame by frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinewatch_models.arch import registry, tsm
from kinewatch_models.arch.backbone import Block, Trunk
from kinewatch_models.arch.layers import ConvNorm
from kinewatch_models.arch.window import Shape
from kinewatch_models.error import ToolError
from kinewatch_models.recipe import STREAMS, NetSpec

MAIN_SHARE = 0.85


def build(spec: NetSpec, classes: int, window: int, pretrained: bool = True) -> ActionNet | Windows:
    """The net of a recipe; `pretrained` False leaves out the ImageNet weights, to be replaced by trained ones."""
    weights = [pretrained and spec.pretrained] if spec.backbone in registry.PRETRAINED else []
    trunk = registry.backbone(spec.backbone, *weights)
    return ActionNet(spec, classes, trunk) if spec.architecture in STREAMS else Windows(spec, classes, window, trunk)


class Windows(nn.Module):
    """A net of the table of architectures. Input ``[N, T, 3, H, W]``, output ``[N, 1, C]``: one row a window."""

    def __init__(self, spec: NetSpec, classes: int, window: int, trunk: Trunk):
        super().__init__()
        self.spec, self.row = spec, registry.ARCHITECTURES[spec.architecture]
        for module in [trunk.stem, *trunk.body][: spec.frozen_modules]:
            module.requires_grad_(False)
        shape = Shape(classes, window // self.row.snippet, spec.dropout)
        self.net = self.row.build(trunk, shape)

    def forward(self, clip: Tensor) -> Tensor:
        """Logits of each window."""
        return self.net(clip).unsqueeze(1)  # type: ignore[no-any-return]


class ActionNet(nn.Module):
    """Clip form. Input ``[N, T, 3, H, W]`` normalised frames, output ``[N, T, C]`` logits of every frame."""

    def __init__(self, spec: NetSpec, classes: int, trunk: Trunk):
        super().__init__()
        self.spec = spec
        self.stem = early_fusion(trunk.stem) if spec.input == "both" else trunk.stem
        self.body = nn.ModuleList(trunk.body)
        self.head = trunk.head
        self.drop = nn.Dropout(spec.dropout)
        self.memory = GruMemory(trunk.features, spec.gru_units) if spec.gru_units else None
        self.classifier = nn.Linear(trunk.features + spec.gru_units, classes)
        nn.init.normal_(self.classifier.weight, 0, 0.01)
        nn.init.zeros_(self.classifier.bias)
        first = spec.shift_from_block - 1
        shifts = spec.architecture != "tsn"
        self.shifted = [shifts and block.residual and index >= first for index, block in enumerate(trunk.body)]
        for module in [self.stem, *self.body][: spec.frozen_modules]:
            module.requires_grad_(False)

    @property
    def differences(self) -> bool:
        """Whether the net sees the change since the frame before."""
        return self.spec.input != "rgb"

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every frame; the first difference is zero, as at the start of a stream."""
        batch, length = x.shape[:2]
        change = self.spec.difference_gain * _changes(x) if self.differences else None
        y = self.stem(self.front(x.flatten(0, 1), None if change is None else change.flatten(0, 1)))
        shift = causal_shift if self.spec.architecture == "tsm-online" else tsm.shift
        for block, shifted in zip(self.blocks(), self.shifted, strict=True):
            y = block(y, shift(y, length, self.spec.shift_div) if shifted else y)
        features = self.pool(y).view(batch, length, -1)
        return self.score(features if self.memory is None else torch.cat([features, self.memory.over(features)], 2))

    def blocks(self) -> list[Block]:
        """The residual blocks in order."""
        return [block for block in self.body if isinstance(block, Block)]

    def front(self, frame: Tensor, change: Tensor | None) -> Tensor:
        """What the first layer sees of a frame and its (gained) change since the frame before."""
        if change is None:
            return frame
        return torch.cat([frame, change], 1) if self.spec.input == "both" else change

    def pool(self, y: Tensor) -> Tensor:
        """Feature ``[N, D]`` from the last feature map."""
        return self.head(y).mean((2, 3))  # type: ignore[no-any-return]

    def score(self, feature: Tensor) -> Tensor:
        """Logits ``[..., C]`` from a feature and, of a net with a memory, its state."""
        return self.classifier(self.drop(feature))  # type: ignore[no-any-return]


class GruMemory(nn.Module):
    """A gated recurrent unit over the features of frames (Cho et al. 2014; as the head of MiniROAD, An et al. 2023).

    Written out, for exporters and runtimes treat the step of a stream better as plain operators.
    """

    def __init__(self, features: int, units: int):
        super().__init__()
        self.seen, self.kept = nn.Linear(features, 3 * units), nn.Linear(units, 3 * units)

    def forward(self, feature: Tensor, state: Tensor) -> Tensor:
        """One step: feature ``[N, D]`` and state ``[N, U]`` to the next state."""
        seen, kept = self.seen(feature).chunk(3, 1), self.kept(state).chunk(3, 1)
        reset, hold = torch.sigmoid(seen[0] + kept[0]), torch.sigmoid(seen[1] + kept[1])
        fresh = torch.tanh(seen[2] + reset * kept[2])
        return fresh + hold * (state - fresh)

    def over(self, features: Tensor) -> Tensor:
        """States ``[N, T, U]`` after each of ``[N, T, D]`` features, from zero."""
        state = features.new_zeros(len(features), self.kept.in_features)
        states = []
        for feature in features.unbind(1):
            state = self(feature, state)
            states.append(state)
        return torch.stack(states, 1)


def early_fusion(stem: nn.Module) -> ConvNorm:
    """`stem` for six channels, picture and change: the filters look mostly at the one or the other, in turn.

    The shares of a filter add up to one, so a net that sees the same in both halves begins as the old one. With equal
    shares the first layer would see only a sum of picture and change, and nothing behind it could tell them apart.
    """
    if not isinstance(stem, ConvNorm):
        raise ToolError('input = "both" needs a backbone that begins with one convolution: mobilenetv2 or lite0')
    outputs, inputs = stem.weight.shape[:2]
    fused = ConvNorm(2 * inputs, outputs, stem.kernel, stem.stride, act=stem.act)
    picture = torch.where(torch.arange(outputs) % 2 == 0, MAIN_SHARE, 1 - MAIN_SHARE).view(-1, 1, 1, 1)
    weight = torch.cat([stem.weight.detach() * picture, stem.weight.detach() * (1 - picture)], 1)
    fused.load_state_dict({**stem.state_dict(), "weight": weight})
    return fused


def _changes(x: Tensor) -> Tensor:
    """``x[t] - x[t-1]`` along axis 1, zero for the first frame."""
    return torch.cat([torch.zeros_like(x[:, :1]), x[:, 1:] - x[:, :-1]], 1)


def causal_shift(y: Tensor, length: int, div: int) -> Tensor:
    """Replace the first ``1 / div`` of the channels by those of the frame before (zero before the first)."""
    fold = int(y.shape[1]) // div
    clips = y.view(-1, length, *y.shape[1:])
    past = F.pad(clips[:, :-1, :fold], (0, 0, 0, 0, 0, 0, 1, 0))
    return torch.cat([past, clips[:, :, fold:]], 2).flatten(0, 1)


class OnlineStep(nn.Module):
    """Step form: one frame and the states of the stream in, logits and the next states out.

    States in order: where the net sees differences, the previous frame ``[N, 3, H, W]`` and `seen` ``[N, 1]`` (0
    before the first frame); then the kept channels of each shifted block; then the memory's. All start at zero.
    """

    def __init__(self, net: ActionNet):
        super().__init__()
        self.net = net

    def forward(self, frame: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Returns logits ``[N, C]``, then the next states in the order of the inputs."""
        net, kept = self.net, iter(states)
        nexts: list[Tensor] = []
        change = None
        if net.differences:
            previous, seen = next(kept), next(kept)
            change = (frame - previous) * (net.spec.difference_gain * seen).unsqueeze(2).unsqueeze(3)
            nexts += [frame + 0.0, seen * 0.0 + 1.0]
        y = net.stem(net.front(frame, change))
        for block, shifted in zip(net.blocks(), net.shifted, strict=True):
            entry = y
            if shifted:
                fold = int(y.shape[1]) // net.spec.shift_div  # a number to the exporter, too
                nexts.append(y[:, :fold])
                entry = torch.cat([next(kept), y[:, fold:]], 1)
            y = block(y, entry)
        feature = net.pool(y)
        if net.memory is not None:
            state = net.memory(feature, next(kept))
            nexts.append(state)
            feature = torch.cat([feature, state], 1)
        return (net.score(feature), *nexts)


class Backbone(nn.Module):
    """The part of TSN that sees one frame: ``[N, 3, H, W]`` in, feature ``[N, D]`` out."""

    def __init__(self, net: ActionNet):
        super().__init__()
        self.net = net

    def forward(self, frame: Tensor) -> Tensor:
        """The feature."""
        y = self.net.stem(frame)
        for block in self.net.blocks():
            y = block(y, y)
        return self.net.pool(y)


class MeanHead(nn.Module):
    """The part of TSN that sees a window: features ``[N, T, D]`` in, mean logits ``[N, C]`` out."""

    def __init__(self, net: ActionNet):
        super().__init__()
        self.net = net

    def forward(self, features: Tensor) -> Tensor:
        """The classifier is linear: the logits of the mean feature are the mean of the frames' logits."""
        return self.net.score(features.mean(1))


class ClipMean(nn.Module):
    """Window form: frames ``[N, T, 3, H, W]`` in, mean logits ``[N, C]`` out."""

    def __init__(self, net: ActionNet):
        super().__init__()
        self.net = net

    def forward(self, clip: Tensor) -> Tensor:
        """Consensus of TSN: the mean of the frames' logits."""
        return self.net(clip).mean(1)  # type: ignore[no-any-return]


def state_shapes(net: ActionNet, size: int) -> list[tuple[int, ...]]:
    """Shapes of the step form's states, without the batch axis."""
    shapes: list[tuple[int, ...]] = [(3, size, size), (1,)] if net.differences else []
    channels = 6 if net.spec.input == "both" else 3
    with torch.no_grad():
        y = net.stem(torch.zeros(1, channels, size, size))
        for block, shifted in zip(net.blocks(), net.shifted, strict=True):
            if shifted:
                shapes.append((y.shape[1] // net.spec.shift_div, *y.shape[2:]))
            y = block(y, y)
    return [*shapes, *([(net.spec.gru_units,)] if net.memory is not None else [])]


def zero_states(shapes: Sequence[tuple[int, ...]], batch: int = 1) -> list[Tensor]:
    """States of a stream that has not begun."""
    return [torch.zeros(batch, *shape) for shape in shapes]
