"""The report of one package whose labels make up a sequence: tables of events, and how good its scores are by frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kinewatch_models import card, report_actions, report_folds
from kinewatch_models.card import share_text

Table = dict[str, Any]
OTHERS = (
    "Nets trained otherwise, on the same clips: event `{}`, int8, all test sets together; one seed each. An earlier "
    "version was also calibrated and measured by the code of then."
)


def render(results: Table, beside: dict[str, Table], agreement: Table | None, pictures: Path, name: str) -> str:
    """Every table; `beside`: results of other nets on the same clips, by title.

    The part about frames comes from what `agree` measured, where there is that.
    """
    names = [key for key, row in next(iter(results["sets"].values()))["fp32"].items() if "false_events" in row]
    return "\n\n".join(
        [
            *(f"Event `{one}`:\n\n{card.found_table(one, results)}" for one in names),
            *([f"{OTHERS.format(names[0])}\n\n{_others(names[0], {name: results, **beside})}"] if beside else []),
            card.boundaries(names[0], results),
            card.onsets(results),
            card.CHANGED,
            card.shortcuts(results),
            *(f"**{one}**" for one in card.survivors(results)),
            *_frames((agreement or {}).get("frames"), pictures, name),
            card.int8(results),
        ]
    )


def _others(event: str, nets: dict[str, Table]) -> str:
    """A row for each net, over all test sets: what leaving a part out costs, in numbers of clips."""
    lines = [f"| net | version | {' | '.join(report_folds.COLUMNS)} |", "|---" * (2 + len(report_folds.COLUMNS)) + "|"]
    for title, results in nets.items():
        tests = [table["int8"] for name, table in results["sets"].items() if name.endswith("test")]
        cells = report_folds.cells(event, report_folds.summed(event, tests))
        lines.append(f"| {title} | {results['version']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def agreement(table: Table) -> str:
    """Whether both graphs tell the same events in the agent."""
    lines = [
        "Whole test videos through the agent, fp32 in tract against int8 in ONNX Runtime. Boundaries: to a judgement "
        f"({table['period_s']:g} s), and exactly.",
        "",
        "| set | events fp32 / int8 | clips with the same labels | and boundaries | and exactly | largest shift |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in [*table["sets"].items(), ("all", table["all"])]:
        keys = ("same_labels", "same_within_a_judgement", "same_exactly")
        cells = [name, f"{row['events_fp32']} / {row['events_int8']}", *(share_text(row[key]) for key in keys)]
        lines.append(f"| {' | '.join(cells)} | {row['largest_shift_s']:g} s |")
    return "\n".join(lines)


def _frames(table: Table | None, pictures: Path, name: str) -> list[str]:
    if table is None:
        return ["Recall, curves and calibration error by frame: not measured; `agree` does it, without training."]
    labels = list(table["int8"]["recall"])
    lines = [
        "Frame by frame, the scores of the agent on the annotated test clips, temperature 1. Frames of one clip are "
        "alike, so there are no intervals. Sets without frame labels are not in it. A frame of `lying` has no motion: "
        "what is found of it is remembered.",
        "",
        f"| graph | clips | frames | {' | '.join(labels)} | calibration error |",
        "|---|---|---|" + "---|" * (len(labels) + 1),
    ]
    for graph, row in table.items():
        cells = [f"{hits} of {of} ({hits / of:.2f})" if of else "none" for hits, of in row["recall"].values()]
        lines.append(
            f"| {graph} | {row['clips']} | {row['frames']} | {' | '.join(cells)} | {row['calibration_error']:.3f} |"
        )
    path = report_actions.draw(table["int8"], labels, pictures / f"{name}-frames-test.png")
    return ["\n".join(lines), f"![frames of test: confusion, ROC and precision-recall, int8](report/{path.name})"]
