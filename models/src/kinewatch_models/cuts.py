"""From a user's videos to clips of one label each: decoded once, cut by the times that the user gave.

A line with times becomes a clip with a margin around it; what lies between the lines becomes clips of background, and
long videos of one label become several clips. So every clip counts once in every figure, and hours of background cost
no more disk than `MOST_BACKGROUND` clips: those whose hash is smallest are kept, the same ones on every run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from kinewatch_models import capture, prepare
from kinewatch_models.capture import Frames
from kinewatch_models.catalogue import Clip, Span
from kinewatch_models.dataset import BACKGROUND, DataError

MARGIN_S, LONGEST_S = 1.6, 60.0
BACKGROUND_S, ACTION_S = 8.0, 30.0
MOST_BACKGROUND = 24
LEAST_S = 0.8
LATE_S = 1.0
"""So much later than the video an action may end by the times that were given: who writes them rounds."""
MOST_HZ = 30.0
INDEX = "pieces.json"
FORMAT = 2
"""Of the pieces: another number wherever this module cuts videos otherwise, so that all are decoded anew."""


@dataclass
class Piece:
    """A stretch ``[begin, end)`` of a video, seconds, that becomes a clip; `span` is the action inside, if timed."""

    name: str
    label: str
    begin: float
    end: float
    span: Span | None = None
    times: list[float] = field(default_factory=list)
    pictures: list[Frames] = field(default_factory=list)


def cut(clip: Clip, digest: str, sizes: list[int], cache: Path) -> list[Clip]:
    """The clips that `clip` becomes, decoded at `sizes` into `cache`; `digest` is that of the video's bytes.

    Raises `CaptureError`, and `DataError` for times beyond the end of the video. What is there from an earlier run is
    not decoded again.
    """
    made_with = [FORMAT, clip.label, [[span.label, span.start, span.end] for span in clip.spans or ()], sorted(sizes)]
    name = hashlib.sha256(f"{digest} {json.dumps(made_with)}".encode()).hexdigest()[:20]
    index = cache / name / INDEX
    if not index.exists():
        shutil.rmtree(cache / name, ignore_errors=True)
        for size in sizes:
            rows = _decode(clip, name, size, cache / name)
        draft = index.with_suffix(".part")
        draft.write_text(json.dumps(rows) + "\n", encoding="utf-8")
        draft.replace(index)
    found: list[list[str | float]] = json.loads(index.read_text(encoding="utf-8"))
    return [_clip(clip, Path(name), *row) for row in found]


def _clip(whole: Clip, folder: Path, name: object, label: object, start: object, end: object) -> Clip:
    """One piece; `start` and `end` of its action, or -1 where it shows its label throughout."""
    path, label = str(folder / str(name)), str(label)
    begin, last = float(str(start)), float(str(end))
    if begin < 0 and last < 0:
        return replace(whole, path=path, label=label, spans=None, is_action=label != BACKGROUND)
    return replace(whole, path=path, label=None, spans=(Span(label, begin, last),), is_action=True)


def _decode(clip: Clip, name: str, size: int, folder: Path) -> list[list[str | float]]:
    """Decode `clip` once and save its pieces; returns the rows of the index."""
    kept: dict[str, list[str | float]] = {}
    last = 0.0

    def frames() -> Iterator[tuple[float, Frames]]:
        nonlocal last
        for time_s, picture in capture.stream(clip.root / clip.path, size, size):
            last = time_s
            yield time_s, picture

    for piece in _pieces(clip, frames()):
        short = piece.times[-1] - piece.times[0] < LEAST_S
        if short and piece.span is None and (clip.spans or kept):
            continue
        if piece.span is not None and piece.times[-1] < piece.span.start:
            continue
        first = piece.times[0]
        target = folder / piece.name
        target.mkdir(parents=True, exist_ok=True)
        prepare.save(target / "times.npy", np.array(piece.times) - first)
        prepare.save(target / f"{size}.npy", np.stack(piece.pictures))
        piece.pictures.clear()
        ends = (-1.0, -1.0)
        if piece.span is not None:
            ends = (max(piece.span.start, first) - first, min(piece.span.end, piece.times[-1]) - first)
        kept[piece.name] = [piece.name, piece.label, *ends]
        _drop_one(kept, name, folder)
    for span in clip.spans or ():
        if span.start > last or span.end > last + LATE_S:
            raise DataError(
                f"{clip.root / clip.path}: {span.label} from {span.start:g} to {span.end:g} s, but the video ends at "
                f"{last:.1f} s: correct begin_s and end_s, which count from its first frame"
            )
    return list(kept.values())


def _drop_one(kept: dict[str, list[str | float]], key: str, folder: Path) -> None:
    """Forget a piece of background where there are too many."""
    quiet = [name for name, row in kept.items() if row[1] == BACKGROUND]
    if len(quiet) > MOST_BACKGROUND:
        worst = max(quiet, key=lambda name: hashlib.sha256(f"{key} {name}".encode()).hexdigest())
        del kept[worst]
        shutil.rmtree(folder / worst)


def _pieces(clip: Clip, frames: Iterator[tuple[float, Frames]]) -> Iterator[Piece]:
    """The pieces of a video in the order in which they end, each with its frames."""
    timed = _timed(clip.spans or ())
    open_: dict[str, Piece] = {}
    last = -1.0
    for time_s, picture in frames:
        if time_s - last < 0.9 / MOST_HZ and last >= 0:
            continue
        last = time_s
        wanted = [piece for piece in timed if piece.begin <= time_s < piece.end]
        stretch = _stretch(clip, time_s)
        for piece in [*wanted, *([stretch] if stretch is not None else [])]:
            mine = open_.setdefault(piece.name, piece)
            mine.times.append(time_s)
            mine.pictures.append(picture)
        yield from [open_.pop(name) for name in [name for name, piece in open_.items() if piece.end <= time_s]]
    yield from open_.values()


def _timed(spans: tuple[Span, ...]) -> list[Piece]:
    """A piece per action, with a margin that no other action reaches into."""
    made = []
    for number, span in enumerate(spans):
        if span.label == BACKGROUND:
            continue
        before = max((one.end for one in spans[:number] if one.label != BACKGROUND), default=0.0)
        after = min((one.start for one in spans[number + 1 :] if one.label != BACKGROUND), default=float("inf"))
        begin = max(span.start - MARGIN_S, min(before, span.start), 0.0)
        end = min(span.end, span.start + LONGEST_S)
        made.append(Piece(f"line-{number}", span.label, begin, min(end + MARGIN_S, max(after, end)), span))
    return made


def _stretch(clip: Clip, time_s: float) -> Piece | None:
    """The piece of one label throughout that `time_s` is in; none where an action is shown."""
    label = BACKGROUND if clip.label is None else clip.label
    actions = [span for span in clip.spans or () if span.label != BACKGROUND]
    if any(span.start <= time_s < span.end for span in actions):
        return None
    begin = max((span.end for span in actions if span.end <= time_s), default=0.0)
    end = min((span.start for span in actions if span.start > time_s), default=float("inf"))
    seconds = BACKGROUND_S if label == BACKGROUND else ACTION_S
    number = int((time_s - begin) // seconds)
    first = begin + number * seconds
    return Piece(f"from-{begin:.2f}-{number}", label, first, min(first + seconds, end))
