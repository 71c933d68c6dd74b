"""The part of the report about streams: how the agent's event intervals fit the truth, per label."""

from __future__ import annotations

from typing import Any

Table = dict[str, Any]
COLUMNS = ("f1@0.3", "f1@0.5", "f1@0.7", "recall@0.3", "false_per_hour")
ERRORS = ("start_error_s", "end_error_s", "decision_delay_s")


def render(scored: dict[str, Table]) -> str:
    """A row per file and label. A file maps labels to their figures, and ``all`` to those of all videos."""
    lines = [
        "Event intervals of `kinewatch replay` against the truth. F1 at a temporal overlap; errors, and the delay of "
        "the decision after the true start: median / 90th percentile over pairs that overlap by 0.3.",
        "",
        "| streams | label | true | found | F1@.3 | F1@.5 | F1@.7 | recall | false per hour | start | end | decided |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, table in scored.items():
        for label, row in table.items():
            if label == "all":
                continue
            cells = [name, label, str(row["truth"]), str(row["detections"])]
            cells += ["" if row.get(key) is None else f"{row[key]:.2f}" for key in COLUMNS]
            lines.append(f"| {' | '.join([*cells, *(_spread(row.get(key)) for key in ERRORS)])} |")
        whole = table["all"]
        lines.append(f"| {name} | {whole['videos']} videos, {whole['hours'] * 60:.1f} min |" + " |" * 10)
    return "\n".join(lines)


def _spread(row: Table | None) -> str:
    return "" if row is None or row["median"] is None else f"{row['median']:.2f} / {row['p90']:.2f} s"
