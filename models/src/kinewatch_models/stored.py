"""Weights stored narrow and widened when a graph is opened: a smaller file, the same operators.

Runtimes fold what widens them away, so such a graph runs as fast as one that was stored in full. Everything that is
measured afterwards is measured on what is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

LEAST_VALUES = 256
"""Smaller tensors (biases, scales) stay as they are: nothing is gained."""

HALF, INT8 = "half", "int8"
WAYS = (HALF, INT8)
"""How the float graph of a package may hold its weights: all in half precision, or those of convolutions in int8."""

INT8_LIMIT = 127

Values = npt.NDArray[Any]
Narrowed = tuple[dict[str, Values], list[NodeProto]]
"""What is stored in a tensor's place, and the nodes that make the tensor of it."""


def half(path: Path) -> None:
    """Rewrite the graph at `path` with half-precision weights; a tensor that half cannot hold stays as it is."""
    model = onnx.load(str(path))
    _rewrite(model, lambda name, values: _halved(name, values) if values.dtype == np.float32 else None)
    onnx.save(model, str(path))


def int8(path: Path) -> None:
    """Rewrite the graph at `path` with the weights of convolutions in int8, a scale for each channel that comes out.

    To rounding, these are the weights that quantisation makes of them (symmetric, the greatest of a channel at 127), so
    the two graphs of a package differ little but in their activations, and a version control that knows one file
    stores little of the other.
    """
    model = onnx.load(str(path))
    weights = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    _widen(model.graph, weights)
    _rewrite(model, lambda name, values: _in_int8(name, values) if name in weights else None)
    onnx.save(model, str(path))


def _widen(graph: onnx.GraphProto, names: set[str]) -> None:
    """Undo `half` for the tensors called `names`."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Cast" and node.output[0] in names]:
        if node.input[0] not in tensors:
            continue
        tensor = tensors[node.input[0]]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), node.output[0]))
        graph.node.remove(node)


def _rewrite(model: onnx.ModelProto, narrow: Callable[[str, Values], Narrowed | None]) -> None:
    """Put what `narrow` makes of each large constant, and the nodes that widen it, in the constant's place."""
    graph = model.graph
    constants = [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    tensors |= {node.output[0]: node.attribute[0].t for node in constants}
    kept, widened = [], []
    for name, tensor in tensors.items():
        values = numpy_helper.to_array(tensor)
        found = narrow(name, values) if values.size >= LEAST_VALUES else None
        stored, nodes = found or ({name: values}, [])
        kept += [numpy_helper.from_array(part, key) for key, part in stored.items()]
        widened += nodes
    nodes = [*widened, *(node for node in graph.node if node not in constants)]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    onnx.checker.check_model(model)


def _halved(name: str, values: Values) -> Narrowed | None:
    if np.abs(values).max() > np.finfo(np.float16).max:
        return None
    widen = helper.make_node("Cast", [f"{name}.half"], [name], f"widen {name}", to=TensorProto.FLOAT)
    return {f"{name}.half": values.astype(np.float16)}, [widen]


def _in_int8(name: str, values: Values) -> Narrowed:
    whole = values.astype(np.float32)
    highest = np.abs(whole).max(axis=tuple(range(1, whole.ndim)), keepdims=True)
    scale = np.where(highest > 0, highest / INT8_LIMIT, 1).astype(np.float32)
    rounded = np.clip(np.rint(whole / scale), -INT8_LIMIT, INT8_LIMIT).astype(np.int8)
    wide = f"{name}.wide"
    nodes = [
        helper.make_node("Cast", [f"{name}.int8"], [wide], f"widen {name}", to=TensorProto.FLOAT),
        helper.make_node("Mul", [wide, f"{name}.scale"], [name], f"scale {name}"),
    ]
    return {f"{name}.int8": rounded, f"{name}.scale": scale}, nodes
