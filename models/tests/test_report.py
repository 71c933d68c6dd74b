"""The report says what the result files say, and refuses a package that is not the one that was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kinewatch_models import (
    card_actions,
    evaluate,
    measure,
    recipe,
    report,
    report_actions,
    report_asked,
    report_folds,
    steps,
)
from kinewatch_models.report import ReportError

FALLS = Path(__file__).parents[1] / "falls"


def test_the_report_of_falls_has_its_figures_and_hashes(tmp_path: Path) -> None:
    text = report.render([FALLS], tmp_path, report.further(None))
    results = json.loads(FALLS.with_name("falls.results.json").read_text())
    assert results["graphs"]["int8"][:16] in text
    row = results["sets"]["URFD test"]["int8"]["fall"]["found"]
    assert f"{row['hits']} of {row['of']}" in text


def test_the_report_hashes_the_manifest_too_and_says_by_which_code(tmp_path: Path) -> None:
    results = json.loads(FALLS.with_name("falls.results.json").read_text())
    (tmp_path / "falls").symlink_to(FALLS)

    def rendered(**made: Any) -> str:
        known = {key: value for key, value in results.items() if key not in ("made_with", "export")}
        (tmp_path / "falls.results.json").write_text(json.dumps({**known, **made}))
        return report.render([tmp_path / "falls"], tmp_path, report.further(None))

    assert f"| `model.toml` | `{evaluate.digest(FALLS / 'model.toml')}` |" in rendered()
    assert "do not say which code" in rendered()
    made = {"code": "0123456789abcdef", "versions": {"torch": "2.0"}}
    assert "Trained by code `0123456789abcdef` (torch 2.0)" in rendered(made_with=made)
    exported = {"largest_difference": 0.003, "made_with": {"code": "fedcba9876543210", "versions": {}}}
    both = rendered(made_with=made, export=exported)
    assert "Trained by code `0123456789abcdef`, exported by code `fedcba9876543210` (torch 2.0)" in both


def test_what_the_check_found_is_told(tmp_path: Path) -> None:
    (tmp_path / "falls.check.json").write_bytes((FALLS.parent / "results/falls.check.json").read_bytes())
    text = report.render([FALLS], tmp_path, report.further(tmp_path))
    for way in ("tract cpu | fp32", "ort cpu | fp32", "ort cpu | int8"):
        assert f"| {way} | " in text
    assert "from the net in PyTorch" in text


@pytest.mark.parametrize("kind", ["bench", "check", "leave-out", "conditions"])
def test_figures_of_another_version_are_refused(kind: str, tmp_path: Path) -> None:
    table = json.loads((FALLS.parent / f"results/falls.{kind}.json").read_text())
    (tmp_path / f"falls.{kind}.json").write_text(json.dumps({**table, "version": "0.0.1"}))
    with pytest.raises(ReportError, match=rf"falls\.{kind}\.json is of version 0\.0\.1, not .*: make it again"):
        report.render([FALLS], tmp_path, report.further(tmp_path))


def test_what_the_wall_saw_is_taken_from_the_conditions() -> None:
    def camera(part: str, hits: int) -> dict[str, Any]:
        return {"part": part, "actions": measure.share(hits, 18), "rest": measure.share(0, 0)}

    tables = {"conditions": {"falls": {"conditions": {"camera": [camera("ceiling", 3), camera("wall", 17)]}}}}
    found = report_asked.FIGURES["actors found from the wall"](report_asked.Known("falls", {}, tables))
    assert found is not None
    assert found.text.startswith("0.944: 17 of 18")
    assert report_asked.FIGURES["actors found from the wall"](report_asked.Known("falls", {}, {})) is None


def test_the_code_that_trains_has_a_digest() -> None:
    made = evaluate.made_with()
    assert made == evaluate.made_with()
    assert re.fullmatch("[0-9a-f]{16}", made["code"])
    assert "numpy" in made["versions"]


@pytest.mark.parametrize("name", ["falls", "interactions", "fights"])
def test_a_card_does_not_depend_on_how_busy_the_machine_was(name: str) -> None:
    spec = recipe.load(FALLS.parent / f"recipes/{name}.toml")
    results = json.loads((FALLS.parent / f"{name}.results.json").read_text())
    card = steps.card_text(spec, results)
    results["ms_per_frame"] = {"fp32": 99.0, "int8": 98.0}
    results["training_cpu_s"] = 1.0
    assert steps.card_text(spec, results) == card


def test_a_fall_that_fires_without_its_motion_is_among_the_limits_of_the_card() -> None:
    spec = recipe.load(FALLS.parent / "recipes/falls.toml")
    results = json.loads(FALLS.with_name("falls.results.json").read_text())
    for table in results["sets"].values():
        table["int8"]["fall"]["found"] = measure.share(8, 12)
        table["int8"]["changed"] |= {"border only": measure.share(4, 12), "reversed": measure.share(3, 12)}
    limits = steps.card_text(spec, results).partition("## Limits")[2]
    assert "`fall` still fires with the middle of the picture covered" in limits
    assert "URFD test 4 of 12, unchanged 8" in limits
    assert "played backwards" not in limits, "which few do"
    for table in results["sets"].values():
        table["int8"]["changed"]["border only"]["hits"] = 0
    assert "middle of the picture" not in steps.card_text(spec, results).partition("## Limits")[2]


def asked(tmp_path: Path, rows: list[dict[str, Any]]) -> str:
    (tmp_path / "falls.asked.json").write_text(
        json.dumps({"name": "falls", "rows": rows, "missed": {"dark": "too dark", "few": "too few"}})
    )
    for kind in ("leave-out", "bench"):
        (tmp_path / f"falls.{kind}.json").write_bytes((FALLS.parent / f"results/falls.{kind}.json").read_bytes())
    return report.render([FALLS], tmp_path, report.further(tmp_path))


def test_what_was_asked_for_stands_at_the_head_with_what_was_reached(tmp_path: Path) -> None:
    text = asked(
        tmp_path,
        [
            {"asked": "actors", "figure": "actors found", "at_least": 0.93},
            {"asked": "sets", "figure": "sets found", "at_least": 0.8},
            {"asked": "up-fall", "figure": "up-fall found", "at_least": 1},
            {"asked": "speed", "figure": "ort int8", "at_most": 2.5},
            {"asked": "events", "figure": "same events", "at_least": 0.98},
            {"asked": "in the dark", "at_least": 1, "because": "no clip is dark"},
        ],
    )
    head = text.partition("## falls")[0]
    left_out = json.loads((FALLS.parent / "results/falls.leave-out.json").read_text())["folds"]
    rows = {one["left_out"]: one["int8"]["fall"] for one in left_out}
    test = json.loads(FALLS.with_name("falls.results.json").read_text())["sets"]["URFD test"]["int8"]["fall"]
    actors = {name: row["found_where_shown"] for name, row in rows.items() if "/" in name}
    actors["URFD test"] = test["found_where_shown"]
    each = ", ".join(f"{name} {row['hits']} of {row['of']}" for name, row in actors.items())
    hits, of = (sum(row[key] for row in actors.values()) for key in ("hits", "of"))
    verdict = "reached" if hits / of >= 0.93 else r"\*\*missed\*\*"
    assert re.search(rf"falls \| actors \| ≥ 0\.93 \| \d\.\d+: {hits} of {of} .*\({each}\) \| {verdict} \|", head)
    sets = r"; ".join(f"{name} {row['found']['hits']} of .*" for name, row in rows.items() if "/" not in name)
    assert re.search(rf"sets \| ≥ 0\.8 \| {sets} \|", head)
    assert re.search(r"up-fall \| ≥ 1 \| 1\.000: 5 of 5 .*\| reached \|", head)
    assert re.search(r"speed \| ≤ 2\.5 \| \d\.\d \| reached", head)
    assert "| events | ≥ 0.98 | no result file holds it | not measured |" in head
    assert "| in the dark | ≥ 1 | no clip is dark | not measured |" in head


def test_what_is_known_of_a_missed_row_is_told_once_and_of_a_reached_one_not(tmp_path: Path) -> None:
    rows = [
        {"asked": "a", "figure": "up-fall found", "at_least": 1, "missed": "dark"},
        {"asked": "b", "figure": "up-fall found", "at_least": 2, "missed": "few"},
        {"asked": "c", "figure": "up-fall found", "at_least": 3, "missed": "few"},
    ]
    head = asked(tmp_path, rows).partition("## falls")[0]
    assert head.count("- *falls*: too few") == 1
    assert "too dark" not in head


def test_a_figure_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="asks for a figure that is not known: beauty"):
        asked(tmp_path, [{"asked": "beauty", "figure": "beauty", "at_least": 1}])


def test_every_figure_that_is_asked_for_is_known() -> None:
    for name in ("falls", "interactions", "fights"):
        for row in json.loads((FALLS.parent / f"results/{name}.asked.json").read_text())["rows"]:
            assert row.get("figure", "loss") in report_asked.FIGURES
            assert ("at_least" in row) != ("at_most" in row)


def test_the_threshold_comes_from_val_and_is_measured_on_test() -> None:
    def rows(shares: dict[str, list[float]]) -> list[dict[str, Any]]:
        return [{"label": name, "group": n, "p": [1 - p, p]} for name, ps in shares.items() for n, p in enumerate(ps)]

    val = rows({"background": [0.1, 0.2, 0.65], "wave": [0.7, 0.8, 0.9]})
    test = rows({"background": [0.1, 0.6, 0.69], "wave": [0.66, 0.8, 0.9]})
    made = {"sets": {"Own val": {"int8": {"rows": val}}, "Own test": {"int8": {"rows": test}}}}
    (row,) = report_actions.at_threshold(made, "int8").values()
    assert row["threshold"] == pytest.approx(0.675)
    assert row["value"] == pytest.approx(4 / 6, abs=1e-4)
    more = {"sets": {"Own val": {"int8": {"rows": [*val, {"label": "hug", "p": [0, 0, 1]}]}}}}
    assert report_actions.at_threshold(more, "int8") == {}, "several actions have no one threshold"


def test_folds_are_judged_at_the_threshold_of_the_others() -> None:
    def fold(ordinary: float, action: float) -> dict[str, Any]:
        scores = [[1 - p, p] for p in (ordinary, ordinary, action, action)]
        return {"rows": {"class": [0, 0, 1, 1]}, "scores": {"int8": scores}}

    alike = [fold(0.1, 0.4), fold(0.2, 0.5), fold(0.1, 0.5)]
    assert report_folds.at_thresholds({"folds": alike}, "int8")["hits"] == 12
    row = report_folds.at_thresholds({"folds": [*alike, fold(0.7, 0.9)]}, "int8")
    assert (row["hits"], row["of"]) == (14, 16), "of the last fold, nothing said that its background is at 0.7"


def test_actors_count_as_streamed_only_where_the_agent_streamed_all() -> None:
    told = {"found_where_shown": measure.share(9, 10)}
    fold = {"left_out": "urfd/P1", "int8": {}, "told": told}
    results = {"sets": {"URFD test": {"int8": {}}, "UP-Fall test": {"int8": {}}}}

    def figure(test: dict[str, Any], first: dict[str, Any] = fold) -> report_asked.Figure | None:
        tables = {"leave-out": {"falls": {"folds": [first]}}, "agreement": {"falls": {"sets": test}}}
        return report_asked.FIGURES["actors found by the agent"](report_asked.Known("falls", results, tables))

    assert figure({}) is None
    assert figure({"URFD test": {}}) is None
    assert figure({"URFD test": {"told": told}}, {**fold, "told": None}) is None
    whole = figure({"URFD test": {"told": told}})
    assert whole is not None
    assert whole.value == 0.9
    assert "18 of 20" in whole.text


def test_folds_of_the_online_net_say_how_many_they_are() -> None:
    fold = {"pooled": {"int8": {"top1": {"value": 0.9, "low": 0.8, "high": 1.0}}}, "folds": [{}] * 4}
    tables = {"crossval": {"x-online-seed-0": fold, "x-online-seed-1": fold, "x-seed-0": {}}}
    figure = report_asked.FIGURES["top1 of online folds"](report_asked.Known("x", {}, tables))
    assert figure is not None
    assert figure.value == 0.9
    assert figure.text.endswith("seeds: 2, folds: 4")
    assert report_asked.FIGURES["top1 of online folds"](report_asked.Known("x", {}, {})) is None


def test_accuracy_of_folds_is_held_against_test_only_where_one_action_is_told() -> None:
    taken = report_asked.FIGURES["accuracy of folds to test"]
    several = json.loads(FALLS.with_name("interactions.results.json").read_text())
    assert taken(report_asked.Known("interactions", several, {"crossval": {"interactions-seed-0": {}}})) is None
    one = json.loads(FALLS.with_name("fights.results.json").read_text())
    assert taken(report_asked.Known("fights", one, {})) is None


def test_the_temperature_is_held_against_the_rule_and_against_none() -> None:
    fights = json.loads(FALLS.with_name("fights.results.json").read_text())
    text = report_actions.temperature(fights)
    assert "Temperature 0.574, chosen on 36 val clips (10 of 72" in text
    assert "gives the same on them" in text
    assert "0.069 with it" in text, "the calibration error of the results"
    for row in fights["sets"]["Surveillance fights val"]["fp32"]["rows"]:
        row["p"] = [0.999, 0.001] if row["label"] == "background" else [0.001, 0.999]
    fights["sets"]["Surveillance fights val"]["int8"] = fights["sets"]["Surveillance fights val"]["fp32"]
    assert "gives 1 on them" in report_actions.temperature(fights)


def test_the_same_events_are_a_table_and_frames_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    source = FALLS.parent / "results/falls.agreement.json"
    (tmp_path / "falls.agreement.json").write_bytes(source.read_bytes())
    text = report.render([FALLS], tmp_path / "report", report.further(tmp_path))
    all_sets = json.loads(source.read_text())["all"]
    counts = f"{all_sets['events_fp32']} / {all_sets['events_int8']} | {all_sets['same_labels']['hits']} of 41 "
    assert f"| all | {counts}" in text
    frames = json.loads(source.read_text())["frames"]["int8"]
    hits, of = frames["recall"]["background"]
    assert f"| int8 | {frames['clips']} | {frames['frames']} | {hits} of {of} ({hits / of:.2f}) |" in text
    assert (tmp_path / "report/falls-frames-test.png").stat().st_size < 60_000
    table = json.loads(source.read_text())
    table["graphs"]["int8"] = "0" * 64
    (tmp_path / "falls.agreement.json").write_text(json.dumps(table))
    with pytest.raises(ReportError, match="is not the graph that was measured"):
        report.render([FALLS], tmp_path / "report", report.further(tmp_path))


def test_ranges_of_another_graph_are_refused(tmp_path: Path) -> None:
    row = {"frames": 9, "flips": 1, "max_abs_difference": 0.2, "mean_abs_difference": 0.1, "mean_cosine": 0.99}
    digest = json.loads(FALLS.with_name("falls.results.json").read_text())["graphs"]["fp32"]
    for graph in (digest, "another"):
        table = {"name": "falls", "graph": graph, "methods": {"minmax": row}}
        (tmp_path / "falls.ranges.json").write_text(json.dumps(table))
        found = report.further(tmp_path)
        if graph == digest:
            assert "| minmax | 1 of 9 | 0.100 | 0.20 | 0.9900 |" in report.render([FALLS], tmp_path, found)
        else:
            with pytest.raises(ReportError, match="run `ranges` again"):
                report.render([FALLS], tmp_path, found)


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
        "shortcuts": {
            "frozen": {"auc": {**row, "value": frozen}},
            "border only": {"auc": {**row, "value": 0.5}},
            "shuffled": {"auc": {**row, "value": 0.7}},
        },
        "rows": rows,
    }
    float32 = {**table, "shortcuts": {**table["shortcuts"], "frozen": {"auc": {**row, "value": 0.94}}}}
    sets = {"fp32": float32, "int8": table, "without a net": {"clip metadata": {"auc": row}}}
    return {"sets": {"Own test": sets}, "graphs": {"fp32": "", "int8": ""}}


def test_recall_has_an_interval_over_groups() -> None:
    line = report_actions.recall(["background", "wave"], results(0.5)).splitlines()[-1]
    assert "6 of 6 [1.00, 1.00]" in line
    assert "5 of 6 [0.50, 1.00]" in line


def test_what_survives_without_motion_is_said() -> None:
    assert card_actions.survivors(results(0.7)) == []
    (said,) = card_actions.survivors(results(0.73))
    assert "| Own test | fp32 | frozen |  |  | 0.940 [" in card_actions.relies(results(0.73))
    assert "| Own test | int8 | frozen |  |  | 0.730 [" in card_actions.relies(results(0.73))
    assert "| Own test | none | clip metadata |  |  | 0.950 [" in card_actions.relies(results(0.73))
    assert said == "Own test, AUC: 0.730 of 0.950 is left without motion (int8; chance is 0.500)."


def test_other_nets_of_a_sequence_stand_beside_it(tmp_path: Path) -> None:
    table = json.loads(FALLS.with_name("falls.results.json").read_text())
    before = sum(one["int8"]["fall"]["false_events"] for key, one in table["sets"].items() if key.endswith("test"))
    table["sets"]["UP-Fall test"]["int8"]["fall"]["false_events"] += 77
    (tmp_path / "falls-blind.beside.json").write_text(json.dumps(table))
    text = report.render([FALLS], tmp_path, report.further(tmp_path))
    assert re.search(rf"^\| falls-blind \| [0-9.]+ \|.*\| {before + 77} \|(?: [^|]*\|){{2}}$", text, re.MULTILINE)


def test_seeds_of_one_run_are_averaged(tmp_path: Path) -> None:
    wrong_elsewhere = [[0.2, 0.7, 0.4, 0.3], [0.2, 0.4, 0.7, 0.3]]
    for seed, value in ((0, 0.8), (1, 0.9)):
        scores = [[1 - p, p] for p in wrong_elsewhere[seed]]
        fold = {"rows": {"class": [0, 1, 1, 0], "group": list("abcd")}, "scores": {"int8": scores}}
        row = {"value": value, "low": 0.7, "high": 1.0, "clips": 40, "groups": 8}
        table = {
            "folds": [fold] * 5,
            "pooled": {"int8": {"top1": row}},
            "mean": {"top1 int8": {"lowest": 0, "highest": 1}},
        }
        (tmp_path / f"shapes-seed-{seed}.crossval.json").write_text(json.dumps(table))
    text = report.folds(report.further(tmp_path), tmp_path)
    assert "| shapes-seed-1 | 5 | all labels | int8 | 0.900 [0.70, 1.00] | 40 / 8 |" in text
    assert "| shapes | all labels | int8 | 2 | 0.850 | 0.800 | 0.900 | 1.000 [1.00, 1.00] |" in text


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
