"""`kinewatch-models splice`: long streams made of held-out clips with background between, and their exact truth.

Trimmed clips cannot show when an action begins, nor how often nothing fires for a while; a stream of them can. Clips of
one stream are cut together hard, which no camera does: what a model makes of the cut is part of what is measured.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import track

from kinewatch_models import catalogue, recipe
from kinewatch_models.catalogue import Clip
from kinewatch_models.error import ToolError
from kinewatch_models.recipe import Recipe
from kinewatch_models.told import console

SIZE = re.compile(r"[1-9]\d*[02468]x[1-9]\d*[02468]")
FEWEST_BETWEEN, MOST_BETWEEN = 1, 3


class SpliceError(ToolError):
    """There is nothing to splice, or ffmpeg failed; the message says what to do."""


@dataclass(frozen=True)
class Part:
    """A clip's place in a stream, seconds."""

    clip: Clip
    start: float
    end: float


def command(
    recipe_file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="recipe, e.g. recipes/interactions.toml")
    ],
    data: Annotated[list[Path], typer.Option("--data", exists=True, file_okay=False, help="folder with clips.csv")],
    out: Annotated[Path, typer.Option("--out", help="folder for the streams and annotations.json")],
    split: Annotated[str, typer.Option("--split")] = "test",
    streams: Annotated[int, typer.Option("--streams", min=1)] = 4,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    size: Annotated[str, typer.Option("--size", help="WIDTHxHEIGHT")] = "320x240",
    fps: Annotated[int, typer.Option("--fps", min=1, max=120)] = 30,
) -> None:
    """Cut held-out clips together, with background between, and write where each action begins and ends.

    Example: kinewatch-models splice recipes/interactions.toml --data DATA --out streams
    """
    if not SIZE.fullmatch(size):
        raise SpliceError(f"--size {size} is not WIDTHxHEIGHT in even pixels, e.g. 320x240")
    spec = recipe.load(recipe_file)
    clips = [clip for clip in catalogue.read(data, spec) if clip.split == split]
    planned = plan(clips, spec, streams, seed)
    out.mkdir(parents=True, exist_ok=True)
    database = {}
    for index, chosen in enumerate(track(planned, "splicing", console=console)):
        name = f"{spec.name}-{split}-{index}.mp4"
        database[name] = truth(render(chosen, out / name, size, fps), spec, split)
    (out / "annotations.json").write_text(json.dumps({"database": database}, indent=1) + "\n", encoding="utf-8")
    console.print(f"{len(database)} streams and their truth in {out}")


def truth(parts: list[Part], spec: Recipe, split: str) -> dict[str, object]:
    """A stream's entry in the ActivityNet layout."""
    return {
        "duration": round(parts[-1].end, 3),
        "subset": split,
        "annotations": [
            {"label": part.clip.label, "segment": [round(part.start, 3), round(part.end, 3)]}
            for part in parts
            if part.clip.label != spec.background
        ],
    }


def plan(clips: list[Clip], spec: Recipe, streams: int, seed: int) -> list[list[Clip]]:
    """The clips of each stream in order: every action once, one to three clips of background around each."""
    rng = np.random.default_rng(seed)
    actions = [clip for clip in clips if clip.label is not None and clip.label != spec.background]
    quiet = [clip for clip in clips if clip.label == spec.background]
    if spec.sequences:
        raise SpliceError(f"{spec.name} tells sequences, whose clips are streams already: replay them as they are")
    if not actions or not quiet:
        raise SpliceError("splicing needs clips of actions and of background in this split; name another --split")
    order = [actions[int(index)] for index in rng.permutation(len(actions))]
    shares = [order[index::streams] for index in range(min(streams, len(order)))]

    def between() -> list[Clip]:
        count = int(rng.integers(FEWEST_BETWEEN, MOST_BETWEEN + 1))
        return [quiet[int(index)] for index in rng.integers(len(quiet), size=count)]

    return [[*(one for action in share for one in (*between(), action)), *between()] for share in shares]


def render(clips: list[Clip], path: Path, size: str, fps: int) -> list[Part]:
    """Write one stream and return where each clip lies in it, to the frame."""
    width, height = size.split("x")
    inputs = [word for clip in clips for word in ("-i", str(clip.root / clip.path))]
    chains = [
        f"[{n}:v:0]fps={fps},scale={width}:{height},setsar=1,setpts=PTS-STARTPTS[v{n}]" for n in range(len(clips))
    ]
    joined = "".join(f"[v{n}]" for n in range(len(clips)))
    graph = ";".join([*chains, f"{joined}concat=n={len(clips)}:v=1[out]"])
    encode = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p", "-an", "-threads", "1"]
    _run(["ffmpeg", "-v", "error", "-y", *inputs, "-filter_complex", graph, "-map", "[out]", *encode, str(path)])
    parts, at = [], 0.0
    for clip in clips:
        frames = _frames(clip.root / clip.path, fps)
        parts.append(Part(clip, at, at + frames / fps))
        at += frames / fps
    return parts


def _frames(path: Path, fps: int) -> int:
    """How many frames the `fps` filter makes of a video."""
    count = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:v:0", "-vf", f"fps={fps}", "-f", "framecrc", "-"]
    return sum(not line.startswith("#") for line in _run(count).splitlines())


def _run(command: list[str]) -> str:
    if shutil.which("ffmpeg") is None:
        raise SpliceError("ffmpeg is missing: install it, e.g. apt install ffmpeg")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SpliceError(f"ffmpeg: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return done.stdout
