# What the demos share: `. tests/demo-lib.sh`, after `work` and `web` are set. Ends what was put into `children` with the script.
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
children=()
cleanup() { for child in "${children[@]}"; do kill "$child" 2>/dev/null || true; done; wait 2>/dev/null || true; }
trap cleanup EXIT

# wait_for WHAT COMMAND [SECONDS]
wait_for() {
  local end=$((SECONDS + ${3:-120}))
  until (eval "$2") >/dev/null 2>&1; do
    if ((SECONDS > end)); then
      echo "error: waited too long for $1; the end of the log:" >&2
      tail -n 20 "$work/daemon.log" >&2
      exit 1
    fi
    sleep 0.2
  done
}

metrics() { exec 3<>"/dev/tcp/127.0.0.1/$web" && printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3 && cat <&3; }
