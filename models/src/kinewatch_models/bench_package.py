"""A package around a given backbone, for timing only: plan `cached`, mean of the features, random classifier.

It is shaped like the Python peer of the benchmark: 8 frames over 2 s, every 0.5 s, so 4 frames a second.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quant_pre_process, quantize_static

from kinewatch_models import manifest, package, stream

RATE_HZ, SEGMENTS, WINDOW_S, STRIDE_S = 4.0, 8, 2.0, 0.5
LABELS = [f"action-{n}" for n in range(7)]
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class _Noise(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, frames: Floats):
        self._rows: Iterator[dict[str, Floats]] = iter([{name: frame[None]} for frame in frames])

    def get_next(self) -> dict[str, Floats] | None:
        return next(self._rows, None)


def write(backbone: Path, target: Path) -> Path:
    """Write the package of a ``[1, 3, S, S]`` to ``[1, F]`` backbone to `target`, which must not be there yet."""
    (target / "golden").mkdir(parents=True)
    shutil.copyfile(backbone, target / "backbone.fp32.onnx")
    graph = stream.session(backbone)
    image, feature = graph.get_inputs()[0], graph.get_outputs()[0]
    size, features = int(image.shape[-1]), int(feature.shape[-1])
    frames: Bytes = np.random.default_rng(0).integers(0, 256, (SEGMENTS, size, size, 3), dtype=np.uint8)
    pixels = stream.normalise(frames, MEAN, STD)
    _quantise(target, image.name, pixels)
    onnx.save(_head(features), str(target / "head.onnx"))
    np.save(target / "golden/noise.npy", frames)
    np.save(target / "golden/noise.logits.npy", _logits(graph, image.name, target / "head.onnx", pixels))
    (target / "labels.txt").write_text("".join(f"{name}\n" for name in LABELS), encoding="utf-8")
    table = _manifest(size, image.name, feature.name)
    table["files"] = package.checksums(target)
    (target / "model.toml").write_text(manifest.render(table), encoding="utf-8")
    return target


def _quantise(target: Path, name: str, pixels: Floats) -> None:
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(target / "backbone.fp32.onnx"), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target / "backbone.int8.onnx"),
            _Noise(name, pixels),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def _head(features: int) -> onnx.ModelProto:
    weight = np.random.default_rng(1).standard_normal((features, len(LABELS))).astype(np.float32) / features
    nodes = [
        helper.make_node("ReduceMean", ["features"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "weight"], ["logits"]),
    ]
    shapes = [
        helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, SEGMENTS, features]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, len(LABELS)]),
    ]
    graph = helper.make_graph(nodes, "head", shapes[:1], shapes[1:], [numpy_helper.from_array(weight, "weight")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _logits(backbone: ort.InferenceSession, name: str, head: Path, pixels: Floats) -> Floats:
    features = np.concatenate([backbone.run(None, {name: frame[None]})[0] for frame in pixels])
    scores: Floats = stream.session(head).run(None, {"features": features[None]})[0]
    return scores


def _manifest(size: int, image: str, feature: str) -> manifest.Table:
    """The table without `files`; its decoders never fire, for the classifier is random."""
    decoder = {"kind": "hysteresis", "on": 0.99, "off": 0.9, "smooth_s": 0.0, "h_on": 0.5, "h_off": 0.5}
    decoder |= {"min_duration_s": 0.5, "merge_gap_s": 0.5, "max_duration_s": 60.0, "lag_start_s": 0.0, "lag_end_s": 0.0}
    decoder |= {"uncertainty_start_ms": 500.0, "uncertainty_end_ms": 500.0}
    return {
        "format": manifest.FORMAT,
        "name": "peer",
        "version": "0.0.0",
        "architecture": "tsn",
        "plan": "cached",
        "description": "Random weights, for timing",
        "license": "MIT",
        "provenance": ["random numbers"],
        "input": manifest.square_input(size, MEAN, STD),
        "sampling": {
            "rate_hz": RATE_HZ,
            "segments": SEGMENTS,
            "snippet": 1,
            "window_s": WINDOW_S,
            "stride_s": STRIDE_S,
            "max_hole_s": 0.5,
        },
        "output": {"scores": "clip", "activation": "softmax", "temperature": 1.0},
        "tensors": {"input": image, "logits": "logits", "feature": feature, "features": "features"},
        "graphs": {
            "fp32": {"model": "backbone.fp32.onnx", "head": "head.onnx"},
            "int8": {"model": "backbone.int8.onnx", "head": "head.onnx"},
        },
        "labels": [{"name": name, "decoder": decoder} for name in LABELS],
        "golden": {
            "tolerance_fp32": 1e-3,
            "tolerance_int8": 10.0,
            "clips": [{"frames": "golden/noise.npy", "logits": "golden/noise.logits.npy"}],
        },
    }
