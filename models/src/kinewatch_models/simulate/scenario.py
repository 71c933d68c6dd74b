"""Scenarios: declarative scripts (``scenarios.toml``) and their staging with a seed.

Pure parsing plus choice: nothing is drawn here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from importlib import resources
from typing import Any

import numpy as np
import tomli

from . import furnish
from .error import ScenarioError
from .performance import Performance
from .ragdoll import FallStyle
from .room import Box

_STAGE_X = (-1.35, 1.35)

# lean (rad), push (m/s), spin (rad/s), tone (N·m), fade (s), knees (rad)
_STYLES: dict[str, tuple[float, float, float, float, float, float]] = {
    "trip": (0.0, 0.5, 1.6, 40.0, 0.9, 0.5),
    "slip": (math.pi, 0.6, 2.2, 40.0, 0.9, 0.3),
    "sideways": (math.pi / 2, 0.7, 1.5, 40.0, 0.9, 0.4),
    "faint": (0.6, 0.15, 0.8, 40.0, 1.0, 1.0),
}


@dataclass(frozen=True)
class Act:
    """One entry of a script: what to do, and its fields as written."""

    do: str
    fields: dict[str, Any]


def load(name: str, text: str | None = None) -> list[Script]:
    """The scripts of scenario ``name`` from ``text`` (TOML), or from the file that comes with the package."""
    source = text if text is not None else resources.files(__package__).joinpath("scenarios.toml").read_text("utf-8")
    try:
        table = tomli.loads(source)
    except tomli.TOMLDecodeError as error:
        raise ScenarioError(f"the scenario file is not TOML: {error}") from error
    if name not in table:
        raise ScenarioError(f"unknown scenario {name!r}; there are: {', '.join(sorted(table))}")
    try:
        scripts = [_script(script) for script in table[name]]
    except (AttributeError, KeyError, TypeError) as error:
        raise ScenarioError(f"scenario {name!r} must be a list of tables, [[{name}]], with `acts` of tables") from error
    if not scripts:
        raise ScenarioError(f"scenario {name!r} has no script: add [[{name}]]")
    return scripts


def _script(script: dict[str, Any]) -> Script:
    known = [one.name for one in fields(Script)]
    unknown = sorted(script.keys() - set(known))
    if unknown:
        raise ScenarioError(f"a script has no field {unknown[0]!r}; there are: {', '.join(known)}")
    others = [[_act(entry) for entry in acts] for acts in script.get("others", [])]
    if len(others) > MOST_OTHERS:
        raise ScenarioError(f"a script has {len(others)} `others`; there is room for {MOST_OTHERS}")
    acts = [_act(entry) for entry in script["acts"]]
    made = Script(**{**script, "acts": acts, "others": others, "view": _view(script)})
    if (made.backwards or made.last) and not made.label:
        raise ScenarioError("a script that is played backwards or shows its last act alone needs a `label`")
    if made.label and made.others:
        raise ScenarioError("a script with a `label` shows one person: it has no `others`")
    return made


def _view(script: dict[str, Any]) -> furnish.View:
    views = {view.value: view for view in furnish.View}
    if script.get("view", "wall") not in views:
        raise ScenarioError(f"unknown view {script['view']!r}; there are: {', '.join(sorted(views))}")
    return views[script.get("view", "wall")]


def _act(entry: dict[str, Any]) -> Act:
    given = {k: v for k, v in entry.items() if k != "do"}
    if entry.get("do") not in _ACTS:
        raise ScenarioError(f"unknown act {entry.get('do')!r}; there are: {', '.join(sorted(_ACTS))}")
    allowed = _FIELDS.get(entry["do"], set())
    for key in given.keys() - allowed:
        raise ScenarioError(f"act {entry['do']!r} has no field {key!r}")
    return Act(entry["do"], given)


@dataclass(frozen=True)
class Script:
    """One entry of a scenario: what is done, and from where it is seen.

    `others`: the acts of further people, who come in behind and before the first one. A clip is as long as what the
    first one does; whoever is done earlier stands, or lies on. Truth is of all of them.

    With a `label`, that is the truth of the whole clip, whatever is done; only then may it be played `backwards`, or
    show the `last` act alone.
    """

    acts: list[Act]
    others: list[list[Act]] = field(default_factory=list)
    view: furnish.View = furnish.View.WALL
    label: str = ""
    backwards: bool = False
    last: bool = False


@dataclass(frozen=True)
class Lane:
    """The floor that somebody walks on: around `z`, and within `depth` of it where a walk leads anywhere (m)."""

    z: float = furnish.STAGE_Z
    depth: float = 0.7


LANES = (Lane(), Lane(furnish.STAGE_Z - 1.15, 0.3), Lane(furnish.STAGE_Z + 1.15, 0.3))
"""Of the first person, and of others: the second behind, the third before."""
MOST_OTHERS = len(LANES) - 1


@dataclass
class Staged:
    """A finished performance and the furniture that it needs."""

    performance: Performance
    props: list[Box]
    lane: Lane
    last_begins: int = 0
    """Frame."""


def stage(acts: list[Act], fps: float, scale: float, random: np.random.Generator, lane: Lane) -> Staged:
    """Play ``acts``: the person comes in from a side of the picture."""
    side = float(random.choice([-1, 1]))
    start = (side * 2.6, lane.z + float(random.uniform(-0.4, 0.4)))
    staged = Staged(Performance(fps, start, math.pi if side > 0 else 0.0, random, scale), [], lane)
    for act in acts:
        staged.last_begins = staged.performance.count
        _ACTS[act.do](staged, act.fields, random)
    return staged


def _walk(staged: Staged, fields: dict[str, Any], random: np.random.Generator) -> None:
    lane, here = staged.lane, staged.performance.here
    to = fields.get("to", "anywhere")
    if to == "outside":
        goal = (math.copysign(3.4, here[0] or 1.0), lane.z)
    elif to == "middle":
        # Past the middle, so that a fall on the way is seen from the side and ends in the picture.
        beyond = -math.copysign(1.0, here[0])
        goal = (beyond * float(random.uniform(0.0, 0.3)), lane.z + float(random.uniform(-0.1, 0.3)))
    else:
        # Somewhere on the other side, so that the walk is seen.
        away = -math.copysign(1.0, here[0])
        across = float(random.uniform(0.7, _STAGE_X[1]))
        depth = float(random.uniform(lane.z - lane.depth, lane.z + lane.depth))
        goal = (away * across, depth)
    staged.performance.walk_to(goal, float(random.uniform(0.9, 1.1)))


def _stand(staged: Staged, fields: dict[str, Any], random: np.random.Generator) -> None:
    staged.performance.stand(_between(fields, "seconds", random))


def _sit(staged: Staged, fields: dict[str, Any], random: np.random.Generator) -> None:
    facing = float(random.uniform(-2.2, -0.9))
    staged.performance.turn_to(facing)
    here = staged.performance.here
    # The hips end about this far behind the middle of the feet.
    back = 0.42
    staged.props.extend(
        furnish.chair((here[0] - back * math.cos(facing), here[1] + back * math.sin(facing)), facing, random)
    )
    staged.performance.sit(_between(fields, "seconds", random))


def _pick_up(staged: Staged, fields: dict[str, Any], random: np.random.Generator) -> None:
    staged.performance.pick_up()


def _move(staged: Staged, fields: dict[str, Any], random: np.random.Generator) -> None:
    try:
        staged.performance.move(str(fields.get("name")))
    except FileNotFoundError as error:
        raise ScenarioError(f"no captured motion is called {fields.get('name')!r}") from error


def _fall(staged: Staged, fields: dict[str, Any], random: np.random.Generator) -> None:
    name = str(fields.get("style", "any"))
    if name == "any":
        name = str(random.choice(sorted(_STYLES)))
    if name not in _STYLES:
        raise ScenarioError(f"unknown fall style {name!r}; there are: any, {', '.join(sorted(_STYLES))}")
    lean, push, spin, tone, fade, knees = _STYLES[name]
    jitter = random.uniform(0.85, 1.15, 5)
    # To the side means towards the camera: there the floor is free.
    lean = math.copysign(lean, math.cos(staged.performance.heading)) * -1 + float(random.uniform(-0.3, 0.3))
    style = FallStyle(lean, push * jitter[0], spin * jitter[1], tone * jitter[2], fade * jitter[3], knees * jitter[4])
    staged.performance.fall(style, _between(fields, "lie_s", random))


def _lie_down(staged: Staged, fields: dict[str, Any], random: np.random.Generator) -> None:
    staged.performance.lie_down(_between(fields, "lie_s", random), float(random.uniform(0.9, 1.3)))


def _get_up(staged: Staged, fields: dict[str, Any], random: np.random.Generator) -> None:
    staged.performance.get_up(float(random.uniform(0.9, 1.1)))


def _between(fields: dict[str, Any], key: str, random: np.random.Generator) -> float:
    try:
        least, most = fields[key]
        seconds = float(random.uniform(least, most))
    except (KeyError, TypeError, ValueError) as error:
        raise ScenarioError(f"an act needs `{key} = [least, most]`, in seconds") from error
    if not seconds > 0:
        raise ScenarioError(f"`{key}` has to be above 0 seconds")
    return seconds


_ACTS: dict[str, Callable[[Staged, dict[str, Any], np.random.Generator], None]] = {
    "walk": _walk,
    "stand": _stand,
    "sit": _sit,
    "pick_up": _pick_up,
    "move": _move,
    "fall": _fall,
    "lie_down": _lie_down,
    "get_up": _get_up,
}
_FIELDS: dict[str, set[str]] = {
    "walk": {"to"},
    "stand": {"seconds"},
    "sit": {"seconds"},
    "move": {"name"},
    "fall": {"style", "lie_s"},
    "lie_down": {"lie_s"},
}
