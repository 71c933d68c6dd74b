"""`kinewatch-models import`: from a public checkpoint to a run that can be exported."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from kinewatch_models import dataset
from kinewatch_models.arch.importing import table, written
from kinewatch_models.arch.importing.mapping import Importer
from kinewatch_models.error import ToolError
from kinewatch_models.told import console

WEIGHTS, RECIPE = "weights.pt", "recipe.toml"
SPAN_S = 4.0


def command(
    file: Annotated[Path, typer.Argument(metavar="CHECKPOINT", exists=True, dir_okay=False)],
    source: Annotated[str, typer.Option("--from", help="whose names its tensors have: mmaction2 or authors")],
    architecture: Annotated[str, typer.Option("--architecture", help="e.g. tsm")],
    labels: Annotated[
        Path, typer.Option("--labels", exists=True, dir_okay=False, help="a label a line, in the order of the classes")
    ],
    out: Annotated[Path, typer.Option("--out", help="run directory to write; its last part is the model's name")],
    segments: Annotated[int, typer.Option("--segments", min=0, help="0: as the checkpoint has it, or its default")] = 0,
    span: Annotated[float, typer.Option("--span", min=0.1, help="seconds of a stream that a window spans")] = SPAN_S,
) -> None:
    """Map a public checkpoint onto our net; leaves its weights and the recipe that goes with them.

    Example: kinewatch-models import tsm.pth --from mmaction2 --architecture tsm --labels k400.txt --out k400
    """
    from kinewatch_models.arch.importing import checkpoint, convert

    rows = table.rows(source, architecture)
    if (out / WEIGHTS).exists():
        raise ToolError(f"{out} holds weights already: name another --out, they would be replaced")
    names = written.labels_of(labels)
    tensors = checkpoint.read(file)
    one = convert.closest(tensors, rows)
    tensors = convert.renamed(one, tensors)
    segments = convert.segments_of(one, tensors, segments)
    classes = convert.classes_of(one, tensors) or len(names)
    shapes = convert.shapes_of(written.net_of(one), classes, written.window_of(one, segments))
    made = convert.convert(tensors, one, segments, shapes, file)
    if len(names) != classes:
        raise ToolError(
            f"{labels} has {len(names)} labels, {file} {classes} classes: give the list it was trained with"
        )
    _write(out, made, one, names, segments, span, file)
    _say(out, one, convert.left_out(one, tensors), len(tensors), segments)


def _write(
    out: Path, made: Mapping[str, object], one: Importer, names: list[str], segments: int, span: float, file: Path
) -> None:
    import torch

    out.mkdir(parents=True, exist_ok=True)
    weights = f"{file.name}, SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()[:16]}"
    name = dataset.slug(out.name) or one.architecture
    written.write(written.recipe_of(one, names, segments, span, name, weights), out / RECIPE)
    draft = out / f"{WEIGHTS}.part"
    torch.save(made, draft)
    draft.replace(out / WEIGHTS)  # last: what holds weights is whole


def _say(out: Path, one: Importer, unused: dict[str, str], count: int, segments: int) -> None:
    console.print(f"{count - len(unused)} tensors mapped to {one.architecture} on {one.backbone}, {segments} segments")
    for reason in dict.fromkeys(unused.values()):
        some = [name for name, why in unused.items() if why == reason]
        console.print(f"note: {len(some)} left out, e.g. {some[0]}: {reason}", markup=False)
    if one.note:
        console.print(f"note: {one.note}", markup=False)
    console.print(f"{out / WEIGHTS}, {out / RECIPE}: kinewatch-models export {out / RECIPE} --run {out}", markup=False)
