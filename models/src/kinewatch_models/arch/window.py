"""Nets that judge a window of frames as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from kinewatch_models.arch.backbone import Block, Trunk


@dataclass(frozen=True)
class Shape:
    """What a net is built for: classes, and frames (segments) in a window."""

    classes: int
    frames: int
    dropout: float = 0.5


class WindowNet(nn.Module):
    """Window ``[N, T·S, 3, H, W]`` to logits ``[N, C]``: a 2D net over all frames, then `consensus`.

    `snippet` = S consecutive frames of a segment are stacked as ``3·S`` channels of one. Between stages, `between`
    may change the feature maps. `consensus` sees features ``[N, T, D]``; without one, the logits are those of the mean
    feature, which are the mean of the frames' logits (Wang et al. 2016).
    """

    def __init__(self, trunk: Trunk, shape: Shape, consensus: nn.Module | None = None, snippet: int = 1):
        super().__init__()
        self.shape, self.snippet = shape, snippet
        self.stem, self.head = trunk.stem, trunk.head
        self.stages = nn.ModuleList([nn.Sequential(*stage) for stage in trunk.stages])
        self.between = nn.ModuleList([nn.Identity() for _ in trunk.stages])
        self.consensus = consensus or MeanOfFrames(trunk.features, shape)

    def forward(self, clip: Tensor) -> Tensor:
        """Logits of each window."""
        features = self.features(clip.reshape(-1, 3 * self.snippet, *clip.shape[3:]))
        logits: Tensor = self.consensus(features.view(-1, self.shape.frames, *features.shape[1:]))
        return logits

    def features(self, frames: Tensor) -> Tensor:
        """Features ``[N·T, D]`` of frames ``[N·T, 3·S, H, W]``."""
        x = self.stem(frames)
        for stage, after in zip(self.stages, self.between, strict=True):
            x = after(stage(x))
        feature: Tensor = self.head(x).mean((2, 3))
        return feature

    def parts(self) -> tuple[nn.Module, nn.Module]:
        """For nets whose features are those of single frames (plan `cached`): what sees a frame, what sees features."""
        return FramePart(self), self.consensus


class MeanOfFrames(nn.Module):
    """Features ``[N, T, D]`` to the logits ``[N, C]`` of their mean."""

    def __init__(self, features: int, shape: Shape):
        super().__init__()
        self.drop = nn.Dropout(shape.dropout)
        self.classifier = nn.Linear(features, shape.classes)
        nn.init.normal_(self.classifier.weight, 0, 0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, features: Tensor) -> Tensor:
        """The classifier is linear: the mean may be taken first."""
        logits: Tensor = self.classifier(self.drop(features.mean(1)))
        return logits


class FramePart(nn.Module):
    """Frame ``[N, 3, H, W]`` to feature ``[N, D]``."""

    def __init__(self, net: WindowNet):
        super().__init__()
        self.net = net

    def forward(self, frame: Tensor) -> Tensor:
        """The feature."""
        return self.net.features(frame)


def residual_blocks(trunk: Trunk, stages: slice = slice(None)) -> list[Block]:
    """The units of some stages that have a sum, where temporal modules go."""
    return [block for stage in trunk.stages[stages] for block in stage if block.residual]
