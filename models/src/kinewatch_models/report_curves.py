"""The part of the report about learning curves: figures by the share of training groups, as a table and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kinewatch_models import card_actions
from kinewatch_models.card import share_text

MARGIN = 0.02

Table = dict[str, Any]


def render(runs: dict[str, Table], pictures: Path) -> str:
    """A table and a picture per run; the test split throughout, int8."""
    sections = [
        "Trained on a share of the groups (people, cameras, sequences) of each data set, measured on the test split, "
        "int8; each seed draws its own share."
    ]
    for name, table in runs.items():
        figures = [(row, *_figure(row["int8"])) for row in table["rows"]]
        lines = [
            f"| {name}: share | seed | training clips / groups | {figures[0][1]} |",
            "|---|---|---|---|",
            *(
                f"| {row['share']:g} | {row['seed']} | {row['train_clips']} / {row['train_groups']} | {text} |"
                for row, _, text, _ in figures
            ),
        ]
        points = [(row["share"], *values) for row, _, _, values in figures]
        path = draw(points, f"{name}: {figures[0][1]}", pictures / f"{name}-curve.png")
        sections += ["\n".join(lines), f"![{name}: learning curve]({path.parent.name}/{path.name})"]
    return "\n\n".join(sections)


def _figure(table: Table) -> tuple[str, str, tuple[float, float, float]]:
    """Name, text, and value with its interval, of the figure that a target is set for."""
    for key, title in reversed(card_actions.FIGURES):
        if key in table:
            row = table[key]
            return title, card_actions.figure(row), (row["value"], row["low"], row["high"])
    name, found = next((name, row["found"]) for name, row in table.items() if "found" in row)
    return f"{name} found", share_text(found), (found["hits"] / found["of"], found["low"], found["high"])


def draw(points: list[tuple[float, float, float, float]], title: str, path: Path) -> Path:
    """Value over share, a point per run with its interval, and a line through the means."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(5, 3.2), dpi=72)
    for share, value, low, high in points:
        axis.errorbar(share, value, yerr=[[value - low], [high - value]], fmt="o", color="C0", alpha=0.5)
    shares = sorted({point[0] for point in points})
    means = [[point[1] for point in points if point[0] == share] for share in shares]
    axis.plot(shares, [sum(values) / len(values) for values in means], color="C0")
    lowest = max(0.0, min(point[2] for point in points) - MARGIN)
    axis.set(xlabel="share of the training groups", ylabel=title, ylim=(lowest, 1.0 + MARGIN), xlim=(0, 1.05))
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)
    return path
