"""The shipped package: whole, right on both graphs in ONNX Runtime, and fp32 in tract where that is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kinewatch_models import manifest, package, recipe, stream

MODELS = Path(__file__).parent.parent
FALLS = MODELS / "falls"


def test_package_is_whole_and_golden() -> None:
    package.check(FALLS)


def test_package_follows_its_recipe() -> None:
    spec, table = recipe.load(MODELS / "recipes/falls.toml"), manifest.read(FALLS / "model.toml")
    assert table["version"] == spec.version
    assert [row["name"] for row in table["labels"]] == spec.labels
    assert {row["name"] for row in table["labels"] if row.get("publish", True)} == {"background", "lying"}
    assert table["sequences"] == [{"name": "fall", "parts": ["falling", "lying"], "within_s": 2.0}]


def test_tract_agrees_on_the_float_graph() -> None:
    tract = pytest.importorskip("tract")
    table = manifest.read(FALLS / "model.toml")
    clip, spec = table["golden"]["clips"][1], table["input"]
    frames = stream.normalise(np.load(FALLS / clip["frames"]), spec["mean"], spec["std"])
    model = tract.onnx().load(str(FALLS / table["graphs"]["fp32"]["model"]))
    shapes = [(3, spec["height"], spec["width"]), *(tuple(row["shape"]) for row in table["tensors"]["states"])]
    for index, shape in enumerate(shapes):
        model.set_input_fact(index, f"1,{','.join(map(str, shape))},f32")
    runnable = model.into_model().into_runnable()
    states = [np.zeros((1, *shape), np.float32) for shape in shapes[1:]]
    for frame, expected in zip(frames, np.load(FALLS / clip["logits"]), strict=True):
        outputs = [value.to_numpy() for value in runnable.run([frame[None], *states])]
        np.testing.assert_allclose(outputs[0][0], expected, atol=table["golden"]["tolerance_fp32"])
        states = outputs[1:]
