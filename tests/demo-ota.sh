#!/usr/bin/env bash
# Models over the air, from one end to the other, with real processes: a publisher, a web server, a broker, a device with two
# cameras, a subscriber.
#
#   tests/demo-ota.sh BUILD_DIR
#
# The device has falls as it was before its decisions were calibrated. Published are that, then the shipped one (it dates falls better;
# watched on model/progress, it takes over without a window lost), then a bad one (the device goes back by itself); the channel is
# halted. Every event is judged at the end. PYTHON: one with onnx.
set -euo pipefail
cd "$(dirname "$0")/.."

build=$1 python=${PYTHON:-python3}
work=.demo-ota
kinewatch=$PWD/$build/release/kinewatch
[[ $build == /* ]] && kinewatch=$build/release/kinewatch
broker=18831 rtsp=18555 web=18090 repo=18091
rm -rf "$work" && mkdir -p "$work"

. tests/demo-lib.sh
run() { printf '$ %s\n' "$*"; "$@"; }

metric() { metrics | grep -F "$1"; }
model() { "$kinewatch" model list --config "$work/kinewatch.toml" --json | python3 -c "
import json, sys
m = next(m for m in json.load(sys.stdin)['models'] if m['model'] == '$1')
sys.exit(not ($2))"; }

# package FROM VERSION: the shipped package as another release.
package() {
  cp -r "models/$1" "$work/$1-$2"
  sed -i "s/^version = .*/version = \"$2\"/" "$work/$1-$2/model.toml"
}

say "Two releases of falls: one network, decisions before and after they were calibrated; what they find of two falls"
version() { sed -n 's/^version = "\(.*\)"/\1/p' "models/$1/model.toml" | head -n 1; }
first=0.1.0 better=$(version falls) bad=9.0.0 interactions=$(version interactions)
package falls "$first"
sed -i -E 's/^(on|off|h_on) = .*/\1 = 0.5/; s/^smooth_s = .*/smooth_s = 1.0/; s/^lag_start_s = .*/lag_start_s = 0.0/' "$work/falls-$first/model.toml"
for release in "$work/falls-$first" models/falls; do
  printf '%s\n' "$release"
  "$kinewatch" eval --model "$release" --videos tests/data --truth tests/data/room.json --label fall --backend tract 2>/dev/null | head -n 10
done

say "The publisher: keys, a repository, the models as the device has them"
(
  cd "$work"
  gates=(--shadow-windows 60 --shadow-agreement 0.9 --probation-windows 60 --probation-s 5)
  run "$kinewatch" publish init repo --keys keys
  run "$kinewatch" publish add repo "falls-$first" --keys keys
  run "$kinewatch" publish add repo ../models/interactions --keys keys
  run "$kinewatch" publish channel set repo stable --model falls --version "$first" --keys keys "${gates[@]}"
  run "$kinewatch" publish channel set repo stable --model interactions --version "$interactions" --keys keys "${gates[@]}"
)
python3 -u -m http.server --bind 127.0.0.1 --directory "$work/repo" "$repo" >"$work/http.log" 2>&1 &
children+=($!)

say "The device: two cameras, two models, the broker inside"
"$build/release/examples/rtsp-serve" --port "$rtsp" --loop room=tests/data/room-1.mp4 two=tests/data/room-2.mp4 >"$work/rtsp.log" &
children+=($!)
wait_for "the RTSP server" "grep -q rtsp:// '$work/rtsp.log'"
{
  printf '[device]\nname = "demo"\ngroup = "home"\nstate_dir = "%s/state"\n\n' "$PWD/$work"
  printf '[mqtt]\nurl = "mqtt://127.0.0.1:%s"\nembedded = true\n\n[web]\nlisten = "127.0.0.1:%s"\n\n' "$broker" "$web"
  printf '[updates]\nurl = "http://127.0.0.1:%s"\nroot = "%s/repo/metadata/1.root.json"\npoll_s = 2\nclock = "trusted"\nreserve_mb = 0\n' \
    "$repo" "$PWD/$work"
  printf '\n[[model]]\nname = "falls"\npath = "%s/%s/falls-%s"\n' "$PWD" "$work" "$first"
  printf '\n[[model]]\nname = "interactions"\npath = "%s/models/interactions"\n' "$PWD"
  printf '\n[[camera]]\nname = "room"\nsource = "rtsp://127.0.0.1:%s/room"\nmodels = ["falls"]\n' "$rtsp"
  printf '\n[[camera]]\nname = "two"\nsource = "rtsp://127.0.0.1:%s/two"\nmodels = ["interactions"]\n' "$rtsp"
} >"$work/kinewatch.toml"
"$kinewatch" run --config "$work/kinewatch.toml" 2>"$work/daemon.log" &
daemon=$!
children+=($daemon)
wait_for "the broker" "exec 3<>/dev/tcp/127.0.0.1/$broker"
"$kinewatch" events tail --broker "mqtt://127.0.0.1:$broker" --topic 'kinewatch/#' --json >"$work/messages.txt" 2>/dev/null &
children+=($!)
wait_for "the device to have asked" "model falls \"m['checked_at']\""
run "$kinewatch" model list --config "$work/kinewatch.toml"

say "The better release is published; what the device says meanwhile (model/progress)"
(
  cd "$work"
  run "$kinewatch" publish add repo ../models/falls --keys keys
  run "$kinewatch" publish channel set repo stable --model falls --version "$better" --keys keys
)
wait_for "falls $better to prove itself" "model falls \"m['state'] == 'idle' and m['installed']['version'] == '$better'\"" 600
grep -a 'model/progress' "$work/messages.txt" | cut -f 2 | python3 -c "
import json, sys
last = None
for line in sys.stdin:
    p = json.loads(line)
    if p['state'] != last:
        print(f\"  {p['state']}: {p['done']}\" + (f\" of {p['of']}\" if p['of'] else ''))
        last = p['state']"
run "$kinewatch" model history falls --config "$work/kinewatch.toml"
say "Windows that were left out, by reason"
metric kinewatch_windows_dropped_total
if metric kinewatch_windows_dropped_total | grep -v ' 0$'; then echo "error: windows were left out" >&2 && exit 1; fi

say "A bad release is published: its golden clips hold, and on live video it computes what is no number"
package falls "$bad"
"$python" -m kinewatch_models.fixtures.spoil "$work/falls-$bad"
(
  cd "$work"
  run "$kinewatch" publish add repo "falls-$bad" --keys keys
  run "$kinewatch" publish channel set repo stable --model falls --version "$bad" --keys keys --shadow-windows 0
)
wait_for "falls $bad to be found out" "model falls \"m['state'] == 'idle' and len(m['quarantine']) == 1\"" 600
run "$kinewatch" model list --config "$work/kinewatch.toml"

say "The publisher halts it"
(cd "$work" && run "$kinewatch" publish halt repo stable --model falls --keys keys)
wait_for "the halt to be heard" "model falls \"m['offered']['halted']\""
run "$kinewatch" model list --config "$work/kinewatch.toml"

kill -TERM "$daemon" && wait "$daemon" || true
say "Every message that the subscriber had is judged"
"$build/release/examples/judge" "$work/messages.txt"
# Another judge, which knows nothing of this project's code.
if [[ -n ${CHECK:-} ]]; then python3 "$CHECK" --closed "$work/messages.txt" | tail -n 1; fi
