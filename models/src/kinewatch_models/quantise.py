"""Static int8 for ONNX Runtime: QDQ, weights s8 per channel, activations u8 (on x86 twice as fast as s8).

Calibrated with the states of running streams: zeros there would teach the quantiser a range that is never seen.
The frame difference at the front stays in float, for it is a difference of two nearly equal numbers. Around each
shift, the state that comes in, the channels that stay, their union and the state that goes out share one scale: what
is kept for the next frame comes back as it was.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

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
from kinewatch_models.error import ToolError
from kinewatch_models.stream import Floats, Graph

Rows = list[dict[str, Floats]]

METHODS: dict[str, tuple[CalibrationMethod, dict[str, float]]] = {
    "minmax": (CalibrationMethod.MinMax, {}),
    "percentile 99.999": (CalibrationMethod.Percentile, {"CalibPercentile": 99.999}),
    "percentile 99.9": (CalibrationMethod.Percentile, {"CalibPercentile": 99.9}),
    "entropy": (CalibrationMethod.Entropy, {}),
}
"""How the range of an activation is chosen; `ranges` compares them. ONNX Runtime's entropy
counts values in 128 bins for 128 levels, so that it has nothing to choose from: it ends at minmax."""

MEMORY = "/memory/"
"""In the names of the nodes of a recurrent memory."""
FIRST_LAYER = "/stem/"
"""In the names of the nodes of a backbone's first layer."""


class QuantiseError(ToolError):
    """There is nothing to calibrate int8 on."""


class _Feeds(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, rows: Rows):
        self._rows = iter(rows)

    def get_next(self) -> dict[str, Floats] | None:
        return next(self._rows, None)


def quantise(
    source: Path,
    target: Path,
    streams: Iterable[Floats],
    every: int = 3,
    float_parts: tuple[str, ...] = (),
    method: str = "minmax",
) -> None:
    """Write the int8 form of `source` to `target`, calibrated on every `every`-th step over normalised `streams`.

    `method` is one of `METHODS`; tensors around a shift always take what was ever seen. Nodes with one of `float_parts`
    in their names stay in float, and so does the head of a backbone.
    """
    calibration, options = METHODS[method]
    graph = Graph(source)
    rows = [row for frames in streams for row in _fed(graph, frames)[1::every]]
    if not rows:
        raise QuantiseError(f"{source}: every training clip is shorter than two judgements: int8 has nothing to go by")
    with tempfile.TemporaryDirectory() as folder, _quiet():
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
            calibrate_method=calibration,
            nodes_to_exclude=_float_nodes(prepared, (MEMORY, *float_parts)),
            extra_options={"TensorQuantOverrides": _tied_ranges(prepared, rows), **options},
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime's tools log their advice through the root logger, and print."""
    log = logging.getLogger()
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.setLevel(before)


def _fed(graph: Graph, frames: Floats) -> Rows:
    """What the quantised part of a graph is fed over a stream."""
    if graph.online:
        return stream.feeds(graph.session, frames)[0]
    name = graph.session.get_inputs()[0].name
    if graph.head is not None:
        return [{name: frame[None]} for frame in frames]
    return [{name: frames[None, end - graph.window + 1 : end + 1]} for end in graph.ends(len(frames))]


def _tied_ranges(path: Path, rows: Rows) -> dict[str, list[dict[str, Any]]]:
    """For every tensor around a shift, the range of the feature map that it is a part of."""
    tied = _shifts(onnx.load(path).graph)
    ranges = _ranges(path, list(tied), rows)
    return {
        name: [{"rmin": np.array(low, np.float32), "rmax": np.array(high, np.float32)}]
        for feature, (low, high) in ranges.items()
        for name in tied[feature]
    }


def _shifts(graph: onnx.GraphProto) -> dict[str, list[str]]:
    """By feature map, the tensors of its shift: itself, its two parts, the state that comes in, and their union."""
    made_by = {output: node for node in graph.node for output in node.output}
    states = {value.name for value in graph.input}
    found: dict[str, list[str]] = {}
    for node in graph.node:
        if node.op_type != "Concat" or node.input[0] not in states or node.input[1] not in made_by:
            continue
        stays = made_by[node.input[1]]
        feature = stays.input[0] if stays.op_type == "Slice" else node.input[1]
        parts = [one.output[0] for one in graph.node if one.op_type == "Slice" and one.input[0] == feature]
        found[feature] = [feature, *parts, node.input[0], node.output[0]]
    return found


def _ranges(path: Path, names: list[str], rows: Rows) -> dict[str, tuple[float, float]]:
    """Least and greatest value of each tensor over `rows`; zero is always inside."""
    if not names:
        return {}
    model = onnx.load(path)
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, str(Path(folder) / "watched.onnx"))
        graph = stream.session(Path(folder) / "watched.onnx")
        seen = [[(min(0.0, x.min()), max(0.0, x.max())) for x in graph.run(names, row)] for row in rows]
    ends = np.array(seen, np.float64)
    return {name: (float(ends[:, at, 0].min()), float(ends[:, at, 1].max())) for at, name in enumerate(names)}


def agreement(source: Path, target: Path, streams: Iterable[Floats]) -> dict[str, float]:
    """How far `target` is from `source` on normalised `streams`: frames, argmax flips, logit differences, cosine."""
    first, second = Graph(source), Graph(target)
    pairs = [(first.logits(frames), second.logits(frames)) for frames in streams]
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


def _float_nodes(path: Path, parts: tuple[str, ...]) -> list[str]:
    """The nodes that no convolution feeds (what comes before the first one, states that are only handed on), and those
    with one of `parts` in their names: gates, which are worth their few bytes."""
    graph = onnx.load(path).graph
    fed: set[str] = set()
    for node in graph.node:
        if node.op_type == "Conv" or fed & set(node.input):
            fed |= set(node.output)
    return [node.name for node in graph.node if not fed & set(node.output) or any(part in node.name for part in parts)]
