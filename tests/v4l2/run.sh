#!/usr/bin/env bash
# kinewatch on a V4L2 device, for real: in an emulated machine whose kernel has the virtual camera `vivid`. The machine tries
# everything by itself (guest.sh) and says on its console what it saw; this judges that, and prints it as a table.
#
#   tests/v4l2/run.sh KINEWATCH WORK_DIR
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$2 patience=900
tests/v4l2/image.sh "$1" "$work"
begun=$SECONDS
# Emulated throughout, so that it runs where there is no KVM: one frame takes as long as ten would.
machine=(
  qemu-system-x86_64 -machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m 1024 -nographic -no-reboot -nic none
  -kernel "$work/kernel" -initrd "$work/initrd" -append "console=ttyS0 quiet mitigations=off panic=-1"
)
timeout "$patience" "${machine[@]}" </dev/null 2>&1 | sed -u 's/\r//g' | tee "$work/console.log" | grep --line-buffered '^SAW|\|^FAILED|' >&2 || true

steps=$(grep -c '^step ' tests/v4l2/guest.sh)
saw=$(grep -c '^SAW|' "$work/console.log" || true)
printf '\n| tried on /dev/video0 | what happened | s |\n|---|---|---|\n'
sed -n 's/^SAW|\(.*\)|\(.*\)|\(.*\)$/| \1 | \2 | \3 |/p' "$work/console.log"
if grep -q '^FAILED|' "$work/console.log" || [[ $saw -ne $steps ]]; then
  echo "failed: $saw of $steps steps, after $((SECONDS - begun)) s; the console is in $work/console.log" >&2
  tail -n 60 "$work/console.log" >&2
  exit 1
fi
echo "$saw of $steps steps in $((SECONDS - begun)) s"
