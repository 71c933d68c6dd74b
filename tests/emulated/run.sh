#!/usr/bin/env bash
# The arm64 build, run for real without such a processor: in a Debian of that architecture whose systemd boots, every program
# by qemu. Its tests, its answers beside those of x86-64, its package as a service. Prints a table; the first failure ends it.
#
#   tests/emulated/run.sh BUILD_DIR ARM64_PACKAGE X86_64_KINEWATCH
set -euo pipefail
cd "$(dirname "$0")/../.."

build=$(realpath "$1") deb=$(realpath "$2") reference=$(realpath "$3")
work=$build/emulated
rm -rf "$work" && mkdir -p "$work"
rows=()

row() { # WHAT SAW BEGUN
  rows+=("| $1 | $2 | $((SECONDS - $3)) |")
  echo "$1: $2" >&2
}

fail() {
  echo "failed: $*" >&2
  exit 1
}

finish() {
  local status=$?
  for child in "${camera:-}" "${subscriber:-}"; do [[ -z $child ]] || kill "$child" 2>/dev/null || true; done
  # With the compilers that it started.
  [[ -z ${builder:-} ]] || kill -- "-$builder" 2>/dev/null || true
  # Nothing in it is worth an orderly stop; with its first process, everything inside ends.
  [[ -z ${leader:-} ]] || kill -KILL "$leader" || true
  [[ -z ${nspawn:-} ]] || kill "$nspawn" 2>/dev/null || true
  wait || true
  printf '\n| tried on emulated arm64 | what happened | s |\n|---|---|---|\n'
  printf '%s\n' "${rows[@]}"
  exit "$status"
}

# --- the container ---------------------------------------------------------------------------------------------------

inside() { nsenter --target "$leader" --all -- env -i "${known[@]}" "$@"; }

# The same for what goes on, with `&`: not among the container's processes, it cannot hold up its end.
beside() { exec nsenter --target "$leader" --mount --uts --ipc --net --root --wd -- env -i "${known[@]}" "$@"; }

# The nearest that qemu has to an Orin's processor: vectors and dot products, but none of the scalable vectors of its `max`,
# for which other code would run than on a Jetson.
known=(PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=/root QEMU_CPU=cortex-a76)

# within SECONDS WHAT COMMAND...
within() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS > end)); then
      inside journalctl --no-pager --lines=30 >&2 || true
      fail "waited too long for $what"
    fi
    sleep 0.5
  done
}

# The emulator does not do everything that systemd asks for (credentials of its own units): `degraded` is up, too.
booted() { case $(inside systemctl is-system-running) in running | degraded) ;; *) return 1 ;; esac; }

boot() {
  local root begun=$SECONDS
  root=$(tests/systemd/root.sh "$build" arm64)
  systemd-nspawn --quiet --boot --volatile=overlay --private-network --machine=kinewatch-arm64 --keep-unit --register=no \
    --console=pipe --resolv-conf=off --bind-ro="$PWD:/src" --bind-ro="$build/cross/target:/build" --bind="$work:/exchange" \
    --directory="$root" </dev/null >"$work/console.log" 2>&1 &
  nspawn=$!
  local end=$((SECONDS + 120))
  until leader=$(pgrep --parent "$nspawn" | head -n 1) && [[ -n $leader ]] && booted 2>/dev/null; do
    ((SECONDS < end)) || fail "the container does not boot: $(tail -n 5 "$work/console.log")"
    sleep 0.5
  done
  row "boot" "$(inside uname --machine), $(inside systemctl --version | head -n 1)" "$begun"
}

# --- what is tried ---------------------------------------------------------------------------------------------------

# Of the libraries that decide, store and tell; ONNX Runtime is not among what is built.
build_tests() {
  local selected=(--lib --test clocks --test traces --test conformance --test contract --test misbehaviour)
  exec setsid cross/build.sh "$build" arm64 test --no-run "${selected[@]}" --message-format=json-render-diagnostics \
    >"$work/tests.json" 2>"$work/build.log"
}

unit_tests() {
  # Every package once more, in batches and beside itself: many minutes by qemu, and the same kernels as the other tests.
  local long=(--skip a_batch_equals_its_parts --skip after_a_gap_a_stream_is_as_fresh)
  wait "$builder" || fail "the tests are not built: $(grep -A 5 '^error' "$work/build.log" | head -n 20)"
  builder=
  python3 - "$work/tests.json" >"$work/tests.txt" <<'PY'
import json, os, sys
for line in open(sys.argv[1]):
    message = json.loads(line)
    if message.get("reason") == "compiler-artifact" and message["profile"]["test"] and message["executable"]:
        folder = os.path.dirname(message["manifest_path"])
        print(os.path.basename(folder), message["target"]["name"], folder, message["executable"])
PY
  local crate name folder program
  for crate in core engine store mqtt capture; do
    local begun=$SECONDS passed=0 programs=0
    while read -r _ name folder program; do
      inside KINEWATCH_TEST_ORT=0 INSTA_WORKSPACE_ROOT=/src INSTA_UPDATE=no timeout --verbose 1800 \
        bash -c "cd $folder && exec $program --test-threads=2 ${long[*]}" </dev/null >"$work/$crate-$name.log" 2>&1 \
        || fail "$crate/$name: $(grep -E '^test .*FAILED|panicked|^timeout:' "$work/$crate-$name.log" | head -n 5)"
      passed=$((passed + $(sed -n 's/^test result: ok. \([0-9]*\) passed.*/\1/p' "$work/$crate-$name.log")))
      programs=$((programs + 1))
    done < <(grep "^$crate " "$work/tests.txt")
    [[ $passed -gt 0 ]] || fail "no test of $crate was run"
    row "tests of \`$crate\`" "$passed passed, none failed; programs: $programs" "$begun"
  done
}

install() {
  local begun=$SECONDS
  cp "$deb" "$work/kinewatch.deb"
  inside install -D -m 644 /dev/stdin /etc/systemd/system/kinewatch.service.d/processor.conf <<<$'[Service]\nEnvironment=QEMU_CPU=cortex-a76'
  inside dpkg -i /exchange/kinewatch.deb >"$work/dpkg.log" 2>&1 || fail "dpkg -i: $(tail -n 3 "$work/dpkg.log")"
  # A machine that is busy with other work may need more than one try.
  within 300 "the service" active
  [[ $(state Type) == notify && $(state User) == kinewatch ]] || fail "another unit: $(state Type), $(state User)"
  row "\`dpkg -i\` of the package" "$(basename "$deb"): active as $(state User), $(inside kinewatch --version)" "$begun"
}

state() { inside systemctl show --property "$1" --value kinewatch; }

# The same code, sums in another order: scores may differ in their last digits, actions may not.
replays() {
  local clip model precision begun arguments
  while read -r clip model precision; do
    begun=$SECONDS
    arguments=("tests/data/$clip.mp4" --model "$model" --backend tract --precision "$precision")
    "$reference" replay "${arguments[@]}" --events "$work/x86.jsonl" --scores "$work/x86.csv" >"$work/replay.log" 2>&1 \
      || fail "replay here: $(tail -n 1 "$work/replay.log")"
    inside bash -c "cd /src && exec kinewatch replay ${arguments[*]} --events /exchange/arm.jsonl --scores /exchange/arm.csv" \
      </dev/null >"$work/replay.log" 2>&1 || fail "replay there: $(tail -n 1 "$work/replay.log")"
    row "\`replay\` of $clip.mp4, $(basename "$model") $precision" \
      "$(python3 models/emulated/compare.py "$work/x86" "$work/arm" 0.01)" "$begun"
  done <<'CLIPS'
bright tests/data/packages/tiny-bright fp32
room-1 models/falls fp32
CLIPS
}

# The service and mosquitto are arm64; the camera, as in life, is not.
service() {
  local begun=$SECONDS
  inside systemctl start mosquitto
  nsenter --target "$leader" --net -- "$(dirname "$reference")/examples/rtsp-serve" --loop --port 8554 front=tests/data/bright.mp4 \
    >"$work/rtsp.log" 2>&1 &
  camera=$!
  within 60 "the RTSP server" grep -q rtsp:// "$work/rtsp.log"
  beside mosquitto_sub -h 127.0.0.1 -q 1 -t 'kinewatch/#' -F '%t %p' >"$work/events.txt" 2>&1 &
  subscriber=$!
  inside tee /etc/kinewatch/kinewatch.toml >/dev/null <<'TOML'
[mqtt]
url = "mqtt://127.0.0.1:1883"

[[model]]
path = "/src/tests/data/packages/tiny-bright"

[[camera]]
name = "front"
source = "rtsp://127.0.0.1:8554/front"
TOML
  inside systemctl restart kinewatch
  within 180 "an action over MQTT" grep -q '"status":"ended"' "$work/events.txt"
  row "service: RTSP in, MQTT out" "$(grep -c '"status":"ended"' "$work/events.txt") action begun and ended, at mosquitto" "$begun"
}

# Stopped, so that it cannot say that it lives: systemd has to notice, and start it again.
watchdog() {
  local begun=$SECONDS pid before
  pid=$(state MainPID) before=$(state NRestarts)
  inside kill -STOP "$pid"
  within 150 "the watchdog" restarted
  within 120 "the service" active
  [[ $(state MainPID) != "$pid" ]] || fail "the same process"
  inside journalctl --no-pager --unit=kinewatch >"$work/journal.txt"
  grep -q 'Watchdog timeout' "$work/journal.txt" || fail "no watchdog in the journal"
  row "SIGSTOP of the process" "\"$(grep -o 'Watchdog timeout.*' "$work/journal.txt" | head -n 1)\"; started again: NRestarts=$(state NRestarts)" "$begun"
}

restarted() { [[ $(state NRestarts) -gt $before ]]; }
active() { [[ $(state ActiveState) == active ]]; }

purge() {
  local begun=$SECONDS
  inside dpkg --purge kinewatch >>"$work/dpkg.log" 2>&1 || fail "purge: $(tail -n 3 "$work/dpkg.log")"
  [[ $(state LoadState) == not-found ]] || fail "the unit is left"
  row "\`dpkg --purge\`" "nothing of the service left" "$begun"
}

[[ $(id -u) -eq 0 ]] || fail "a container is booted as root; run: sudo --preserve-env=PATH make test-arm64"
trap finish EXIT
build_tests &
builder=$!
boot
install
replays
service
watchdog
purge
unit_tests
