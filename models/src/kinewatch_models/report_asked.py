"""The head of the report: what the packages were asked for, and what was reached, one row each.

What was asked lies in `NAME.asked.json`: words, the name of a figure, its limit, and what is known should it be missed.
How the figure is taken from the result files is written here; one that no file holds is told to be not measured.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kinewatch_models import card_actions, report_actions, report_folds
from kinewatch_models.card import share_text
from kinewatch_models.measure import together

Table = dict[str, Any]
INT8 = "int8"
MISSED = "**missed**"


@dataclass(frozen=True)
class Known:
    """What is known of one package: its results, and the tables of each kind, by title, that name it."""

    name: str
    results: Table
    tables: dict[str, dict[str, Table]]

    def tests(self) -> dict[str, Table]:
        """The sets of test."""
        return {name: table for name, table in self.results["sets"].items() if name.endswith("test")}

    def titled(self, kind: str, pattern: str) -> list[Table]:
        """Tables of a kind whose title fits; ``NAME`` stands for the package."""
        wanted = re.compile(pattern.replace("NAME", re.escape(self.name)))
        return [table for title, table in self.tables.get(kind, {}).items() if wanted.fullmatch(title)]

    @property
    def event(self) -> str:
        """What a sequence is called, which the results of one hold first."""
        return str(next(iter(next(iter(self.results["sets"].values()))[INT8])))


@dataclass(frozen=True)
class Figure:
    """A figure that can be held against a limit, and how it is told."""

    value: float
    text: str


Taken = Callable[[Known], Figure | None]


def rows(table: Table) -> list[Table]:
    """The rows of `NAME.asked.json`, each with what is known should it be missed: that is told once for several."""
    known = table.get("missed", {})
    return [{**row, "missed": known[row["missed"]]} if "missed" in row else row for row in table["rows"]]


def render(asked: Iterable[tuple[list[Table], Known]]) -> str:
    """The table, and what is known of each row that is missed; empty where nothing was asked."""
    judged = [(row, known.name, *_judged(row, known)) for rows, known in asked for row in rows]
    if not judged:
        return ""
    whys = dict.fromkeys(
        f"- *{name}*: {row['missed']}" for row, name, _, verdict in judged if verdict == MISSED and "missed" in row
    )
    rows = [f"| {name} | {row['asked']} | {_limit(row)} | {text} | {verdict} |" for row, name, text, verdict in judged]
    return "\n".join(
        [
            "## Asked for, and reached",
            "",
            "int8 throughout, where nothing else is said. What was asked for, and what is known of a missed row, "
            "stands in `NAME.asked.json`; figures and verdicts are taken from the other result files. A verdict is "
            "about the figure itself, not its interval.",
            "",
            "| package | asked for | limit | reached | |",
            "|---|---|---|---|---|",
            *rows,
            *(["", "What is known of that which is missed:", "", *whys] if whys else []),
        ]
    )


def _judged(row: Table, known: Known) -> tuple[str, str]:
    """What was reached, and the verdict on it."""
    found = FIGURES[row["figure"]](known) if row.get("figure") else None
    if found is None:
        return row.get("because", "no result file holds it"), "not measured"
    good = found.value >= row["at_least"] if "at_least" in row else found.value <= row["at_most"]
    return found.text, "reached" if good else MISSED


def _limit(row: Table) -> str:
    return f"≥ {row['at_least']:g}" if "at_least" in row else f"≤ {row['at_most']:g}"


def _mean(rows: list[Table]) -> Figure | None:
    """The mean of figures of several seeds."""
    values = [row["value"] for row in rows if row["value"] is not None]
    if not values:
        return None
    if len(values) == 1:
        return Figure(values[0], card_actions.figure(rows[0]))
    each = ", ".join(f"{value:.3f}" for value in values)
    return Figure(float(np.mean(values)), f"{np.mean(values):.3f} (mean of {each})")


def _share(rows: list[Table]) -> Figure | None:
    """The share of counts that are added."""
    row = together(rows)
    value = row["hits"] / max(row["of"], 1)
    return Figure(value, f"{value:.3f}: {share_text(row)}") if row["of"] else None


def _worst(rows: dict[str, Figure | None], worst: Callable[[Iterable[float]], float]) -> Figure | None:
    """The worst of figures that all have to hold, each told."""
    known = {name: row for name, row in rows.items() if row is not None}
    if not known:
        return None
    told = "; ".join(f"{name} {row.text.partition(': ')[2] or row.text}" for name, row in known.items())
    return Figure(worst(row.value for row in known.values()), told)


def _of_tests(tables: list[Table], key: str) -> list[Table]:
    """A figure of the test sets of results."""
    sets = [(name, one) for table in tables for name, one in table["sets"].items() if name.endswith("test")]
    return [one[INT8][key] for _, one in sets if key in one[INT8]]


def _seeds(key: str) -> Taken:
    return lambda known: _mean(_of_tests([known.results, *known.titled("beside", r"NAME-seed-\d+")], key))


def _online(key: str) -> Taken:
    return lambda known: _mean(_of_tests(known.titled("beside", r"NAME-online-seed-\d+"), key))


def _folds(key: str) -> Taken:
    return lambda known: _mean([one["pooled"][INT8][key] for one in known.titled("crossval", r"NAME-seed-\d+")])


def _online_folds(key: str) -> Taken:
    def taken(known: Known) -> Figure | None:
        tables = known.titled("crossval", r"NAME-online-seed-\d+")
        figure = _mean([one["pooled"][INT8][key] for one in tables])
        counts = " and ".join(str(count) for count in sorted({len(one["folds"]) for one in tables}))
        return figure and Figure(figure.value, f"{figure.text}, seeds: {len(tables)}, folds: {counts}")

    return taken


def _quiet(known: Known) -> Figure | None:
    key = "background_called_action"
    folds = known.titled("crossval", r"NAME-seed-\d+")
    return _worst(
        {
            "test": _share(_of_tests([known.results], key)),
            "left out, all seeds": _share([one["pooled"][INT8][key] for one in folds]),
            "online net, test, all seeds": _share(_of_tests(known.titled("beside", r"NAME-online-seed-\d+"), key)),
        },
        max,
    )


def _at_threshold(known: Known) -> Figure | None:
    found = report_actions.at_threshold(known.results, INT8)
    rows = list(found.values())
    return Figure(rows[0]["value"], report_actions.told(rows[0])) if rows else None


def _fold_distance(known: Known) -> Figure | None:
    folds, test = _folds("auc")(known), _of_tests([known.results], "auc")
    if folds is None or not test:
        return None
    distance = abs(folds.value - test[0]["value"])
    return Figure(distance, f"{distance:.3f}: {folds.text}, test {test[0]['value']:.3f}")


def _fold_accuracy_distance(known: Known) -> Figure | None:
    test, tables = _at_threshold(known), known.titled("crossval", r"NAME-seed-\d+")
    if test is None or not tables:
        return None
    rows = [report_folds.at_thresholds(one, INT8) for one in tables]
    folds = [row["hits"] / row["of"] for row in rows]
    distance, each = abs(np.mean(folds) - test.value), ", ".join(f"{value:.3f}" for value in folds)
    return Figure(float(distance), f"{distance:.3f}: {np.mean(folds):.3f} (mean of {each}), test {test.value:.3f}")


def _left_out(known: Known, groups: bool) -> dict[str, Table]:
    """What was measured of each data set, or of each group, that was left out of training."""
    folds = [fold for table in known.titled("leave-out", "NAME") for fold in table["folds"]]
    return {fold["left_out"]: fold[INT8] for fold in folds if ("/" in fold["left_out"]) == groups}


def _actors(known: Known) -> dict[str, Table]:
    """Every actor, measured by a net that has not seen them: those left out in turn, and those of test."""
    groups = _left_out(known, True)
    sets = {name.partition("/")[0].lower() for name in groups}
    tests = {name: one[INT8] for name, one in known.tests().items() if name.split()[0].lower() in sets}
    return {**groups, **tests} if groups else {}


def _actors_found(known: Known) -> Figure | None:
    return _found({name: one[known.event]["found_where_shown"] for name, one in _actors(known).items()})


def _found(rows: dict[str, Table]) -> Figure | None:
    each = ", ".join(f"{name} {row['hits']} of {row['of']}" for name, row in rows.items())
    whole = _share(list(rows.values()))
    return Figure(whole.value, f"{whole.text} ({each})") if whole else None


def _actors_told(known: Known) -> Figure | None:
    """As `_actors_found`, by the events of the agent; nothing unless it streamed every one of them."""
    folds = {fold["left_out"]: fold for table in known.titled("leave-out", "NAME") for fold in table["folds"]}
    tests = {name: one for table in known.tables.get("agreement", {}).values() for name, one in table["sets"].items()}
    rows = {name: {**folds, **tests}.get(name, {}).get("told") for name in _actors(known)}
    shown = {name: row["found_where_shown"] for name, row in rows.items() if row is not None}
    return _found(shown) if len(shown) == len(rows) else None


def _from_the_wall(known: Known) -> Figure | None:
    tables = known.titled("conditions", "NAME")
    rows = [row for table in tables for row in table["conditions"].get("camera", []) if row["part"] == "wall"]
    return _share([row["actions"] for row in rows])


def _backwards(known: Known) -> Figure | None:
    rows = [one["changed"] for one in _actors(known).values()]
    return _worst({kind: _share([row[kind] for row in rows]) for kind in ("reversed", "frozen") if rows}, max)


def _sets_found(known: Known) -> Figure | None:
    found = _left_out(known, False)
    return _worst({name: _share([one[known.event]["found"]]) for name, one in found.items()}, min)


def _sets_daily(known: Known) -> Figure | None:
    found = _left_out(known, False)
    return _worst({name: _share([one[known.event]["daily_fired"]]) for name, one in found.items()}, max)


def _daily(known: Known) -> Figure | None:
    rows = {name: _share([one[INT8][known.event]["daily_fired"]]) for name, one in known.tests().items()}
    return _worst(rows, max)


def _of_set(name: str, key: str) -> Taken:
    """A count of one test set."""

    def taken(known: Known) -> Figure | None:
        table = known.tests().get(name)
        if table is None:
            return None
        row = table[INT8][known.event][key]
        return Figure(row, str(row)) if isinstance(row, int) else _share([row])

    return taken


def _onset(key: str) -> Taken:
    def taken(known: Known) -> Figure | None:
        rows = {name: one[INT8]["onset"]["error"] for name, one in known.tests().items()}
        return _worst(
            {name: Figure(row[key], f"{row[key]:.2f} s of {row['n']}") for name, row in rows.items() if row}, max
        )

    return taken


def _loss(known: Known) -> Figure | None:
    """How many points more fp32 is right on, of the test set where that is most."""
    rows = {}
    for name, table in known.tests().items():
        first, second = (_right(known, table[precision]) for precision in ("fp32", INT8))
        rows[name] = Figure(100 * (first - second), f"{100 * (first - second):+.1f}".replace("-0.0", "+0.0"))
    return _worst({name: row for name, row in rows.items()}, max)


def _right(known: Known, table: Table) -> float:
    if "top1" in table:
        return float(table["top1"]["value"])
    row = table[known.event]
    right = row["found"]["hits"] + row["daily_fired"]["of"] - row["daily_fired"]["hits"]
    return float(right / (row["found"]["of"] + row["daily_fired"]["of"]))


def _same_events(known: Known) -> Figure | None:
    tables = list(known.tables.get("agreement", {}).values())
    return _share([tables[0]["all"]["same_within_a_judgement"]]) if tables else None


def _speed(backend: str, precision: str) -> Taken:
    def taken(known: Known) -> Figure | None:
        rows = [row for table in known.tables.get("bench", {}).values() for row in table["results"]]
        found = [row for row in rows if (row["backend"], row["precision"]) == (backend, precision)]
        value = found[0]["cpu_ms_per_frame"] if found else 0.0
        return Figure(value, f"{value:.1f}") if found else None

    return taken


FIGURES: dict[str, Taken] = {
    "top1 of seeds": _seeds("top1"),
    "actions of seeds": _seeds("top1_actions"),
    "top1 of online seeds": _online("top1"),
    "actions of online seeds": _online("top1_actions"),
    "top1 of online folds": _online_folds("top1"),
    "actions of online folds": _online_folds("top1_actions"),
    "top1 of folds": _folds("top1"),
    "actions of folds": _folds("top1_actions"),
    "background called an action": _quiet,
    "auc": lambda known: _mean(_of_tests([known.results], "auc")),
    "accuracy at the threshold of val": _at_threshold,
    "folds to test": _fold_distance,
    "accuracy of folds to test": _fold_accuracy_distance,
    "actors found": _actors_found,
    "actors found by the agent": _actors_told,
    "actors found from the wall": _from_the_wall,
    "actors backwards": _backwards,
    "daily": _daily,
    "sets found": _sets_found,
    "sets daily": _sets_daily,
    "up-fall found": _of_set("UP-Fall test", "found"),
    "up-fall false": _of_set("UP-Fall test", "false_events"),
    "rooms found": _of_set("GMDCSA24 test", "found"),
    "rooms daily": _of_set("GMDCSA24 test", "daily_fired"),
    "onset median": _onset("median_s"),
    "onset p90": _onset("p90_s"),
    "loss": _loss,
    "same events": _same_events,
    "ort int8": _speed("ort", "int8"),
    "tract fp32": _speed("tract", "fp32"),
}
"""How each figure that may be asked for is taken from the results."""
