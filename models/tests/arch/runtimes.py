"""Graphs of windows on ONNX Runtime and on tract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tract

from kinewatch_models import stream
from kinewatch_models.stream import Floats, head_of

Run = Callable[..., Floats]


def ort(path: Path) -> Run:
    """The graph at `path`, with its head where there is one."""
    first = stream.session(path)
    head = stream.session(head_of(path)) if head_of(path).exists() else None

    def run(clip: Floats, *rest: Floats) -> Floats:
        if head is None:
            names = [one.name for one in first.get_inputs()]
            return first.run(None, dict(zip(names, (clip, *rest), strict=True)))[0]
        features = np.concatenate([first.run(None, {"frame": frame[None]})[0] for frame in clip[0]])
        return head.run(None, {"features": features[None]})[0]

    return run


def on_tract(path: Path) -> Run:
    """The same on tract."""
    loaded: dict[tuple[Path, tuple[tuple[int, ...], ...]], tract.Runnable] = {}

    def one(file: Path, given: tuple[Floats, ...]) -> Floats:
        key = file, tuple(x.shape for x in given)
        if key not in loaded:
            model = tract.onnx().load(str(file))
            for index, x in enumerate(given):
                model.set_input_fact(index, ",".join(map(str, x.shape)) + ",f32")
            loaded[key] = model.into_model().into_runnable()
        return loaded[key].run(list(given))[0].to_numpy()

    def run(clip: Floats, *rest: Floats) -> Floats:
        if not head_of(path).exists():
            return one(path, (clip, *rest))
        features = np.concatenate([one(path, (frame[None],)) for frame in clip[0]])
        return one(head_of(path), (features[None],))

    return run
