"""PyTorch to ONNX: the one-frame step of an online net, checked against the clip form before it is kept.

Opset 17 from the legacy exporter, which tract and ONNX Runtime both load; axis 0 of every input and output is the
dynamic dimension `N`.
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import numpy as np
import torch

from kinewatch_models import stream
from kinewatch_models.train.backbone import ConvNorm
from kinewatch_models.train.online_tsm import OnlineStep, OnlineTsm, state_shapes, zero_states

OPSET = 17
TOLERANCE = 1e-3


class ExportError(Exception):
    """The ONNX graph does not compute what the net computes."""


def export_online(net: OnlineTsm, size: int, path: Path) -> float:
    """Write the step form of `net` to `path`; returns the largest logit difference from the clip form."""
    net = copy.deepcopy(net).requires_grad_(False).eval()
    for module in net.modules():
        if isinstance(module, ConvNorm):
            module.fix()
    step = OnlineStep(net)
    shapes = state_shapes(net, size)
    inputs = ["frame", *(f"state{index}" for index in range(len(shapes)))]
    outputs = ["logits", *(f"next{index}" for index in range(len(shapes)))]
    example = (torch.zeros(1, 3, size, size), *zero_states(shapes))
    step.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            step,
            example,
            str(path),
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={name: {0: "N"} for name in (*inputs, *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
    net.eval()  # the exporter may leave train mode behind, and dropout would change the reference
    return _check(net, size, path)


def _check(net: torch.nn.Module, size: int, path: Path) -> float:
    frames = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 8, 3, size, size), np.float32))
    with torch.no_grad():
        expected = net(frames)[0].numpy()
    scale = max(1.0, float(np.abs(expected).max()))
    difference = float(np.abs(stream.logits(stream.session(path), frames[0].numpy()) - expected).max())
    if difference > TOLERANCE * scale:
        raise ExportError(f"{path}: logits differ from the net by {difference:.2e}, limit {TOLERANCE * scale:.2e}")
    return difference
