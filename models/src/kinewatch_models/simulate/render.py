"""From a scenario to a folder of clips with their truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress, TaskID

from . import scenario, video
from .clip import Picture, stage
from .quaternion import Array


@dataclass(frozen=True)
class Order:
    """Which clips to make: ``numbers`` count from 0; clip ``k`` depends on ``seed`` and ``k`` alone."""

    name: str
    seed: int
    numbers: range
    picture: Picture
    subset: str = "train"
    bitrate_kbps: int = 0


def render(order: Order, out: Path, scenario_text: str | None = None) -> None:
    """Stage, draw and encode; ``annotations.json`` is kept up to date after each clip and extended, never cut."""
    scripts = scenario.load(order.name, scenario_text)
    out.mkdir(parents=True, exist_ok=True)
    truth = out / "annotations.json"
    database = video.read_annotations(truth)
    with Progress(transient=True) as progress:
        for k in order.numbers:
            clip = stage(scripts[k % len(scripts)], (order.seed, k), order.picture)
            path = out / f"{order.name}-{order.seed}-{k + 1}.mp4"
            task = progress.add_task(path.name, total=len(clip.poses))
            frames = _counted(clip.frames(), progress, task)
            video.write_mp4(frames, order.picture, path, order.bitrate_kbps)
            database[path.name] = video.entry(clip, order.subset)
            video.write_annotations(truth, f"simulate {order.name}", database)


def _counted(frames: Iterator[Array], progress: Progress, task: TaskID) -> Iterator[Array]:
    for frame in frames:
        yield frame
        progress.advance(task)
