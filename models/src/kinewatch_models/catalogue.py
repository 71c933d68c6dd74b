"""The training clips with their annotated spans, split and group: rows of a `clips.csv`, and folders of `simulate`.

A group (actor, scene, sequence) must not be in two splits, or a net is scored on what it has seen: such a
catalogue is refused, by name. A recipe may admit single groups shared by train and val; test is never shared.
"""

from __future__ import annotations

import csv
import fnmatch
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kinewatch_models.capture import Frames, Seconds
from kinewatch_models.error import ToolError
from kinewatch_models.recipe import Recipe, Source

SPLITS = ("train", "val", "test")
SIMULATED = "simulated"
"""The data set of every folder that `simulate` filled; its subsets are splits, and each clip is its own group."""


class CatalogueError(ToolError):
    """The clip list contradicts itself; the message names the offender."""


@dataclass(frozen=True)
class Span:
    """A stretch of one class, seconds from the first frame, end exclusive; ``a|b`` where it may be either."""

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class Clip:
    """One video, at `root` / `path`.

    `spans` is None where nobody annotated frames; `label` is then the class of all of them, or `allowed` names the
    classes that they may show. `aspect` is width over height, 0 where the list does not say.
    """

    path: str
    dataset: str
    split: str
    group: str
    is_action: bool
    spans: tuple[Span, ...] | None
    allowed: tuple[str, ...] = field(default=())
    root: Path = field(default=Path())
    label: str | None = None
    aspect: float = 0.0

    @property
    def trainable(self) -> bool:
        """True where the frames have labels of some kind."""
        return self.spans is not None or self.label is not None or bool(self.allowed)

    @property
    def shown(self) -> set[str]:
        """All that the clip shows: its own label, or those of its spans."""
        return {self.label} if self.label is not None else {span.label for span in self.spans or ()}

    def shows(self, background: str) -> str:
        """The one class of the clip: its own label, or that of its first annotated action; else `background`."""
        actions = (span.label for span in self.spans or () if span.label != background)
        return self.label or next(actions, background)

    def folder(self, cache: Path) -> Path:
        """Where `prepare` keeps this clip's frames."""
        return cache / self.path

    def frames(self, cache: Path, size: int) -> tuple[Frames, Seconds]:
        """Memory-mapped frames at `size` and their times."""
        folder = self.folder(cache)
        return np.load(folder / f"{size}.npy", mmap_mode="r"), np.load(folder / "times.npy")


def read(folders: Sequence[Path], recipe: Recipe) -> list[Clip]:
    """Clips of the recipe's sources in all `folders`, in file order, with groups checked."""
    sources = {source.dataset: source for source in recipe.sources}
    clips: list[Clip] = []
    for folder in folders:
        listed = (folder / "clips.csv").exists()
        clips += _listed(folder, sources, recipe) if listed else _simulated(folder, sources, recipe)
    missing = sorted(set(sources) - {clip.dataset for clip in clips})
    if missing:
        raise CatalogueError(f"no clip of {missing[0]}: give its folder too")
    _check_paths(clips)
    check_groups(clips, recipe.shared_groups)
    return clips


def _check_paths(clips: list[Clip]) -> None:
    """The frames of a clip are kept by its path: that has to lie in its folder, and to be its own."""
    first: dict[str, Clip] = {}
    for clip in clips:
        if Path(clip.path).is_absolute() or ".." in Path(clip.path).parts:
            raise CatalogueError(f"{clip.path} does not lie in {clip.root}: give its path from there")
        other = first.setdefault(str(Path(clip.path)), clip)
        if other is not clip:
            where = f"twice in {clip.root}" if other.root == clip.root else f"in {other.root} and in {clip.root}"
            raise CatalogueError(f"{clip.path} is {where}: name every video once, or rename one")


def looks_down(clip: Clip, recipe: Recipe) -> bool:
    """Whether a clip was filmed from a ceiling, as the pattern `overhead` of its source says."""
    return any(one.dataset == clip.dataset and fnmatch.fnmatch(clip.path, one.overhead) for one in recipe.sources)


def check_groups(clips: Iterable[Clip], shared: Iterable[str] = ()) -> None:
    """Refuse a group in two splits; those in `shared` (``dataset/group``) may be in train and val together."""
    splits: dict[str, set[str]] = {}
    for clip in clips:
        splits.setdefault(f"{clip.dataset}/{clip.group}", set()).add(clip.split)
    for group, found in sorted(splits.items()):
        if len(found) > 1 and not (group in set(shared) and found == {"train", "val"}):
            raise CatalogueError(f"group {group} is in the splits {', '.join(sorted(found))}")


def _listed(folder: Path, sources: dict[str, Source], recipe: Recipe) -> list[Clip]:
    with (folder / "clips.csv").open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = {"path", "dataset", "label", "split", "group"} - set(reader.fieldnames or ())
        if missing:
            raise CatalogueError(f"{folder / 'clips.csv'} has no column {min(missing)}")
        rows = [row for row in reader if row["dataset"] in sources]
    for row in rows:
        if row["split"] not in SPLITS:
            raise CatalogueError(f"{row['path']}: split {row['split']!r} is not one of {', '.join(SPLITS)}")
    names = {row["dataset"] for row in rows}
    notes = {name: _database(folder / path) for name in names if (path := sources[name].annotations)}
    return [_clip(folder, row, sources[row["dataset"]], notes.get(row["dataset"]), recipe) for row in rows]


def _clip(root: Path, row: dict[str, str], source: Source, notes: dict[str, Any] | None, recipe: Recipe) -> Clip:
    path, label = row["path"], row["label"]
    spans = None
    if path in source.spans:
        spans = tuple(Span(source.classes[name], *map(float, ends)) for name, ends in source.spans[path].items())
    elif notes is not None:
        if path not in notes:
            raise CatalogueError(f"{path} has no entry in {source.annotations}")
        spans = _spans(path, notes[path], source)
    allowed = tuple(source.allowed.get(label, ()))
    whole = _whole(path, label, source)
    is_action = _shows_action(label, spans, whole, recipe)
    if not (recipe.background or is_action):
        raise CatalogueError(f"{path} shows no action, and the recipe has no label for that: name its `background`")
    return Clip(path, row["dataset"], row["split"], row["group"], is_action, spans, allowed, root, whole, _aspect(row))


def _aspect(row: dict[str, str]) -> float:
    return float(row["width"]) / float(row["height"]) if row.get("width") and row.get("height") else 0.0


def _whole(path: str, label: str, source: Source) -> str | None:
    if not source.whole_clips:
        return None
    if label not in source.classes:
        raise CatalogueError(f"{path}: label {label} is not in the classes of {source.dataset}")
    return source.classes[label]


def _shows_action(label: str, spans: tuple[Span, ...] | None, whole: str | None, recipe: Recipe) -> bool:
    """Sequences are told by the clip's own label, other actions by what the clip shows."""
    if recipe.sequences:
        return label.startswith(recipe.action_prefix)
    shown = {whole} if whole is not None else {span.label for span in spans or ()}
    return bool(shown & set(recipe.actions))


def _simulated(folder: Path, sources: dict[str, Source], recipe: Recipe) -> list[Clip]:
    file = folder / "annotations.json"
    if SIMULATED not in sources or not file.exists():
        raise CatalogueError(f"{folder} has no clips.csv, nor simulated clips that the recipe asks for")
    clips = []
    for path, entry in _database(file).items():
        spans = _spans(path, entry, sources[SIMULATED])
        is_action = any(_shows_action(note["label"], spans, None, recipe) for note in entry["annotations"])
        if entry["subset"] not in SPLITS:
            raise CatalogueError(f"{file}: {path}: subset {entry['subset']!r} is not one of {', '.join(SPLITS)}")
        clips.append(Clip(path, SIMULATED, entry["subset"], Path(path).stem, is_action, spans, root=folder))
    return clips


def _database(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8"))["database"])


def _spans(path: str, entry: dict[str, Any], source: Source) -> tuple[Span, ...]:
    odd = {note["label"] for note in entry["annotations"]} - set(source.classes)
    if odd:
        raise CatalogueError(f"{path}: label {min(odd)} is not in the classes of {source.dataset}")
    return tuple(Span(source.classes[note["label"]], *map(float, note["segment"])) for note in entry["annotations"])
