"""Multiply-accumulate operations of a graph, counted from its convolutions and matrix products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference


def count(path: Path, batch: int = 1) -> int:
    """Operations of one run over `batch` rows; additions, activations and gathers do not count."""
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {one.name: list(numpy_helper.to_array(one).shape) for one in inferred.initializer}
    for value in (*inferred.input, *inferred.output, *inferred.value_info):
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return sum(_of(node, shapes) for node in inferred.node)


def parameters(path: Path) -> int:
    """Weights of a graph."""
    graph = onnx.load(str(path)).graph
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    return sum(int(np.prod(one.dims)) for one in graph.initializer if one.data_type in floats)


def _of(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    if node.op_type == "Conv":
        return int(np.prod(shapes[node.output[0]])) * int(np.prod(shapes[node.input[1]][1:]))
    if node.op_type == "MatMul":
        return int(np.prod(shapes[node.output[0]])) * shapes[node.input[0]][-1]
    if node.op_type == "Gemm":
        transposed = any(one.name == "transA" and one.i for one in node.attribute)
        return int(np.prod(shapes[node.output[0]])) * shapes[node.input[0]][0 if transposed else -1]
    return 0
