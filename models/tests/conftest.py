"""Shared fixtures: the tiny online graph in both precisions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tiny
from kinewatch_models import golden, quantise, stream
from kinewatch_models.stream import Floats

TRAIN_TESTS = Path(__file__).parent / "train"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-train", action="store_true", help="also run the tests that need PyTorch or are slow")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if collection_path == TRAIN_TESTS and not config.getoption("--run-train") else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--run-train"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: needs --run-train"))


@pytest.fixture
def streams() -> list[Floats]:
    """Normalised frames of the golden clips at the tiny model's size."""
    spec = tiny.recipe().input
    return [stream.normalise(frames, spec.mean, spec.std) for frames in golden.clips(tiny.SIZE).values()]


@pytest.fixture
def graphs(tmp_path: Path, streams: list[Floats]) -> dict[str, Path]:
    """The tiny graph as fp32 and int8 files."""
    paths = {"fp32": tmp_path / "tiny.fp32.onnx", "int8": tmp_path / "tiny.int8.onnx"}
    tiny.write_graph(paths["fp32"])
    noise = np.random.default_rng(0).normal(0, 1, streams[0].shape).astype(np.float32)
    quantise.quantise(paths["fp32"], paths["int8"], [*streams, noise], every=1)
    return paths
