"""MODEL_CARD.md of a model whose labels are actions of their own; no figure in it is typed by hand."""

from __future__ import annotations

from typing import Any

from kinewatch_models.card import SURVIVES, bullets, licence, net, share_text
from kinewatch_models.recipe import Recipe

Table = dict[str, Any]

FIGURES = (("top1", "all labels"), ("top1_actions", "actions alone"), ("auc", "AUC"))
WITHOUT = {
    "frozen": "without motion",
    "shuffled": "with the frames in any order",
    "border only": "from the border of the picture alone",
}


def render(recipe: Recipe, results: Table) -> str:
    """The whole card."""
    sections = [
        f"# {recipe.name} {recipe.version}",
        f"{recipe.description}. {licence(recipe)}",
        f"{net(recipe)} Scores for {', '.join(f'`{name}`' for name in recipe.labels)}.",
        "## Training data",
        bullets(recipe.provenance),
        _training(recipe, results),
        "## Measured",
        _method(recipe, results),
        measured(results),
        "## Streamed",
        "Every clip from its first frame, with the thresholds of the package: clips in which their label is found, and "
        "intervals of labels that a clip does not show.",
        streamed(results),
        "## Recall",
        recall(recipe.labels, results),
        "## What it relies on",
        relies(results),
        "## int8 against fp32",
        int8(results),
        "## Limits",
        bullets([*recipe.limits, *survivors(results)]),
    ]
    return "\n\n".join(sections) + "\n"


def _training(recipe: Recipe, results: Table) -> str:
    counts = results["training"]
    return (
        f"{counts['actions']} clips of actions and {counts['daily']} of background; windows of {recipe.train.window} "
        f"frames; {recipe.train.epochs} epochs, one run, seed {results['seed']}; no checkpoint picked."
    )


def _method(recipe: Recipe, results: Table) -> str:
    chosen = results["calibration"]["chosen_on"]
    notes = bullets([f"{source.cite}: {source.note}." for source in recipe.sources])
    return (
        f"One window of {recipe.train.window} frames from the middle of each clip, whatever its length. Temperature "
        f"({results['calibration']['temperature']:g}) and thresholds were chosen on the {chosen['clips']} val clips, "
        "so that those rows are optimistic. In brackets: 95 % bootstrap interval over groups; with few groups it says "
        f"little.\n\n{notes}"
    )


def _sets(results: Table) -> list[tuple[str, str, Table]]:
    return [(name, key, table[key]) for name, table in results["sets"].items() for key in results["graphs"]]


def figure(row: Table | None) -> str:
    """A figure with its interval; empty where there is none."""
    if row is None or row["value"] is None:
        return ""
    return f"{row['value']:.3f} [{row['low']:.2f}, {row['high']:.2f}]"


def measured(results: Table) -> str:
    """Figures of the windows of every set."""
    lines = [
        f"| set | graph | clips / groups | {' | '.join(name for _, name in FIGURES)} | background called an action | "
        "calibration error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, graph, table in _sets(results):
        cells = [figure(table.get(key)) for key, _ in FIGURES]
        quiet = share_text(table["background_called_action"]) if "background_called_action" in table else ""
        size = f"{table['top1']['clips']} / {table['top1']['groups']}"
        lines.append(
            f"| {name} | {graph} | {size} | {' | '.join(cells)} | {quiet} | {table['calibration_error']:.3f} |"
        )
    return "\n".join(lines)


def streamed(results: Table) -> str:
    """Figures of the streamed clips."""
    lines = ["| set | graph | found | false intervals | video |", "|---|---|---|---|---|"]
    for name, graph, table in _sets(results):
        row = table["streamed"]
        cells = f"{share_text(row['found'])} | {row['false_events']} | {row['seconds']:.0f} s"
        lines.append(f"| {name} | {graph} | {cells} |")
    return "\n".join(lines)


def recall(labels: list[str], results: Table) -> str:
    """Found clips of every label."""
    lines = [f"| set | graph | {' | '.join(labels)} |", "|---|---" + "|---" * len(labels) + "|"]
    for name, graph, table in _sets(results):
        cells = [f"{row['hits']} of {row['of']}" for row in table["recall"].values()]
        lines.append(f"| {name} | {graph} | {' | '.join(cells)} |")
    return "\n".join(lines)


def relies(results: Table) -> str:
    """The same windows changed; a figure that survives says that the net does not need what was taken away."""
    lines = [
        "The same windows with something taken away, and what needs no net at all. A figure that stays says that the "
        "net does not need what was taken.",
        "",
        f"| set | graph | changed | {' | '.join(name for _, name in FIGURES)} |",
        "|---|---|---|---|---|---|",
    ]
    for name, graph, table in _sets(results):
        for change, row in {"as it is": table, **table["shortcuts"]}.items():
            lines.append(_changed(name, graph, change, row))
    for name, table in results["sets"].items():
        for by, row in table["without a net"].items():
            lines.append(_changed(name, "none", by, row))
    return "\n".join(lines)


def _changed(name: str, graph: str, change: str, row: Table) -> str:
    return f"| {name} | {graph} | {change} | {' | '.join(figure(row.get(key)) for key, _ in FIGURES)} |"


def survivors(results: Table) -> list[str]:
    """A sentence for each figure that keeps half of its distance from chance without what should have made it."""
    found = []
    for name, table in results["sets"].items():
        graph = table["int8"]
        key = next(key for key in ("auc", "top1_actions", "top1") if key in graph)
        labels = len(graph["recall"])
        actions = labels - ("background_called_action" in graph)
        chance = 0.5 if key == "auc" else 1 / (actions if key == "top1_actions" else labels)
        whole, title = graph[key]["value"], dict(FIGURES)[key]
        for change, meaning in WITHOUT.items():
            left = graph["shortcuts"][change][key]["value"]
            if whole is not None and left is not None and left - chance >= SURVIVES * (whole - chance) > 0:
                found.append(
                    f"{name}, {title}: {left:.3f} of {whole:.3f} is left {meaning} (int8; chance is {chance:.3f})."
                )
    return found


def int8(results: Table) -> str:
    """How far int8 is from fp32; timings stand in the report, see `card.int8`."""
    row = results["int8_against_fp32"]
    return (
        f"{share_text(row['clips_with_another_class'])} clips change their class. Of {row['frames']} streamed frames "
        f"{row['flips']} change theirs; logits differ by {row['mean_abs_difference']:.3f} on average (mean cosine "
        f"{row['mean_cosine']:.4f})."
    )
