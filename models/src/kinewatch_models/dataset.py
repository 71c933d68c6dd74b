"""A user's own clips: a folder per label, or `labels.csv` with times in longer videos.

Splits are drawn by group, never by clip: clips of one group (a recording, a person, a day) are too alike to be
scored on what was trained. The same clips give the same splits.
"""

from __future__ import annotations

import csv
import hashlib
import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from kinewatch_models.catalogue import Clip, Span

BACKGROUND = "background"
TABLE = "labels.csv"
DATASET = "own"
VIDEOS = {".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".ts"}
SPLITS = ("train", "val", "test")
LEAST_CLIPS = 2
UNEQUAL = 20


class DataError(Exception):
    """The clips cannot be trained on as they are; the message names the offender and says what to do."""


@dataclass(frozen=True)
class Dataset:
    """Labels in order (background first, where there is one), clips with splits, and what the user should know."""

    labels: list[str]
    clips: list[Clip]
    notes: list[str]

    @property
    def background(self) -> str:
        """The label that means "nothing", or an empty string."""
        return BACKGROUND if BACKGROUND in self.labels else ""


@dataclass(frozen=True)
class _Row:
    path: str
    label: str
    group: str
    split: str = ""
    begin_s: float | None = None
    end_s: float | None = None


def read(folder: Path) -> Dataset:
    """The clips below `folder`. Raises `DataError`."""
    table = folder / TABLE
    rows = _listed(folder, table) if table.exists() else _foldered(folder)
    named = {row.label for row in rows}
    slugs = _slugs(named)
    rows = [replace(row, label=slugs[row.label]) for row in rows]
    notes = [f'label "{name}" is called {slug}' for name, slug in sorted(slugs.items()) if slug != name]
    clips = _clips(folder, rows)
    _check_counts(rows)
    timed = any(row.begin_s is not None for row in rows)
    labels = sorted({row.label for row in rows} - {BACKGROUND})
    if timed or BACKGROUND in slugs.values():
        labels = [BACKGROUND, *labels]
    else:
        notes.append(
            'no label "background": the model must always name an action and will fire on anything; '
            "add clips in which nothing of it happens"
        )
    notes += _unequal(rows)
    return Dataset(labels, _split(clips), notes)


def slug(name: str) -> str:
    """`name` as it may stand in a topic: ``[a-z0-9_-]``, accents dropped."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9_-]+", "-", plain).strip("-")[:64]


def _slugs(names: set[str]) -> dict[str, str]:
    slugs = {name: slug(name) for name in sorted(names)}
    for name, short in slugs.items():
        twin = next((other for other, taken in slugs.items() if taken == short and other != name), None)
        if not short:
            raise DataError(f'label "{name}" has no letter or digit that a topic may hold; give it a name in a-z, 0-9')
        if twin is not None:
            raise DataError(f'labels "{name}" and "{twin}" would both be called {short}; rename one')
    return slugs


def _foldered(folder: Path) -> list[_Row]:
    rows = []
    for inside in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        videos = sorted(path for path in inside.rglob("*") if path.suffix.lower() in VIDEOS)
        if not videos:
            raise DataError(f"{inside} holds no video: put clips of this label there, or remove the folder")
        rows += [_Row(str(path.relative_to(folder)), inside.name, str(path.relative_to(folder))) for path in videos]
    if not rows:
        raise DataError(f"{folder} has neither {TABLE} nor a folder of clips for each label")
    return rows


def _listed(folder: Path, table: Path) -> list[_Row]:
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = {"path", "label"} - set(reader.fieldnames or ())
        if missing:
            raise DataError(
                f"{table} has no column {sorted(missing)[0]}; its first line names path,label,begin_s,end_s"
            )
        return [_row(folder, table, number, cells) for number, cells in enumerate(reader, 2)]


def _row(folder: Path, table: Path, number: int, cells: dict[str, str | None]) -> _Row:
    where = f"{table}:{number}"
    path, label = (cells["path"] or "").strip(), (cells["label"] or "").strip()
    if not (folder / path).is_file():
        raise DataError(f"{where}: {path or 'no path'} is not a file below {folder}")
    if not label:
        raise DataError(f"{where}: no label")
    split = (cells.get("split") or "").strip()
    if split and split not in SPLITS:
        raise DataError(f"{where}: split {split} is not one of {', '.join(SPLITS)}")
    begin, end = (_seconds(where, name, cells.get(name)) for name in ("begin_s", "end_s"))
    if (begin is None) != (end is None) or (begin is not None and end is not None and not 0 <= begin < end):
        raise DataError(f"{where}: begin_s and end_s must be two times in seconds, the first smaller, or both empty")
    return _Row(path, label, (cells.get("group") or "").strip() or path, split, begin, end)


def _seconds(where: str, name: str, text: str | None) -> float | None:
    try:
        return float(text) if text and text.strip() else None
    except ValueError:
        raise DataError(f"{where}: {name} {text} is not a number of seconds") from None


def _clips(folder: Path, rows: list[_Row]) -> list[Clip]:
    videos: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        videos[row.path].append(row)
    clips = []
    for path, members in videos.items():
        groups, splits = {row.group for row in members}, {row.split for row in members}
        if len(groups) > 1 or len(splits) > 1:
            raise DataError(f"{path} is given two groups or splits; one video belongs to one")
        whole = [row for row in members if row.begin_s is None]
        if whole and len(members) > 1:
            raise DataError(f"{path} has a line without times beside others; give each its begin_s and end_s")
        spans = tuple(
            Span(row.label, row.begin_s, row.end_s)
            for row in sorted(members, key=lambda row: row.begin_s or 0.0)
            if row.begin_s is not None and row.end_s is not None
        )
        label = whole[0].label if whole else None
        is_action = any(row.label != BACKGROUND for row in members)
        group, split = members[0].group, members[0].split
        clips.append(Clip(path, DATASET, split, group, is_action, None if whole else spans, (), folder, label))
    return clips


def _check_counts(rows: list[_Row]) -> None:
    for label in sorted({row.label for row in rows}):
        groups = {row.group for row in rows if row.label == label}
        if len(groups) < LEAST_CLIPS:
            raise DataError(
                f"label {label} comes from one recording ({next(iter(groups))}): at least {LEAST_CLIPS} are needed, "
                "one to train on and one to choose thresholds with; ten or more make a useful model"
            )


def _unequal(rows: list[_Row]) -> list[str]:
    counts = {label: sum(row.label == label for row in rows) for label in {row.label for row in rows}}
    few, many = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
    if counts[many] < UNEQUAL * counts[few]:
        return []
    return [f"{counts[many]} times {many} but {counts[few]} times {few}: {few} is drawn more often and weighs more"]


def _split(clips: list[Clip]) -> list[Clip]:
    """Give every group without a split one: a fifth to val, a fifth to test where a label has enough groups."""
    chosen: dict[str, str] = {}
    for clip in clips:
        if clip.split and chosen.setdefault(clip.group, clip.split) != clip.split:
            raise DataError(f"group {clip.group} is in {chosen[clip.group]} and in {clip.split}: put it into one split")
    labels = sorted({label for clip in clips for label in _shown(clip)}, key=lambda name: (_count(clips, name), name))
    for label in labels:
        groups = sorted({clip.group for clip in clips if label in _shown(clip)}, key=_draw)
        _share(groups, chosen)
    return [replace(clip, split=chosen[clip.group]) for clip in clips]


def _share(groups: list[str], chosen: dict[str, str]) -> None:
    """Splits for the groups of one label; what another label decided stays."""
    wanted = {"val": max(1, len(groups) // 5), "test": len(groups) // 5 if len(groups) >= 3 * LEAST_CLIPS else 0}
    if len(groups) in range(3, 3 * LEAST_CLIPS):
        wanted["test"] = 1
    for split in ("val", "test"):
        missing = wanted[split] - sum(chosen.get(group) == split for group in groups)
        for group in [group for group in groups if group not in chosen][: max(0, missing)]:
            chosen[group] = split
    for group in groups:
        chosen.setdefault(group, "train")


def check_splits(clips: list[Clip], labels: list[str]) -> None:
    """Every label has to be in train and in val. Raises `DataError`."""
    for label in labels:
        for split in ("train", "val"):
            if label != BACKGROUND and not any(label in _shown(clip) for clip in clips if clip.split == split):
                raise DataError(f"no clip of {label} is left in {split}: add recordings of it, or name other splits")


def _shown(clip: Clip) -> set[str]:
    return {clip.label} if clip.label is not None else {span.label for span in clip.spans or ()}


def _count(clips: list[Clip], label: str) -> int:
    return sum(label in _shown(clip) for clip in clips)


def _draw(group: str) -> str:
    return hashlib.sha256(group.encode()).hexdigest()
