#!/usr/bin/env bash
# Makes the Debian package of a release build; compiles nothing but, once, cargo-deb. Prints where the package is.
#
#   cross/deb.sh BUILD_DIR [arm64|amd64]    of a build for that architecture in BUILD_DIR/TRIPLE, else of this machine's own
#
# With STRICT set: fails where the package would ask for less than the binary needs.
set -euo pipefail
cd "$(dirname "$0")/.."

build=$(realpath "$1")
cargo_deb=3.8.0
prefix= release=$build/release for=()
arch=$(dpkg --print-architecture)
if [[ -n ${2:-} ]]; then
  . cross/target.sh "$2"
  prefix=$gnu- release=$build/$triple/release for=(--target "$triple")
fi
binary=$release/kinewatch
parts=$release/package # agent/Cargo.toml names it as target/release/package

# From source with its own lock file, as every other crate; half a minute of one core, without optimisation.
tool=$build/tools/cargo-deb-$cargo_deb
if [[ ! -x $tool/bin/cargo-deb ]]; then
  echo "compiling cargo-deb $cargo_deb (once)" >&2
  cargo install --quiet --locked --debug --no-default-features --version "=$cargo_deb" cargo-deb \
    --root "$tool" --target-dir "$build/tools/build" >&2
  rm -r "$build/tools/build"
fi

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

rm -rf "$parts"
mkdir -p "$parts/completions"
"$binary" man --out "$parts/man"
gzip -9n "$parts"/man/*
for shell in bash zsh fish; do "$binary" completions "$shell" >"$parts/completions/$shell"; done
{
  printf 'kinewatch (%s-1) unstable; urgency=medium\n\n' "$version"
  printf '  * Version %s: see changelog.gz beside this file.\n\n' "$version"
  printf ' -- kinewatch <kinewatch@users.noreply.github.com>  %s\n' "$(date -uR -d "@$SOURCE_DATE_EPOCH")"
} | gzip -9n >"$parts/changelog.Debian.gz"
gzip -9nc CHANGELOG.md >"$parts/changelog.gz"

# Licences of the crates inside the binary: each with its own files, as they ask for.
cargo tree --locked "${for[@]}" --package kinewatch --features kinewatch/embedded-broker --edges normal --prefix none --format '{p}|{l}' \
  | sed 's/ (\*)$//' | grep -v '^kinewatch' | sort -u | while IFS='|' read -r crate licence; do
  read -r name tag _ <<<"$crate"
  printf '\n==== %s %s: %s\n' "$name" "${tag#v}" "$licence"
  find "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$name-${tag#v}" -maxdepth 1 -type f \
    \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' \) | sort | while read -r file; do
    printf -- '---- %s\n' "$(basename "$file")"
    cat "$file"
  done
done | gzip -9n >"$parts/third-party.txt.gz"

# What the package asks for has to be what the binary needs.
needs=$("$prefix"objdump -T "$binary" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1)
asks=GLIBC_$(sed -n 's/.*libc6 (>= \([0-9.]*\)).*/\1/p' agent/Cargo.toml)
if [[ $(printf '%s\n' "$needs" "$asks" | sort -V | tail -n 1) != "$asks" ]]; then
  echo "note: built here, kinewatch needs $needs; for machines with an older one, build on Debian 12 or Ubuntu 22.04" >&2
  [[ -z ${STRICT:-} ]] || exit 1
fi

# The linker's build id is a hash of names, too, that LLVM numbers otherwise in every build. Ours is one of what is packaged, so that
# the same commit gives the same bytes.
"$prefix"strip -o "$parts/kinewatch" "$binary"
id=.note.gnu.build-id work=$(mktemp -d)
if "$prefix"objcopy --dump-section "$id=$work/id" "$parts/kinewatch" "$work/copy" 2>"$work/told"; then
  "$prefix"strip --remove-section=$id -o "$work/without" "$parts/kinewatch"
  digits=$((2 * ($(stat -c %s "$work/id") - 16))) # after the header and the name GNU
  hash=$(sha256sum <"$work/without" | cut -c "1-$digits")
  { head -c 16 "$work/id"; printf '%b' "$(sed 's/../\\x&/g' <<<"$hash")"; } >"$work/ours"
  "$prefix"objcopy --update-section "$id=$work/ours" "$parts/kinewatch"
fi
rm -r "$work"

# Two threads, whatever the machine: the same bytes.
XZ_DEFAULTS=-T2 "$tool/bin/cargo-deb" "${for[@]}" --no-build --no-strip --locked --offline --manifest-path agent/Cargo.toml \
  --output "$build/debian/kinewatch_$version-1_$arch.deb"
