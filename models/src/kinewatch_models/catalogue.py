"""The training clips: one row of `clips.csv` each, with the annotated spans, split and group.

A group (actor, scene, sequence) must not be in two splits, or a net is scored on what it has seen: such a
catalogue is refused, by name. A recipe may admit single groups shared by train and val; test is never shared.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kinewatch_models.capture import Frames, Seconds
from kinewatch_models.recipe import Recipe, Source


class CatalogueError(Exception):
    """The clip list contradicts itself; the message names the offender."""


@dataclass(frozen=True)
class Span:
    """A stretch of one class, seconds from the first frame, end exclusive."""

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class Clip:
    """One video. `spans` is None where nobody annotated frames; `allowed` then names the classes it may show."""

    path: str
    dataset: str
    split: str
    group: str
    is_action: bool
    spans: tuple[Span, ...] | None
    allowed: tuple[str, ...] = field(default=())

    @property
    def trainable(self) -> bool:
        """True where the frames have labels of some kind."""
        return self.spans is not None or bool(self.allowed)

    def folder(self, cache: Path) -> Path:
        """Where `prepare` keeps this clip's frames."""
        return cache / Path(self.path).with_suffix("")

    def frames(self, cache: Path, size: int) -> tuple[Frames, Seconds]:
        """Memory-mapped frames at `size` and their times."""
        folder = self.folder(cache)
        return np.load(folder / f"{size}.npy", mmap_mode="r"), np.load(folder / "times.npy")


def read(data: Path, recipe: Recipe) -> list[Clip]:
    """Clips of the recipe's sources, in file order, with groups checked."""
    sources = {source.dataset: source for source in recipe.sources}
    notes = {name: _annotations(data, source) for name, source in sources.items()}
    with (data / "clips.csv").open(newline="", encoding="utf-8") as rows:
        clips = [
            _clip(row, sources[row["dataset"]], notes[row["dataset"]], recipe)
            for row in csv.DictReader(rows)
            if row["dataset"] in sources
        ]
    if not clips:
        raise CatalogueError(f"{data / 'clips.csv'}: no clip of {sorted(sources)}")
    check_groups(clips, recipe.shared_groups)
    return clips


def check_groups(clips: Iterable[Clip], shared: Iterable[str] = ()) -> None:
    """Refuse a group in two splits; those in `shared` (``dataset/group``) may be in train and val together."""
    splits: dict[str, set[str]] = {}
    for clip in clips:
        splits.setdefault(f"{clip.dataset}/{clip.group}", set()).add(clip.split)
    for group, found in sorted(splits.items()):
        if len(found) > 1 and not (group in set(shared) and found == {"train", "val"}):
            raise CatalogueError(f"group {group} is in the splits {', '.join(sorted(found))}")


def _annotations(data: Path, source: Source) -> dict[str, Any] | None:
    if source.annotations is None:
        return None
    database = json.loads((data / source.annotations).read_text(encoding="utf-8"))["database"]
    return dict(database)


def _clip(row: dict[str, str], source: Source, notes: dict[str, Any] | None, recipe: Recipe) -> Clip:
    path, label = row["path"], row["label"]
    spans = None
    if notes is not None:
        if path not in notes:
            raise CatalogueError(f"{path} has no entry in {source.annotations}")
        spans = tuple(
            Span(source.classes[note["label"]], *map(float, note["segment"])) for note in notes[path]["annotations"]
        )
    allowed = tuple(source.allowed.get(label, ()))
    is_action = label.startswith(recipe.action_prefix)
    return Clip(path, row["dataset"], row["split"], row["group"], is_action, spans, allowed)
