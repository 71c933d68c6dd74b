"""Writing and checking a model package: a directory with `model.toml`, graphs, labels, golden clips, card, licence.

A package is written beside its place and put there whole, after its golden clips passed on both graphs: a
half-written or contradictory package never appears under the final name.
"""

from __future__ import annotations

import hashlib
import math
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
"""Least tolerance of the golden logits of int8: kernels of another machine round otherwise."""
MARGIN_INT8 = 1.5
ABSURD, CLEAR = 5.0, 3.0
"""Logits: so far off no int8 graph is that loses nothing, and so far ahead a best label is not in doubt."""


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
    tolerance_int8: float | None = None
    """Of the golden logits, for a draft that nobody will run; else it follows from what is measured on them."""


def write(recipe: Recipe, parts: Parts, target: Path) -> dict[str, float]:
    """Write the package of `recipe` to `target`, replacing one that is there; returns what `check` does."""
    refuse_other(target)
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
    tolerance = parts.tolerance_int8
    if tolerance is None:
        tolerance = _tolerance(recipe, draft, rows)
    table = manifest.build(recipe, parts.calibration, states, rows, tolerance)
    table["files"] = checksums(draft)
    (draft / "model.toml").write_text(manifest.render(table), encoding="utf-8")
    differences = check(draft)
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    return differences


def refuse_other(target: Path) -> None:
    """Raise where `target` is something else than a package, which would be replaced."""
    if target.exists() and not (target / "model.toml").exists():
        raise PackageError(f"{target} exists and is no model package: name another --out, it would be replaced")


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


def _tolerance(recipe: Recipe, folder: Path, rows: list[dict[str, str]]) -> float:
    """What int8 may differ by from the recorded logits, which are those of fp32, on any machine.

    It is there to find a machine that computes something else, not to judge int8: a drawn figure says nothing about
    the clips that the model is for, and what int8 loses on those was measured on val. So it grants what int8 differs
    by here, and half as much again. Only a graph that is plainly broken is refused.
    """
    path = folder / f"{recipe.name}.int8.onnx"
    spec = {"mean": recipe.input.mean, "std": recipe.input.std}
    found = _golden_pairs(folder, {"input": spec, "golden": {"clips": rows}}, path)
    largest = _largest(found)
    other = sum(_other_label(int8, fp32) for int8, fp32 in found)
    if not largest <= ABSURD or other:
        raise PackageError(
            f"{path.name}: int8 is {largest:.3g} logits off fp32 on drawn clips (limit {ABSURD:g}), and names another "
            f"label in {other} frames where fp32 has no doubt: it is broken; add training clips (they set its ranges), "
            "or train longer"
        )
    return max(TOLERANCE_INT8, math.ceil(100 * MARGIN_INT8 * largest) / 100)


def _other_label(int8: Floats, fp32: Floats) -> int:
    """Rows where `fp32` has a clear best label and `int8` another one."""
    if fp32.shape[1] < 2:
        return 0
    ordered = np.sort(fp32, 1)
    clear = ordered[:, -1] - ordered[:, -2] > CLEAR
    return int((clear & (int8.argmax(1) != fp32.argmax(1))).sum())


def _golden_logits(graph: Graph, frames: Floats) -> Floats:
    """A row for each frame, or for each of the windows that lie end to end."""
    windows = [frames] if graph.online else np.split(frames, len(frames) // graph.window)
    return np.concatenate([graph.logits(one) for one in windows])


def _golden_difference(folder: Path, table: dict[str, Any], path: Path) -> float:
    return _largest(_golden_pairs(folder, table, path))


def _golden_pairs(folder: Path, table: dict[str, Any], path: Path) -> list[tuple[Floats, Floats]]:
    """Logits of the graph at `path`, and those recorded, for every golden clip."""
    graph, pairs = Graph(path), []
    for row in table["golden"]["clips"]:
        frames = stream.normalise(np.load(folder / row["frames"]), table["input"]["mean"], table["input"]["std"])
        pairs.append((_golden_logits(graph, frames), np.load(folder / row["logits"])))
    return pairs


def _largest(pairs: list[tuple[Floats, Floats]]) -> float:
    """The largest difference; NaN where there is one."""
    return float(np.max([np.abs(found - recorded).max() for found, recorded in pairs]))
