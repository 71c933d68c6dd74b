"""Cross-validation: every clip is measured once, by a net that saw nothing of its group; the pool counts each once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tiny
from kinewatch_models import crossval, prepare, steps
from kinewatch_models.catalogue import Clip
from kinewatch_models.recipe import Recipe

SPEC = replace(tiny.recipe(), sequences=[])
CLIPS = [
    Clip(f"{group}-{label}.mp4", "drawn", split, group, label != "background", None, label=label)
    for group, split in (("a", "train"), ("b", "train"), ("c", "val"), ("d", "test"))
    for label in tiny.LABELS
]


def test_folds_measure_every_clip_once_and_split_no_group() -> None:
    made = crossval.folds(CLIPS, SPEC, 2)
    assert sorted(clip.path for _, measured in made for clip in measured) == sorted(clip.path for clip in CLIPS)
    for train, measured in made:
        assert not {clip.group for clip in train} & {clip.group for clip in measured}
        assert len({clip.group for clip in measured}) == 2
        assert len(train) + len(measured) == len(CLIPS)


def test_pool_counts_every_clip_and_group_of_all_folds(tmp_path: Path) -> None:
    for number, one in enumerate(CLIPS):
        one.folder(tmp_path).mkdir(parents=True)
        prepare.save(one.folder(tmp_path) / "times.npy", np.arange(60) / 30)
        frames = np.random.default_rng(number).integers(0, 255, (60, tiny.SIZE, tiny.SIZE, 3), dtype=np.uint8)
        prepare.save(one.folder(tmp_path) / f"{tiny.SIZE}.npy", frames)
    tiny.write_graph(tmp_path / "tiny.onnx")
    trained: list[set[str]] = []

    def graphs(train: list[Clip]) -> dict[str, Path]:
        trained.append({clip.group for clip in train})
        return dict.fromkeys(steps.PRECISIONS, tmp_path / "tiny.onnx")

    split = crossval.folds(CLIPS, SPEC, 2)
    table = crossval.summary([crossval.measure(*one, SPEC, tmp_path, graphs) for one in split], SPEC)
    assert trained[0] | trained[1] == {"a", "b", "c", "d"}
    assert not trained[0] & trained[1]
    pooled = table["pooled"]["int8"]["top1"]
    assert (pooled["clips"], pooled["groups"]) == (12, 4)
    assert np.sum(table["pooled"]["int8"]["confusion"]) == 12
    assert np.sum(table["pooled"]["int8"]["confusion"], 1).tolist() == [4, 4, 4]
    assert pooled["value"] == pytest.approx(table["mean"]["top1 int8"]["mean"], abs=1e-3)


def test_run_of_another_seed_or_of_other_clips_is_not_gone_on_with(tmp_path: Path) -> None:
    def claim(spec: Recipe, clips: list[Clip]) -> None:
        steps.claim(steps.Work(spec, clips, tmp_path, tmp_path))

    claim(SPEC, CLIPS)
    claim(replace(SPEC, limits=["said later"]), CLIPS)
    regrouped = [replace(CLIPS[0], group="another"), *CLIPS[1:]]
    for spec, clips in (
        (replace(SPEC, train=replace(SPEC.train, seed=9)), CLIPS),
        (SPEC, CLIPS[1:]),
        (SPEC, regrouped),
    ):
        with pytest.raises(steps.StepError, match="another recipe, seed or clips: give another --run"):
            claim(spec, clips)
    (tmp_path / steps.MADE_WITH).write_text('{"digest": "of all"}')
    with pytest.raises(steps.StepError, match="made by an earlier version of this tool: give another --run"):
        claim(SPEC, CLIPS)


@pytest.mark.parametrize(
    ("clips", "spec", "count", "said"),
    [
        (CLIPS, SPEC, 5, "4 groups cannot make 5 folds"),
        ([*CLIPS[:3], *CLIPS[4:6]], SPEC, 2, "train without background"),
        (CLIPS, tiny.recipe(), 2, "use leave-out"),
    ],
)
def test_impossible_folds_are_refused(clips: list[Clip], spec: Recipe, count: int, said: str) -> None:
    with pytest.raises(crossval.FoldError, match=said):
        crossval.folds(clips, spec, count)
