"""Nets of this package as ONNX graphs: one for windows, or one for frames and one for their features."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from kinewatch_models.arch.layers import ConvNorm
from kinewatch_models.arch.registry import Architecture
from kinewatch_models.arch.window import WindowNet
from kinewatch_models.stream import head_of

OPSET = 17
Net = TypeVar("Net", bound=nn.Module)


def write(net: WindowNet | nn.Module, one: Architecture, example: tuple[Tensor, ...], path: Path) -> None:
    """Write the graph of a `frozen` net to `path`, in plan `cached` the head beside it.

    `example` is one window (and boxes).
    """
    if one.plan == "cached":
        assert isinstance(net, WindowNet)
        frame_part, window_part = net.parts()
        frames = example[0].flatten(0, 1)
        with torch.no_grad():
            features = frame_part(frames)
        graph(frame_part, (frames[:1],), ["frame"], ["feature"], path)
        graph(window_part, (features.unsqueeze(0),), ["features"], ["logits"], head_of(path))
    else:
        graph(net, example, ["clip", "boxes"][: len(example)], ["logits"], path)


def frozen(net: Net) -> Net:
    """A copy for inference whose convolutions have taken in their norms."""
    net = copy.deepcopy(net).requires_grad_(False).eval()
    for module in net.modules():
        if isinstance(module, ConvNorm):
            module.fix()
    return net


def graph(
    module: nn.Module, example: tuple[Tensor, ...], inputs: Sequence[str], outputs: Sequence[str], path: Path
) -> None:
    """Export with axis 0 of every input and output as the dynamic dimension `N`.

    Opset 17 from the legacy exporter, which tract and ONNX Runtime both load.
    """
    module.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            example,
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: {0: "N"} for name in (*inputs, *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
