"""Running graphs as the agent does, with ONNX Runtime alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from kinewatch_models.capture import Frames
from kinewatch_models.error import ToolError

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


class GraphError(ToolError):
    """There is no such graph; the message says what makes it."""


class Graph:
    """A graph file as the agent runs it: frame by frame with states (plan `online`), or over windows.

    A backbone brings the head that lies beside it (plan `cached`): each frame goes through the backbone once.
    """

    def __init__(self, path: Path):
        if not path.exists():
            raise GraphError(f"{path} is missing: `export` writes the fp32 graph, `quantise` the int8 one")
        self.session = session(path)
        head = head_of(path)
        self.head = session(head) if head.exists() else None

    @property
    def online(self) -> bool:
        """Whether it keeps states from frame to frame."""
        return len(self.session.get_inputs()) > 1

    @property
    def window(self) -> int:
        """Frames that one row of logits speaks of; of an online graph, one."""
        return 1 if self.online else int((self.head or self.session).get_inputs()[0].shape[1])

    @property
    def stride(self) -> int:
        """Frames from one row of logits to the next: a whole window costs as many passes as it has frames."""
        return 1 if self.online or self.head else stride(self.window)

    def ends(self, count: int) -> npt.NDArray[np.int64]:
        """The frames, of `count`, at which logits come."""
        return np.arange(self.window - 1, count, self.stride)

    def logits(self, frames: Floats) -> Floats:
        """Logits ``[len(ends), C]`` over the normalised `frames` ``[F, 3, H, W]`` of one stream, from zero states."""
        if self.online:
            return feeds(self.session, frames)[1]
        rows = frames if self.head is None else self._run(self.session, frames)
        windows = [rows[end - self.window + 1 : end + 1] for end in self.ends(len(rows))]
        last = self.head or self.session
        empty = np.zeros((0, last.get_outputs()[0].shape[1]), np.float32)
        return np.concatenate([empty, *(self._run(last, one[None]) for one in windows)])

    @staticmethod
    def _run(graph: ort.InferenceSession, rows: Floats) -> Floats:
        found: Floats = graph.run(None, {graph.get_inputs()[0].name: rows})[0]
        return found


def head_of(path: Path) -> Path:
    """Where the head of a backbone lies: both precisions share it, in float."""
    return path.with_name(f"{path.name.split('.')[0]}.head.onnx")


def stride(window: int) -> int:
    """Frames between the windows of plan `clip`."""
    return max(1, window // 4)


def zero_states(graph: ort.InferenceSession) -> dict[str, Floats]:
    """The states of a stream that has not begun, by input name."""
    return {node.name: np.zeros((1, *node.shape[1:]), np.float32) for node in graph.get_inputs()[1:]}


def feeds(graph: ort.InferenceSession, frames: Floats) -> tuple[list[dict[str, Floats]], Floats]:
    """What an online graph is fed at each frame (with the states as they are then), and its logits ``[F, C]``."""
    names = [node.name for node in graph.get_inputs()]
    states = zero_states(graph)
    fed, scores = [], []
    for frame in frames:
        fed.append({names[0]: frame[None], **states})
        result = graph.run(None, fed[-1])
        scores.append(result[0][0])
        states = dict(zip(names[1:], result[1:], strict=True))
    return fed, np.stack(scores)
