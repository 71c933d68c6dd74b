"""Holds what another processor made of a video against what this one did: the same actions, scores within a tolerance.

    compare.py OURS THEIRS TOLERANCE    each a path without suffix: .jsonl has events, .csv the scores

Prints one line of figures; exits with 1, and the first difference, where they differ.
"""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path


def told(path: Path) -> Iterator[tuple[object, ...]]:
    """What a consumer acts on; ids and confidences follow from scores, which may differ in their last digits."""
    for line in path.read_text().splitlines():
        data = json.loads(line)["data"]
        times = [data[key] and data[key]["pts_ns"] for key in ("start", "end", "decided_at")]
        yield (data["status"], data["label"], data["rev"], data["end_reason"], *times)


def table(path: Path) -> list[list[str]]:
    """The scores: a row of labels, then one for each moment."""
    with path.open(newline="") as file:
        return list(csv.reader(file))


def main(ours: str, theirs: str, allowed: str) -> None:
    """Compares, and says how far apart they are."""
    tolerance = float(allowed)
    expected, got = list(told(Path(f"{ours}.jsonl"))), list(told(Path(f"{theirs}.jsonl")))
    if not expected:
        sys.exit("the reference has no event: nothing is compared")
    if expected != got:
        first = next(
            (pair for pair in zip(expected, got, strict=False) if pair[0] != pair[1]), (len(expected), len(got))
        )
        sys.exit(f"other events: {first[0]} here, {first[1]} there")
    (labels, *here), (others, *there) = table(Path(f"{ours}.csv")), table(Path(f"{theirs}.csv"))
    if labels != others or [row[0] for row in here] != [row[0] for row in there]:
        sys.exit("scores of other moments or labels")
    rows = zip(here, there, strict=True)
    differences = [abs(float(a) - float(b)) for row in rows for a, b in zip(row[0][1:], row[1][1:], strict=True)]
    greatest = max(differences)
    figures = f"{len(got)} events equal, {len(differences)} scores within {greatest:.1e} (allowed {tolerance:g})"
    # Not a number is never equal.
    if not greatest <= tolerance:
        sys.exit(figures)
    print(figures)


main(*sys.argv[1:4])
