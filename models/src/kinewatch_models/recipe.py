"""A recipe: everything that decides a package (data, net, training, decoding), read from one TOML file.

Parsed once into frozen values; unknown keys are refused, so that a misspelt setting cannot be ignored silently.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import tomli

T = TypeVar("T")


class RecipeError(Exception):
    """The recipe file is wrong; the message names the file and the key."""


@dataclass(frozen=True)
class Source:
    """One data set: its annotation file (if frames are annotated) and what its labels mean to this model.

    `note` goes into the model card: what its figures can and cannot show. `spans` annotates single clips here, as
    ``{PATH: {label: [begin, end]}}``; `weight` scales how many windows of a clip an epoch draws.
    """

    dataset: str
    cite: str
    note: str
    annotations: str | None = None
    classes: dict[str, str] = None  # type: ignore[assignment]
    allowed: dict[str, list[str]] = None  # type: ignore[assignment]
    spans: dict[str, dict[str, list[float]]] = None  # type: ignore[assignment]
    weight: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", self.classes or {})
        object.__setattr__(self, "allowed", self.allowed or {})
        object.__setattr__(self, "spans", self.spans or {})


@dataclass(frozen=True)
class InputSpec:
    """What the graph is fed: square frames of `size`, in byte units normalised by `mean` and `std`."""

    size: int
    mean: list[float]
    std: list[float]


@dataclass(frozen=True)
class NetSpec:
    """An online TSM fed with `difference_gain * (x[t] - x[t-1])`.

    The first `frozen_modules` of stem and blocks keep their ImageNet weights.
    """

    difference_gain: float
    shift_div: int
    shift_from_block: int
    frozen_modules: int
    dropout: float


@dataclass(frozen=True)
class TrainSpec:
    """One training run. Windows are `window` frames on a grid of the recipe's rate.

    `memory_s`: how long after its onset a label is still taught; later its frames only say what they are not.
    """

    seed: int
    epochs: int
    window: int
    batch: int
    cache_size: int
    learning_rate: float
    head_factor: float
    weight_decay: float
    label_smoothing: float
    class_weights: list[float]
    memory_s: dict[str, float]


@dataclass(frozen=True)
class DecoderSpec:
    """Decoder of one label. `on`, `h_on` and the lags are replaced by calibration."""

    label: str
    publish: bool
    on: float
    off: float
    h_on: float
    h_off: float
    min_duration_s: float
    merge_gap_s: float
    max_duration_s: float


@dataclass(frozen=True)
class SequenceSpec:
    """An action made of labels in order."""

    name: str
    parts: list[str]
    within_s: float


@dataclass(frozen=True)
class Recipe:
    """The whole file."""

    name: str
    version: str
    architecture: str
    description: str
    license: str
    license_file: str
    provenance: list[str]
    limits: list[str]
    labels: list[str]
    background: str
    action_prefix: str
    rate_hz: float
    shared_groups: list[str]
    sources: list[Source]
    input: InputSpec
    net: NetSpec
    train: TrainSpec
    decoders: list[DecoderSpec]
    sequences: list[SequenceSpec]


def load(path: Path) -> Recipe:
    """Read and check a recipe."""
    table = tomli.loads(path.read_text(encoding="utf-8"))
    nested: dict[str, Any] = {
        "sources": [_build(Source, row, f"{path}: sources") for row in table.pop("sources", [])],
        "input": _build(InputSpec, table.pop("input", {}), f"{path}: input"),
        "net": _build(NetSpec, table.pop("net", {}), f"{path}: net"),
        "train": _build(TrainSpec, table.pop("train", {}), f"{path}: train"),
        "decoders": [_build(DecoderSpec, row, f"{path}: decoders") for row in table.pop("decoders", [])],
        "sequences": [_build(SequenceSpec, row, f"{path}: sequences") for row in table.pop("sequences", [])],
    }
    recipe = _build(Recipe, {**table, **nested}, str(path))
    _check_labels(recipe, path)
    return recipe


def _build(kind: type[T], row: dict[str, Any], where: str) -> T:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(row) - known)
    if unknown:
        raise RecipeError(f"{where}: unknown key {unknown[0]}")
    try:
        return kind(**row)
    except TypeError as error:
        raise RecipeError(f"{where}: {error}") from None


def _check_labels(recipe: Recipe, path: Path) -> None:
    known = set(recipe.labels)
    used = {decoder.label for decoder in recipe.decoders}
    used |= {part for sequence in recipe.sequences for part in sequence.parts} | {recipe.background}
    used |= {name for source in recipe.sources for name in source.classes.values()}
    used |= {name for source in recipe.sources for names in source.allowed.values() for name in names}
    unknown = sorted(used - known)
    if unknown:
        raise RecipeError(f"{path}: label {unknown[0]} is not in labels")
