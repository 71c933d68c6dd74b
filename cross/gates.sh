#!/usr/bin/env bash
# Holds a binary against what the devices have, and says what it found; fails where they could not run it, or only slowly.
# Runs inside the chroot it was built in (cross/build.sh): Debian's packages say there which release brought which symbol.
#
#   cross/gates.sh arm64|amd64 BINARY    not stripped: functions are found by name
set -euo pipefail
cd "$(dirname "$0")/.."
. cross/target.sh "$1"
binary=$2

failed=0
gate() { # WHAT FIGURE REFUSED
  if [[ -z $3 ]]; then echo "gate: $1: $2"; else echo "gate: $1: $2: REFUSED: $3"; failed=1; fi
}

# At most ASKED? Prints what is wrong, else nothing.
above() { # FOUND ASKED
  [[ $(printf '%s\n' "$1" "$2" | sort -V | tail -n 1) == "$2" ]] || echo "the devices have $2"
}

# What the package asks for is what the devices have: Ubuntu 22.04 (JetPack 6) and later.
asked() { sed -n "s/.*[ \"]$1 (>= \([0-9.]*\)).*/\1/p" agent/Cargo.toml; }

imported=$("$gnu-objdump" --dynamic-syms "$binary" | grep -F '*UND*')

glibc=$(grep -o 'GLIBC_[0-9.]*' <<<"$imported" | sort -Vu | tail -n 1)
gate "newest symbol of glibc" "$glibc" "$(above "${glibc#GLIBC_}" "$(asked libc6)")"
gate "C++ runtime" "$("$gnu-readelf" --dynamic "$binary" | grep -c 'NEEDED.*libstdc++' || true) libraries" \
  "$("$gnu-readelf" --dynamic "$binary" | grep 'NEEDED.*libstdc++' || true)"

# name@version release, as dpkg-shlibdeps reads it: the release of the package in which the symbol appeared.
newest() { # WHAT PREFIX PACKAGE ASKED
  local table known unknown newest
  table=$(sed -n 's/^ \([a-z_0-9A-Z]*\)@[^ ]* \([0-9.]*\).*/\1 \2/p' /var/lib/dpkg/info/$3:"$arch".symbols | sort -u)
  known=$(awk -v prefix="$2" '$NF ~ "^" prefix { print $NF }' <<<"$imported" | sort -u | join -a 1 -e unknown -o 0,2.2 - <(echo "$table"))
  unknown=$(awk '$2 == "unknown" { print $1 }' <<<"$known" | paste -sd ' ')
  newest=$(sort -k 2 -V <<<"$known" | tail -n 1)
  gate "newest function of $1" "${newest% *} of ${newest#* }, of $(wc -l <<<"$known") used" \
    "${unknown:+not known to Debian: $unknown}$(above "${newest#* }" "$4")"
}
newest GStreamer '_?gst_' 'libgst*' "$(asked libgstreamer1.0-0).99"
newest GLib '_?g_' libglib2.0-0 "$(asked libglib2.0-0).99"

# Each of tract's kernels of matrix products that the processor's generation decides on has to be there, and to calculate in
# vectors. (Normalising a frame looks bytes up in a table: there are no vectors for that on any processor.)
case $arch in
  arm64) kernels=(arm64simd_mmm_f32_8x8 arm64simd_mmm_f32_64x1 arm64simd_mmm_i32_8x8) vector='(fmla|fmul|smlal2?|sdot|mla)[[:space:]]+v[0-9]+\.' ;;
  amd64) kernels=(fma_mmm_f32_16x6 avx512_mmm_f32_16x12 avx2_mmm_i32_8x8) vector='v(fmadd|pmadd|pmull|mul)[a-z0-9]*[[:space:]].*%[yz]mm' ;;
esac
code=$("$gnu-objdump" --disassemble --no-show-raw-insn "$binary" | awk -v want="$(IFS='|'; echo "${kernels[*]}")" '
  /^[0-9a-f]+ <[^.].*>:$/ { name = substr($2, 2, length($2) - 3); show = name ~ "^_?(" want ")" }
  show && /^ / { print name, $0 }')
for kernel in "${kernels[@]}"; do
  vectors=$(grep -cE "^_?$kernel.*$vector" <<<"$code" || true)
  gate "$kernel" "$vectors vector instructions" "$([[ $vectors -ge 16 ]] || echo "the kernel is missing, or scalar")"
done
exit "$failed"
