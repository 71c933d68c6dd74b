"""Nets that see windows become packages that the agent accepts, in the plans `clip` and `cached`."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

pytest.importorskip("torch")

import tiny
from kinewatch_models import golden, manifest, package, quantise, stream
from kinewatch_models.arch import backbone
from kinewatch_models.arch.layers import ConvNorm
from kinewatch_models.recipe import NetSpec, Recipe
from kinewatch_models.train import export
from kinewatch_models.train.net import ActionNet

AGENT = os.environ.get("KINEWATCH", "")
WINDOW = 6
PLANS = [("tsm", "rgb", "clip"), ("tsn", "difference", "clip"), ("tsn", "rgb", "cached")]


def made(folder: Path, architecture: str, seen: str) -> tuple[Recipe, Path]:
    """A package of an untrained net."""
    spec = NetSpec(architecture, seen, "tiny", 0, 0.0, 1.0, 4, 1)
    recipe = replace(tiny.recipe(), net=spec, sequences=[], train=replace(tiny.recipe().train, window=WINDOW))
    blocks = [backbone.inverted(3, 1, 2, 16, 16) for _ in range(2)]
    trunk = backbone.Trunk(ConvNorm(3, 16, 3, 2), [blocks], ConvNorm(16, 32, 1), 32)
    fp32, int8, licence = folder / "tiny.fp32.onnx", folder / "tiny.int8.onnx", folder / "licence"
    licence.write_text("free\n")
    export.export(ActionNet(spec, len(recipe.labels), trunk), tiny.SIZE, WINDOW, fp32)
    frames = [
        stream.normalise(one, recipe.input.mean, recipe.input.std)
        for one in golden.clips(tiny.SIZE, 3 * WINDOW).values()
    ]
    quantise.quantise(fp32, int8, frames, every=1)
    package.write(recipe, package.Parts(fp32, int8, licence, "# card\n", {}), folder / "tiny")
    return recipe, folder / "tiny"


@pytest.mark.parametrize(("architecture", "seen", "plan"), PLANS)
def test_the_manifest_says_how_to_run_it(architecture: str, seen: str, plan: str, tmp_path: Path) -> None:
    _, folder = made(tmp_path, architecture, seen)
    table = manifest.read(folder / "model.toml")
    assert table["plan"] == plan
    assert table["sampling"]["segments"] == WINDOW
    assert table["output"]["scores"] == "clip"
    assert table["graphs"]["int8"].get("head") == table["graphs"]["fp32"].get("head")
    assert ("head" in table["graphs"]["fp32"]) == (plan == "cached")
    assert np.load(folder / "golden/walk.logits.npy").shape == (2, 3)
    differences = package.check(folder)
    assert differences["fp32"] == 0
    assert 0 < differences["int8"] < package.TOLERANCE_INT8


@pytest.mark.skipif(not AGENT, reason="KINEWATCH names no agent")
@pytest.mark.parametrize(("architecture", "seen", "plan"), PLANS)
def test_the_agent_accepts_it(architecture: str, seen: str, plan: str, tmp_path: Path) -> None:
    _, folder = made(tmp_path, architecture, seen)
    library = next((Path(ort.__file__).parent / "capi").glob("libonnxruntime.so*"))
    for precision, backend in (("fp32", "tract"), ("fp32", "ort"), ("int8", "ort")):
        command = [AGENT, "model", "check", str(folder), "--backend", backend, "--precision", precision]
        done = subprocess.run([*command, "--ort-library", str(library)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{plan} {backend} {precision}: {done.stdout}{done.stderr}"
