"""MODEL_CARD.md from a recipe and a result file; no figure in it is typed by hand."""

from __future__ import annotations

import math
from typing import Any

from kinewatch_models.arch.registry import ARCHITECTURES
from kinewatch_models.measure import SHOWN_S
from kinewatch_models.recipe import Recipe, SequenceSpec

Table = dict[str, Any]

CHANGED = (
    "Clips of the action that fire when they are played backwards, as one frozen frame of what comes after it, with "
    "frames shuffled, with the middle of the picture covered, and mirrored (which should change little)."
)
SHOULD_NOT_FIRE = {
    "reversed": "when clips are played backwards",
    "frozen": "at a picture that stands still",
    "shuffled": "when frames come in any order: that something moved much, then little, is enough",
    "border only": "with the middle of the picture covered: motion at its edges is enough",
}
SURVIVES = 0.5
"""Of what is found unchanged, so much is told where it is left after a change."""
FOUND = ("found", f"found of those shown for {SHOWN_S:g} s", "daily clips that fire", "false events")
"""Columns that count events; shown: so long does the last part last before the clip ends."""


def render(recipe: Recipe, results: Table) -> str:
    """The whole card."""
    action = recipe.sequences[0].name
    sections = [
        f"# {recipe.name} {recipe.version}",
        f"{recipe.description}. {licence(recipe)}",
        _what(recipe),
        "## Training data",
        bullets(recipe.provenance),
        _training(recipe, results),
        "## Measured",
        _method(recipe, results),
        found_table(action, results),
        f"The same with `{recipe.sequences[0].parts[0]}` alone, without waiting for what follows:",
        found_table(f"{recipe.sequences[0].parts[0]} alone", results),
        "## Boundaries",
        boundaries(action, results),
        onsets(results),
        "## Shortcuts",
        CHANGED,
        shortcuts(results),
        "## int8 against fp32",
        int8(results),
        "## Limits",
        bullets([*recipe.limits, *survivors(results)]),
    ]
    return "\n\n".join(sections) + "\n"


def licence(recipe: Recipe) -> str:
    """The licence, and why it is that."""
    because = f", because of **{recipe.license_reason}**" if recipe.license_reason else ""
    return f"Licence: {recipe.license}{because}."


def _what(recipe: Recipe) -> str:
    last = recipe.sequences[0]
    labels = ", ".join(f"`{name}`" for name in recipe.labels)
    return (
        f"{net(recipe)} Scores of every frame for {labels}; the event `{last.name}` is "
        f"{' then '.join(f'`{part}`' for part in last.parts)} within {last.within_s:g} s, from the start of the first "
        f"to the start of the last{_longest(last)}."
    )


def _longest(last: SequenceSpec) -> str:
    return "" if math.isinf(last.max_duration_s) else f", {last.max_duration_s:g} s at most"


def net(recipe: Recipe) -> str:
    """What the net is, and sees."""
    spec, size = recipe.net, recipe.input.size
    shift = f"Lin et al. 2019; shift of 1/{spec.shift_div} of the channels"
    kind = {
        "tsm-online": f"Online TSM ({shift}, from the past)",
        "tsm": f"TSM ({shift}, each way)",
        "tsn": "TSN (Wang et al. 2016)",
    }.get(spec.architecture) or _named(spec.architecture)
    memory = f" and a recurrent memory of {spec.gru_units} units" if spec.gru_units else ""
    window = "" if recipe.plan == "online" else f" in windows of {recipe.train.window}"
    change = f"{spec.difference_gain:g} times the difference to the frame before, formed inside the graph"
    seen = {"rgb": "the frame", "difference": change, "both": f"the frame and {change}"}[spec.input]
    return (
        f"{kind}{memory} on {spec.backbone}, {size}x{size} stretched, {recipe.rate_hz:g} frames a second{window}. "
        f"Input of the first layer: {seen}."
    )


def _named(architecture: str) -> str:
    row = ARCHITECTURES[architecture]
    return f"{row.name} ({row.reference}): {row.adds}"


def _training(recipe: Recipe, results: Table) -> str:
    counts = results["training"]
    return (
        f"{counts['actions']} clips with the action ({counts['actions_annotated']} of them with frame labels; only "
        f"these are trained on) and {counts['daily']} of daily life, {counts['simulated']} of all these rendered; "
        f"{recipe.train.epochs} epochs, one run, seed {results['seed']}, {_kept(recipe)}, no checkpoint picked. "
        "Falls played backwards, frozen pictures and deliberate lying down are never `falling`."
    )


def _kept(recipe: Recipe) -> str:
    return "moving average of the weights" if recipe.train.average else "last epoch"


def _method(recipe: Recipe, results: Table) -> str:
    chosen = results["calibration"]["chosen_on"]
    shared = ", ".join(recipe.shared_groups) or "none"
    notes = bullets([f"{source.cite}: {source.note}." for source in recipe.sources])
    return (
        f"Thresholds and lags were chosen on the val clips only ({chosen['clips']} clips, both graphs together), "
        f"so those rows are optimistic; {chosen['hardly_shown']} actions, shown for less than {SHOWN_S:g} s, had no "
        "say. "
        f"Groups in both train and val: {shared}. Frames through the agent's capture chain; the scores that thresholds "
        "were chosen on are the agent's, those of the tables ONNX Runtime's; intervals from the decoder of this "
        "tool. In brackets: "
        f"95 % Wilson interval over clips.\n\n{notes}"
    )


def bullets(lines: list[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {line}" for line in lines)


def _rows(results: Table) -> list[tuple[str, str, Table]]:
    return [
        (name, precision, table[precision])
        for name, table in results["sets"].items()
        for precision in results["graphs"]
    ]


def found_table(key: str, results: Table) -> str:
    """Found and false events of every set."""
    lines = [f"| set | graph | {' | '.join(FOUND)} | video |", "|---|---|---|---|---|---|---|"]
    for name, precision, table in _rows(results):
        row = table[key]
        cells = [name, precision, *found_cells(row)]
        lines.append(f"| {' | '.join(cells)} | {row['seconds']:.0f} s |")
    return "\n".join(lines)


def found_cells(row: Table) -> list[str]:
    """The cells of `FOUND`."""
    counts = [share_text(row[key]) for key in ("found", "found_where_shown", "daily_fired")]
    return [*counts, str(row["false_events"])]


def onsets(results: Table) -> str:
    """When the last part of the action is said to begin, against the truth."""
    lines = ["| set | graph | label | found | error of its onset | within 0.25 s |", "|---|---|---|---|---|---|"]
    for name, precision, table in _rows(results):
        row = table["onset"]
        if row["error"]:
            cells = [f"`{row['label']}`", share_text(row["found"]), _spread(row["error"]), share_text(row["near"])]
            lines.append(f"| {name} | {precision} | {' | '.join(cells)} |")
    return "\n".join(lines)


def boundaries(key: str, results: Table) -> str:
    """Errors of begin and end, and the delay of the decision."""
    lines = [
        "Median and 90th percentile over found actions with frame labels. Start and end: absolute error; decided: "
        "after the true end of the fall (negative: before it).",
        "",
        "| set | graph | found | start | end | decided |",
        "|---|---|---|---|---|---|",
    ]
    for name, precision, table in _rows(results):
        row = table[key]
        if row["start_error"]:
            cells = [_spread(row[column]) for column in ("start_error", "end_error", "delay")]
            lines.append(f"| {name} | {precision} | {row['start_error']['n']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shortcuts(results: Table) -> str:
    """What fires without the motion of the action."""
    kinds = list(_rows(results)[0][2]["changed"])
    lines = [f"| set | graph | {' | '.join(kinds)} |", "|---|---" + "|---" * len(kinds) + "|"]
    for name, precision, table in _rows(results):
        lines.append(f"| {name} | {precision} | {' | '.join(share_text(table['changed'][kind]) for kind in kinds)} |")
    lines += [
        "",
        "Without a net: clips called the action by what only knows the length and shape of a clip, or by the training "
        "clip whose median picture is nearest.",
        "",
        "| set | by | clips of the action | daily clips |",
        "|---|---|---|---|",
    ]
    for name, table in results["sets"].items():
        for by, row in table["without a net"].items():
            lines.append(f"| {name} | {by} | {share_text(row['actions'])} | {share_text(row['daily'])} |")
    return "\n".join(lines)


def survivors(results: Table) -> list[str]:
    """A sentence for each change that should leave no fall and after which half as many falls fire still (int8)."""
    action = next(iter(next(iter(results["sets"].values()))["int8"]))
    found = []
    for change, meaning in SHOULD_NOT_FIRE.items():
        said = []
        for name, table in results["sets"].items():
            left, whole = table["int8"]["changed"][change], table["int8"][action]["found"]
            if whole["hits"] and left["hits"] >= SURVIVES * whole["hits"]:
                said.append(f"{name} {left['hits']} of {left['of']}, unchanged {whole['hits']}")
        if said:
            found.append(f"`{action}` still fires {meaning} ({'; '.join(said)}; int8).")
    return found


def int8(results: Table) -> str:
    """How far int8 is from fp32. How fast both are stands in the report: timings would make each card another."""
    row = results["int8_against_fp32"]
    return (
        f"Of {row['frames']} frames of all sets above {row['flips']} change their best class; logits differ by "
        f"{row['mean_abs_difference']:.3f} on average and {row['max_abs_difference']:.2f} at most (mean cosine "
        f"{row['mean_cosine']:.4f}); the number of events changes in {share_text(row['clips_with_other_events'])} "
        "clips."
    )


def share_text(row: Table) -> str:
    """A count with its interval."""
    if row["of"] == 0:
        return "none"
    return f"{row['hits']} of {row['of']} [{row['low']:.2f}, {row['high']:.2f}]"


def _spread(row: Table | None) -> str:
    return "none" if row is None else f"{row['median_s']:.2f} / {row['p90_s']:.2f} s"
