"""Weights stored as half-precision floats and widened when a graph is opened: half the file, the same operators.

Runtimes fold the casts away, so a widened graph runs as fast as one that was stored in full. Everything that is
measured afterwards is measured on what is stored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

LEAST_VALUES = 256
"""Smaller tensors (biases, scales) stay as they are: nothing is gained."""


def store(path: Path) -> None:
    """Rewrite the graph at `path`; a tensor that half cannot hold stays as it is."""
    model = onnx.load(str(path))
    graph = model.graph
    constants = [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    tensors |= {node.output[0]: node.attribute[0].t for node in constants}
    kept, casts = [], []
    for name, tensor in tensors.items():
        values = numpy_helper.to_array(tensor)
        narrow = _narrow(values)
        if narrow is None:
            kept.append(numpy_helper.from_array(values, name))
            continue
        kept.append(numpy_helper.from_array(narrow, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], f"widen {name}", to=TensorProto.FLOAT))
    nodes = [*casts, *(node for node in graph.node if node not in constants)]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _narrow(values: npt.NDArray[Any]) -> npt.NDArray[np.float16] | None:
    if values.dtype != np.float32 or values.size < LEAST_VALUES or np.abs(values).max() > np.finfo(np.float16).max:
        return None
    return values.astype(np.float16)
