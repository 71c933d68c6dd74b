"""`make models` takes a day. Here it runs whole on stand-ins that only write what the next step reads.

Every call has to be one that the command line takes, every result that the report is of has to be made, and a second
run does no work again.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from kinewatch_models import cli

MODELS = Path(__file__).parents[1]
TOLD = ("*.asked.json", "*.baseline.json", "*-again.*.json")
"""What is in `results/` and not measured by `rebuild.sh`: what was asked, what was before, and trainings once more."""
TOOL = """\
#!/usr/bin/env bash
set -euo pipefail
printf '%q ' "$@" >>"$0.calls"; echo >>"$0.calls"
out= run= command=$1
while (($#)); do
  case $1 in --out) out=$2 ;; --run) run=$2 ;; esac
  shift
done
case $command in
  train) mkdir -p "$run" ;;
  evaluate) echo '{}' >"$run/results.json" ;;
  scalers | ranges | conditions | curve | leave-out | crossval | compare)
    mkdir -p "$run"; echo '{}' >"$run/$command.json" ;;
  package) mkdir -p "$out"; touch "$out/model.toml" "$out/CALIBRATION.md"; cp "$run/results.json" "$out.results.json" ;;
  simulate | splice)
    mkdir -p "$out"; touch "$out/$(basename "$out")-1.mp4"; echo '{"database": {}}' >"$out/annotations.json" ;;
  agree | report) echo '{}' >"$out" ;;
esac
"""
AGENT = """\
#!/usr/bin/env bash
set -euo pipefail
echo '{}'
for at in $(seq $#); do
  next=$((at + 1))
  case ${!at} in
    --events) echo >"${!next}" ;;
    --out) mkdir -p "${!next}"; touch "${!next}/model.toml" "${!next}/CALIBRATION.md" ;;
  esac
done
"""
SCORE = "print('{}')\n"
LONG = {"simulate", "train", "evaluate", "leave-out", "crossval", "curve", "compare", "conditions", "calibrate"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A project with stand-ins instead of the tool, the agent and the data."""
    shutil.copytree(MODELS / "recipes", tmp_path / "models/recipes")
    scenarios = Path("src/kinewatch_models/simulate/scenarios.toml")
    (tmp_path / "models" / scenarios).parent.mkdir(parents=True)
    for file in (scenarios, Path("rebuild.sh")):
        shutil.copy(MODELS / file, tmp_path / "models" / file)
    for name, text in (("tool", TOOL), ("agent", AGENT), ("score.py", SCORE)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    rows = ["path,dataset,label,split,group"]
    for folder, dataset in (("falls", "urfd"), ("rooms", "gmdcsa24")):
        data = tmp_path / "data" / folder
        data.mkdir(parents=True)
        database = {}
        for split, subset in (("test", "test"), ("val", "val")):
            name = f"{folder}/{split}.mp4"
            (tmp_path / "data" / name).touch()
            database[name] = {"subset": subset, "duration": 1.0, "annotations": []}
            rows.append(f"{name},{dataset},fall,{split},{split}")
        (data / "annotations.json").write_text(json.dumps({"database": database}))
    (tmp_path / "data/clips.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def _rebuild(place: Path) -> list[list[str]]:
    """Runs `rebuild.sh`; the calls of the tool."""
    calls = place / "tool.calls"
    calls.unlink(missing_ok=True)
    arguments = [place / name for name in ("models/rebuild.sh", "tool", "data", "work", "agent", "score.py")]
    run = subprocess.run([str(one) for one in arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return [shlex.split(line) for line in calls.read_text().splitlines()]


def _check(calls: list[list[str]]) -> None:
    """Raises where the command line does not take a call."""
    group = typer.main.get_command(cli.app)
    simulator = typer.main.get_command(pytest.importorskip("kinewatch_models.simulate.cli").app)
    for command in [*group.commands.values(), simulator]:
        command.callback = lambda *_, **__: None
    for name, *arguments in calls:
        if name == "simulate":
            simulator.main(arguments, standalone_mode=False)
        else:
            group.main([name, *arguments], standalone_mode=False)


def test_it_runs_to_its_end_and_makes_what_the_report_is_of(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _rebuild(place)
    monkeypatch.chdir(place / "models")
    _check(calls)
    made = {path.name for path in (place / "models/results").iterdir()}
    told = {path.name for pattern in TOLD for path in (MODELS / "results").glob(pattern)}
    assert made == {path.name for path in (MODELS / "results").iterdir()} - told
    for name in ("falls", "interactions", "fights"):
        assert (place / "models" / name / "model.toml").exists()
    assert calls[-1][0] == "report"
    assert not {call[0] for call in _rebuild(place)} & LONG, "what is done is not done again"
