"""The part of the report about architectures side by side: a table, and accuracy over cost as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kinewatch_models import card_actions
from kinewatch_models.arch.registry import ARCHITECTURES

Table = dict[str, Any]

RUNS = (("ort", "fp32"), ("ort", "int8"), ("tract", "fp32"))
LETTER, LINE = 6.0, 10.0
"""Pixels of a label's letter, and of its height."""
HEAD = (
    "Each net trained on the same clips with the same budget (windows seen) at one learning rate and one seed, and "
    "measured on the test split. Loss: that of the last epoch. Where it is still near that of guessing, the net has "
    "not begun to learn, and its figure says no more: it needs a longer training, or another rate. MACs: "
    "multiply-accumulates of a window, and of one more frame of a stream (plan `clip` judges every quarter of a "
    "window; a segment of TDN's five frames counts as one frame). Milliseconds: CPU time of one thread in the "
    "agent, for a judgement (plans `cached` and `online` compute one frame for it) and for one more frame. All nets "
    "see pictures. Ordered by the figures: the first one's is optimistic."
)


def render(runs: dict[str, Table], pictures: Path) -> str:
    """A table and a picture per set of clips."""
    sections = [HEAD]
    for name, table in runs.items():
        rows = sorted(table["rows"], key=_accuracy, reverse=True)
        clips = rows[0]["fp32"]["top1"]
        lines = [
            f"{name}: {clips['clips']} clips of {clips['groups']} groups; always the commonest class: "
            f"{_guessing(rows[0]):.2f}.",
            "",
            "| architecture | backbone | plan | top-1 | int8 | loss | CPU min | M parameters | "
            "G MACs a window / frame | ms a judgement: ort fp32 / int8 / tract | ms a frame: the same |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
            *(_row(row) for row in rows),
        ]
        path = draw(rows, name, pictures / f"{name}-compare.png")
        sections += ["\n".join(lines), f"![{name}: accuracy over cost]({path.parent.name}/{path.name})"]
    return "\n\n".join(sections)


def _accuracy(row: Table) -> float:
    return float(row["fp32"]["top1"]["value"])


def _guessing(row: Table) -> float:
    shown: list[int] = [sum(of_class) for of_class in row["fp32"]["confusion"]]
    return max(shown) / sum(shown)


def _row(row: Table) -> str:
    macs = f"{row['macs_per_window'] / 1e9:.3f} / {_cost(row):.3f}"
    cells = [row["architecture"], row["backbone"], row["plan"]]
    cells += [card_actions.figure(row[precision]["top1"]) for precision in ("fp32", "int8")]
    cells += [f"{row['loss']:.2f}", f"{row['training_cpu_s'] / 60:.1f}"]
    cells += [f"{row['parameters'] / 1e6:.2f}", macs]
    cells += [" / ".join(_ms(row, *key, per) for key in RUNS) for per in ("window", "frame")]
    return f"| {' | '.join(cells)} |"


def _ms(row: Table, backend: str, precision: str, per: str) -> str:
    """CPU milliseconds of a judgement, or of a frame: a window is judged once for several new frames."""
    share = _cost(row) * 1e9 / row["macs_per_window"] if (row["plan"], per) == ("clip", "frame") else 1.0
    found = [
        one["cpu_ms_per_window"] for one in row["speeds"] if (one["backend"], one["precision"]) == (backend, precision)
    ]
    return f"{found[0] * share:.2f}" if found else "none"


def _cost(row: Table) -> float:
    """G multiply-accumulates of one more frame at the recipe's rate, for which a net of snippets reads several."""
    known = ARCHITECTURES.get(row["architecture"])
    return float(row["macs_per_new_frame"]) * (known.snippet if known else 1) / 1e9


def _room(
    x: float, y: float, letters: int, sides: tuple[float, float], taken: list[tuple[float, float, float]]
) -> tuple[int, int]:
    """Where a label meets no side and none before it: pixels right of its point, or left where negative, and up."""
    offsets = [(6 * side, up) for up in (4, -11, 15, -22, 26) for side in (1, -1)]
    for right, up in offsets:
        begin = x + right if right > 0 else x + right - LETTER * letters
        end = begin + LETTER * letters
        free = all(abs(y + up - line) > LINE or begin > last or end < first for line, first, last in taken)
        if free and sides[0] <= begin and end <= sides[1]:
            taken.append((y + up, begin, end))
            return right, up
    return offsets[0]


def draw(rows: list[Table], title: str, path: Path) -> Path:
    """Accuracy over the cost of a new frame, a point for each net."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8.5, 5), dpi=80)
    for row in rows:
        top1 = row["fp32"]["top1"]
        error = [[top1["value"] - top1["low"]], [top1["high"] - top1["value"]]]
        axis.errorbar(_cost(row), top1["value"], yerr=error, fmt="o", alpha=0.7, elinewidth=0.6)
    axis.set(xscale="log", xlabel="G multiply-accumulates for one more frame", ylabel="top-1, fp32", title=title)
    figure.tight_layout()
    sides = (axis.bbox.x0, axis.bbox.x1)
    taken: list[tuple[float, float, float]] = []
    for row in rows:
        x, y = axis.transData.transform((_cost(row), row["fp32"]["top1"]["value"]))
        right, up = _room(x, y, len(row["architecture"]), sides, taken)
        axis.annotate(
            row["architecture"],
            (_cost(row), row["fp32"]["top1"]["value"]),
            xytext=(right, up),
            textcoords="offset pixels",
            ha="left" if right > 0 else "right",
            fontsize=8,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)
    return path
