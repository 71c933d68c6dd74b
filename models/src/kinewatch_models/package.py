"""Writing and checking a model package: a directory with `model.toml`, graphs, labels, golden clips, card, licence.

A package is written beside its place and put there whole, after its golden clips passed on both graphs: a
half-written or contradictory package never appears under the final name.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from kinewatch_models import golden, manifest, stream
from kinewatch_models.error import ToolError
from kinewatch_models.recipe import Recipe
from kinewatch_models.stream import Floats, Graph

TOLERANCE_INT8 = 0.5


class PackageError(ToolError):
    """The package is not what its manifest says; the message names the file and the figures."""


@dataclass(frozen=True)
class Parts:
    """Where the pieces of a package lie."""

    fp32: Path
    int8: Path
    licence: Path
    card: str
    calibration: dict[str, Any]
    tolerance_int8: float = TOLERANCE_INT8
    """Of the golden logits."""


def write(recipe: Recipe, parts: Parts, target: Path) -> dict[str, float]:
    """Write the package of `recipe` to `target`, replacing one that is there; returns what `check` does."""
    draft = target.with_name(target.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    (draft / "golden").mkdir(parents=True)
    shutil.copyfile(parts.fp32, draft / f"{recipe.name}.fp32.onnx")
    shutil.copyfile(parts.int8, draft / f"{recipe.name}.int8.onnx")
    if recipe.plan == "cached":
        shutil.copyfile(stream.head_of(parts.fp32), stream.head_of(draft / f"{recipe.name}.fp32.onnx"))
    shutil.copyfile(parts.licence, draft / "LICENSE")
    (draft / "labels.txt").write_text("".join(f"{name}\n" for name in recipe.labels), encoding="utf-8")
    (draft / "MODEL_CARD.md").write_text(parts.card, encoding="utf-8")
    rows = _write_golden(recipe, draft)
    states = _states(draft / f"{recipe.name}.fp32.onnx")
    table = manifest.build(recipe, parts.calibration, states, rows, parts.tolerance_int8)
    table["files"] = checksums(draft)
    (draft / "model.toml").write_text(manifest.render(table), encoding="utf-8")
    differences = check(draft)
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    return differences


def check(folder: Path) -> dict[str, float]:
    """Verify checksums, labels, batch axis and golden clips; returns the largest logit difference per graph."""
    table = manifest.read(folder / "model.toml")
    found = checksums(folder)
    if found != table["files"]:
        names = found.keys() | table["files"].keys()
        wrong = sorted(name for name in names if found.get(name) != table["files"].get(name))
        raise PackageError(f"{folder}: files differ from the manifest: {', '.join(wrong)}")
    labels = (folder / "labels.txt").read_text(encoding="utf-8").split("\n")[:-1]
    if labels != [row["name"] for row in table["labels"]]:
        raise PackageError(f"{folder}: labels.txt and the manifest disagree")
    differences = {}
    for precision, graph in table["graphs"].items():
        path = folder / graph["model"]
        onnx.checker.check_model(str(path))
        differences[precision] = _golden_difference(folder, table, path)
        limit = table["golden"][f"tolerance_{precision}"]
        if not differences[precision] <= limit:
            raise PackageError(f"{path}: golden logits differ by {differences[precision]:.3g}, limit {limit:g}")
    return differences


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder` but the manifest, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "model.toml")
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _states(path: Path) -> list[dict[str, Any]]:
    graph = Graph(path).session
    pairs = zip(graph.get_inputs()[1:], graph.get_outputs()[1:], strict=True)
    return [{"input": before.name, "output": after.name, "shape": before.shape[1:]} for before, after in pairs]


def _write_golden(recipe: Recipe, folder: Path) -> list[dict[str, str]]:
    graph = Graph(folder / f"{recipe.name}.fp32.onnx")
    rows = []
    for name, frames in golden.clips(recipe.input.size, golden.FRAMES if graph.online else 2 * graph.window).items():
        scores = _golden_logits(graph, stream.normalise(frames, recipe.input.mean, recipe.input.std))
        row = {"frames": f"golden/{name}.npy", "logits": f"golden/{name}.logits.npy"}
        np.save(folder / row["frames"], frames)
        np.save(folder / row["logits"], scores.astype(np.float32))
        rows.append(row)
    return rows


def _golden_logits(graph: Graph, frames: Floats) -> Floats:
    """A row for each frame, or for each of the windows that lie end to end."""
    windows = [frames] if graph.online else np.split(frames, len(frames) // graph.window)
    return np.concatenate([graph.logits(one) for one in windows])


def _golden_difference(folder: Path, table: dict[str, Any], path: Path) -> float:
    graph = Graph(path)
    largest = 0.0
    for row in table["golden"]["clips"]:
        frames = stream.normalise(np.load(folder / row["frames"]), table["input"]["mean"], table["input"]["std"])
        largest = max(largest, float(np.abs(_golden_logits(graph, frames) - np.load(folder / row["logits"])).max()))
    return largest
