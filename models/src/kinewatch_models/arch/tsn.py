"""TSN: temporal segment network (Wang et al. 2016, arXiv 1608.00859): frames seen alone, their logits averaged.

The baseline of all others: one pass per new frame (plan `cached`), and nothing of the order of frames.
"""

from __future__ import annotations

from kinewatch_models.arch.backbone import Trunk
from kinewatch_models.arch.window import Shape, WindowNet


def build(trunk: Trunk, shape: Shape) -> WindowNet:
    """Nothing is inserted."""
    return WindowNet(trunk, shape)
