"""How the ranges of int8 activations are chosen, compared: each method on the same training streams, judged on val.

`minmax` takes what was ever seen, `percentile` leaves out the rarest values, `entropy` those whose loss distorts the
histogram least. The latter two keep every activation in memory, so all see little: every `EVERY`-th step in the first
`MOST_FRAMES` frames of `STREAMS` clips.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from kinewatch_models import quantise, stream
from kinewatch_models.stream import Floats

EVERY, STREAMS, MOST_FRAMES = 20, 20, 60

Table = dict[str, Any]


def measure(source: Path, train: list[Floats], val: list[Floats], float_parts: tuple[str, ...] = ()) -> Table:
    """By method, how far its int8 graph is from `source` on the streams `val`; calibrated on `train`."""
    some = [frames[:MOST_FRAMES] for frames in train]
    table: Table = {}
    for method in quantise.METHODS:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / source.name
            if stream.head_of(source).exists():
                shutil.copyfile(stream.head_of(source), stream.head_of(target))
            quantise.quantise(source, target, some, EVERY, float_parts, method)
            table[method] = quantise.agreement(source, target, val)
    return table
