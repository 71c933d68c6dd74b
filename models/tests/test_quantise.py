"""int8: smaller, close to fp32, and the batch axis stays free."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from kinewatch_models import quantise, ranges, stream
from kinewatch_models.stream import Floats


def test_int8_is_close_and_counts_flips(graphs: dict[str, Path], streams: list[Floats]) -> None:
    row = quantise.agreement(graphs["fp32"], graphs["int8"], streams)
    assert row["frames"] == sum(map(len, streams))
    assert row["mean_cosine"] > 0.98
    assert 0 < row["max_abs_difference"] < 0.2


def test_convolution_is_int8_and_the_difference_is_not(graphs: dict[str, Path]) -> None:
    graph = onnx.load(str(graphs["int8"])).graph
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    fed_by = {node.name: [made_by.get(name) for name in node.input] for node in graph.node}
    assert fed_by["conv_node"][:2] == ["DequantizeLinear", "DequantizeLinear"]
    assert fed_by["sub"] == [None, None]
    weights = next(value for value in graph.initializer if value.name == "conv_quantized")
    assert weights.data_type == onnx.TensorProto.INT8


def test_scales_around_the_shift_are_one(graphs: dict[str, Path], streams: list[Floats], tmp_path: Path) -> None:
    second = [frames[:2] for frames in streams]  # its state is that of a first frame: all zero
    quantise.quantise(graphs["fp32"], tmp_path / "second.onnx", second, every=1)
    graph = onnx.load(str(tmp_path / "second.onnx")).graph
    values = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    scales = {
        node.input[0].removesuffix("_QuantizeLinear_Input"): values[node.input[1]].item()
        for node in graph.node
        if node.op_type == "QuantizeLinear"
    }
    assert scales["state2"] == scales["active"] == scales["both"]
    assert scales["state2"] != scales["difference"]


def test_batch_axis_is_free(graphs: dict[str, Path]) -> None:
    for path in graphs.values():
        session = stream.session(path)
        feeds = {
            node.name: np.random.default_rng(1).normal(0, 1, (3, *node.shape[1:])).astype(np.float32)
            for node in session.get_inputs()
        }
        whole = session.run(None, feeds)[0]
        single = session.run(None, {name: value[1:2] for name, value in feeds.items()})[0]
        assert whole.shape == (3, 3)
        np.testing.assert_allclose(whole[1], single[0], atol=1e-5)


def test_first_difference_is_zero(graphs: dict[str, Path], streams: list[Floats]) -> None:
    session = stream.session(graphs["fp32"])
    fed, _ = stream.feeds(session, streams[0])
    assert fed[0]["state1"] == 0
    assert fed[1]["state1"] == 1
    assert np.abs(fed[1]["state2"]).max() == 0
    assert np.abs(fed[2]["state2"]).max() > 0
    np.testing.assert_array_equal(fed[1]["state0"], streams[0][:1])


def test_ways_to_choose_ranges_are_compared(graphs: dict[str, Path], streams: list[Floats]) -> None:
    table = ranges.measure(graphs["fp32"], [frames.repeat(8, 0) for frames in streams], streams)
    assert set(table) == set(quantise.METHODS)
    assert all(row["frames"] == sum(map(len, streams)) for row in table.values())
    assert all(0 < row["mean_abs_difference"] < 0.5 for row in table.values())
    assert len({row["mean_abs_difference"] for row in table.values()}) > 1
