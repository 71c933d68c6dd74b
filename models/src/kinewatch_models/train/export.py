"""PyTorch to ONNX: the one-frame step of an online net, the window form of another; checked against the net.

Opset 17 from the legacy exporter, which tract and ONNX Runtime both load; axis 0 of every input and output is the
dynamic dimension `N`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from kinewatch_models import stored
from kinewatch_models.arch.export import frozen, graph, write
from kinewatch_models.error import ToolError
from kinewatch_models.stream import Graph, head_of
from kinewatch_models.train.net import (
    ActionNet,
    Backbone,
    ClipMean,
    MeanHead,
    OnlineStep,
    Windows,
    state_shapes,
    zero_states,
)

TOLERANCE = 1e-3
STORED_TOLERANCE = 1e-2
"""With the weights in half precision; what is measured afterwards is measured on these."""
STORED_MEMORY_TOLERANCE = 5e-2
"""A recurrent memory adds up what that rounding does over a window, and the noise of the check is far from what a net
was taught: a net taught with a third of the falls is 2 % off there."""


class ExportError(ToolError):
    """The ONNX graph does not compute what the net computes."""


def export(net: ActionNet | Windows, size: int, window: int, path: Path) -> float:
    """Write the graph of `net` to `path`; returns the largest logit difference from the net.

    The step form of an online net (plan `online`); backbone and head of a net that sees frames alone, the head beside
    `path` (plan `cached`); otherwise windows of `window` frames (plan `clip`).
    """
    net = frozen(net)
    head_of(path).unlink(missing_ok=True)
    if isinstance(net, Windows):
        write(net.net, net.row, (torch.zeros(1, window, 3, size, size),), path)
    elif net.spec.architecture == "tsm-online":
        shapes = state_shapes(net, size)
        inputs = ["frame", *(f"state{index}" for index in range(len(shapes)))]
        outputs = ["logits", *(f"next{index}" for index in range(len(shapes)))]
        graph(OnlineStep(net), (torch.zeros(1, 3, size, size), *zero_states(shapes)), inputs, outputs, path)
    elif net.spec.architecture == "tsn" and not net.differences:
        graph(Backbone(net), (torch.zeros(1, 3, size, size),), ["frame"], ["feature"], path)
        features = torch.zeros(1, window, net.classifier.in_features)
        graph(MeanHead(net), (features,), ["features"], ["logits"], head_of(path))
    else:
        graph(ClipMean(net), (torch.zeros(1, window, 3, size, size),), ["clip"], ["logits"], path)
    net.eval()  # the exporter may leave train mode behind, and dropout would change the reference
    _check(net, size, window, path, TOLERANCE)
    for part in (path, head_of(path)):
        if part.exists():
            stored.half(part)
    memory = isinstance(net, ActionNet) and net.spec.gru_units
    return _check(net, size, window, path, STORED_MEMORY_TOLERANCE if memory else STORED_TOLERANCE)


def _check(net: ActionNet | Windows, size: int, window: int, path: Path, tolerance: float) -> float:
    frames = torch.from_numpy(np.random.default_rng(0).standard_normal((1, window, 3, size, size), np.float32))
    exported = Graph(path)
    with torch.no_grad():
        expected = net(frames)[0].numpy()
    found = exported.logits(frames[0].numpy())
    if not exported.online:
        expected = expected.mean(0, keepdims=True)
    scale = max(1.0, float(np.abs(expected).max()))
    difference = float(np.abs(found - expected).max())
    limit = tolerance * scale
    if difference > limit:
        raise ExportError(f"{path}: logits differ from the net by {difference:.2e}, limit {limit:.2e}: not packaged")
    return difference
