"""A very small online model made of ONNX nodes alone, so that the tests of the base package need no PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kinewatch_models.recipe import DecoderSpec, InputSpec, NetSpec, Recipe, SequenceSpec, Source, TrainSpec

SIZE = 16
LABELS = ["background", "falling", "lying"]


def recipe() -> Recipe:
    """A recipe for the tiny model."""
    decoder = {"off": 0.3, "h_on": 0.1, "h_off": 0.4, "min_duration_s": 0.2, "merge_gap_s": 0.4, "max_duration_s": 60.0}
    return Recipe(
        name="tiny",
        version="0.1.0",
        description="A test",
        license="CC0-1.0",
        license_file="LICENSE",
        provenance=['drawn "shapes"'],
        limits=["none"],
        labels=LABELS,
        background="background",
        action_prefix="fall",
        rate_hz=5.0,
        shared_groups=[],
        sources=[Source("drawn", "Drawn", "drawn", "annotations.json", {"fall": "falling", "lying": "lying"})],
        input=InputSpec(SIZE, [120.0, 120.0, 120.0], [60.0, 60.0, 60.0]),
        net=NetSpec("tsm-online", "difference", "efficientnet-lite0", 0, 0.0, 1.0, 8, 1),
        train=TrainSpec(0, 2, 6, 4, SIZE, 1e-2, 1.0, 0.0, 0.0, [1.0, 1.0, 1.0], {"lying": 1.0}),
        decoders=[
            DecoderSpec("falling", False, 0.5, **decoder),
            DecoderSpec("lying", True, 0.5, **decoder),
        ],
        sequences=[SequenceSpec("fall", ["falling", "lying"], 2.0)],
    )


def write_graph(path: Path) -> None:
    """Difference to the frame before (with `seen`), a convolution whose last output is kept as a state, logits."""
    rng = np.random.default_rng(0)
    weights = {
        "conv": rng.normal(0, 0.3, (8, 3, 3, 3)),
        "fc": rng.normal(0, 0.5, (16, 3)),
        "axes": np.array([2, 3]),
        "zero": np.array(0.0),
        "one": np.array(1.0),
    }
    nodes = [
        helper.make_node("Sub", ["frame", "state0"], ["raw"], "sub"),
        helper.make_node("Unsqueeze", ["state1", "axes"], ["gate"], "gate_shape"),
        helper.make_node("Mul", ["raw", "gate"], ["difference"], "gated"),
        helper.make_node("Conv", ["difference", "conv"], ["mapped"], "conv_node", strides=[2, 2]),
        helper.make_node("Clip", ["mapped", "zero", "six"], ["active"], "relu6"),
        helper.make_node("Concat", ["state2", "active"], ["both"], "concat", axis=1),
        helper.make_node("GlobalAveragePool", ["both"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("MatMul", ["flat", "fc"], ["logits"], "matmul"),
        helper.make_node("Add", ["frame", "zero"], ["next0"], "keep_frame"),
        helper.make_node("Mul", ["state1", "zero"], ["nothing"], "forget"),
        helper.make_node("Add", ["nothing", "one"], ["next1"], "mark_seen"),
        helper.make_node("Identity", ["active"], ["next2"], "keep_active"),
    ]
    weights["six"] = np.array(6.0)
    initialisers = [
        numpy_helper.from_array(value.astype(np.int64 if name == "axes" else np.float32), name)
        for name, value in weights.items()
    ]
    shapes = [("state0", [3, SIZE, SIZE]), ("state1", [1]), ("state2", [8, 7, 7])]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [_value("frame", [3, SIZE, SIZE]), *(_value(name, shape) for name, shape in shapes)],
        [_value("logits", [3]), *(_value(name.replace("state", "next"), shape) for name, shape in shapes)],
        initialisers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _value(name: str, shape: list[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])
