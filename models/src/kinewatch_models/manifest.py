"""`model.toml` of a package (format 1): built from a recipe and a calibration, written and read here.

Pure: it touches no file but the one it is given. What the keys mean is the agent's contract; nothing is renamed.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import tomli

from kinewatch_models.recipe import Recipe, SequenceSpec
from kinewatch_models.stream import head_of

FORMAT = 1
TOLERANCE_FP32 = 1e-3
TENSORS = {
    "online": {"input": "frame", "logits": "logits"},
    "clip": {"input": "clip", "logits": "logits"},
    "cached": {"input": "frame", "feature": "feature", "features": "features", "logits": "logits"},
}

Table = dict[str, Any]


def build(recipe: Recipe, calibration: Table, states: list[Table], golden: list[Table], tolerance_int8: float) -> Table:
    """The manifest of a package, without its `files` table.

    `calibration` holds per label the decoder settings that were measured; `states` and `golden` are the rows of
    ``tensors.states`` and ``golden.clips``.
    """
    length = 1 if recipe.plan == "online" else recipe.train.window
    return {
        "format": FORMAT,
        "name": recipe.name,
        "version": recipe.version,
        "architecture": recipe.net.architecture,
        "plan": recipe.plan,
        "description": recipe.description,
        "license": recipe.license,
        "provenance": recipe.provenance,
        "input": square_input(recipe.input.size, recipe.input.mean, recipe.input.std),
        "sampling": {
            "rate_hz": recipe.rate_hz,
            "segments": length // recipe.snippet,
            "snippet": recipe.snippet,
            "window_s": length / recipe.rate_hz,
            "stride_s": recipe.period_s,
            "max_hole_s": 0.5,
        },
        "output": {
            "scores": "frame" if recipe.plan == "online" else "clip",
            "activation": "softmax",
            "temperature": float(calibration.get("temperature", 1.0)),
            **({"background": recipe.background} if recipe.background else {}),
        },
        "tensors": {**TENSORS[recipe.plan], **({"states": states} if states else {})},
        "graphs": {precision: _graph(recipe, precision) for precision in ("fp32", "int8")},
        "labels": [_label(recipe, name, calibration) for name in recipe.labels],
        "sequences": [_sequence(one) for one in recipe.sequences],
        "golden": {"tolerance_fp32": TOLERANCE_FP32, "tolerance_int8": tolerance_int8, "clips": golden},
    }


def _graph(recipe: Recipe, precision: str) -> Table:
    model = f"{recipe.name}.{precision}.onnx"
    return {"model": model, **({"head": head_of(Path(model)).name} if recipe.plan == "cached" else {})}


def square_input(size: int, mean: list[float], std: list[float]) -> Table:
    """The `input` table: RGB planes of `size` x `size`, stretched, normalised by `mean` and `std` in byte units."""
    return {
        "width": size,
        "height": size,
        "resize": "stretch",
        "filter": "bilinear",
        "order": "scale-convert",
        "layout": "nchw",
        "colour": "rgb",
        "dtype": "float32",
        "mean": mean,
        "std": std,
    }


def _sequence(spec: SequenceSpec) -> Table:
    row: Table = {"name": spec.name, "parts": spec.parts, "within_s": spec.within_s}
    return row if math.isinf(spec.max_duration_s) else {**row, "max_duration_s": spec.max_duration_s}


def _label(recipe: Recipe, name: str, calibration: Table) -> Table:
    row: Table = {"name": name}
    spec = next((decoder for decoder in recipe.decoders if decoder.label == name), None)
    if spec is None:
        return row
    if not spec.publish:
        row["publish"] = False
    measured = {"lag_start_s": 0.0, "lag_end_s": 0.0, "uncertainty_start_ms": 200.0, "uncertainty_end_ms": 400.0}
    row["decoder"] = {
        "kind": "cusum",
        "on": spec.on,
        "off": spec.off,
        "smooth_s": 0.0,
        "h_on": spec.h_on,
        "h_off": spec.h_off,
        "min_duration_s": spec.min_duration_s,
        "merge_gap_s": spec.merge_gap_s,
        "max_duration_s": spec.max_duration_s,
        **measured,
        **calibration.get("labels", {}).get(name, {}),
    }
    return row


def read(path: Path) -> Table:
    """The manifest at `path`."""
    return tomli.loads(path.read_text(encoding="utf-8"))


def render(table: Table) -> str:
    """`table` as TOML: plain values first, then tables, then arrays of tables, in the order given."""
    return "\n".join(_lines(table, "")).strip() + "\n"


def _lines(table: Table, prefix: str) -> list[str]:
    plain = {key: value for key, value in table.items() if not _is_nested(value)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in table.items():
        if key in plain:
            continue
        name = f"{prefix}{_key(key)}"
        for row in value if isinstance(value, list) else [value]:
            header = f"[[{name}]]" if isinstance(value, list) else f"[{name}]"
            body = _lines(row, f"{name}.")
            silent = isinstance(value, dict) and all(_is_nested(inner) for inner in row.values()) and row
            lines += body if silent else ["", header, *body]
    return lines


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(round(value, 6))
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return json.dumps(str(value), ensure_ascii=False)
