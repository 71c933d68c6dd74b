"""A user's own clips: a folder per label, or a CSV file with times in longer videos.

Splits are drawn by group, never by clip: clips of one group (a recording, a person, a day) are too alike to be
scored on what was trained. A folder within a label's folder is a group. The same clips give the same splits.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import math
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from kinewatch_models.catalogue import Clip, Span
from kinewatch_models.error import ToolError

BACKGROUND = "background"
TABLE = "labels.csv"
DATASET = "own"
VIDEOS = {
    *(".3g2", ".3gp", ".asf", ".avi", ".dv", ".f4v", ".flv", ".m2t", ".m2ts", ".m2v"),
    *(".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts"),
    *(".mxf", ".ogm", ".ogv", ".qt", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
}
"""Names of files that GStreamer may be able to read; what it cannot is left out when it is decoded, by name."""
SPLITS = ("train", "val", "test")
SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"} | {
    "test": "test",
    "testing": "test",
}
"""What folders of splits are called."""
NAMED = 8
"""So many files are named in a note; the others are counted."""
LEAST_CLIPS = 2
UNEQUAL = 20


class DataError(ToolError):
    """The clips cannot be trained on as they are; the message names the offender and says what to do."""


@dataclass(frozen=True)
class Dataset:
    """Labels in order (background first, where there is one), clips with splits, and what the user should know.

    `digests`: SHA-256 of every clip's file, by path.
    """

    labels: list[str]
    clips: list[Clip]
    notes: list[str]
    digests: dict[str, str]


@dataclass(frozen=True)
class _Row:
    path: str
    label: str
    group: str
    split: str = ""
    begin_s: float | None = None
    end_s: float | None = None


def read(data: Path, left_out: Collection[str] = ()) -> Dataset:
    """The clips of a folder, or of a CSV file that names videos beside it, but those `left_out`. Raises `DataError`."""
    folder, table = (data.parent, data) if data.is_file() else (data, data / TABLE)
    listed = table.exists()
    rows = _listed(folder, table) if listed else _foldered(folder)
    skipped = _skipped(data, rows, listed) if data.is_dir() else []
    rows = [row for row in rows if row.path not in left_out]
    if not rows:
        raise DataError(f"{data}: there is no video that can be read")
    slugs = _slugs({row.label for row in rows})
    rows = [replace(row, label=slugs[row.label]) for row in rows]
    notes = [f'label "{name}" is called {slug}' for name, slug in sorted(slugs.items()) if slug != name]
    notes += skipped
    digests = {path: _digest(folder / path) for path in sorted({row.path for row in rows})}
    rows = _without_copies(rows, digests, notes)
    clips = _clips(folder, rows)
    given = _given_splits(clips)
    _check_counts(rows)
    labels = _labels(rows, notes)
    notes += _unequal(rows)
    return Dataset(labels, _split(clips, given), notes, digests)


def _labels(rows: list[_Row], notes: list[str]) -> list[str]:
    found = {row.label for row in rows}
    actions = sorted(found - {BACKGROUND})
    if BACKGROUND in found or any(row.begin_s is not None for row in rows):
        if not actions:
            raise DataError("every clip is background: add clips of the action that the model is to tell")
        return [BACKGROUND, *actions]
    if len(actions) == 1:
        raise DataError(
            f"{actions[0]} is the only label, so there is nothing to tell it from: add a folder `{BACKGROUND}` with "
            "clips in which it does not happen"
        )
    notes.append(
        f"WARNING: no label `{BACKGROUND}`: the model cannot say that nothing happens, it always names one of "
        f"{', '.join(actions)} and will fire on anything; add clips in which none of them happens"
    )
    return actions


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def _without_copies(rows: list[_Row], digests: dict[str, str], notes: list[str]) -> list[_Row]:
    """A file and its copy could land in two splits: copies are left out, and refused where they contradict."""
    first: dict[str, _Row] = {}
    kept = []
    for row in rows:
        before = first.setdefault(digests[row.path], row)
        if before.path == row.path:
            kept.append(row)
        elif (before.label, before.begin_s) != (row.label, None):
            raise DataError(f"{row.path} and {before.path} are the same video with other labels or times: remove one")
    if len(kept) < len(rows):
        notes.append(f"{len(rows) - len(kept)} files are copies of others and are left out")
    return kept


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
    inside = _folders(folder)
    splits = {path.name: SPLIT_NAMES[path.name.lower()] for path in inside if path.name.lower() in SPLIT_NAMES}
    if not splits:
        return _of_labels(folder, inside, "")
    others = [path.name for path in inside if path.name not in splits]
    if others or not {"train", "val"} <= set(splits.values()):
        raise DataError(
            f"{folder}: {min(splits)} is called like a split, not like a label: give train/LABEL, val/LABEL and "
            "test/LABEL, and nothing beside them; or take the splits away (LABEL/…), they are then drawn; or rename it"
        )
    rows = [row for path in inside for row in _of_labels(folder, _folders(path), splits[path.name])]
    if not rows:
        raise DataError(f"{folder}: there is no folder of clips for each label in {', '.join(splits)}")
    return rows


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _of_labels(folder: Path, labels: list[Path], split: str) -> list[_Row]:
    rows = []
    for inside in labels:
        videos = [path for path in _files(inside) if path.suffix.lower() in VIDEOS]
        if not videos:
            raise DataError(f"{inside} holds no video: put clips of this label there, or remove the folder")
        for path in videos:
            group = _folder_group(path, inside)
            alone = group.startswith(f"{inside.name}/")
            group = f"{split}/{group}" if split and alone else group
            rows.append(_Row(str(path.relative_to(folder)), inside.name, group, split))
    if not rows and not split:
        raise DataError(f"{folder} has neither {TABLE} nor a folder of clips for each label")
    return rows


def _files(folder: Path) -> list[Path]:
    """The files below `folder`, also behind links, but hidden ones and those in hidden folders; each folder once."""
    found: list[Path] = []
    been: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in been else sorted(name for name in folders if not name.startswith("."))
        found += [] if real in been else [Path(place, name) for name in names if not name.startswith(".")]
        been.add(real)
    return sorted(path for path in found if path.is_file())


def _skipped(data: Path, rows: list[_Row], listed: bool) -> list[str]:
    """A note for each kind of file in the folder that is not read, with names: nothing is left out in silence."""
    taken = {row.path for row in rows}
    left = [path for one in _files(data) if str(path := one.relative_to(data)) not in taken]
    videos = [str(path) for path in left if path.suffix.lower() in VIDEOS]
    others = [str(path) for path in left if path.suffix.lower() not in VIDEOS and str(path) != TABLE]
    why = f"no line of {TABLE} names them" if listed else "they lie in no folder of a label: move each into one"
    notes = [f"WARNING: {len(videos)} videos are left out, {why}: {_few(videos)}"] if videos else []
    if others:
        notes.append(f"{len(others)} files are left out, they are not named like a video: {_few(others)}")
    return notes


def _few(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _folder_group(path: Path, label: Path) -> str:
    """The folder between a label's folder and the clip, where there is one; else the clip is on its own."""
    inside = path.relative_to(label)
    return inside.parts[0] if len(inside.parts) > 1 else f"{label.name}/{inside}"


def _listed(folder: Path, table: Path) -> list[_Row]:
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{table} is not in UTF-8: save it again as CSV in UTF-8") from None
    with io.StringIO(text, newline="") as file:
        reader = csv.DictReader(file, delimiter=";" if ";" in text.partition("\n")[0] else ",")
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
        seconds = float(text) if text and text.strip() else None
    except ValueError:
        seconds = math.nan
    if seconds is not None and not math.isfinite(seconds):
        raise DataError(f"{where}: {name} {text} is not a number of seconds")
    return seconds


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
        _check_overlap(path, spans)
        label = whole[0].label if whole else None
        is_action = any(row.label != BACKGROUND for row in members)
        group, split = members[0].group, members[0].split
        clips.append(Clip(path, DATASET, split, group, is_action, None if whole else spans, (), folder, label))
    return clips


def _check_overlap(path: str, spans: tuple[Span, ...]) -> None:
    for first, second in itertools.pairwise(spans):
        if second.start < first.end:
            raise DataError(
                f"{path}: {first.label} from {first.start:g} to {first.end:g} s and {second.label} from "
                f"{second.start:g} s overlap, but a moment has one label: shorten one"
            )


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


def _given_splits(clips: list[Clip]) -> dict[str, str]:
    """The splits that the user named, by group."""
    chosen: dict[str, str] = {}
    for clip in clips:
        if clip.split and chosen.setdefault(clip.group, clip.split) != clip.split:
            raise DataError(f"group {clip.group} is in {chosen[clip.group]} and in {clip.split}: put it into one split")
    return chosen


def _split(clips: list[Clip], chosen: dict[str, str]) -> list[Clip]:
    """Give every group without a split one: a fifth to val, a fifth to test where a label has enough groups."""
    labels = {label for clip in clips for label in clip.shown}
    groups = {label: sorted({clip.group for clip in clips if label in clip.shown}, key=_draw) for label in labels}
    # Those of fewest groups first: what they need for train and val is theirs to choose.
    for label in sorted(labels, key=lambda name: (len(groups[name]), name)):
        _share(groups[label], chosen)
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
            if label != BACKGROUND and not any(label in clip.shown for clip in clips if clip.split == split):
                raise DataError(f"no clip of {label} is left in {split}: add recordings of it, or name other splits")


def _draw(group: str) -> str:
    return hashlib.sha256(group.encode()).hexdigest()
