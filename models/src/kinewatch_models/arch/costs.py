"""What each architecture costs at full size, and the windows and pictures it takes; counted on shapes alone.

Nothing is computed: tensors without memory go through the net, and the products of each convolution and matrix product
are added up. What is neither does not count, as in `macs`: gates, frames moved in time, and of TV-L1 the warps and all
that is done pixel by pixel. Needs PyTorch; what it finds lies in ``costs.toml``, which can be read without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kinewatch_models.arch import registry
from kinewatch_models.arch.registry import ONLINE, Architecture
from kinewatch_models.arch.window import Shape, WindowNet
from kinewatch_models.error import ToolError
from kinewatch_models.recipe import NetSpec
from kinewatch_models.train.net import ActionNet, OnlineStep, state_shapes, zero_states

CLASSES, SIDE, BOXES = 400, 224, 10
BACKBONE = "resnet50"
SEGMENTS, SEGMENTS_OF = 8, {"bninception": 16, "i3d-resnet50": 32}
"""Of a window: as in the papers."""
TRIED_SEGMENTS, TRIED_SIDES = (1, 2, 3, 4, 6, 8), (16, 32, 48, 64, 96)
TRIED_SIDE = 64

Table = dict[str, Any]


def measure() -> dict[str, Table]:
    """What was counted of (`form`), and a table for each row, by name."""
    form = {"classes": CLASSES, "side": SIDE, "boxes": BOXES}
    with torch.device("meta"), torch.no_grad():
        return {"form": form, **{row.name: _of(row) for row in (ONLINE, *registry.ARCHITECTURES.values())}}


def _of(row: Architecture) -> Table:
    backbone = BACKBONE if BACKBONE in row.backbones else row.backbones[0]
    segments = SEGMENTS_OF.get(backbone, SEGMENTS)

    def full() -> nn.Module:
        return _net(row, registry.backbone(backbone), segments)

    def thin(frames: int) -> nn.Module:
        return _net(row, row.thin_backbone(), frames)

    made = full()
    window, frame = of_stream(made, row, segments)
    sides = [side for side in TRIED_SIDES if _runs(full, row, segments, side)]
    lengths = [length for length in TRIED_SEGMENTS if _runs(partial(thin, length), row, length, TRIED_SIDE)]
    return {
        "backbone": backbone,
        "segments": segments,
        "parameters": sum(value.numel() for value in made.parameters()),
        "macs_per_window": window,
        "macs_per_new_frame": frame,
        "least_segments": lengths[0],
        "multiple_of_segments": _multiple(lengths, TRIED_SEGMENTS),
        "least_side": sides[0],
        "multiple_of_side": _multiple(sides, TRIED_SIDES),
    }


def _net(row: Architecture, trunk: Any, segments: int) -> nn.Module:
    if row is ONLINE:
        spec = NetSpec(row.name, "rgb", BACKBONE, 0, 0.0, shift_from_block=1, pretrained=False)
        return ActionNet(spec, CLASSES, trunk).eval()
    return row.build(trunk, Shape(CLASSES, segments)).eval()


def _window(row: Architecture, segments: int, side: int) -> tuple[Tensor, ...]:
    clip = torch.empty(1, segments * row.snippet, 3, side, side)
    return (clip, torch.empty(1, BOXES, 4)) if row.boxes else (clip,)


def of_stream(net: nn.Module, row: Architecture, segments: int) -> tuple[int, int]:
    """Of a window, and of one more frame of a stream; in plan `clip` that is the next window."""
    frame = torch.empty(1, 3, SIDE, SIDE)
    if isinstance(net, ActionNet):
        step = count(OnlineStep(net), frame, *zero_states(state_shapes(net, SIDE)))
        return segments * step, step
    whole = count(net, *_window(row, segments, SIDE))
    if row.plan != "cached":
        return whole, whole
    assert isinstance(net, WindowNet)
    one, _ = net.parts()
    seen = count(one, frame)
    return whole, whole - (segments - 1) * seen


def count(net: nn.Module, *inputs: Tensor) -> int:
    """Multiply-accumulates of one run."""
    with FlopCounterMode(display=False) as counter:
        net(*inputs)
    return counter.get_total_flops() // 2


def _runs(make: Callable[[], nn.Module], row: Architecture, segments: int, side: int) -> bool:
    try:
        make()(*_window(row, segments, side))
    except (ToolError, RuntimeError):
        return False
    return True


def _multiple(taken: Sequence[int], tried: Sequence[int]) -> int:
    """1 where all from the first on are taken, else the first, whose multiples are."""
    least = taken[0]
    if list(taken) == [one for one in tried if one >= least]:
        return 1
    assert list(taken) == [one for one in tried if one % least == 0], taken
    return least
