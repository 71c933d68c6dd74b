"""The report says what the result files say, and refuses a package that is not the one that was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kinewatch_models import measure, report, report_actions
from kinewatch_models.report import ReportError

FALLS = Path(__file__).parents[1] / "falls"


def test_the_report_of_falls_has_its_figures_and_hashes(tmp_path: Path) -> None:
    text = report.render([FALLS], tmp_path, report.further(None))
    results = json.loads(FALLS.with_name("falls.results.json").read_text())
    assert results["graphs"]["int8"][:16] in text
    row = results["sets"]["URFD test"]["int8"]["fall"]["found"]
    assert f"{row['hits']} of {row['of']}" in text


def test_another_graph_is_refused(tmp_path: Path) -> None:
    results = json.loads(FALLS.with_name("falls.results.json").read_text())
    results["graphs"]["fp32"] = "0" * 64
    (tmp_path / "falls").symlink_to(FALLS)
    (tmp_path / "falls.results.json").write_text(json.dumps(results))
    with pytest.raises(ReportError, match="is not the graph that was measured"):
        report.render([tmp_path / "falls"], tmp_path, report.further(None))


def test_a_picture_is_small(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [
        {"label": name, "p": [0.5 + sign * n / 100, 0.5 - sign * n / 100]}
        for n in range(20)
        for name, sign in (("background", 1), ("wave", -1))
    ]
    table = {"confusion": [[20, 0], [0, 20]], "rows": rows}
    path = report_actions.draw(table, ["background", "wave"], tmp_path / "wave.png")
    assert 2_000 < path.stat().st_size < 60_000


def results(frozen: float) -> dict[str, Any]:
    rows = [
        {"label": name, "group": n, "p": [0.9, 0.1] if name == "background" or n == 0 else [0.2, 0.8]}
        for n in range(6)
        for name in ("background", "wave")
    ]
    row = {"value": 0.95, "low": 0.9, "high": 1.0, "clips": 12, "groups": 6}
    table = {
        "top1": row,
        "auc": row,
        "recall": {"background": {"hits": 6, "of": 6}, "wave": {"hits": 5, "of": 6}},
        "background_called_action": {"hits": 0, "of": 6},
        "shortcuts": {"frozen": {"auc": {**row, "value": frozen}}, "border only": {"auc": {**row, "value": 0.5}}},
        "rows": rows,
    }
    return {"sets": {"Own test": {"fp32": table, "int8": table}}, "graphs": {"fp32": "", "int8": ""}}


def test_recall_has_an_interval_over_groups() -> None:
    line = report_actions.recall(["background", "wave"], results(0.5)).splitlines()[-1]
    assert "6 of 6 [1.00, 1.00]" in line
    assert "5 of 6 [0.50, 1.00]" in line


def test_what_survives_without_motion_is_said() -> None:
    assert report_actions.survivors(results(0.6), ["background", "wave"]) == []
    (said,) = report_actions.survivors(results(0.93), ["background", "wave"])
    assert "0.930 of 0.950 is left without motion" in said


def test_seeds_of_one_run_are_averaged(tmp_path: Path) -> None:
    for seed, value in ((0, 0.8), (1, 0.9)):
        row = {"value": value, "low": 0.7, "high": 1.0, "clips": 40, "groups": 8}
        table = {
            "folds": [{}] * 5,
            "pooled": {"int8": {"top1": row}},
            "mean": {"top1 int8": {"lowest": 0, "highest": 1}},
        }
        (tmp_path / f"shapes-seed-{seed}.crossval.json").write_text(json.dumps(table))
    text = report.folds(report.further(tmp_path), tmp_path)
    assert "| shapes-seed-1 | 5 | all labels | int8 | 0.900 [0.70, 1.00] | 40 / 8 |" in text
    assert "| shapes | all labels | int8 | 2 | 0.850 | 0.800 | 0.900 |" in text


def test_folds_left_out_are_summed(tmp_path: Path) -> None:
    def fold(name: str, hits: int) -> dict[str, Any]:
        table = {
            "fall": {
                "found": measure.share(hits, 4),
                "found_where_shown": measure.share(hits - 1, 3),
                "daily_fired": measure.share(0, 5),
                "false_events": 1,
            },
            "onset": {"label": "lying", "found": measure.share(hits, 4), "error": None},
            "changed": {"reversed": measure.share(0, 4), "frozen": measure.share(1, 4)},
        }
        return {"left_out": name, "fp32": table, "int8": table}

    (tmp_path / "falls.leave-out.json").write_text(json.dumps({"folds": [fold("urfd/P1", 4), fold("urfd/P2", 3)]}))
    text = report.folds(report.further(tmp_path), tmp_path)
    assert "| falls | urfd/P2 | int8 | fall | 3 of 4" in text
    assert "| falls | **all groups above** | int8 | fall | 7 of 8 [0.53, 0.98] | 5 of 6 " in text


def test_a_learning_curve_is_a_table_and_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [
        {"share": share, "seed": seed, "train_clips": 40, "train_groups": 8, "int8": {"auc": figure(0.6 + 0.3 * share)}}
        for share in (0.5, 1)
        for seed in (0, 1)
    ]
    (tmp_path / "fights.curve.json").write_text(json.dumps({"name": "fights", "rows": rows}))
    text = report.folds(report.further(tmp_path), tmp_path / "pictures")
    assert "| 0.5 | 1 | 40 / 8 | 0.750 [0.65, 0.85] |" in text
    assert (tmp_path / "pictures" / "fights-curve.png").stat().st_size < 40_000


def test_conditions_have_a_row_per_part(tmp_path: Path) -> None:
    part = {"part": "ceiling", "actions": measure.share(5, 18), "rest": measure.share(0, 0)}
    (tmp_path / "falls.conditions.json").write_text(json.dumps({"clips": 18, "conditions": {"camera": [part]}}))
    text = report.folds(report.further(tmp_path), tmp_path)
    assert "| falls | camera | ceiling | 5 of 18 [0.12, 0.51] | none |" in text


def test_architectures_are_ordered_by_accuracy(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [
        {
            "architecture": name,
            "backbone": "efficientnet-lite0",
            "plan": "clip",
            "loss": 0.412,
            "training_cpu_s": 90.0,
            "parameters": 3_400_000,
            "macs_per_window": 1.6e9,
            "macs_per_new_frame": 2e8,
            "fp32": {"top1": figure(value), "confusion": [[9, 1], [10, 20]]},
            "int8": {"top1": figure(value)},
            "speeds": [{"backend": "ort", "precision": "int8", "cpu_ms_per_window": 14.4}],
        }
        for name, value in (("tsn", 0.5), ("tsm", 0.8), ("tdn", 0.7))
    ]
    (tmp_path / "gestures.compare.json").write_text(json.dumps({"name": "gestures", "rows": rows}))
    text = report.folds(report.further(tmp_path), tmp_path)
    assert text.index("| tsm |") < text.index("| tsn |")
    assert "| 3.40 | 1.600 / 1.000 | none / 14.40 / none | none / 9.00 / none |" in text, "five frames a segment"
    assert "always the commonest class: 0.75." in text
    assert "| 0.41 | 1.5 | 3.40 | 1.600 / 0.200 | none / 14.40 / none | none / 1.80 / none |" in text


def figure(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "clips": 40, "groups": 8}


def test_streams_have_a_row_per_label(tmp_path: Path) -> None:
    spread = {"median": 0.25, "p90": 0.5}
    row = {"truth": 9, "detections": 8, **dict.fromkeys(("f1@0.3", "f1@0.5", "f1@0.7", "recall@0.3"), 0.75)}
    row |= {"false_per_hour": 2.0, "start_error_s": spread, "end_error_s": spread, "decision_delay_s": spread}
    (tmp_path / "spliced.intervals.json").write_text(json.dumps({"hug": row, "all": {"videos": 3, "hours": 0.05}}))
    text = report.folds(report.further(tmp_path), tmp_path)
    assert "| spliced | hug | 9 | 8 | 0.75 | 0.75 | 0.75 | 0.75 | 2.00 | 0.25 / 0.50 s |" in text
    assert "3 videos, 3.0 min" in text


def test_a_file_of_an_unknown_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "falls.fold.json").write_text("{}")
    with pytest.raises(ReportError, match=r"falls\.fold\.json.*NAME\.KIND\.json"):
        report.further(tmp_path)


def test_a_folder_that_is_no_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.results.json").write_text("{}")
    (tmp_path / "own").mkdir()
    with pytest.raises(ReportError, match=r"has no model\.toml"):
        report.render([tmp_path / "own"], tmp_path, report.further(None))
