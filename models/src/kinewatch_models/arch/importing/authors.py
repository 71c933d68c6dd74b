"""Checkpoints of the authors' own code on ResNet-50 or Res2Net-50: TSM, TEA, TDN, MSNet, ACTION; TSM on MobileNetV2.

All grew out of one code: the trunk is ``base_model`` with torchvision's names, the last layer ``new_fc``. The first
eighth of the channels comes from the frame after in TSM, from the frame before in MSNet; TEA, TDN and ACTION learn
their convolutions over time.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from kinewatch_models.arch.importing import resnet50
from kinewatch_models.arch.importing.mapping import (
    COUNTERS,
    MOMENTS,
    OVER_TIME,
    POINTWISE,
    SAMPLING,
    Importer,
    Take,
    conv_norm,
    linear,
    past_first,
    take,
)
from kinewatch_models.arch.importing.resnet50 import TORCHVISION

CLASSIFIER, HEAD = "consensus.classifier", "new_fc"
MOBILENET_STAGES = (1, 2, 3, 4, 3, 3, 1)
RES2NET_GROUPS = 4
MS_LAYERS = 4
WRAPPED = replace(TORCHVISION, wrapped=".net")
TDN_NAMES = replace(TORCHVISION, stage="layer{}_bak")


def tsm(_: int) -> list[Take]:
    """The first convolution of each unit is wrapped."""
    return [*resnet50.trunk(WRAPPED, swapped=True), *linear(CLASSIFIER, HEAD, past_first(1))]


def tsm_mobilenet(_: int) -> list[Take]:
    """The first convolution of each unit with a sum is wrapped. All maps between units have their eighths swapped."""
    made, place = conv_norm("stem", "base_model.features.0.0", "base_model.features.0.1"), 0
    for stage, count in enumerate(MOBILENET_STAGES):
        for block in range(count):
            place += 1
            ours, theirs = f"stages.{stage}.{block}", f"base_model.features.{place}.conv"
            spatial, project = (3, 6) if stage else (0, 3)
            if stage:
                wrapped = ".net" if block else ""
                made += conv_norm(f"{ours}.expand", f"{theirs}.0{wrapped}", f"{theirs}.1", past_first(1))
            made += conv_norm(f"{ours}.spatial", f"{theirs}.{spatial}", f"{theirs}.{spatial + 1}")
            layer = f"{ours}.project", f"{theirs}.{project}", f"{theirs}.{project + 1}"
            made += conv_norm(*layer, past_first(0), past_first(0))
    last = f"base_model.features.{place + 1}"
    return [*made, *conv_norm("head", f"{last}.0", f"{last}.1", past_first(1)), *linear(CLASSIFIER, HEAD)]


def tea(_: int) -> list[Take]:
    """ME is ``me``, MTA lists of three convolutions, three norms and four convolutions over time."""
    made = resnet50.trunk(TORCHVISION, spatial=False)
    for stage, block in resnet50.units():
        ours, theirs = f"stages.{stage}.{block}", TORCHVISION.unit(stage, block)
        made += conv_norm(f"{ours}.middle.motion.squeeze", f"{theirs}.me.conv1", f"{theirs}.me.bn1")
        made += [take(f"{ours}.middle.motion.transform.weight", f"{theirs}.me.conv2.weight")]
        made += conv_norm(f"{ours}.middle.gate.0", f"{theirs}.me.conv3", f"{theirs}.me.bn3")
        for group in range(RES2NET_GROUPS - 1):
            shift = f"{theirs}.shifts.{group}.conv.weight"
            made += [take(f"{ours}.spatial.temporal.{group}.weight", shift, OVER_TIME)]
            made += conv_norm(f"{ours}.spatial.spatial.{group}", f"{theirs}.convs.{group}", f"{theirs}.bns.{group}")
        last = f"{theirs}.shifts.{RES2NET_GROUPS - 1}.conv.weight"
        made += [take(f"{ours}.spatial.last.weight", last, OVER_TIME)]
    return made + linear(CLASSIFIER, HEAD)


def tdn(_: int) -> list[Take]:
    """Convolutions of the trunk have biases, those of the modules none; the copy of stage 1 is ``resnext_layer1``."""
    made = resnet50.trunk(TDN_NAMES, biased=True)
    made += conv_norm("difference_stem.2", "base_model.conv1_5.0", "base_model.conv1_5.1")
    for block in range(resnet50.BLOCKS[0]):
        ours, theirs = f"difference_stages.0.{block}", f"base_model.resnext_layer1.{block}"
        made += resnet50.unit(ours, TDN_NAMES, theirs, block == 0, biased=True)
    for stage, block in resnet50.units():
        if stage == 0:
            continue
        ours, theirs = f"stages.{stage}.{block}.middle", TDN_NAMES.unit(stage, block)
        made += conv_norm(f"{ours}.0.reduce", f"{theirs}.mse.conv1", f"{theirs}.mse.bn1")
        made += [take(f"{ours}.0.smooth.weight", f"{theirs}.mse.conv2.weight")]
        for gate, name in (("fine", "3_smallscale4"), ("coarse.1", "3_smallscale2"), ("widen", "3")):
            made += conv_norm(f"{ours}.0.gate.{gate}", f"{theirs}.mse.conv{name}", f"{theirs}.mse.bn{name}")
        made += [take(f"{ours}.1.weight", f"{theirs}.shift.conv.weight", OVER_TIME)]
    return made + linear(CLASSIFIER, HEAD)


def msnet(_: int) -> list[Take]:
    """The module stands in the trunk itself; the last layer is a convolution of width 1."""
    made = resnet50.trunk(TORCHVISION)
    reduction = "base_model.chnl_reduction"
    made += conv_norm("between.1.reduce", f"{reduction}.0", f"{reduction}.1")
    for layer in range(MS_LAYERS):
        theirs = f"base_model.flow_refinement.conv{layer + 1}"
        for half, place in ((0, 0), (1, 3)):
            ours = f"between.1.motion.{2 * layer + half}"
            made += conv_norm(ours, f"{theirs}.{place}", f"{theirs}.{place + 1}")
    return made + linear(CLASSIFIER, HEAD, POINTWISE)


def action(_: int) -> list[Take]:
    """Path 1 gates pixels, 2 channels, 3 motion; all wrap the first convolution of a unit."""
    made = resnet50.trunk(WRAPPED)
    for stage, block in resnet50.units():
        ours, theirs = f"stages.{stage}.{block}.before", f"{TORCHVISION.unit(stage, block)}.conv1.action"
        made += conv_norm(f"{ours}.motion.motion.squeeze", f"{theirs}_p3_squeeze", f"{theirs}_p3_bn1")
        made += [
            take(f"{ours}.temporal.weight", f"{theirs}_shift.weight", OVER_TIME),
            take(f"{ours}.pixels.conv.weight", f"{theirs}_p1_conv1.weight", MOMENTS),
            take(f"{ours}.channels.squeeze.weight", f"{theirs}_p2_squeeze.weight"),
            take(f"{ours}.channels.conv.weight", f"{theirs}_p2_conv1.weight"),
            take(f"{ours}.channels.restore.weight", f"{theirs}_p2_expand.weight"),
            take(f"{ours}.motion.motion.transform.weight", f"{theirs}_p3_conv1.weight"),
            take(f"{ours}.motion.restore.weight", f"{theirs}_p3_expand.weight"),
        ]
    return made + linear(CLASSIFIER, HEAD)


_row = partial(Importer, "authors", classifier=f"{HEAD}.weight")
_TSM = "mit-han-lab/temporal-shift-module"
_KERNEL = "only gave the first layer of the differences its first values"
_EARLIER = (
    "for a while the authors' code had the backward gate of L-TDM see the fine scale of the forward one; weights of "
    "that time score a little differently here"
)

IMPORTERS = (
    _row("tsm", backbone="resnet50", code=_TSM, rules=tsm),
    _row(
        "tsm",
        backbone="mobilenetv2",
        code=_TSM,
        rules=tsm_mobilenet,
        aliases={"base_model.classifier": HEAD},  # where no dropout was before it
    ),
    _row("tea", backbone="resnet50", code="Phoenix1327/tea-action-recognition", rules=tea),
    _row(
        "tdn",
        backbone="resnet50",
        code="MCG-NJU/TDN",
        rules=tdn,
        unused={**COUNTERS, "base_model.conv1_temp.*": _KERNEL, "base_model.conv1_temp1.*": _KERNEL},
        sampling=SAMPLING.replace("a frame of each", "five consecutive frames of each"),
        note=_EARLIER,
    ),
    _row(
        "msnet",
        backbone="resnet50",
        code="arunos728/MotionSqueeze",
        rules=msnet,
        unused={**COUNTERS, "base_model.bn2.*": "nothing goes through it"},
        note="of equally alike displacements the shortest is taken here",
    ),
    _row("action", backbone="resnet50", code="V-Sense/ACTION-Net", rules=action),
)
