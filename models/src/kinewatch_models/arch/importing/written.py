"""The recipe of imported weights, as a file: what the checkpoint's net was fed, and defaults for the rest."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from kinewatch_models import dataset, manifest, own_recipe
from kinewatch_models.arch.importing.mapping import Importer
from kinewatch_models.arch.registry import ARCHITECTURES
from kinewatch_models.error import ToolError
from kinewatch_models.recipe import InputSpec, NetSpec, Recipe

DROPOUT, CACHE_SIZE, LEARNING_RATE = 0.5, 256, 1e-4
"""For those who train the same net anew."""


def net_of(one: Importer) -> NetSpec:
    """The net; a shift is in every unit."""
    return NetSpec(one.architecture, "rgb", one.backbone, 0, DROPOUT, shift_from_block=1, pretrained=False)


def window_of(one: Importer, segments: int) -> int:
    """Frames that so many segments take."""
    return segments * ARCHITECTURES[one.architecture].snippet


def labels_of(path: Path) -> list[str]:
    """One label a line, in the order of the classes, as they may stand in a topic."""
    try:
        lines = path.read_text(encoding="utf-8").rstrip().splitlines()
    except UnicodeDecodeError:
        raise ToolError(f"{path} is not UTF-8 text: give a label a line") from None
    labels = [dataset.slug(line) for line in lines]
    for number, (line, label) in enumerate(zip(lines, labels, strict=True), 1):
        if not label:
            raise ToolError(f'{path}: line {number}, "{line}", has no letter or digit that a topic may hold')
        if (first := labels.index(label) + 1) < number:
            raise ToolError(f"{path}: lines {first} and {number} would both be called {label}; rename one")
    return labels


def recipe_of(one: Importer, labels: list[str], segments: int, span_s: float, name: str, weights: str) -> Recipe:
    """The recipe; a window spans `span_s`, `weights` says in words where they are from."""
    forwards = slice(None, None, -1 if one.colours == "bgr" else 1)
    window = window_of(one, segments)
    own = own_recipe.build(labels, [], name, 0, own_recipe.LEAST_EPOCHS)
    train = replace(
        own.train,
        window=window,
        cache_size=CACHE_SIZE,
        learning_rate=LEARNING_RATE,
        class_weights=[],
        loss_from=0,
        consensus=1.0,
    )
    return replace(
        own,
        description=f"{one.architecture} on {one.backbone}, imported: {len(labels)} classes",
        license="LicenseRef-imported-weights",
        license_reason="as its publisher says of the weights and of the clips they were trained on",
        provenance=[f"Weights: {weights}, names as in {one.code} ({one.source})"],
        limits=[
            f"Trained on trimmed clips: {one.sampling}. Here a window is {window} frames of a stream, evenly spread "
            f"over {span_s:g} s: the nearer that is to how long the actions take, the better.",
            "It was fed the middle of pictures, the agent gives it the whole picture, stretched to a square.",
            "Mapped by names and shapes, tested with stand-ins: check it on clips whose label you know.",
            *([f"Not the same as in its own code: {one.note}."] if one.note else []),
        ],
        rate_hz=window / span_s,
        input=InputSpec(one.size, list(one.mean[forwards]), list(one.std[forwards])),
        net=net_of(one),
        train=train,
    )


def write(recipe: Recipe, path: Path) -> None:
    """As TOML; what is empty is left out."""
    path.write_text(manifest.render(_filled(asdict(recipe))), encoding="utf-8")


def _filled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner) for key, inner in value.items() if inner not in (None, "", [], {})}
    return [_filled(inner) for inner in value] if isinstance(value, list) else value
