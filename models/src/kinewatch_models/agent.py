"""Scores of videos as the agent itself computes them: `kinewatch replay --scores` over a package.

Capture, sampling, inference and plan are the product's own, so thresholds chosen on these scores are thresholds for
what will run.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from kinewatch_models.catalogue import Clip
from kinewatch_models.decode import Doubles
from kinewatch_models.error import ToolError
from kinewatch_models.recipe import Recipe
from kinewatch_models.scoring import Scored
from kinewatch_models.stream import Floats

BACKENDS = {"fp32": "tract", "int8": "ort"}
"""Where a graph runs unless the user says otherwise."""
LEAST = 1e-6


class AgentError(ToolError):
    """The agent is missing or has failed; the message holds its own words."""


def find() -> Path:
    """The agent on the search path, or in the checkout that holds this package."""
    built = Path(__file__).resolve().parents[3] / "target/release/kinewatch"
    found = shutil.which("kinewatch") or (str(built) if built.exists() else None)
    if found is None:
        raise AgentError("the agent is not on the search path: build it with `make app`, or name it with --agent")
    return Path(found)


@dataclass(frozen=True)
class Event:
    """An event that has ended; seconds from the first frame."""

    label: str
    start: float
    end: float


def score(agent: Path, package: Path, clips: list[Clip], precision: str, recipe: Recipe) -> list[Scored]:
    """The scores of the whole video of every clip, in order, by the `precision` graph of `package`."""
    with tempfile.TemporaryDirectory() as folder:
        videos, out = _linked(clips, Path(folder)), Path(folder) / "scores.csv"
        _replay(agent, package, videos, precision, ["--scores", str(out)])
        files = [out if len(videos) == 1 else out.with_suffix(f".{video.stem}.csv") for video in videos]
        return [Scored(clip, *_read(file, recipe)) for clip, file in zip(clips, files, strict=True)]


def events(agent: Path, package: Path, clips: list[Clip], precision: str) -> list[list[Event]]:
    """The events of the whole video of every clip, by label and time, as the agent tells them."""
    with tempfile.TemporaryDirectory() as folder:
        videos, out = _linked(clips, Path(folder)), Path(folder) / "events.jsonl"
        _replay(agent, package, videos, precision, ["--events", str(out)])
        found: dict[str, list[Event]] = {video.stem: [] for video in videos}
        for line in out.read_text(encoding="utf-8").splitlines():
            told = json.loads(line)["data"]
            if told.get("status") == "ended":
                ends = (told[side]["pts_ns"] / 1e9 for side in ("start", "end"))
                found[told["camera"]["id"]].append(Event(told["label"], *ends))
    return [sorted(rows, key=lambda row: (row.label, row.start)) for rows in found.values()]


def _linked(clips: list[Clip], folder: Path) -> list[Path]:
    """The videos under names that cannot be the same, in order."""
    videos = [folder / f"{index:04}{Path(clip.path).suffix}" for index, clip in enumerate(clips)]
    for video, clip in zip(videos, clips, strict=True):
        video.symlink_to((clip.root / clip.path).resolve())
    return videos


def bench(agent: Path, package: Path) -> list[dict[str, Any]]:
    """What `kinewatch model bench` measures: a row per back end and precision."""
    told = _run(
        agent, ["model", "bench", str(package), "--json", "--ort-library", str(_library())], f"bench of {package}"
    )
    rows: list[dict[str, Any]] = json.loads(told)["results"]
    return rows


def _replay(agent: Path, package: Path, videos: list[Path], precision: str, wanted: list[str]) -> None:
    command = ["replay", *map(str, videos), "--model", str(package), *wanted]
    command += ["--backend", BACKENDS[precision], "--precision", precision, "--ort-library", str(_library())]
    _run(agent, command, f"replay of {package}, {precision}")


def _run(agent: Path, arguments: list[str], what: str) -> str:
    try:
        done = subprocess.run([str(agent), *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise AgentError(f"{agent}: {error.strerror}: name the agent with --agent") from None
    if done.returncode != 0:
        told = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise AgentError(f"{agent} {what}: {told}")
    return done.stdout


def _library() -> Path:
    """The ONNX Runtime that this Python uses."""
    return next((Path(ort.__file__).parent / "capi").glob("libonnxruntime.so*"))


def _read(file: Path, recipe: Recipe) -> tuple[Doubles, Floats]:
    """Times ``[F]`` and logits ``[F, C]`` in the order of the recipe's labels.

    The agent writes the log-odds of every label but the background, whose share is what is left.
    """
    header, *rows = file.read_text(encoding="utf-8").splitlines()
    names = [name.strip('"') for name in header.split(",")]
    values = np.array([[float(cell) for cell in row.split(",")] for row in rows]).reshape(-1, len(names))
    shares = 1 / (1 + np.exp(-values[:, 1:]))
    columns = {name: shares[:, index] for index, name in enumerate(names[1:])}
    if recipe.background and recipe.background not in columns:
        columns[recipe.background] = 1 - shares.sum(1)
    logits = np.log(np.clip(np.stack([columns[name] for name in recipe.labels], 1), LEAST, 1))
    return values[:, 0], logits.astype(np.float32)
