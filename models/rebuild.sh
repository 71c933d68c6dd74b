#!/usr/bin/env bash
# Rebuild the packages, results/ and REPORT.md: rebuild.sh KINEWATCH_MODELS DATA WORK KINEWATCH [SCORE].
# Killed, it goes on where it stopped. A changed recipe is a new run; after changed scenarios, code, data or agent give
# another WORK. KINEWATCH is the agent (which needs ORT_DYLIB_PATH); SCORE, a script that takes --truth and --events, adds
# the figures of spliced streams. About a day of one core; the packages come first, after one.
set -euo pipefail
km=$(realpath "$1") data=$(realpath "$2") work=$(realpath -m "$3") agent=$(realpath "$4") score=${5:-}
[[ -z $score ]] || score=$(realpath "$score")
cd "$(dirname "$0")"
cache=$work/frames sim=$work/sim results=$PWD/results
mkdir -p "$work/recipes" "$cache" "$sim" "$results"
cp recipes/*.LICENSE "$work/recipes/"

once() { # once MARK COMMAND…: run a command unless it has once been done
  [[ ! -e $1 ]] || return 0
  mkdir -p "$(dirname "$1")"
  echo "$(date +%H:%M) ${*:2}"
  "${@:2}"
  touch "$1"
}

edited() { # edited RECIPE OUT EDIT…: a recipe changed by sed
  sed "${@:3}" "$1" >"$2"
  ! cmp -s "$1" "$2" || { echo "rebuild.sh: nothing changes in $1: ${*:3}" >&2; exit 1; }
}
hash_of() { cat "$@" | sha256sum | cut -c1-8; }

rendered() { # rendered NAME FILE SCENARIO SEED CLIPS OPTION…
  local file=recipes/scenarios/$2.toml
  once "$sim/$1-$(hash_of <(echo "${*:3}") "$file").done" "$km" simulate --out "$sim/$1" --file "$file" --fps 15 \
    --scenario "$3" --seed "$4" --clips "$5" "${@:6}"
}
rendered falls falls falls 100 40 --width 192 --height 144 --mesh 0.03
rendered daily falls daily 101 18 --width 192 --height 144 --mesh 0.03
rendered val-falls falls falls 900 6 --width 256 --height 192 --mesh 0.024 --subset val
rendered val-daily falls daily 901 4 --width 256 --height 192 --mesh 0.024 --subset val
rendered lie-down falls lie_down 102 18 --width 192 --height 144 --mesh 0.03
rendered val-lie-down falls lie_down 902 3 --width 256 --height 192 --mesh 0.024 --subset val

run_of() { echo "$work/$(basename "$1" .toml)-$(hash_of "$1")"; }
clips_of() { # clips_of RECIPE: sets `clips` to where the clips of its package are
  clips=(--data "$data")
  [[ $(basename "$1") == falls* ]] || return 0
  for part in falls daily val-falls val-daily; do clips+=(--data "$sim/$part"); done
  [[ $(basename "$1") != falls-lying-down.toml ]] || clips+=(--data "$sim/lie-down" --data "$sim/val-lie-down")
}

measured() { # measured RECIPE: train and measure; sets `run`
  run=$(run_of "$1")
  clips_of "$1"
  once "$run/prepare.done" "$km" prepare "$1" "${clips[@]}" --cache "$cache"
  once "$run/train.done" "$km" train "$1" "${clips[@]}" --cache "$cache" --run "$run"
  once "$run/export.done" "$km" export "$1" --run "$run"
  once "$run/quantise.done" "$km" quantise "$1" "${clips[@]}" --cache "$cache" --run "$run"
  once "$run/calibrate.done" "$km" calibrate "$1" "${clips[@]}" --cache "$cache" --run "$run" --agent "$agent"
  once "$run/evaluate.done" "$km" evaluate "$1" "${clips[@]}" --cache "$cache" --run "$run"
}

for name in falls interactions fights; do
  measured recipes/$name.toml
  [[ -e $name/model.toml ]] && cmp -s "$run/results.json" $name.results.json || "$km" package recipes/$name.toml --run "$run" --out $name
  once "$run/scalers.done" "$km" scalers recipes/$name.toml "${clips[@]}" --cache "$cache" --run "$run"
  cp "$run/scalers.json" "$results/$name.scalers.json"
  once "$run/ranges.done" "$km" ranges recipes/$name.toml "${clips[@]}" --cache "$cache" --run "$run"
  cp "$run/ranges.json" "$results/$name.ranges.json"
  "$agent" model check $name --json >"$results/$name.check.json"
  "$agent" model bench $name --json >"$results/$name.bench.json"
  "$km" agree recipes/$name.toml $name "${clips[@]}" --agent "$agent" --out "$results/$name.agreement.json"
done

beside() { # beside NAME TITLE EDIT…: another net on the same clips, its recipe made by sed from that of NAME
  local recipe=$work/recipes/$1-$2.toml
  edited "recipes/$1.toml" "$recipe" "${@:3}"
  measured "$recipe"
  cp "$run/results.json" "$results/$1-$2.beside.json"
}
five=(-e 's/^rate_hz = 10/rate_hz = 5/' -e 's/^difference_gain = 2.2/difference_gain = 1.5/' -e 's/^window = 24/window = 12/' \
  -e 's/^loss_from = 6/loss_from = 3/')
beside falls five-hz "${five[@]}"
beside falls lying-down -e '/^dataset = "simulated"/,/^weight/ s/^classes = .*/classes = { fall = "falling", lying = "lying", lying_down = "background" }/'
beside falls frames-alone -e 's/^shift_from_block = .*/shift_from_block = 99/' -e '/^gru_units/d'
beside falls no-rooms -e '/^dataset = "simulated"/,/^weight/ s/^weight = .*/weight = 0.0/'
beside falls no-backwards -e 's/^\[train\]/&\nreversed = 0.0\nfrozen = 0.0/'
ceiling=(-e 's/^overhead = .*/&\noverhead_weight = 3.0/')
beside falls ceiling "${ceiling[@]}"
beside falls seed-1 -e 's/^seed = .*/seed = 1/'
for seed in 1 2; do beside interactions seed-$seed -e "s/^seed = .*/seed = $seed/"; done
for seed in 0 1 2; do
  beside interactions online-seed-$seed -e 's/"tsn"/"tsm-online"/' -e 's/^loss_from = .*/loss_from = 2/' \
    -e "s/^seed = .*/seed = $seed/"
done
beside fights tsn -e 's/"tsm-online"/"tsn"/' -e 's/^loss_from = .*/loss_from = 0/'
beside fights rgb -e 's/^input = ".*/input = "rgb"/'
beside fights no-mixup -e '/^mixup/d'
beside fights few-views -e 's/^strange_views = .*/strange_views = 0.1/'
for name in falls interactions fights; do beside $name no-average -e '/^average/d'; done

left_out() { # left_out NAME RECIPE SET…
  run=$(run_of "$2")/left-out
  clips_of "$2"
  once "$run/$(hash_of <(echo "${*:3}")).done" "$km" leave-out "$2" "${clips[@]}" --cache "$cache" --run "$run" \
    --agent "$agent" "${@:3}"
  cp "$run/leave-out.json" "$results/$1.leave-out.json"
}
wrong() { # wrong NAME RECIPE OPTION…: where the folds in `run` were wrong
  clips_of "$2"
  if [[ ! -e $run/$1.conditions.json ]]; then
    echo "$(date +%H:%M) $km conditions $2 ${*:3}"
    "$km" conditions "$2" "${clips[@]}" --cache "$cache" --run "$run" "${@:3}"
    mv "$run/conditions.json" "$run/$1.conditions.json"
  fi
  cp "$run/$1.conditions.json" "$results/"
}
sets=(urfd/P1 urfd/P2 urfd/P3 gmdcsa24 urfd up-fall)
left_out falls recipes/falls.toml "${sets[@]/#/--left-out=}"
# *-again.*.json are not rebuilt: three of these folds, and the nets of fights and interactions, trained once more, by later
# code on another processor.
wrong falls recipes/falls.toml
other() { # other TITLE "SET…" EDIT…: another recipe of falls, on what is left out
  edited recipes/falls.toml "$work/recipes/falls-$1.toml" "${@:3}"
  local wanted
  read -ra wanted <<<"$2"
  left_out "falls-$1" "$work/recipes/falls-$1.toml" "${wanted[@]/#/--left-out=}"
}
other five-hz "${sets[*]}" "${five[@]}"
other ceiling "${sets[*]}" "${ceiling[@]}"
short=("${five[@]}" -e '/^gru_units/d' -e 's/^window = 12/window = 8/' -e '/^loss_from/d')
other five-hz-short "urfd/P1 urfd/P3" "${short[@]}"
other five-hz-short-upright "urfd/P1 urfd/P3" "${short[@]}" -e '/^overhead/d'

folds() { # folds NAME RECIPE COUNT SEED…
  clips_of "$2"
  for seed in "${@:4}"; do
    run=$(run_of "$2")/seed-$seed-of-$3
    once "$run/done" "$km" crossval "$2" "${clips[@]}" --cache "$cache" --run "$run" --folds "$3" --seed "$seed"
    cp "$run/crossval.json" "$results/$1-seed-$seed.crossval.json"
    wrong "$1-seed-$seed" "$2"
  done
}
folds fights recipes/fights.toml 5 0 1 2
folds fights-no-mixup "$work/recipes/fights-no-mixup.toml" 5 0 1 2
folds interactions recipes/interactions.toml 16 0 1 2
folds interactions-online "$work/recipes/interactions-online-seed-0.toml" 4 0

curve() { # curve NAME RECIPE OPTION…: what a share of the groups teaches
  run=$(run_of "$2")/curve
  clips_of "$2"
  once "$run/$(hash_of <(echo "${*:3}")).done" "$km" curve "$2" "${clips[@]}" --cache "$cache" --run "$run" "${@:3}"
  cp "$run/curve.json" "$results/$1.curve.json"
}
curve fights recipes/fights.toml --seed={0,1,2} --share={0.25,0.5,1}
curve falls recipes/falls.toml --seed=0 --share={0.33,0.66,1}
curve falls-five-hz "$work/recipes/falls-five-hz.toml" --seed=0 --share={0.33,1}

compared() { # compared NAME DATA…: architectures side by side
  local recipe=recipes/compare/$1.toml clips=("${@:2}")
  run=$work/compare-$1-$(hash_of "$recipe")
  once "$run/prepare.done" "$km" prepare "$recipe" "${clips[@]/#/--data=}" --cache "$cache"
  once "$run/done" "$km" compare "$recipe" "${clips[@]/#/--data=}" --cache "$cache" --run "$run" --agent "$agent"
  cp "$run/compare.json" "$results/$1.compare.json"
}
compared interactions "$data"
compared gestures "$data"
coarse=(--width 128 --height 96 --mesh 0.04 --oversample 1)
rendered order-train order order 300 720 "${coarse[@]}"
rendered order-val order order 301 60 "${coarse[@]}" --subset val
rendered order-test order order 302 240 "${coarse[@]}" --subset test
compared order "$sim"/order-{train,val,test}

streams=$work/streams-$(hash_of recipes/interactions.toml)
once "$streams.done" "$km" splice recipes/interactions.toml --data "$data" --out "$streams"
scored() { # scored NAME PACKAGE TRUTH VIDEO…: how well the events of the agent fit the truth
  [[ -n $score ]] || return 0
  "$agent" replay "${@:4}" --model "$2" --events "$work/events.jsonl" >/dev/null
  python3 "$score" --truth "$3" --events "$work/events.jsonl" >"$results/$1.intervals.json"
}
stated() { # stated NAME TRUTH VIDEOS: how uncertain the times of a package are, from videos of val
  rm -rf "$work/$1-stated"
  "$agent" calibrate --only-uncertainty --folds 0 --backend ort --precision int8 --model "$1" --truth "$2" --videos "$3" \
    --out "$work/$1-stated" >/dev/null
  cp "$work/$1-stated"/{model.toml,CALIBRATION.md} "$1/"
}
once "$streams-val.done" "$km" splice recipes/interactions.toml --data "$data" --out "$streams-val" --split val --streams 6
stated interactions "$streams-val/annotations.json" "$streams-val"
mkdir -p "$work/val"
cp "$sim"/val-{falls,daily}/*.mp4 "$work/val/"
python3 - "$data" "$sim"/val-{falls,daily}/annotations.json >"$work/val/truth.json" <<'PYTHON'
import json, pathlib, shutil, sys
data, *rendered = map(pathlib.Path, sys.argv[1:])
whole = json.load(open(data / "falls/annotations.json"))["database"]
val = {path: entry for path, entry in whole.items() if entry["subset"] == "val"}
for path in val:
    shutil.copy(data / path, pathlib.Path(rendered[0]).parents[2] / "val")
for file in rendered:
    val |= json.load(open(file))["database"]
json.dump({"database": {pathlib.Path(path).name: entry for path, entry in val.items()}}, sys.stdout)
PYTHON
stated falls "$work/val/truth.json" "$work/val"

scored interactions-spliced interactions "$streams/annotations.json" "$streams"/*.mp4
for set in urfd:falls gmdcsa24:rooms; do
  mapfile -t videos < <(awk -F, -v set="${set%:*}" '$2 == set && $4 == "test" { print $1 }' "$data/clips.csv")
  python3 - "$data/${set#*:}/annotations.json" "${videos[@]}" >"$work/truth.json" <<'PYTHON'
import json, sys
whole = json.load(open(sys.argv[1]))["database"]
json.dump({"database": {path: whole[path] for path in sys.argv[2:] if path in whole}}, sys.stdout)
PYTHON
  scored "falls-${set%:*}-test" falls "$work/truth.json" "${videos[@]/#/$data/}"
done
rendered company ../../src/kinewatch_models/simulate/scenarios company 500 18 --width 320 --height 240 --mesh 0.024 \
  --subset test
scored falls-company falls "$sim/company/annotations.json" "$sim"/company/*.mp4
lying_down=$work/recipes/falls-lying-down.toml
"$km" package "$lying_down" --run "$(run_of "$lying_down")" --out "$work/falls-lying-down" >/dev/null
scored falls-lying-down-company "$work/falls-lying-down" "$sim/company/annotations.json" "$sim"/company/*.mp4
"$km" report falls interactions fights --out REPORT.md --results "$results"
