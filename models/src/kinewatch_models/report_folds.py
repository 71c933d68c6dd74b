"""The parts of the report that come from many trainings: cross-validation, and what was left out in turn."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import numpy as np

from kinewatch_models import card_actions, metrics, report_actions
from kinewatch_models.card import FOUND, found_cells, share_text
from kinewatch_models.measure import share, together

Table = dict[str, Any]
PLAYED = ("reversed", "frozen")
COLUMNS = (*FOUND, *PLAYED)
SHARES = ("found", "found_where_shown", "daily_fired")
LEAST = 1e-5  # scores are written with five digits
SEED = re.compile(r"-seed-\d+$")


def crossval(runs: dict[str, Table]) -> str:
    """A row per run, figure and graph; runs called ``NAME-seed-N`` are averaged as well, and judged as one."""
    lines = [
        "Folds by group: each clip is measured by a net that has seen none of its group; all are counted together.",
        "",
        "| run | folds | figure | graph | all clips | clips / groups | lowest fold | highest fold |",
        "|---|---|---|---|---|---|---|---|",
    ]
    same: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    seeds: dict[str, list[Table]] = defaultdict(list)
    for name, table in runs.items():
        seeds[SEED.sub("", name)].append(table)
        for precision, pooled in table["pooled"].items():
            for key, title in card_actions.FIGURES:
                if key in pooled and pooled[key]["value"] is not None:
                    same[SEED.sub("", name), key, precision].append(pooled[key]["value"])
                    lines.append(_crossval_row(name, table, precision, key, title))
    means = [
        f"| {name} | {dict(card_actions.FIGURES)[key]} | {precision} | {len(values)} | {np.mean(values):.3f} | "
        f"{min(values):.3f} | {max(values):.3f} | {_as_one(seeds[name], key, precision)} |"
        for (name, key, precision), values in same.items()
        if len(values) > 1
    ]
    if means:
        lines += [
            "",
            "As one: the mean of what the nets of all seeds say of a clip (log-probabilities). What is wrong "
            "then, too, is not the chance of one training.",
            "",
            "| run | figure | graph | seeds | mean | lowest | highest | as one |",
            "|---|---|---|---|---|---|---|---|",
            *means,
        ]
    return "\n".join(lines)


def _as_one(tables: list[Table], key: str, graph: str) -> str:
    """A figure of the seeds' mean log-probabilities; empty where their folds are not the same."""
    rows = [[fold["rows"] for fold in table["folds"]] for table in tables]
    if any(other != rows[0] for other in rows):
        return ""
    classes = np.array([one for fold in rows[0] for one in fold["class"]])
    groups = [one for fold in rows[0] for one in fold["group"]]
    told = [
        np.concatenate([np.array(fold["scores"][graph], np.float64) for fold in table["folds"]]) for table in tables
    ]
    scores = np.mean([np.log(np.maximum(one, LEAST)) for one in told], 0)
    if key == "auc":
        return card_actions.figure(metrics.auc(scores[:, 1] - scores[:, 0], classes == 1, groups))
    if key == "top1":
        return card_actions.figure(metrics.accuracy(scores, classes, groups))
    return ""


def at_thresholds(table: Table, graph: str) -> Table:
    """Clips told rightly, of background and one action (class 1), each fold at the threshold best on the other folds.

    No net scored there had seen the clip that it scored; but those of other folds had seen the clips of this one.
    """
    folds = [
        (np.array(fold["rows"]["class"]) > 0, np.array(fold["scores"][graph], np.float64)[:, 1])
        for fold in table["folds"]
    ]
    right = 0
    for at, (truth, scores) in enumerate(folds):
        rest = [fold for other, fold in enumerate(folds) if other != at]
        threshold = report_actions.best_threshold(*(np.concatenate(part) for part in zip(*rest, strict=True)))
        right += int(((scores > threshold) == truth).sum())
    return share(right, sum(len(truth) for truth, _ in folds))


def _crossval_row(name: str, table: Table, precision: str, key: str, title: str) -> str:
    spread, row = table["mean"][f"{key} {precision}"], table["pooled"][precision][key]
    cells = [name, str(len(table["folds"])), title, precision, card_actions.figure(row)]
    cells += [f"{row['clips']} / {row['groups']}", f"{spread['lowest']:.3f}", f"{spread['highest']:.3f}"]
    return f"| {' | '.join(cells)} |"


def left_out(runs: dict[str, Table]) -> str:
    """A row per fold, graph and event, and the sum of a run's folds."""
    lines = [
        "Each row: trained without what is named (a data set, or DATASET/GROUP), thresholds from val, measured on what "
        "was left out. A group is that of clips: a person whose daily clips have groups of their own may still train.",
        "",
        f"| run | left out | graph | event | {' | '.join(COLUMNS)} |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, table in runs.items():
        rows = [
            (fold["left_out"], precision, event, fold[precision])
            for fold in table["folds"]
            for precision in ("fp32", "int8")
            for event, row in fold[precision].items()
            if "false_events" in row
        ]
        lines += [_left_out_row(name, *row) for row in rows]
        kinds = [("/" in what, *rest) for what, *rest in rows]
        for key in dict.fromkeys((groups, precision, event) for groups, precision, event, _ in kinds):
            same = [table for *kind, table in kinds if tuple(kind) == key]
            lines += [_summed(name, key, same)] if len(same) > 1 else []
    return "\n".join(lines)


def _left_out_row(name: str, what: str, precision: str, event: str, table: Table) -> str:
    return f"| {' | '.join([name, what, precision, event, *cells(event, table)])} |"


def cells(event: str, table: Table) -> list[str]:
    """The cells of `COLUMNS`: what of an event was found, and what fires when its clips are played otherwise."""
    return [*found_cells(table[event]), *(share_text(table["changed"][kind]) for kind in PLAYED)]


def _summed(name: str, key: tuple[bool, str, str], tables: list[Table]) -> str:
    groups, precision, event = key
    what = "**all groups above**" if groups else "**all data sets above**"
    return _left_out_row(name, what, precision, event, summed(event, tables))


def summed(event: str, tables: list[Table]) -> Table:
    """What `cells` needs, of several sets together."""
    return {
        event: {
            **{key: together(table[event][key] for table in tables) for key in SHARES},
            "false_events": sum(table[event]["false_events"] for table in tables),
        },
        "changed": {kind: together(table["changed"][kind] for table in tables) for kind in PLAYED},
    }


def conditions(runs: dict[str, Table]) -> str:
    """A row per run, condition and part of its clips."""
    lines = [
        "The folds above, int8: clips judged rightly, by what can be measured of a clip without a net. Names stand for "
        "themselves; figures are cut into about thirds of the clips, equal ones together. "
        "*Thresholds chosen on these very clips* find most while at most 5 % of the daily clips fire: what the net can "
        "tell, if not what it does.",
        "",
        "| run | condition | part | clips of actions right | other clips right |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {condition} | {row['part']} | {share_text(row['actions'])} | {share_text(row['rest'])} |"
        for name, table in runs.items()
        for condition, rows in table["conditions"].items()
        for row in rows
    ]
    return "\n".join(lines)
