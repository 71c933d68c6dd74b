"""A recipe: everything that decides a package (data, net, training, decoding), read from one TOML file.

Parsed once into frozen values; unknown keys are refused, so that a misspelt setting cannot be ignored silently.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import tomli

from kinewatch_models.arch.registry import ARCHITECTURES, PICTURES, PRETRAINED
from kinewatch_models.error import ToolError
from kinewatch_models.stored import HALF, WAYS
from kinewatch_models.stream import stride

T = TypeVar("T")

STREAMS = ("tsm-online", "tsm", "tsn")
"""Architectures that `train.net.ActionNet` is, which may see differences; all others are nets of windows of frames."""
INPUTS = ("rgb", "difference", "both")
NAME = re.compile(r"[a-z0-9_-]{1,64}")
ABOVE_0 = ("epochs", "window", "batch", "cache_size", "learning_rate")
"""Of `TrainSpec`."""


class RecipeError(ToolError):
    """The recipe file is wrong; the message names the file and the key."""


@dataclass(frozen=True)
class Source:
    """One data set: its annotation file (if frames are annotated) and what its labels mean to this model.

    `note` goes into the model card: what its figures can and cannot show. A class ``a|b`` may be either. With
    `whole_clips`, a clip shows its label from its first frame to its last; `spans` annotates single clips here, as
    ``{PATH: {label: [begin, end]}}``; `weight` scales how many windows of a clip an epoch draws. Clips whose path fits
    the pattern `overhead` look down from a ceiling, where no direction is up: training turns them by any angle, and
    draws `overhead_weight` times as many windows of them.
    """

    dataset: str
    cite: str
    note: str
    annotations: str | None = None
    classes: dict[str, str] = field(default_factory=dict)
    whole_clips: bool = False
    allowed: dict[str, list[str]] = field(default_factory=dict)
    spans: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    weight: float = 1.0
    overhead: str = ""
    overhead_weight: float = 1.0


@dataclass(frozen=True)
class InputSpec:
    """What the graph is fed: square frames of `size`, in byte units normalised by `mean` and `std`."""

    size: int
    mean: list[float]
    std: list[float]


@dataclass(frozen=True)
class NetSpec:
    """A net of the TSN family on a 2D `backbone`.

    `architecture`: ``tsm-online`` sees past frames through states, ``tsm`` (Lin et al. 2019) shifts both ways inside a
    window, ``tsn`` (Wang et al. 2016) averages frames seen alone. `input`: ``rgb``, ``difference`` (`difference_gain`
    times the change since the frame before, formed inside the graph), or ``both``, stacked before the first layer.
    The first `frozen_modules` of stem and blocks keep their ImageNet weights; residual blocks from
    `shift_from_block` on shift ``1 / shift_div`` of their channels (tsm: each way). `gru_units`: size of a recurrent
    memory before the last layer of an online net, 0 for none; teach it with `loss_from` on the last frame.
    """

    architecture: str
    input: str
    backbone: str
    frozen_modules: int
    dropout: float
    difference_gain: float = 1.5
    shift_div: int = 8
    shift_from_block: int = 4
    pretrained: bool = True
    gru_units: int = 0


@dataclass(frozen=True)
class TrainSpec:
    """One training run. Windows are `window` frames on a grid of the recipe's rate.

    `loss_from`: frames at the beginning of a window that only warm the states up. `consensus`: share of the loss that
    is taken on the window's mean logits instead of frame by frame. `mixup`: its beta parameter (Zhang et al. 2018),
    0 for none. `average`: decay of the moving average of the weights that is kept, 0 for the last weights.
    `background_share`: background windows for each window of an action, where labels are actions of their own.
    `edge_share`: part of an action, at either end, whose frames may be background as well.
    `memory_s`: how long after its onset a label is still taught; later its frames only say what they are not.
    `mirror` is false where left and right differ. `strange_views`: how far a training view may be from what was
    filmed, 0 to 1. `elsewhere`: share of the windows whose people are put before the background of another clip; for
    fixed cameras. `reversed` and `frozen`: windows per epoch of each clip of a sequence that are background, because it
    runs backwards there or is one frame. `warm_up`: share of the run in which the learning rate rises; raise it where
    the loss stays at that of guessing, for nets die of too fast a start.
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
    class_weights: list[float] = field(default_factory=list)
    memory_s: dict[str, float] = field(default_factory=dict)
    loss_from: int = 0
    consensus: float = 0.0
    mixup: float = 0.0
    average: float = 0.0
    background_share: float = 0.5
    edge_share: float = 0.15
    mirror: bool = True
    strange_views: float = 1.0
    elsewhere: float = 0.0
    reversed: float = 0.5
    frozen: float = 0.25
    warm_up: float = 0.08


@dataclass(frozen=True)
class DecoderSpec:
    """Decoder of one label. `on`, `h_on` and the lags are replaced by calibration.

    In a file, the label ``*`` is every action that has none of its own.
    """

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
    """An action made of labels in order; each begins, or goes on after it flickered, at most `within_s` after the one
    before has ended.

    It begins at most `max_duration_s` before its last part does; one that would last longer begins later.
    """

    name: str
    parts: list[str]
    within_s: float
    max_duration_s: float = math.inf


@dataclass(frozen=True)
class Recipe:
    """The whole file. `background` is empty where every label is an action.

    With `sequences`, the events are sequences of labels (a fall is falling, then lying) and `action_prefix` tells the
    clips that show one; without, every label but the background is an action of its own. `stored_weights`: ``half`` or
    ``int8``, as the float graph holds them; ``int8`` is refused where it costs too much on val.
    """

    name: str
    version: str
    description: str
    license: str
    license_file: str
    provenance: list[str]
    limits: list[str]
    labels: list[str]
    rate_hz: float
    sources: list[Source]
    input: InputSpec
    net: NetSpec
    train: TrainSpec
    decoders: list[DecoderSpec]
    license_reason: str = ""
    stored_weights: str = HALF
    background: str = ""
    action_prefix: str = ""
    shared_groups: list[str] = field(default_factory=list)
    sequences: list[SequenceSpec] = field(default_factory=list)

    @property
    def plan(self) -> str:
        """How the agent runs the net: see the package format."""
        if self.net.architecture == "tsm-online":
            return "online"
        return ARCHITECTURES[self.net.architecture].plan if self.net.input == "rgb" else "clip"

    @property
    def snippet(self) -> int:
        """Consecutive frames that the net takes as one segment."""
        row = ARCHITECTURES.get(self.net.architecture)
        return row.snippet if row else 1

    @property
    def period_s(self) -> float:
        """Seconds from one row of scores to the next."""
        return (stride(self.train.window) if self.plan == "clip" else 1) / self.rate_hz

    @property
    def actions(self) -> list[str]:
        """The labels that are not background."""
        return [name for name in self.labels if name != self.background]


def load(path: Path) -> Recipe:
    """Read and check a recipe."""
    try:
        table = tomli.loads(path.read_text(encoding="utf-8"))
    except (tomli.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: {error}") from None
    nested: dict[str, Any] = {
        "sources": [_build(Source, row, f"{path}: sources") for row in table.pop("sources", [])],
        "input": _build(InputSpec, table.pop("input", {}), f"{path}: input"),
        "net": _build(NetSpec, table.pop("net", {}), f"{path}: net"),
        "train": _build(TrainSpec, table.pop("train", {}), f"{path}: train"),
        "decoders": [_build(DecoderSpec, row, f"{path}: decoders") for row in table.pop("decoders", [])],
        "sequences": [_build(SequenceSpec, row, f"{path}: sequences") for row in table.pop("sequences", [])],
    }
    recipe = _every_action(_build(Recipe, {**table, **nested}, str(path)))
    _check_labels(recipe, path)
    check_choices(recipe, path)
    return recipe


def _every_action(recipe: Recipe) -> Recipe:
    """`recipe` with a decoder for each action that ``*`` stands for."""
    named = {one.label for one in recipe.decoders}
    rest = [name for name in recipe.actions if name not in named]
    decoders = [
        replace(one, label=name) for one in recipe.decoders for name in (rest if one.label == "*" else [one.label])
    ]
    return replace(recipe, decoders=decoders)


def _build(kind: type[T], row: dict[str, Any], where: str) -> T:
    known = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(row) - known)
    if unknown:
        raise RecipeError(f"{where}: unknown key {unknown[0]}")
    simple = {name: wanted for name, wanted in get_type_hints(kind).items() if wanted in (bool, int, float, str)}
    for key, value in row.items():
        wanted = simple.get(key, type(value))
        if type(value) is not wanted and (type(value), wanted) != (int, float):
            raise RecipeError(f"{where}: {key} = {value!r} is not of type {wanted.__name__}")
    try:
        return kind(**row)
    except TypeError as error:
        raise RecipeError(f"{where}: {error}") from None


def _check_labels(recipe: Recipe, path: Path) -> None:
    known = set(recipe.labels)
    if len(known) < len(recipe.labels):
        raise RecipeError(f"{path}: a label is named twice")
    used = {decoder.label for decoder in recipe.decoders}
    used |= {part for sequence in recipe.sequences for part in sequence.parts}
    used |= {recipe.background} - {""}
    used |= {name for source in recipe.sources for names in source.classes.values() for name in names.split("|")}
    used |= {name for source in recipe.sources for names in source.allowed.values() for name in names}
    unknown = sorted(used - known)
    if unknown:
        raise RecipeError(f"{path}: label {unknown[0]} is not in labels")
    undecoded = sorted(set(recipe.actions) - {decoder.label for decoder in recipe.decoders})
    if undecoded:
        raise RecipeError(f"{path}: label {undecoded[0]} has no [[decoders]]")
    either = {name for source in recipe.sources for name in source.classes.values() if "|" in name}
    if either and not recipe.sequences:
        raise RecipeError(f"{path}: class {min(either)}: a frame that may be either is for recipes with sequences")
    if recipe.sequences and not recipe.background:
        raise RecipeError(f"{path}: sequences need a background: name the label of nothing in `background`")


def check_choices(recipe: Recipe, path: Path) -> None:
    """Refuse a net that cannot be built or taught; `path` stands before the message."""
    net = recipe.net
    if not NAME.fullmatch(recipe.name):
        raise RecipeError(f"{path}: name {recipe.name!r} is not one to 64 of a-z, 0-9, _ and -")
    above_0 = {"rate_hz": recipe.rate_hz, "input.size": recipe.input.size}
    above_0 |= {f"train.{key}": getattr(recipe.train, key) for key in ABOVE_0}
    for key, number in above_0.items():
        if not 0 < number < math.inf:
            raise RecipeError(f"{path}: {key} = {number} is not above 0")
    known = ["tsm-online", *ARCHITECTURES]
    for key, value, names in (("architecture", net.architecture, known), ("input", net.input, INPUTS)):
        if value not in names:
            raise RecipeError(f"{path}: net.{key} {value} is not one of {', '.join(names)}")
    if recipe.stored_weights not in WAYS:
        raise RecipeError(f"{path}: stored_weights {recipe.stored_weights} is not one of {', '.join(WAYS)}")
    row = ARCHITECTURES.get(net.architecture)
    backbones = row.backbones if row else tuple(PICTURES)
    if net.backbone not in backbones:
        raise RecipeError(f"{path}: net.backbone {net.backbone} is not one of {', '.join(backbones)}")
    if net.pretrained and net.backbone not in PRETRAINED:
        raise RecipeError(
            f"{path}: {net.backbone} has no ImageNet weights: set net.pretrained to false, frozen_modules to 0"
        )
    if net.frozen_modules and not net.pretrained:
        raise RecipeError(f"{path}: untrained weights would stay as they are: set net.frozen_modules to 0")
    if row and row.boxes:
        raise RecipeError(f"{path}: {row.name} takes boxes, and clips have none: it cannot be trained from a recipe")
    if net.architecture not in STREAMS and net.input != "rgb":
        raise RecipeError(f"{path}: net.input {net.input} is for {', '.join(STREAMS)}; {net.architecture} sees frames")
    for source in recipe.sources:
        if source.overhead_weight < 0 or (source.overhead_weight != 1 and not (source.overhead and recipe.sequences)):
            raise RecipeError(
                f"{path}: overhead_weight of {source.dataset} has to be 0 or more, and needs `overhead` and a sequence"
            )
    if recipe.train.window % recipe.snippet:
        raise RecipeError(f"{path}: train.window must be a multiple of {recipe.snippet}, the frames of a segment")
    if net.gru_units and net.architecture != "tsm-online":
        raise RecipeError(f"{path}: net.gru_units needs states: set net.architecture to tsm-online")
    for one in recipe.sequences:
        if not 0 <= one.within_s <= 600:
            raise RecipeError(f"{path}: within_s of {one.name} is not in 0 to 600")
        if not (0.001 <= one.max_duration_s <= 86_400 or math.isinf(one.max_duration_s)):
            raise RecipeError(f"{path}: max_duration_s of {one.name} is not in 0.001 to 86400")
    if recipe.sequences and recipe.net.architecture != "tsm-online":
        raise RecipeError(f"{path}: sequences need scores of frames: set net.architecture to tsm-online")
    if recipe.train.loss_from and net.architecture not in STREAMS:
        raise RecipeError(
            f"{path}: train.loss_from is for {', '.join(STREAMS)}: {net.architecture} judges whole windows"
        )
    if not 0 <= recipe.train.loss_from < recipe.train.window:
        raise RecipeError(f"{path}: train.loss_from must be below train.window ({recipe.train.window})")
    if not 0 <= recipe.train.elsewhere <= 1:
        raise RecipeError(f"{path}: train.elsewhere is a share of the windows, from 0 to 1")
    if min(recipe.train.reversed, recipe.train.frozen) < 0:
        raise RecipeError(f"{path}: train.reversed and train.frozen are numbers of windows, at least 0")
    if recipe.train.elsewhere and not recipe.background:
        raise RecipeError(f"{path}: train.elsewhere needs a background label, to know who is to be kept")
    if not 0 < recipe.train.warm_up <= 1:
        raise RecipeError(f"{path}: train.warm_up is a share of the run, above 0 and at most 1")
    if recipe.train.class_weights and len(recipe.train.class_weights) != len(recipe.labels):
        raise RecipeError(f"{path}: train.class_weights needs {len(recipe.labels)} values, one for each label")
