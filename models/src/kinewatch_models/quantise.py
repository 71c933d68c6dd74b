"""Static int8 for ONNX Runtime: QDQ, weights s8 per channel, activations u8 (on x86 twice as fast as s8).

Calibrated with the states of running streams: zeros there would teach the quantiser a range that is never seen.
The frame difference at the front stays in float, for it is a difference of two nearly equal numbers.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_static,
)

from kinewatch_models import stream
from kinewatch_models.stream import Floats


class _Feeds(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, rows: list[dict[str, Floats]]):
        self._rows = iter(rows)

    def get_next(self) -> dict[str, Floats] | None:
        return next(self._rows, None)


def quantise_online(source: Path, target: Path, streams: Iterable[Floats], every: int = 3) -> None:
    """Write the int8 form of `source` to `target`, calibrated on every `every`-th frame of normalised `streams`."""
    graph = stream.session(source)
    rows = [row for frames in streams for row in stream.feeds(graph, frames)[0][1::every]]
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            _Feeds(rows),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=_float_nodes(prepared),
        )


def agreement(source: Path, target: Path, streams: Iterable[Floats]) -> dict[str, float]:
    """How far `target` is from `source` on normalised `streams`: frames, argmax flips, logit differences, cosine."""
    first, second = stream.session(source), stream.session(target)
    pairs = [(stream.logits(first, frames), stream.logits(second, frames)) for frames in streams]
    a, b = np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs])
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(1)[lengths > 0] / lengths[lengths > 0]
    return {
        "frames": len(a),
        "flips": int((a.argmax(1) != b.argmax(1)).sum()),
        "max_abs_difference": float(np.abs(a - b).max()),
        "mean_abs_difference": float(np.abs(a - b).mean()),
        "mean_cosine": float(cosine.mean()),
    }


def _float_nodes(path: Path) -> list[str]:
    """The nodes that no convolution feeds: what comes before the first one, and states that are only handed on."""
    graph = onnx.load(path).graph
    fed: set[str] = set()
    for node in graph.node:
        if node.op_type == "Conv" or fed & set(node.input):
            fed |= set(node.output)
    return [node.name for node in graph.node if not fed & set(node.output)]
