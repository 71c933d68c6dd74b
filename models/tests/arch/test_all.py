"""What every architecture has to do: logits, clips of a batch by themselves, time order, the same on each runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

import nets  # noqa: E402
import runtimes  # noqa: E402
from nets import ARCHITECTURES  # noqa: E402

from kinewatch_models.arch import export  # noqa: E402
from kinewatch_models.arch.registry import Architecture  # noqa: E402

every = pytest.mark.parametrize("one", ARCHITECTURES, ids=lambda one: one.name)


@every
def test_a_window_gives_logits_of_each_class(one: Architecture) -> None:
    with torch.no_grad():
        assert nets.thin(one)(*nets.inputs(one)).shape == (2, nets.CLASSES)


@every
def test_clips_of_a_batch_do_not_see_each_other(one: Architecture) -> None:
    net, both = nets.thin(one), nets.inputs(one)
    with torch.no_grad():
        alone = torch.cat([net(*(x[index : index + 1] for x in both)) for index in range(2)])
        torch.testing.assert_close(net(*both), alone, atol=1e-4, rtol=1e-4)


@every
def test_order_matters_to_temporal_nets_alone(one: Architecture) -> None:
    net, (clip, *rest) = nets.thin(one), nets.inputs(one)
    segments = clip.view(2, nets.FRAMES, one.snippet, *clip.shape[2:])
    mixed = segments[:, [3, 0, 5, 1, 7, 2, 6, 4]].reshape(clip.shape)
    with torch.no_grad():
        moved = float((net(mixed, *rest) - net(clip, *rest)).abs().max())
    assert moved > 1e-3 if one.ordered else moved < 1e-4


@every
def test_runtimes_agree_with_the_net(one: Architecture, tmp_path: Path) -> None:
    net = nets.thin(one)
    path = tmp_path / "net.onnx"
    export.write(export.frozen(net), one, nets.inputs(one, 1), path)
    names = [node.name for node in onnx.load(str(path)).graph.node]
    assert all(any(part in name for name in names) for part in one.float_parts), "what stays in float in int8 is there"
    run = [runtimes.ort(path), *([] if one.tract else [runtimes.on_tract(path)])]
    for given in [*(nets.inputs(one, 1, seed=seed) for seed in range(8)), *nets.real(one)]:
        with torch.no_grad():
            expected = net(*given).numpy()
        for runtime in run:
            found = runtime(*(x.numpy() for x in given))
            assert np.abs(found - expected).max() <= 1e-3
