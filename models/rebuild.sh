#!/usr/bin/env bash
# Rebuild the packages and the report from the data: rebuild.sh KINEWATCH_MODELS DATA WORK [KINEWATCH [SCORE]].
# Killed, it goes on where it stopped. KINEWATCH (the agent) adds its speeds; SCORE (a script that takes --truth and
# --events) adds the figures of spliced streams. A changed recipe is a new run.
set -euo pipefail
km=$(realpath "$1") data=$(realpath "$2") work=$(realpath -m "$3") agent=${4:-} score=${5:-}
[[ -z $agent ]] || agent=$(realpath "$agent")
[[ -z $score ]] || score=$(realpath "$score")
cd "$(dirname "$0")"
cache=$work/frames sim=$work/sim
mkdir -p "$work/recipes" "$cache" "$sim"

once() { # once MARK COMMAND…: run a command unless it has once been done
  [[ ! -e $1 ]] || return 0
  mkdir -p "$(dirname "$1")"
  echo "$(date +%H:%M) ${*:2}"
  "${@:2}"
  touch "$1"
}

rendered() { # rendered NAME SCENARIO SEED CLIPS OPTION…
  once "$sim/$1.done" "$km" simulate --out "$sim/$1" --file recipes/scenarios/falls.toml --fps 15 \
    --scenario "$2" --seed "$3" --clips "$4" "${@:5}"
}
rendered falls falls 100 40 --width 192 --height 144 --mesh 0.03
rendered daily daily 101 18 --width 192 --height 144 --mesh 0.03
rendered val-falls falls 900 6 --width 256 --height 192 --mesh 0.024 --subset val
rendered val-daily daily 901 4 --width 256 --height 192 --mesh 0.024 --subset val

run_of() { echo "$work/$(basename "$1" .toml)-$(sha256sum <"$1" | cut -c1-8)"; }
clips_of() { # clips_of NAME: sets `clips` to where the clips of a package are
  clips=(--data "$data")
  [[ $1 == falls ]] || return 0
  for part in falls daily val-falls val-daily; do clips+=(--data "$sim/$part"); done
}

for name in falls interactions fights; do
  recipe=recipes/$name.toml run=$(run_of "$recipe")
  clips_of $name
  once "$run/prepare.done" "$km" prepare "$recipe" "${clips[@]}" --cache "$cache"
  once "$run/train.done" "$km" train "$recipe" "${clips[@]}" --cache "$cache" --run "$run"
  once "$run/export.done" "$km" export "$recipe" --run "$run"
  for step in quantise calibrate evaluate; do
    once "$run/$step.done" "$km" $step "$recipe" "${clips[@]}" --cache "$cache" --run "$run"
  done
  cmp -s "$run/results.json" $name.results.json || "$km" package "$recipe" --run "$run" --out $name
done

report=()
folds() { # folds RECIPE COUNT SEED…
  for seed in "${@:3}"; do
    run=$(run_of "$1")/$(basename "$1" .toml)-seed-$seed
    once "$run/crossval.done" "$km" crossval "$1" --data "$data" --cache "$cache" --run "$run" --folds "$2" --seed "$seed"
    report+=(--crossval "$run/crossval.json")
  done
}
without_shift() { # the same net and budget that sees frames alone: TSN (Wang et al. 2016)
  sed -e '/^shift_from_block/d' -e 's/^\[net\]/&\nshift_from_block = 99/' "recipes/$1.toml" >"$work/recipes/$1-tsn.toml"
  cp "recipes/$1.LICENSE" "$work/recipes/"
  echo "$work/recipes/$1-tsn.toml"
}
folds recipes/interactions.toml 16 0 1 2
folds recipes/fights.toml 5 0 1 2
folds "$(without_shift interactions)" 16 0
folds "$(without_shift fights)" 5 0

run=$(run_of recipes/falls.toml)/falls
clips_of falls
left=(urfd/P1 urfd/P2 urfd/P3 urfd/P4 urfd gmdcsa24 up-fall)
once "$run/leave-out.done" "$km" leave-out recipes/falls.toml "${clips[@]}" --cache "$cache" --run "$run" \
  "${left[@]/#/--left-out=}"
report+=(--leave-out "$run/leave-out.json")

streams=$work/streams
once "$streams.done" "$km" splice recipes/interactions.toml --data "$data" --out "$streams"
if [[ -n $agent ]]; then
  for name in falls interactions fights; do
    "$agent" model bench $name --json >"$work/$name.bench.json"
    report+=(--bench "$work/$name.bench.json")
  done
  if [[ -n $score ]]; then
    "$agent" replay "$streams"/*.mp4 --model interactions --events "$work/events.jsonl" >/dev/null
    python3 "$score" --truth "$streams/annotations.json" --events "$work/events.jsonl" >"$work/interactions-spliced.json"
    report+=(--intervals "$work/interactions-spliced.json")
  fi
fi
"$km" report falls interactions fights --out REPORT.md "${report[@]}"
