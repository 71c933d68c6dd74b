"""The report says what the result files say, and refuses a package that is not the one that was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kinewatch_models import report
from kinewatch_models.report import ReportError

FALLS = Path(__file__).parents[1] / "falls"


def test_the_report_of_falls_has_its_figures_and_hashes(tmp_path: Path) -> None:
    text = report.render([FALLS], [], tmp_path)
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
        report.render([tmp_path / "falls"], [], tmp_path)


def test_a_picture_is_small(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [
        {"label": name, "p": [0.5 + sign * n / 100, 0.5 - sign * n / 100]}
        for n in range(20)
        for name, sign in (("background", 1), ("wave", -1))
    ]
    table = {"confusion": [[20, 0], [0, 20]], "rows": rows}
    path = report.draw(table, ["background", "wave"], tmp_path / "wave.png")
    assert 2_000 < path.stat().st_size < 60_000
