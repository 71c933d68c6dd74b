"""The report of one package whose labels are actions of their own: tables, curves, what survives without motion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kinewatch_models import calibrate_actions, card_actions, metrics
from kinewatch_models.card import share_text
from kinewatch_models.dataset import BACKGROUND
from kinewatch_models.decode import probabilities

Table = dict[str, Any]
Flags = npt.NDArray[np.bool_]

LEAST_GROUPS = 5
LEAST_SHARE = 5e-5
"""What a probability of 0 may have been before it was rounded."""
SAME_TEMPERATURE = 0.03


def render(results: Table, beside: dict[str, Table], pictures: Path, name: str) -> str:
    """Every table and picture; `beside`: results of other nets on the same clips, by title."""
    labels = list(next(iter(results["sets"].values()))["fp32"]["recall"])
    sections = [card_actions.measured(results)]
    if beside:
        sections += ["Other nets on the same clips:", _others(beside)]
    sections += [thresholds(results)] if at_threshold(results, "int8") else []
    sections += [
        temperature(results),
        "Recall:",
        recall(labels, results),
        "Streamed from the first frame of each clip, with the package's thresholds:",
        card_actions.streamed(results),
        card_actions.relies(results),
        *(f"**{one}**" for one in card_actions.survivors(results)),
        card_actions.int8(results),
    ]
    for title, table in results["sets"].items():
        if title.endswith("test"):
            path = draw(table["int8"], labels, pictures / f"{name}-{_slug(title)}.png")
            sections.append(f"![{title}: confusion, ROC and precision-recall, int8]({path.parent.name}/{path.name})")
    return "\n\n".join(sections)


def _others(beside: dict[str, Table]) -> str:
    titles = [title for _, title in card_actions.FIGURES]
    lines = [
        f"| net | set | graph | {' | '.join(titles)} | ms per frame |",
        "|---|---|---|" + "---|" * (len(titles) + 1),
    ]
    for title, results in beside.items():
        for name, table in results["sets"].items():
            for graph in results["graphs"]:
                cells = [card_actions.figure(table[graph].get(key)) for key, _ in card_actions.FIGURES]
                lines.append(
                    f"| {title} | {name} | {graph} | {' | '.join(cells)} | {results['ms_per_frame'][graph]:.1f} |"
                )
    return "\n".join(lines)


def recall(labels: list[str], results: Table) -> str:
    """Found clips of every label, each with its interval."""
    lines = [f"| set | graph | {' | '.join(labels)} |", "|---|---" + "|---" * len(labels) + "|"]
    for name, table in results["sets"].items():
        for graph in results["graphs"]:
            cells = [_recall(table[graph], index, label) for index, label in enumerate(labels)]
            lines.append(f"| {name} | {graph} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _recall(table: Table, index: int, label: str) -> str:
    rows = [row for row in table["rows"] if row["label"] == label]
    groups = [str(row.get("group", "")) for row in rows]
    if len(set(groups)) < LEAST_GROUPS:
        return share_text(table["recall"][label])
    hits = np.array([int(np.argmax(row["p"])) == index for row in rows])
    spread = metrics.interval(lambda chosen: float(hits[chosen].mean()), groups)
    return f"{int(hits.sum())} of {len(rows)} [{spread['low']:.2f}, {spread['high']:.2f}]"


def at_threshold(results: Table, graph: str) -> dict[str, Table]:
    """Where one action is told from background: by test set, accuracy at the threshold that is best on val.

    Among thresholds that are equally good, the middle one; `threshold` is a probability of the action.
    """
    val = [row for name, one in results["sets"].items() if name.endswith("val") for row in one[graph]["rows"]]
    labels = sorted({row["label"] for row in val}, key=lambda label: label != BACKGROUND)
    if len(labels) != 2 or labels[0] != BACKGROUND:
        return {}
    truth, scores = _one_action(val)
    threshold = best_threshold(truth, scores)
    found = {}
    for name, table in results["sets"].items():
        if name.endswith("test"):
            rows = table[graph]["rows"]
            truth, scores = _one_action(rows)
            hits = (scores > threshold) == truth
            figure = metrics.interval(_mean_of(hits), [str(row.get("group", "")) for row in rows])
            found[name] = {**figure, "threshold": threshold}
    return found


def best_threshold(truth: Flags, scores: metrics.Doubles) -> float:
    """The probability at which most are told rightly; of equally good ones the middle."""
    steps = np.unique(scores)
    tried = np.concatenate([steps[:1] - 1e-6, (steps[1:] + steps[:-1]) / 2, steps[-1:] + 1e-6])
    right = np.array([((scores > threshold) == truth).mean() for threshold in tried])
    best = np.flatnonzero(right == right.max())
    return float(tried[best[len(best) // 2]])


def _one_action(rows: list[Table]) -> tuple[Flags, metrics.Doubles]:
    return np.array([row["label"] != BACKGROUND for row in rows]), np.array([row["p"][1] for row in rows])


def _mean_of(hits: Flags) -> Callable[[metrics.Ints], float]:
    return lambda rows: float(hits[rows].mean())


def told(row: Table) -> str:
    """A figure at a threshold, in words."""
    return f"{card_actions.figure(row)} at {row['threshold']:.3f}"


def thresholds(results: Table) -> str:
    """A row per test set and graph."""
    lines = [
        "Called the action from the threshold on that gives most right on val, instead of from a half on:",
        "",
        "| set | graph | accuracy at the threshold | at a half |",
        "|---|---|---|---|",
    ]
    for graph in results["graphs"]:
        for name, row in at_threshold(results, graph).items():
            half = card_actions.figure(results["sets"][name][graph]["top1"])
            lines.append(f"| {name} | {graph} | {told(row)} | {half} |")
    return "\n".join(lines)


def temperature(results: Table) -> str:
    """The temperature, what val had to say about it, and how well it fits test beside none at all (int8).

    Logits are taken back from the probabilities of the results, which are rounded to four places.
    """
    chosen = results["calibration"]["temperature"]
    val = [one for name, one in results["sets"].items() if name.endswith("val")]
    rows = [[_logits(row["p"], chosen) for row in one[graph]["rows"]] for one in val for graph in results["graphs"]]
    labels = list(val[0]["fp32"]["recall"]) if val else []
    classes = [labels.index(row["label"]) for one in val for _ in results["graphs"] for row in one["fp32"]["rows"]]
    if not classes:
        return f"Temperature {chosen:g}."
    clips = len(classes) // len(results["graphs"])
    logits = np.array([row for part in rows for row in part], np.float32)
    wrong = int((logits.argmax(1) != np.array(classes)).sum())
    now = calibrate_actions.fit_temperature(logits, np.array(classes), clips)
    same = abs(now - chosen) < SAME_TEMPERATURE
    words = [
        f"Temperature {chosen:g}, chosen on {clips} val clips ({wrong} of {len(classes)} judgements of both graphs "
        f"wrong). The rule of `calibrate` (below 1 only from {calibrate_actions.LEAST_CLIPS} clips and "
        f"{calibrate_actions.LEAST_WRONG} errors on) gives {'the same' if same else f'{now:g}'} on them."
    ]
    for name, one in results["sets"].items():
        if name.endswith("test"):
            known = np.array([_logits(row["p"], chosen) for row in one["int8"]["rows"]], np.float32)
            truth = np.array([labels.index(row["label"]) for row in one["int8"]["rows"]])
            errors = [metrics.calibration_error(probabilities(known, value), truth) for value in (chosen, 1.0)]
            words.append(f"Calibration error on {name}, int8: {errors[0]:.3f} with it, {errors[1]:.3f} with 1.")
    return " ".join(words)


def _logits(shares: list[float], chosen: float) -> list[float]:
    return [chosen * float(np.log(max(value, LEAST_SHARE))) for value in shares]


def draw(table: Table, labels: list[str], path: Path) -> Path:
    """Confusion matrix, ROC and precision-recall curves of one set as a small picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from sklearn.metrics import PrecisionRecallDisplay, RocCurveDisplay

    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.8), dpi=72)
    counts = np.array(table["confusion"])
    axes[0].imshow(counts, cmap="Blues")
    axes[0].set_xticks(range(len(labels)), labels, rotation=60)
    axes[0].set_yticks(range(len(labels)), labels)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if 2 * count > counts.max() else "black"
        axes[0].text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
    axes[0].set(xlabel="called", ylabel="is")
    truth = [row["label"] for row in table["rows"]]
    scores = np.array([row["p"] for row in table["rows"]])
    for index, label in enumerate(labels):
        is_label = np.array([name == label for name in truth])
        if (label == labels[0] and len(labels) == 2) or not is_label.any() or is_label.all():
            continue
        RocCurveDisplay.from_predictions(is_label, scores[:, index], name=label, ax=axes[1])
        PrecisionRecallDisplay.from_predictions(is_label, scores[:, index], name=label, ax=axes[2])
    axes[1].set(xlabel="false positive rate", ylabel="true positive rate")
    axes[2].set(xlabel="recall", ylabel="precision")
    for axis in axes[1:]:
        axis.legend(fontsize=6)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)
    return path


def _slug(title: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in title.lower())
