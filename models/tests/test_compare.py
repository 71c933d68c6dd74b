"""Comparing architectures: windows of the same span, and costs counted as the operators say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tiny
from kinewatch_models import compare, macs, prepare
from kinewatch_models.catalogue import Clip
from kinewatch_models.recipe import RecipeError


def test_multiply_accumulates_are_those_of_convolutions_and_products(tmp_path: Path) -> None:
    weights = {"conv": np.zeros((8, 3, 3, 3), np.float32), "fc": np.zeros((8, 5), np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "conv"], ["map"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "fc"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "counted",
        [value("x", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [value("y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = tmp_path / "counted.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    assert macs.count(path) == 8 * 8 * 8 * 27 + 8 * 5
    assert macs.count(path, 3) == 3 * macs.count(path)
    assert macs.parameters(path) == 8 * 27 + 8 * 5


@pytest.mark.parametrize("name", compare.ALL)
def test_every_window_spans_the_same_time(name: str) -> None:
    recipe = compare.recipe_of(replace(tiny.recipe(), sequences=[]), name)
    assert recipe.net.architecture == name
    assert recipe.train.window / recipe.rate_hz == tiny.recipe().train.window / tiny.recipe().rate_hz
    assert recipe.train.window % recipe.snippet == 0


def test_a_row_says_what_a_net_costs_and_finds(tmp_path: Path) -> None:
    recipe = replace(tiny.recipe(), sequences=[])
    clips = [
        Clip(f"{label}.mp4", "drawn", "test", label, label != "background", None, label=label) for label in tiny.LABELS
    ]
    for one in clips:
        one.folder(tmp_path).mkdir(parents=True)
        prepare.save(one.folder(tmp_path) / "times.npy", np.arange(60) / 30)
        prepare.save(one.folder(tmp_path) / f"{tiny.SIZE}.npy", np.zeros((60, tiny.SIZE, tiny.SIZE, 3), np.uint8))
    tiny.write_graph(tmp_path / "tiny.onnx")
    both = dict.fromkeys(("fp32", "int8"), tmp_path / "tiny.onnx")
    row = compare.measure(recipe, clips, tmp_path, lambda _: both, lambda *_: [{"ms_per_frame": 1.0}])
    assert row["macs_per_window"] == recipe.train.window * row["macs_per_new_frame"]
    assert row["int8"]["top1"]["clips"] == 3
    assert row["speeds"] == [{"ms_per_frame": 1.0}]


def test_how_far_training_got_is_told(tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text('[{"loss": 2.0, "cpu_s": 3.0}, {"loss": 0.5, "cpu_s": 4.0}]')
    assert compare.training(tmp_path) == {"loss": 0.5, "training_cpu_s": 7.0}


def test_what_cannot_be_compared_is_refused_before_training() -> None:
    with pytest.raises(compare.CompareError, match="has sequences"):
        compare.recipe_of(tiny.recipe(), "tsn")
    recipe = replace(tiny.recipe(), sequences=[])
    eco = compare.recipe_of(replace(recipe, net=replace(recipe.net, frozen_modules=4, gru_units=8)), "eco-lite")
    assert (eco.net.frozen_modules, eco.net.pretrained, eco.net.gru_units) == (0, False, 0)
    small = replace(recipe.net, backbone="resnet-small", frozen_modules=0, pretrained=False)
    assert compare.recipe_of(replace(recipe, net=small), "eco-full").net.backbone == "bninception-small"
    assert compare.recipe_of(replace(recipe, net=small), "tea").net.backbone == "resnet-small"
    with pytest.raises(RecipeError, match="takes boxes"):
        compare.recipe_of(replace(recipe, net=small), "nl-i3d-gcn")
    back = compare.recipe_of(compare.recipe_of(recipe, "tdn"), "tsn")
    assert (back.train.window, back.rate_hz) == (recipe.train.window, recipe.rate_hz)
