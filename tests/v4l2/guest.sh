#!/bin/sh
# The first process of the small machine. Each step either ends with a line `SAW|what|figure|seconds`, or the machine stops
# with `FAILED|what|why`. Everything is emulated, so times are generous and pictures small.
export PATH=/bin:/usr/bin HOME=/tmp GST_REGISTRY=/tmp/registry.bin LC_ALL=C.UTF-8
device=/dev/video0 log=/tmp/kinewatch.log patience=120

# --- tools -------------------------------------------------------------------------------------------------------------

now() { cut -d ' ' -f 1 /proc/uptime; }

# step WHAT FUNCTION: the function prints the figure, or fails with what was wrong as its last line.
step() {
  at=$(now)
  if figure=$($2 2>/tmp/why); then
    echo "SAW|$1|$figure|$(awk "BEGIN { printf \"%.1f\", $(now) - $at }")"
  else
    echo "FAILED|$1|$figure $(tail -n 1 /tmp/why)"
    echo "the log of kinewatch:" && cat "$log"
    power_off
  fi
}

power_off() { sync; poweroff -f; }

wrong() { echo "$*" >&2; return 1; }

# until_true WHAT COMMAND...: tries until it succeeds.
until_true() {
  what=$1 end=$(($(cut -d . -f 1 /proc/uptime) + patience))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$(cut -d . -f 1 /proc/uptime)" -lt "$end" ] || { wrong "not within $patience s: $what"; return 1; }
    sleep 0.5
  done
}

# A figure of the daemon, such as `metric frames_decoded_total`.
metric() { wget -qO - http://127.0.0.1:8089/metrics | sed -n "s/^kinewatch_$1{camera=\"cam\"} //p"; }
above() { [ "$(metric "$1")" -gt "$2" ]; }
equals() { [ "$(metric "$1")" -eq "$2" ]; }
said() { grep -q -- "$1" "$log"; }

# begin OPTIONS: the daemon on a camera with these options of its source.
begin() {
  {
    printf '[device]\nname = "vm"\nstate_dir = "/tmp/state"\n[mqtt]\nurl = "mqtt://127.0.0.1:1883"\n'
    printf '[engine]\nbackend = "tract"\n[[model]]\npath = "/models/tiny-bright"\n'
    printf '[[camera]]\nname = "cam"\nsource = "v4l2:%s%s"\n' "$device" "$1"
  } >/tmp/kinewatch.toml
  : >"$log"
  kinewatch run --config /tmp/kinewatch.toml --log-format json >/dev/null 2>"$log" &
  echo $! >/tmp/pid
  until_true "the daemon's page" wget -qO /dev/null http://127.0.0.1:8089/metrics
}

end() {
  kill -TERM "$(cat /tmp/pid)"
  until_true "the daemon's end" gone
}

# A process that has ended and that nobody asked about has no command line any more.
gone() { [ -z "$(cat "/proc/$(cat /tmp/pid)/cmdline" 2>/dev/null)" ]; }

frames() { until_true "$1 frames" above frames_decoded_total "$1"; }
negotiated() { v4l2-ctl -d "$device" --get-fmt-video --get-parm | sed -n "s|.*$1 *: *||p" | head -n 1; }
is_negotiated() { case $(negotiated "$1") in *"$2"*) ;; *) wrong "$1 is $(negotiated "$1"), not $2" ;; esac; }

# --- steps -------------------------------------------------------------------------------------------------------------

listed() {
  kinewatch devices >/tmp/devices || return
  grep -q "^v4l2:$device  vivid (vivid)" /tmp/devices || wrong "the first line is $(head -n 1 /tmp/devices)" || return
  # The largest pictures are the slowest ones.
  modes=$(sed -n 's/^    YUYV .*  //p' /tmp/devices)
  case $modes in 320x180*" at "*" 5, "*"; 640x360"*" at "*3840x2160*) ;; *) wrong "YUYV has $modes"; return 1 ;; esac
  echo "$(head -n 1 /tmp/devices), $(grep -c '^    ' /tmp/devices) formats; YUYV $modes"
}

yuyv() {
  begin '?format=yuyv&size=320x180&fps=5' && frames 15 || return
  is_negotiated 'Width/Height' 320/180 && is_negotiated 'Pixel Format' YUYV || return
  is_negotiated 'Frames per second' 5.000 || return
  echo "YUYV 320x180 at 5 a second: $(metric frames_decoded_total) frames, $(metric frames_total) of them to inference"
}

disconnected() {
  before=$(metric stream_sessions_total)
  v4l2-ctl -d "$device" --set-ctrl disconnect=1 >/dev/null || return
  # The driver takes itself back only when nobody holds it any more.
  until_true "a second session" above stream_sessions_total "$before" || return
  at=$(metric frames_decoded_total)
  frames $((at + 5)) || return
  echo "told: \"$(why)\"; let go, and frames again by itself"
}

why() { sed -n 's/.*"error":"\([^"]*\)".*/\1/p' "$log" | tail -n 1; }

unplugged() {
  before=$(metric stream_sessions_total)
  echo vivid.0 >/sys/bus/platform/drivers/vivid/unbind
  until_true "the node to go" test ! -e "$device" || return
  until_true "a word on it" said "is the camera plugged in" || return
  until_true "stream_up 0" equals stream_up 0 || return
  told=$(why)
  echo vivid.0 >/sys/bus/platform/drivers/vivid/bind
  until_true "another session; there is $(ls /dev/video*)" above stream_sessions_total "$before" || return
  at=$(metric frames_decoded_total)
  frames $((at + 5)) || return
  echo "told: \"$told\"; plugged in again, it is $(ls /dev/video*), and frames by itself"
}

stopped() {
  end || return
  said '"level":"ERROR"' && wrong "$(grep '"level":"ERROR"' "$log" | head -n 1)" && return 1
  v4l2-ctl -d "$device" --stream-mmap --stream-count=1 >/dev/null 2>&1 || wrong "the device was not let go" || return
  echo "by SIGTERM; the device is free"
}

raw() {
  begin '?size=320x180&fps=5' && frames 10 || return
  is_negotiated 'Width/Height' 320/180 || return
  chosen=$(negotiated 'Pixel Format')
  case $chosen in *YUYV*) wrong "YUYV again, where the choice is free"; return 1 ;; esac
  echo "$chosen: $(metric frames_decoded_total) frames"
}

rate() {
  end && begin '?format=yuyv&size=320x180&fps=2' && frames 6 || return
  is_negotiated 'Frames per second' 2.000 || return
  echo "2 a second: negotiated, $(metric frames_decoded_total) frames"
}

busy() {
  end || return
  v4l2-ctl -d "$device" --set-fmt-video=width=320,height=180,pixelformat=YUYV --stream-mmap >/dev/null 2>&1 &
  holder=$!
  sleep 2
  begin '?format=yuyv&size=320x180&fps=5' || return
  until_true "a word on it" said busy || return
  told=$(why)
  equals frames_decoded_total 0 || wrong "frames of a device that another process holds" || return
  kill $holder
  frames 5 || return
  echo "told: \"$told\"; let go: frames by itself"
}

size() {
  end && begin '?format=yuyv&size=333x222' || return
  until_true "a word on it" said "does not offer" || return
  equals frames_decoded_total 0 || return
  echo "told: \"$(why)\""
}

odd_rate() {
  end && begin '?format=yuyv&size=320x180&fps=7' || return
  until_true "a word on it" said "with fps=7; it has YUYV 320x180 at " || return
  equals frames_decoded_total 0 || return
  told=$(why)
  case $told in *" 10, 5, "*) ;; *) wrong "it does not tell the rates: $told"; return 1 ;; esac
  echo "told: \"$told\""
}

mjpeg() {
  end && begin '?format=mjpeg' || return
  until_true "a word on it" said "does not offer" || return
  echo "told: \"$(why)\""
}

# --- begin ---------------------------------------------------------------------------------------------------------------

mount -t proc proc /proc && mount -t sysfs sysfs /sys && mount -t devtmpfs dev /dev
ip link set lo up
while read -r module; do
  case $module in
    */vivid.ko) insmod "$module" n_devs=1 node_types=0x1 num_inputs=1 input_types=0x0 ;;
    *) insmod "$module" ;;
  esac
done </modules/order
until_true "the camera" test -e "$device"
echo "up after $(now) s"
v4l2-ctl -d "$device" --list-formats-ext | grep "^.\[\|Size" | head -n 14

step "kinewatch devices" listed
step "format=yuyv, a size and a rate" yuyv
step "the driver says that the camera is gone (disconnect)" disconnected
step "unplugged, and plugged in again" unplugged
step "stopped" stopped
step "no format asked: GStreamer chooses" raw
step "another rate" rate
step "another process has the device" busy
step "a size that it does not have" size
step "a rate that it does not have" odd_rate
step "a format that it does not have" mjpeg
echo "all steps done after $(now) s"
power_off
