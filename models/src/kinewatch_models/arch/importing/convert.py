"""From the tensors of a checkpoint to the weights of a run: all of theirs used, all of ours filled, or refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor

from kinewatch_models.arch.importing import table
from kinewatch_models.arch.importing.checkpoint import CheckpointError
from kinewatch_models.arch.importing.mapping import Importer, Shape, Take
from kinewatch_models.recipe import STREAMS, NetSpec
from kinewatch_models.train import net as nets

SHOWN = 3
COUNTER = "num_batches_tracked"
UNIT = re.compile(r"stages\.(\d+)\.(\d+)\.(.+)")


def closest(tensors: Mapping[str, Tensor], rows: Iterable[Importer]) -> Importer:
    """The row that knows most of the names."""
    return max(rows, key=lambda one: len(_names(one, tensors) & tensors.keys()))


def renamed(one: Importer, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Under the names of the row's rules, where a module has another in this file."""

    def name_of(name: str) -> str:
        module, _, last = name.rpartition(".")
        return f"{one.aliases[module]}.{last}" if module in one.aliases else name

    return {name_of(name): value for name, value in tensors.items()}


def segments_of(one: Importer, tensors: Mapping[str, Tensor], given: int = 0) -> int:
    """How many segments: those `given`, else as the weights have them, else the default."""
    key, columns = one.segments_at or ("", 1)
    known = tensors.get(key)
    seen = known.shape[1] // columns if known is not None and known.ndim > 1 else 0
    return given or seen or one.segments


def classes_of(one: Importer, tensors: Mapping[str, Tensor]) -> int:
    """How many classes the last layer has; 0 without one."""
    last = tensors.get(one.classifier)
    return 0 if last is None or not last.ndim else int(last.shape[0])


def left_out(one: Importer, tensors: Iterable[str]) -> dict[str, str]:
    """The tensors that are left out on purpose, with the reason."""
    return {name: reason for name in tensors for pattern, reason in one.unused.items() if fnmatchcase(name, pattern)}


def shapes_of(spec: NetSpec, classes: int, window: int) -> dict[str, Shape]:
    """What the net of a recipe has, without making it."""
    with torch.device("meta"):
        net = nets.build(spec, classes, window, pretrained=False)
    return {name: tuple(value.shape) for name, value in net.state_dict().items()}


def convert(
    tensors: Mapping[str, Tensor], one: Importer, segments: int, shapes: Mapping[str, Shape], path: Path
) -> dict[str, Tensor]:
    """The weights of a net with these `shapes`. Raises `CheckpointError`, which names the first tensors off."""
    rules = as_trained(one.rules(segments), one.architecture)
    _check(tensors, one, rules, shapes, path)
    made = {
        rule.ours: rule.change.make(*(tensors[name].float() for name in rule.theirs)).contiguous() for rule in rules
    }
    counters = {name: torch.zeros(shape, dtype=torch.int64) for name, shape in shapes.items() if name.endswith(COUNTER)}
    return {**made, **counters}


def as_trained(rules: list[Take], architecture: str) -> list[Take]:
    """With the names that a run has: streams hold all units in one list, other nets lie one step deeper."""
    if architecture not in STREAMS:
        return [replace(rule, ours=f"net.{rule.ours}") for rule in rules]
    found = [match for rule in rules if (match := UNIT.match(rule.ours))]
    units = sorted({(int(match[1]), int(match[2])) for match in found})

    def named(ours: str) -> str:
        match = UNIT.match(ours)
        if match:
            return f"body.{units.index((int(match[1]), int(match[2])))}.{match[3]}"
        return ours.removeprefix("consensus.")

    return [replace(rule, ours=named(rule.ours)) for rule in rules]


def _check(
    tensors: Mapping[str, Tensor], one: Importer, rules: list[Take], shapes: Mapping[str, Shape], path: Path
) -> None:
    wanted = {name: rule.change.shape(shapes[rule.ours]) for rule in rules for name in rule.theirs}
    spare = tensors.keys() - wanted.keys() - left_out(one, tensors).keys()
    lacking = [f"{name} {list(shape)}" for name, shape in wanted.items() if name not in tensors]
    other = [f"{name} {list(value.shape)}" for name, value in tensors.items() if name in spare]
    off = [
        f"{name} {list(tensors[name].shape)} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    faults = [
        f"{len(some)} {what}: {', '.join(some[:SHOWN])}{', …' if len(some) > SHOWN else ''}"
        for some, what in ((lacking, "missing"), (other, "unknown"), (off, "of another shape"))
        if some
    ]
    if faults:
        raise CheckpointError(f"{path} is not {_called(one)}: {'; '.join(faults)}{_hint(tensors, one)}")


def _hint(tensors: Mapping[str, Tensor], one: Importer) -> str:
    """Whose names these are, if another's."""
    for row in table.IMPORTERS:
        if row is not one and _names(row, tensors) == tensors.keys() - left_out(row, tensors).keys():
            return f"; its names are those of {_called(row)}: --from {row.source} --architecture {row.architecture}"
    return ""


def _called(one: Importer) -> str:
    return f"a checkpoint of {one.architecture} on {one.backbone} from {one.source} ({one.code})"


def _names(one: Importer, tensors: Mapping[str, Tensor]) -> set[str]:
    return {name for rule in one.rules(segments_of(one, tensors)) for name in rule.theirs}
