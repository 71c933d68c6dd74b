"""Figures where labels are actions of their own: intervals over groups, temperature, thresholds, splicing."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from subprocess import run

import numpy as np
import pytest

import tiny
from kinewatch_models import calibrate, calibrate_actions, evaluate_actions, metrics, splice
from kinewatch_models.calibrate import CalibrationError
from kinewatch_models.catalogue import Clip, Span
from kinewatch_models.recipe import Recipe
from kinewatch_models.scoring import Scored


def recipe() -> Recipe:
    decoder = replace(tiny.recipe().decoders[0], label="wave", publish=True)
    return replace(tiny.recipe(), labels=["background", "wave"], decoders=[decoder], sequences=[])


def clip(name: str, label: str) -> Clip:
    return Clip(name, "drawn", "val", name, label != "background", None, label=label)


def stream(name: str, label: str, level: float) -> Scored:
    """Four seconds in which `wave` has the logit `level` in the middle half."""
    times = np.arange(20) / 5
    logits = np.zeros((20, 2), np.float32)
    logits[:, 1] = np.where((times > 1) & (times < 3), level, -4.0)
    return Scored(clip(name, label), times, logits)


def test_thresholds_tell_actions_from_background() -> None:
    streams = [stream(f"w{n}", "wave", 3.0) for n in range(3)] + [stream(f"b{n}", "background", 0.5) for n in range(3)]
    logits = np.array([[0, 3.0]] * 3 + [[0, -2.0]] * 3, np.float32)
    chosen = calibrate_actions.choose(streams, logits, [1, 1, 1, 0, 0, 0], recipe())
    assert chosen["chosen_on"] == {"clips": 6, "false_events": 0, "missed": 0}
    assert chosen["labels"]["wave"]["on"] > 0.5


def test_a_label_without_val_clips_is_refused() -> None:
    with pytest.raises(CalibrationError, match="no val clip shows wave"):
        calibrate_actions.choose([stream("b", "background", 0.0)], np.zeros((1, 2), np.float32), [0], recipe())


def test_temperature_undoes_a_scale() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 3)).astype(np.float32)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    classes = np.array([rng.choice(3, p=row / row.sum()) for row in shares.astype(np.float64)])
    assert calibrate_actions.fit_temperature(3 * logits, classes, 4000) == pytest.approx(3.0, rel=0.1)
    assert calibrate_actions.fit_temperature(logits / 2, classes, 4000) == pytest.approx(0.5, rel=0.1)
    assert calibrate_actions.fit_temperature(logits / 2, classes, 20) == 1.0, "few clips seen by many graphs"


def test_a_net_that_is_always_right_on_val_is_not_made_surer() -> None:
    classes = np.array([0, 1] * 200)
    right = np.where(np.eye(2)[classes] == 1, 0.4, -0.4).astype(np.float32)
    assert calibrate_actions.fit_temperature(right, classes, 400) == 1.0
    wrong = right.copy()
    wrong[:1] *= -1
    assert calibrate_actions.fit_temperature(wrong, classes, 400) == 1.0, "one error may be a wrong label"
    wrong[:20] = -right[:20]
    assert calibrate_actions.fit_temperature(wrong, classes, 400) < 1.0
    assert calibrate_actions.fit_temperature(np.float32(30) * wrong, classes, 4) > 1.0


def test_intervals_are_over_groups() -> None:
    scores, classes = np.eye(2)[[0] * 50 + [1] * 50], np.array([0] * 100)
    few = metrics.accuracy(scores, classes, ["a"] * 50 + ["b"] * 50)
    many = metrics.accuracy(scores, classes, [str(n) for n in range(100)])
    assert few["value"] == many["value"] == 0.5
    assert (few["low"], few["high"]) == (0.0, 1.0)
    assert 0.35 < many["low"] < 0.45 < 0.55 < many["high"] < 0.65


def test_calibration_error_of_a_sure_and_wrong_net() -> None:
    sure = np.array([[0.95, 0.05]] * 10)
    assert metrics.calibration_error(sure, np.array([0] * 10)) == pytest.approx(0.05)
    assert metrics.calibration_error(sure, np.array([1] * 10)) == pytest.approx(0.95)


def test_every_action_is_spliced_once_with_background_around() -> None:
    clips = [clip(f"w{n}", "wave") for n in range(5)] + [clip(f"b{n}", "background") for n in range(3)]
    planned = splice.plan(clips, recipe(), 2, 0)
    names = [one.path for chosen in planned for one in chosen if one.label == "wave"]
    assert sorted(names) == [f"w{n}" for n in range(5)]
    for chosen in planned:
        assert chosen[0].label == chosen[-1].label == "background"
        assert all({a.label, b.label} != {"wave"} for a, b in itertools.pairwise(chosen))
    assert splice.plan(clips, recipe(), 2, 0) == planned


def test_a_spliced_stream_has_its_truth_to_the_frame(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    import moving_shapes

    made = []
    for n, direction in enumerate((0, 1, 0)):
        moving_shapes.write(tmp_path / f"{n}.mp4", n, [(direction, 1.0 + n)])
        made.append(replace(clip(f"{n}.mp4", "wave" if direction else "background"), root=tmp_path))
    # Sound is not counted.
    (tmp_path / "1.mp4").rename(tmp_path / "silent.mp4")
    sound = ["-f", "lavfi", "-i", "sine=d=2", "-c:v", "copy", "-shortest"]
    run(["ffmpeg", "-v", "error", "-i", str(tmp_path / "silent.mp4"), *sound, str(tmp_path / "1.mp4")], check=True)
    parts = splice.render(made, tmp_path / "out.mp4", "64x48", 30)
    assert [round(part.end - part.start, 2) for part in parts] == [1.0, 2.0, 3.0]
    video = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == round(parts[-1].end * 30)


def test_a_clip_may_show_several_actions_or_none() -> None:
    spans = (Span("background", 0.0, 1.0), Span("wave", 1.0, 2.0), Span("hug", 2.0, 3.0))
    long = Clip("long.mp4", "drawn", "val", "long", True, spans)
    assert (long.shows("background"), long.shown) == ("wave", {"background", "wave", "hug"})
    daily = Clip("daily.mp4", "drawn", "val", "daily", False, ())
    both = replace(recipe(), labels=["background", "wave", "hug"])
    assert evaluate_actions.true_classes([long, daily], both) == [1, 0]
    row = calibrate.decoder_settings(recipe().decoders[0], 0.5, 0.1)
    for label, clip_, expected in (("wave", long, (0, 0)), ("wave", daily, (1, 0))):
        shown = replace(stream("w", "wave", 5.0), clip=clip_)
        assert calibrate_actions._count([shown], label, row, recipe(), 1.0) == expected
