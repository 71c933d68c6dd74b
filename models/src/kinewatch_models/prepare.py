"""Filling the frame cache: every clip decoded once through the agent's capture chain.

Layout: ``CACHE/<clip path>/<size>.npy`` (uint8 ``[F, size, size, 3]``), ``times.npy`` (float64 ``[F]``)
and ``video.sha256``, the digest of the video that they are from: another video of that name is decoded anew. A file
appears only when it is whole, so a killed run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kinewatch_models import capture
from kinewatch_models.capture import CaptureError
from kinewatch_models.catalogue import Clip
from kinewatch_models.recipe import Recipe

MARK = "video.sha256"


def sizes(clip: Clip, recipe: Recipe) -> list[int]:
    """Frame sizes this clip is needed at; training crops from larger frames."""
    larger = [recipe.train.cache_size] if clip.split == "train" and clip.trainable else []
    return [*larger, recipe.input.size]


def fill(clips: list[Clip], recipe: Recipe, cache: Path, chain: str = capture.AGENT) -> Iterator[str]:
    """Decode what is missing; yields the path of each clip when it is done."""
    for clip in clips:
        folder = clip.folder(cache)
        _empty_unless_from(clip.root / clip.path, folder)
        for size in sizes(clip, recipe):
            if (folder / f"{size}.npy").exists() and (folder / "times.npy").exists():
                continue
            frames, times = capture.decode(clip.root / clip.path, size, size, chain)
            save(folder / "times.npy", times)
            save(folder / f"{size}.npy", frames)
        yield clip.path


def _empty_unless_from(video: Path, folder: Path) -> None:
    """Make `folder`, without what was decoded from another video."""
    try:
        digest = hashlib.sha256(video.read_bytes()).hexdigest()
    except OSError as error:
        raise CaptureError(f"{video}: {error.strerror}") from None
    mark = folder / MARK
    if folder.is_file() or (folder.exists() and not mark.exists() and any(folder.iterdir())):
        raise CaptureError(f"{folder} is there and holds no decoded frames: give another --cache")
    folder.mkdir(parents=True, exist_ok=True)
    if not mark.exists() or mark.read_text(encoding="utf-8") != digest:
        # The mark stays until all else is gone: killed midway, the folder is still told from one that is not ours.
        for path in folder.iterdir():
            if path != mark:
                path.unlink()
        mark.write_text(digest, encoding="utf-8")


def save(path: Path, array: npt.NDArray[np.generic]) -> None:
    """Write `array` beside `path`, then move it there."""
    draft = path.with_suffix(".part.npy")
    np.save(draft, array)
    draft.replace(path)
