"""NL-I3D + GCN: videos as space-time region graphs (Wang and Gupta 2018, arXiv 1806.01810).

I3D with non-local blocks makes of a window a map of T' time steps, which a kernel 1x1x1 narrows to d channels. R boxes
``(x0, y0, x1, y1)``, as parts of the picture, hold for the whole window: zones, until a detector feeds them.

- nodes: RoIAlign of each box at each step, 7x7 bins of 2x2 points, means within and the maximum over bins: X of
  ``M = T'·R`` nodes and d channels, node ``t·R + r``;
- similarity graph: ``A[i, j] = softmax over j of (w x_i) · (w' x_j)``, of the first X;
- front graph: ``F[i, j]``, the IoU of the boxes of i and j where j is one step later, else zero, over the sum of its
  row; back graph ``B``: the same where j is one step earlier. Rows of the last, or first, step are zero;
- two nets of three layers, ``X := relu(norm(A X W + X))`` and ``X := relu(norm(F X U + B X V + X))``; norm is a
  layer-norm. Their outputs are summed, the mean over nodes is joined with that of the narrowed map, ``2d`` numbers,
  and the classifier sees these.

RoIAlign is written as grid sampling and two pools, which every runtime has. As boxes stay, one grid samples all steps,
and the front and back graphs are one ``R x R`` table each node of which looks at the next or last step.

Ours, where the paper is silent: d is a quarter of the features, as 512 is of 2048; the layer-norm is over the d
channels of a node and has gains; boxes or rows whose IoU sum up to nothing stay without neighbours. The paper takes
boxes of a region proposal network and windows of 32 frames; T must be a multiple of 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinewatch_models.arch import non_local
from kinewatch_models.arch.i3d import I3d
from kinewatch_models.arch.temporal import earlier, later
from kinewatch_models.arch.window import Shape
from kinewatch_models.error import ToolError

MULTIPLE, TIME_STRIDE = 4, 2
NARROWER, LAYERS = 4, 3
BINS, POINTS = 7, 2
TINY = 1e-6
"""A part of the picture smaller than its pixels."""
Graph = Callable[[Tensor], Tensor]
"""Nodes ``[N, M, d]`` to what each sees of its neighbours, ``A X``."""


def build(trunk: I3d, shape: Shape) -> RegionGraphNet:
    """Non-local blocks in the trunk, and a graph of regions on top of it."""
    if shape.frames % MULTIPLE:
        raise ToolError(f"nl-i3d-gcn: train.window must be a multiple of {MULTIPLE}, not {shape.frames}")
    non_local.insert(trunk)
    return RegionGraphNet(trunk, shape)


class RegionGraphNet(nn.Module):
    """Window ``[N, T, 3, H, W]`` and boxes ``[N, R, 4]`` to logits ``[N, C]``."""

    def __init__(self, trunk: I3d, shape: Shape):
        super().__init__()
        self.shape, self.trunk = shape, trunk
        channels = trunk.features // NARROWER
        self.narrow = nn.Conv3d(trunk.features, channels, 1)
        self.regions = Regions()
        self.graph = RegionGraph(channels, shape.frames // TIME_STRIDE)
        self.drop = nn.Dropout(shape.dropout)
        self.classifier = nn.Linear(2 * channels, shape.classes)
        nn.init.normal_(self.classifier.weight, 0, 0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, clip: Tensor, boxes: Tensor) -> Tensor:
        """Logits of each window."""
        maps = self.narrow(self.trunk(clip))
        nodes = self.graph(self.regions(maps, boxes), boxes)
        logits: Tensor = self.classifier(self.drop(torch.cat([maps.mean((2, 3, 4)), nodes.mean(1)], 1)))
        return logits


class Regions(nn.Module):
    """RoIAlign: maps ``[N, d, T, H, W]`` and boxes ``[N, R, 4]`` to nodes ``[N, T·R, d]``."""

    points: Tensor

    def __init__(self) -> None:
        super().__init__()
        side = (torch.arange(BINS * POINTS) + 0.5) / (BINS * POINTS)
        rows, columns = torch.meshgrid(side, side, indexing="ij")
        self.register_buffer("points", torch.stack([columns, rows], 2), persistent=False)

    def forward(self, maps: Tensor, boxes: Tensor) -> Tensor:
        """Time steps are sampled as channels: their boxes are the same."""
        channels, steps, height, width = map(int, maps.shape[1:])
        corners = boxes[:, :, None, None, :2]
        places = corners + (boxes[:, :, None, None, 2:] - corners) * self.points
        grid = (2 * places - 1).reshape(-1, int(boxes.shape[1]) * BINS * POINTS, BINS * POINTS, 2)
        flat = maps.reshape(-1, channels * steps, height, width)
        sampled = F.grid_sample(flat, grid, "bilinear", "border", align_corners=False)
        pooled = F.max_pool2d(F.avg_pool2d(sampled, POINTS), BINS)
        return pooled.reshape(-1, channels, steps * int(boxes.shape[1])).transpose(1, 2)


class RegionGraph(nn.Module):
    """Nodes ``[N, T·R, d]`` of `steps` = T and boxes ``[N, R, 4]`` to nodes that saw their neighbours."""

    def __init__(self, channels: int, steps: int):
        super().__init__()
        self.steps = steps
        self.query, self.key = (nn.Linear(channels, channels, bias=False) for _ in range(2))
        self.similar, self.near = GraphNet(channels, 1), GraphNet(channels, 2)

    def forward(self, nodes: Tensor, boxes: Tensor) -> Tensor:
        """The sum of what both nets made of the nodes."""
        similarity = torch.softmax(self.query(nodes) @ self.key(nodes).transpose(1, 2), 2)
        shares = overlaps(boxes)
        similar: Tensor = self.similar(nodes, [partial(torch.matmul, similarity)])
        near: Tensor = self.near(nodes, [partial(self._step, later, shares), partial(self._step, earlier, shares)])
        return similar + near

    def _step(self, move: Callable[[Tensor, int], Tensor], shares: Tensor, nodes: Tensor) -> Tensor:
        """What each node sees of the boxes of the next or the last step."""
        boxes, channels = int(shares.shape[2]), int(nodes.shape[2])
        moved = move(nodes.reshape(-1, boxes, channels), self.steps).view(-1, self.steps, boxes, channels)
        return (shares[:, None] @ moved).view(-1, self.steps * boxes, channels)


class GraphNet(nn.Module):
    """Three graph convolutions over the same `graphs`; nodes ``[N, M, d]`` in and out."""

    def __init__(self, channels: int, graphs: int):
        super().__init__()
        self.layers = nn.ModuleList([GraphConv(channels, graphs) for _ in range(LAYERS)])

    def forward(self, nodes: Tensor, graphs: Sequence[Graph]) -> Tensor:
        """One layer behind the other."""
        for layer in self.layers:
            nodes = layer(nodes, graphs)
        return nodes


class GraphConv(nn.Module):
    """``relu(norm(Σ A X W + X))``, with a W for each of the `graphs`; nodes ``[N, M, d]`` in and out."""

    def __init__(self, channels: int, graphs: int):
        super().__init__()
        self.weights = nn.ModuleList([nn.Linear(channels, channels, bias=False) for _ in range(graphs)])
        self.norm = nn.LayerNorm(channels)

    def forward(self, nodes: Tensor, graphs: Sequence[Graph]) -> Tensor:
        """The layer."""
        seen = [weight(graph(nodes)) for weight, graph in zip(self.weights, graphs, strict=True)]
        return torch.relu(self.norm(sum(seen, nodes)))


def overlaps(boxes: Tensor) -> Tensor:
    """Boxes ``[N, R, 4]`` to the IoU of each with each, ``[N, R, R]``, over the sum of its row."""
    corners, ends = boxes[:, :, :2], boxes[:, :, 2:]
    shared = torch.relu(
        torch.minimum(ends[:, :, None], ends[:, None]) - torch.maximum(corners[:, :, None], corners[:, None])
    )
    common, areas = _area(shared), _area(ends - corners)
    iou = common / (areas[:, :, None] + areas[:, None] - common).clamp(min=TINY)
    return iou / iou.sum(2, keepdim=True).clamp(min=TINY)


def _area(sides: Tensor) -> Tensor:
    return sides[..., 0] * sides[..., 1]
