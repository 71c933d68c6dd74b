"""Holds what another processor made of a video against what this one did: the same actions, scores within a tolerance.

    compare.py OURS THEIRS TOLERANCE    each a path without suffix: .jsonl has events, .csv the scores

Prints one line of figures; exits with 1, and the first difference, where they differ.
"""

import csv
import json
import sys


def told(path):
    """What a consumer acts on; ids and confidences follow from scores, which may differ in their last digits."""
    for line in open(path):
        data = json.loads(line)["data"]
        times = [data[key] and data[key]["pts_ns"] for key in ("start", "end", "decided_at")]
        yield (data["status"], data["label"], data["rev"], data["end_reason"], *times)


def main():
    ours, theirs, tolerance = sys.argv[1], sys.argv[2], float(sys.argv[3])
    expected, got = list(told(ours + ".jsonl")), list(told(theirs + ".jsonl"))
    if not expected:
        sys.exit("the reference has no event: nothing is compared")
    if expected != got:
        first = next((pair for pair in zip(expected, got) if pair[0] != pair[1]), (len(expected), len(got)))
        sys.exit(f"other events: {first[0]} here, {first[1]} there")
    tables = [list(csv.reader(open(path + ".csv"))) for path in (ours, theirs)]
    if [row[0] for row in tables[0]] != [row[0] for row in tables[1]] or tables[0][0] != tables[1][0]:
        sys.exit("scores of other moments or labels")
    differences = [
        abs(float(a) - float(b)) for left, right in zip(*tables) for a, b in zip(left[1:], right[1:]) if left is not tables[0][0]
    ]
    greatest = max(differences)
    figures = f"{len(got)} events equal, {len(differences)} scores within {greatest:.1e} (allowed {tolerance:g})"
    # Not a number is never equal.
    if not greatest <= tolerance:
        sys.exit(figures)
    print(figures)


main()
