"""Costs that are counted on shapes: those of the graphs, and what the committed file has."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import nets  # noqa: E402

from kinewatch_models import macs, report_architectures  # noqa: E402
from kinewatch_models.arch import costs, export, registry  # noqa: E402
from kinewatch_models.stream import head_of  # noqa: E402


@pytest.mark.parametrize("name", ["tsm", "msnet", "eco-full", "nl-i3d-gcn"])
def test_operations_are_those_of_the_graph(name: str, tmp_path: Path) -> None:
    one = registry.ARCHITECTURES[name]
    net, given, path = nets.thin(one), nets.inputs(one, 1), tmp_path / "net.onnx"
    export.write(export.frozen(net), one, given, path)
    whole = macs.count(path)
    if one.plan == "cached":
        whole = nets.FRAMES * whole + macs.count(head_of(path))
    with torch.no_grad():
        assert costs.count(net, *given) == whole


def test_one_more_frame_of_a_cached_net_is_a_frame_and_the_head() -> None:
    one = registry.ARCHITECTURES["eco-lite"]
    net = nets.thin(one)
    frame, head = net.parts()
    picture = torch.zeros(1, 3, costs.SIDE, costs.SIDE)
    with torch.no_grad():
        maps = frame(picture).expand(nets.FRAMES, -1, -1, -1).unsqueeze(0)
        expected = costs.count(frame, picture) + costs.count(head, maps)
        assert costs.of_stream(net, one, nets.FRAMES)[1] == expected


@pytest.mark.slow
def test_the_file_has_what_is_counted() -> None:
    assert report_architectures.read_costs() == costs.measure(), "run: kinewatch-models architectures --measure"
