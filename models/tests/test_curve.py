"""Learning curves: a share is a share of groups, nested within a seed, and never of what is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tiny
from kinewatch_models import curve, prepare, steps
from kinewatch_models.catalogue import Clip, Span

FALL = (Span("falling", 1.0, 2.0), Span("lying", 2.0, 3.0))
TRAIN = [
    Clip(f"{dataset}-{group}-{take}.mp4", dataset, "train", f"{group}", True, FALL)
    for dataset, count in (("drawn", 8), ("other", 1))
    for group in range(count)
    for take in range(2)
]


def test_a_share_keeps_whole_groups_of_every_data_set() -> None:
    quarter = curve.part(TRAIN, 0.25, 0)
    assert sorted({clip.dataset for clip in quarter}) == ["drawn", "other"]
    assert len(quarter) == 2 * 2 + 2
    assert curve.part(TRAIN, 1.0, 0) == TRAIN


def test_a_smaller_share_is_part_of_a_larger_one_and_seeds_differ() -> None:
    shares = [{clip.path for clip in curve.part(TRAIN, share, 1)} for share in (0.25, 0.5, 1.0)]
    assert shares[0] < shares[1] < shares[2]
    drawn = {tuple(clip.path for clip in curve.part(TRAIN, 0.25, seed)) for seed in range(8)}
    assert len(drawn) > 1


def test_it_is_measured_on_the_test_split(tmp_path: Path) -> None:
    held = [replace(TRAIN[0], path=f"{split}.mp4", split=split, group=split) for split in ("val", "test")]
    tiny.write_graph(tmp_path / "tiny.onnx")
    for one in held:
        one.folder(tmp_path).mkdir(parents=True)
        prepare.save(one.folder(tmp_path) / "times.npy", np.arange(90) / 30)
        prepare.save(one.folder(tmp_path) / f"{tiny.SIZE}.npy", np.zeros((90, tiny.SIZE, tiny.SIZE, 3), np.uint8))
    trained: list[Clip] = []

    def graphs(train: list[Clip], _: Path) -> dict[str, Path]:
        trained.extend(train)
        return dict.fromkeys(steps.PRECISIONS, tmp_path / "tiny.onnx")

    table = curve.measure([*TRAIN, *held], 0.5, tiny.recipe(), tmp_path, tmp_path, graphs)
    assert {clip.split for clip in trained} == {"train"}
    assert (table["train_clips"], table["train_groups"]) == (len(trained), 5)
    assert table["int8"]["fall"]["found"]["of"] == 1


def test_a_share_without_a_label_or_a_test_split_is_refused(tmp_path: Path) -> None:
    spec = replace(tiny.recipe(), sequences=[])
    for said in ("holds no", "splits val and test"):
        clips = TRAIN if said == "holds no" else [replace(one, label=tiny.LABELS[n % 3]) for n, one in enumerate(TRAIN)]
        with pytest.raises(curve.CurveError, match=said):
            curve.measure(clips, 1.0, spec, tmp_path, tmp_path, lambda *_: {})
