"""The shipped packages: whole, right on both graphs in ONNX Runtime, and fp32 in tract where that is installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from kinewatch_models import manifest, package, recipe, steps, stream
from kinewatch_models.stream import Floats

MODELS = Path(__file__).parent.parent
PACKAGES = sorted(path.parent.name for path in MODELS.glob("*/model.toml"))


@pytest.mark.parametrize("name", PACKAGES)
def test_package_is_whole_and_golden(name: str) -> None:
    package.check(MODELS / name)


@pytest.mark.parametrize("name", PACKAGES)
def test_package_follows_its_recipe(name: str) -> None:
    spec, table = recipe.load(MODELS / f"recipes/{name}.toml"), manifest.read(MODELS / name / "model.toml")
    assert table["version"] == spec.version
    assert [row["name"] for row in table["labels"]] == spec.labels
    published = {decoder.label for decoder in spec.decoders if decoder.publish} | {spec.background}
    assert {row["name"] for row in table["labels"] if row.get("publish", True)} == published
    assert table.get("sequences", []) == [asdict(one) for one in spec.sequences]


@pytest.mark.parametrize("name", PACKAGES)
def test_a_card_is_what_its_results_make(name: str) -> None:
    spec = recipe.load(MODELS / f"recipes/{name}.toml")
    results = steps.read(MODELS / f"{name}.results.json")
    assert (MODELS / name / "MODEL_CARD.md").read_text(encoding="utf-8") == steps.card_text(spec, results)


def test_a_fall_is_falling_then_lying() -> None:
    table = manifest.read(MODELS / "falls/model.toml")
    assert table["sequences"] == [
        {"name": "fall", "parts": ["falling", "lying"], "within_s": 2.0, "max_duration_s": 2.0}
    ]


@pytest.mark.parametrize("name", PACKAGES)
def test_tract_agrees_on_the_float_graphs(name: str) -> None:
    tract = pytest.importorskip("tract")
    folder = MODELS / name
    table = manifest.read(folder / "model.toml")
    clip, spec = table["golden"]["clips"][1], table["input"]
    frames = stream.normalise(np.load(folder / clip["frames"]), spec["mean"], spec["std"])
    expected = np.load(folder / clip["logits"])

    def opened(file: str, shapes: list[tuple[int, ...]]) -> Callable[[list[Floats]], list[Floats]]:
        model = tract.onnx().load(str(folder / file))
        for index, shape in enumerate(shapes):
            model.set_input_fact(index, f"1,{','.join(map(str, shape))},f32")
        runnable = model.into_model().into_runnable()
        return lambda inputs: [value.to_numpy() for value in runnable.run(inputs)]

    graph, frame = table["graphs"]["fp32"], (3, spec["height"], spec["width"])
    shapes = [tuple(row["shape"]) for row in table["tensors"].get("states", [])]
    step = opened(graph["model"], [frame, *shapes])
    states = [np.zeros((1, *shape), np.float32) for shape in shapes]
    rows = []
    for picture in frames:
        row, *states = step([picture[None], *states])
        rows.append(row[0])
    if table["plan"] == "cached":
        windows = np.split(np.stack(rows), len(expected))
        head = opened(graph["head"], [windows[0].shape])
        rows = [head([window[None]])[0][0] for window in windows]
    np.testing.assert_allclose(np.stack(rows), expected, atol=table["golden"]["tolerance_fp32"])
