"""Checkpoints of mmaction2: TSN, TSM, TRN and TANet on ResNet-50.

Convolution and norm are a `ConvModule` (``conv1.conv``, ``conv1.bn``), TSM wraps the first convolution of a unit
(``conv1.conv.net``), TANet the whole unit (``block``, beside ``tam``); all heads end in ``cls_head.fc_cls``, but for
TRN, where that is the layer of 256 features. Mean and deviation of the preprocessor are not among the weights.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from kinewatch_models.arch.importing import resnet50
from kinewatch_models.arch.importing.mapping import Importer, Take, linear, norm, past_first, take
from kinewatch_models.arch.importing.resnet50 import MMCV

CODE = "open-mmlab/mmaction2"
TRN_FEATURES = 256
HEAD, RELATIONS = "cls_head.fc_cls", "cls_head.consensus"


def tsn(_: int) -> list[Take]:
    """The trunk alone."""
    return [*resnet50.trunk(MMCV), *linear("consensus.classifier", HEAD)]


def tsm(_: int) -> list[Take]:
    """The eighth of the frame after comes first."""
    names = replace(MMCV, wrapped=".net")
    return [*resnet50.trunk(names, swapped=True), *linear("consensus.classifier", HEAD, past_first(1))]


def trn(_: int) -> list[Take]:
    """Single-scale."""
    return [*_embedded(), *_relation("consensus", f"{RELATIONS}.classifier")]


def trn_multiscale(segments: int) -> list[Take]:
    """Scales from all segments down to two."""
    made = _embedded()
    for scale in range(segments - 1):
        made += _relation(f"consensus.scales.{scale}", f"{RELATIONS}.fc_fusion_scales.{scale}")
    return made


def _embedded() -> list[Take]:
    return [*resnet50.trunk(MMCV), *linear("embedding", HEAD)]


def _relation(ours: str, theirs: str) -> list[Take]:
    return linear(f"{ours}.hidden", f"{theirs}.1") + linear(f"{ours}.classifier", f"{theirs}.3")


def tanet(_: int) -> list[Take]:
    """Both branches of TAM stand in sequences whose places are those of ours."""
    made = resnet50.trunk(replace(MMCV, inside=".block"))
    for stage, block in resnet50.units():
        ours, theirs = f"stages.{stage}.{block}.middle", f"{MMCV.unit(stage, block)}.tam"
        for branch, name in (("kernel", "G"), ("importance", "L")):
            made += [take(f"{ours}.{branch}.{place}.weight", f"{theirs}.{name}.{place}.weight") for place in (0, 3)]
            made += norm(f"{ours}.{branch}.1", f"{theirs}.{name}.1")
    return made + linear("consensus.classifier", HEAD)


_row = partial(Importer, "mmaction2", backbone="resnet50", code=CODE)
_TUPLES = "draws three tuples of frames a scale anew in every pass; here they are fixed"

IMPORTERS = (
    _row("tsn", rules=tsn, classifier=f"{HEAD}.weight"),
    _row("tsm", rules=tsm, classifier=f"{HEAD}.weight"),
    _row(
        "trn",
        rules=trn,
        classifier=f"{RELATIONS}.classifier.3.weight",
        segments_at=(f"{RELATIONS}.classifier.1.weight", TRN_FEATURES),
    ),
    _row(
        "trn-multiscale",
        rules=trn_multiscale,
        classifier=f"{RELATIONS}.fc_fusion_scales.0.3.weight",
        segments_at=(f"{RELATIONS}.fc_fusion_scales.0.1.weight", TRN_FEATURES),
        note=_TUPLES,
    ),
    _row("tanet", rules=tanet, classifier=f"{HEAD}.weight", segments_at=("backbone.layer1.0.tam.G.0.weight", 1)),
)
