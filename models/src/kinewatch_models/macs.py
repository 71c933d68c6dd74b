"""Multiply-accumulate operations of a graph, counted from its convolutions and matrix products."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper, shape_inference

from kinewatch_models.error import ToolError


class ShapeError(ToolError):
    """The size of a product is not known before the graph runs."""


def count(path: Path, batch: int = 1) -> int:
    """Operations of one run over `batch` rows; additions, activations, gathers and warps do not count."""
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    inferred = shape_inference.infer_shapes(_folded(model)).graph
    shapes = {one.name: list(numpy_helper.to_array(one).shape) for one in inferred.initializer}
    for value in (*inferred.input, *inferred.output, *inferred.value_info):
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return sum(_of(node, shapes, path) for node in inferred.node)


def parameters(path: Path) -> int:
    """Weights of a graph."""
    graph = onnx.load(str(path)).graph
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    return sum(int(np.prod(one.dims)) for one in graph.initializer if one.data_type in floats)


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its constants worked out: sizes that are computed from them are known then."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        options.log_severity_level = 3
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def _of(node: onnx.NodeProto, shapes: dict[str, list[int]], path: Path) -> int:
    if node.op_type not in ("Conv", "MatMul", "Gemm", "FusedMatMul"):
        return 0
    made, first = shapes.get(node.output[0], [0]), shapes.get(node.input[0], [0])
    if 0 in made or 0 in first:
        raise ShapeError(
            f"{path}: the size of {node.name} is not known before the graph runs: its MACs cannot be counted"
        )
    if node.op_type == "Conv":
        return int(np.prod(made)) * int(np.prod(shapes[node.input[1]][1:]))
    transposed = any(one.name == "transA" and one.i for one in node.attribute)
    return int(np.prod(made)) * first[-2 if transposed else -1]
