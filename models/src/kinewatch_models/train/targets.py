"""What a training window teaches: for each of its frames, the classes that it may show.

The target is a mask of allowed classes, so that weak knowledge ("a daily clip: not falling", "the edge of an action")
and exact annotation are one thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kinewatch_models.capture import Seconds
from kinewatch_models.catalogue import Clip, Span
from kinewatch_models.recipe import Recipe

Mask = npt.NDArray[np.bool_]
"""``[T, C]`` allowed classes of each frame."""


@dataclass(frozen=True)
class Window:
    """One sample: frame indices into the clip and the allowed classes."""

    clip: Clip
    indices: npt.NDArray[np.int64]
    allowed: Mask


def targets(clip: Clip, times: Seconds, recipe: Recipe) -> Mask:
    """Allowed classes of the frames shown at `times`, for a window that begins at ``times[0]``."""
    names = recipe.labels
    allowed = np.zeros((len(times), len(names)), bool)
    if clip.spans is None:
        allowed[:, [names.index(name) for name in clip.allowed]] = True
        return allowed
    background = names.index(recipe.background)
    allowed[:, background] = True
    for span in clip.spans:
        inside = (times >= span.start) & (times < span.end)
        allowed[inside] = False
        for name in span.label.split("|"):
            allowed[inside, names.index(name)] = True
        memory = recipe.train.memory_s.get(span.label)
        if memory is not None:
            unseen = inside if times[0] > span.start else inside & (times > span.start + memory)
            allowed[unseen, background] = True
    return allowed


def action_targets(times: Seconds, shown: Sequence[Span], recipe: Recipe) -> Mask:
    """Like `targets`, where labels are actions of their own: outside of `shown` is background, edges may be both."""
    names = recipe.labels
    allowed = np.zeros((len(times), len(names)), bool)
    if recipe.background:
        allowed[:, names.index(recipe.background)] = True
    for span in shown:
        inside = (times >= span.start) & (times < span.end)
        edge = recipe.train.edge_share * (span.end - span.start)
        core = inside & (times >= span.start + edge) & (times < span.end - edge)
        allowed[core] = False
        allowed[inside, names.index(span.label)] = True
    allowed[~allowed.any(1)] = True
    return allowed
