"""Decoding, counting and calibration on made-up scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tiny
from kinewatch_models import calibrate, measure, scoring
from kinewatch_models.catalogue import Clip, Span
from kinewatch_models.decode import Interval, intervals, probabilities, sequence
from kinewatch_models.scoring import Scored

PERIOD = 0.2
SETTINGS = {
    "on": 0.5,
    "off": 0.4,
    "h_on": 0.3,
    "h_off": 0.3,
    "min_duration_s": 0.2,
    "merge_gap_s": 0.3,
    "lag_start_s": 0.0,
    "lag_end_s": 0.0,
}


def steps(*parts: tuple[int, float]) -> tuple[np.ndarray, np.ndarray]:
    scores = np.concatenate([np.full(count, value) for count, value in parts])
    return np.arange(len(scores)) * PERIOD, scores


def test_clean_step_is_one_interval_within_a_stride() -> None:
    (one,) = intervals(*steps((10, 0.05), (10, 0.95), (10, 0.05)), SETTINGS, PERIOD)
    assert one.start == pytest.approx(2.0)
    assert one.end == pytest.approx(4.0)
    assert one.decided_at == pytest.approx(2.2)


def test_background_gives_nothing_and_a_short_blip_neither() -> None:
    assert intervals(*steps((50, 0.3)), SETTINGS, PERIOD) == []
    assert intervals(*steps((10, 0.1), (1, 0.7), (10, 0.1)), SETTINGS, PERIOD) == []


def test_action_at_the_end_stays_open() -> None:
    (one,) = intervals(*steps((5, 0.1), (5, 0.9)), SETTINGS, PERIOD)
    assert one.end is None


def test_near_intervals_join() -> None:
    dip = steps((5, 0.05), (5, 0.95), (1, 0.01), (5, 0.95), (5, 0.05))
    assert len(intervals(*dip, {**SETTINGS, "merge_gap_s": 0.0}, PERIOD)) == 2
    assert len(intervals(*dip, SETTINGS, PERIOD)) == 1


def test_lag_is_subtracted() -> None:
    (one,) = intervals(*steps((10, 0.05), (10, 0.95), (10, 0.05)), {**SETTINGS, "lag_start_s": 0.1}, PERIOD)
    assert one.start == pytest.approx(1.9)


def test_sequence_needs_order_and_nearness() -> None:
    falling, lying = [Interval(1.0, 2.0, 1.2)], [Interval(2.5, None, 2.9)]
    assert sequence([falling, lying], 2.0) == [Interval(1.0, 2.5, 2.9)]
    assert sequence([falling, [Interval(4.5, None, 4.9)]], 2.0) == []
    assert sequence([falling, [Interval(0.5, None, 0.9)]], 2.0) == []
    assert sequence([falling, [Interval(2.5, 2.6, 2.9), Interval(2.8, None, 3.1)]], 2.0) == [Interval(1.0, 2.5, 2.9)]
    assert sequence([[], lying], 2.0) == []
    assert sequence([falling, lying], 2.0, 1.0) == [Interval(1.5, 2.5, 2.9)]


def test_a_part_that_flickered_just_before_goes_on_and_counts() -> None:
    settings = {**SETTINGS, "merge_gap_s": 2.0}
    (falling,) = intervals(*steps((20, 0.05), (5, 0.95), (25, 0.05)), SETTINGS, PERIOD)
    (lying,) = intervals(*steps((14, 0.05), (3, 0.95), (8, 0.05), (25, 0.95)), settings, PERIOD)
    ((start, decided_at),) = lying.resumed
    assert start == pytest.approx(5.0)
    assert sequence([[falling], [lying]], 2.0) == [Interval(falling.start, start, decided_at)]
    assert sequence([[falling], [replace(lying, resumed=())]], 2.0) == []
    assert sequence([[falling], [replace(lying, start=1.0)]], 2.0) == [], "who has long been lying rolls over"


def test_probabilities_sum_to_one() -> None:
    rows = probabilities(np.array([[1000.0, 0, -1000], [1, 1, 1]], np.float32), 2.0)
    np.testing.assert_allclose(rows.sum(1), 1)


def test_wilson_interval() -> None:
    low, high = measure.wilson(5, 5)
    assert low == pytest.approx(0.566, abs=1e-3)
    assert high == 1
    assert measure.wilson(0, 0) == (0.0, 1.0)


def scored(fall_at: float | None) -> Scored:
    """A clip of 6 s whose scores rise one stride late."""
    times = np.arange(30) * PERIOD
    classes = np.zeros(30, int)
    spans: tuple[Span, ...] = ()
    if fall_at is not None:
        spans = (Span("falling", fall_at, fall_at + 1), Span("lying", fall_at + 1, 6.0))
        classes[(times >= fall_at + PERIOD) & (times < fall_at + 1 + PERIOD)] = 1
        classes[times >= fall_at + 1 + PERIOD] = 2
    logits = np.full((30, 3), -2.0, np.float32)
    logits[np.arange(30), classes] = 2.0
    return Scored(Clip("x", "drawn", "val", "P1", fall_at is not None, spans), times, logits)


def test_calibration_takes_out_the_lag() -> None:
    rows = [scored(1.0), scored(2.0), scored(None)]
    table = calibrate.choose(rows, [scored(None)], tiny.recipe())
    assert table["chosen_on"]["missed_or_found_backwards"] == 0
    assert table["chosen_on"]["false_events"] == 0
    assert table["labels"]["falling"]["lag_start_s"] == pytest.approx(0.2, abs=0.01)
    assert 0.2 <= table["labels"]["falling"]["on"] <= 0.8
    assert table["labels"]["lying"]["uncertainty_start_ms"] >= 100


def test_calibration_names_a_clip_scored_by_two_graphs_once() -> None:
    table = calibrate.choose([scored(1.0), scored(1.0)], [], tiny.recipe())
    assert table["chosen_on"]["clips"] == 1


def test_calibration_counts_with_the_lags_that_it_writes() -> None:
    rows = [scored(1.0), scored(2.0), scored(4.2), scored(None)]
    table = calibrate.choose(rows, [], tiny.recipe())
    found = [one for one in rows if scoring.events(one, tiny.recipe(), table["labels"], 1.0)]
    assert len(found) == 3 - table["chosen_on"]["missed_or_found_backwards"]


def test_what_is_hardly_shown_is_not_missed() -> None:
    def unseen(fall_at: float) -> Scored:
        return replace(scored(fall_at), logits=scored(None).logits)

    for fall_at, missed in ((4.6, 0), (4.2, 1)):
        rows = [scored(1.0), scored(2.0), unseen(fall_at)]
        table = calibrate.choose(rows, [], tiny.recipe())
        assert table["chosen_on"]["missed_or_found_backwards"] == missed
    with pytest.raises(calibrate.CalibrationError, match=r"within 0\.5 s"):
        calibrate.choose([scored(4.6), scored(None)], [], tiny.recipe())


def test_most_found_is_held_down_by_daily_clips_alone() -> None:
    weak = replace(scored(2.0), logits=scored(2.0).logits / 4)
    daily = replace(weak, clip=scored(None).clip)

    def found(rows: list[Scored]) -> list[bool]:
        best = calibrate.most_found(rows, tiny.recipe())
        return [bool(scoring.events(one, tiny.recipe(), best, 1.0)) for one in rows]

    assert found([scored(1.0), weak]) == [True, True]
    assert found([scored(1.0), weak, daily]) == [True, False, False]
    assert sum(found([scored(1.0), weak, daily, *[scored(None)] * 19])) == 3, "one of twenty is allowed to fire"


def test_calibration_without_actions_is_refused() -> None:
    with pytest.raises(calibrate.CalibrationError):
        calibrate.choose([scored(None)], [], tiny.recipe())


def test_tally_counts_found_false_and_daily() -> None:
    tally = measure.Tally()
    tally.add(scored(1.0).clip, (1.0, 2.0), [Interval(1.1, 2.1, 2.5), Interval(4.5, 5.0, 5.0)], 6.0)
    tally.add(scored(None).clip, None, [Interval(1.0, 2.0, 2.0)], 6.0)
    row = tally.summary()
    assert row["found"]["hits"] == 1  # type: ignore[index]
    assert row["false_events"] == 2
    assert row["daily_fired"]["hits"] == 1  # type: ignore[index]
