"""Checkpoints of ECO, Lite and Full, of the authors' PyTorch code.

Layers are called as in the Caffe files they were taken from; the authors' first release, in Caffe itself, is not read.
Every convolution has a bias, which is taken off the mean of the norm that sees it. In the 3D net a norm may see a sum:
``res3b_bn`` that of ``res3b_2`` and ``res3a_2``, ``res4b_bn`` that of ``res4b_2``, ``res4a_2`` and ``res4a_down``.
Pictures are BGR, so the kernels of the first layer are turned round.
"""

from __future__ import annotations

from functools import partial

from kinewatch_models.arch.importing.mapping import COLOURS, Importer, Take, conv_norm, linear, norm, take

EARLY, LATE = ("3a", "3b"), ("4a", "4b", "4c", "4d", "4e", "5a", "5b")
HALVING = "4e"
MEAN, STD = (104.0, 117.0, 128.0), (1.0, 1.0, 1.0)
ROOT = "base_model"


def lite(_: int) -> list[Take]:
    """The 3D net alone."""
    return [*_maps(), *_volume(), *linear("consensus.classifier", "new_fc")]


def full(_: int) -> list[Take]:
    """And the rest of the 2D net; its features come first in the last layer, as here."""
    made = _maps() + _join("join", "3c")
    for place, name in enumerate(LATE):
        if name == HALVING:
            made += _start(f"late.{place}.start", name) + _join(f"late.{place}.join", name)
        else:
            made += _inception(f"late.{place}", name)
    return [*made, *_volume(), *linear("consensus.classifier", "new_fc")]


def _maps() -> list[Take]:
    first = f"{ROOT}.conv1_7x7_s2"
    made = conv_norm("stem.0.0", first, f"{first}_bn", COLOURS, biased=True)
    made += _layer("stem.0.2", "conv2_3x3_reduce") + _layer("stem.0.3", "conv2_3x3")
    for place, name in enumerate(EARLY, 1):
        made += _inception(f"stem.{place}", name)
    return made + _start("head", "3c")


def _inception(ours: str, name: str) -> list[Take]:
    made = _layer(f"{ours}.one", f"inception_{name}_1x1")
    made += _layer(f"{ours}.three.0", f"inception_{name}_3x3_reduce") + _layer(
        f"{ours}.three.1", f"inception_{name}_3x3"
    )
    made += _start(f"{ours}.two", name) + _layer(f"{ours}.two.2", f"inception_{name}_double_3x3_2")
    return made + _layer(f"{ours}.pooled.1", f"inception_{name}_pool_proj")


def _start(ours: str, name: str) -> list[Take]:
    double = f"inception_{name}_double_3x3"
    return _layer(f"{ours}.0", f"{double}_reduce") + _layer(f"{ours}.1", f"{double}_1")


def _join(ours: str, name: str) -> list[Take]:
    three = f"inception_{name}_3x3"
    made = _layer(f"{ours}.three.0", f"{three}_reduce") + _layer(f"{ours}.three.1", three)
    return made + _layer(f"{ours}.second", f"inception_{name}_double_3x3_2")


def _layer(ours: str, theirs: str) -> list[Take]:
    return conv_norm(ours, f"{ROOT}.{theirs}", f"{ROOT}.{theirs}_bn", biased=True)


def _volume() -> list[Take]:
    layers = "consensus.volume.layers"
    made = [take(f"{layers}.0.weight", f"{ROOT}.res3a_2.weight")]
    summed: tuple[str, ...] = ("res3a_2",)
    seen_by = "res3a_bn"
    for place, name in enumerate(("res3b", "res4a", "res4b", "res5a", "res5b"), 1):
        ours, down = f"{layers}.{place}", name.endswith("a")
        made += norm(f"{ours}.before.0", f"{ROOT}.{seen_by}", _biases(*summed))
        made += [take(f"{ours}.first.weight", f"{ROOT}.{name}_1.weight")]
        made += norm(f"{ours}.between.0", f"{ROOT}.{name}_1_bn", _biases(f"{name}_1"))
        made += [take(f"{ours}.second.weight", f"{ROOT}.{name}_2.weight")]
        if down:
            made += [take(f"{ours}.down.weight", f"{ROOT}.{name}_down.weight")]
        summed = (f"{name}_2", f"{name}_down") if down else (f"{name}_2", *summed)
        seen_by = f"{name}_bn"
    return made + norm(f"{layers}.6.0", f"{ROOT}.{seen_by}", _biases(*summed))


def _biases(*convs: str) -> tuple[str, ...]:
    return tuple(f"{ROOT}.{name}.bias" for name in convs)


_row = partial(
    Importer,
    "authors",
    backbone="bninception",
    code="mzolfaghari/ECO-pytorch",
    classifier="new_fc.weight",
    segments=16,
    colours="bgr",
    mean=MEAN,
    std=STD,
)

IMPORTERS = (_row("eco-lite", rules=lite), _row("eco-full", rules=full))
