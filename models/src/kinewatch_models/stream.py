"""Running a graph as the agent does, ONNX Runtime only: an online graph over a stream, a clip graph over windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from kinewatch_models.capture import Frames

Floats = npt.NDArray[np.float32]


def session(path: Path) -> ort.InferenceSession:
    """A one-thread CPU session: scores must not depend on how many cores a machine has."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def normalise(frames: Frames, mean: list[float], std: list[float]) -> Floats:
    """uint8 ``[F, H, W, 3]`` to float32 ``[F, 3, H, W]``, ``(byte - mean) / std``."""
    scaled = (frames.astype(np.float32) - np.array(mean, np.float32)) / np.array(std, np.float32)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def zero_states(graph: ort.InferenceSession) -> dict[str, Floats]:
    """The states of a stream that has not begun, by input name."""
    return {node.name: np.zeros((1, *node.shape[1:]), np.float32) for node in graph.get_inputs()[1:]}


def feeds(graph: ort.InferenceSession, frames: Floats) -> tuple[list[dict[str, Floats]], Floats]:
    """What the graph is fed at each frame (with the states as they are then), and its logits ``[F, C]``."""
    names = [node.name for node in graph.get_inputs()]
    states = zero_states(graph)
    fed, scores = [], []
    for frame in frames:
        fed.append({names[0]: frame[None], **states})
        result = graph.run(None, fed[-1])
        scores.append(result[0][0])
        states = dict(zip(names[1:], result[1:], strict=True))
    return fed, np.stack(scores)


def logits(graph: ort.InferenceSession, frames: Floats) -> Floats:
    """Logits ``[F, C]`` of the normalised `frames` of one stream, from zero states."""
    return feeds(graph, frames)[1]


def window_logits(graph: ort.InferenceSession, windows: Floats) -> Floats:
    """Logits ``[N, C]`` of a clip graph for normalised windows ``[N, T, 3, H, W]``."""
    scores: Floats = graph.run(None, {graph.get_inputs()[0].name: windows})[0]
    return scores
