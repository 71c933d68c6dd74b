#!/usr/bin/env bash
# Builds kinewatch for an architecture in a chroot of Debian 12, holds the binary against what the devices have, and packages
# it. Prints where the package is. The machine needs no Rust; crates come from crates.io.
#
#   cross/build.sh BUILD_DIR arm64|amd64 [CARGO ARGUMENTS...]
#
# With arguments: only runs cargo with them, in the same place.
set -euo pipefail
cd "$(dirname "$0")/.."
. cross/target.sh "$2"

chroot=$(cross/chroot.sh "$1" "$arch")
build=$(realpath "$1")/cross
mkdir -p "$build/cargo" "$build/target" "$1/debian"

# The same places on every machine, so that the paths in the binary are the same, too.
inside() {
  local options=(
    --quiet --directory="$chroot" --volatile=overlay --as-pid2 --keep-unit --register=no --console=pipe
    --resolv-conf=copy-host --bind-ro="$PWD:/src" --bind="$build/cargo:/cargo" --bind="$build/target:/build" --chdir=/src
    --setenv=HOME=/root --setenv=CARGO_HOME=/cargo --setenv=CARGO_TARGET_DIR=/build --setenv=CARGO_INCREMENTAL=0
    # The package holds none, and it takes half of the build's time and disk.
    --setenv=CARGO_PROFILE_RELEASE_DEBUG=false
  )
  # The authorities that this machine trusts: some are behind a proxy with one of its own.
  local trusted=/etc/ssl/certs/ca-certificates.crt
  [[ -e $trusted ]] && options+=(--bind-ro="$trusted")
  if [[ $arch != amd64 ]]; then
    local name=${triple//-/_}
    options+=(
      --setenv="CARGO_TARGET_${name^^}_LINKER=$gnu-gcc"
      --setenv=PKG_CONFIG_ALLOW_CROSS=1 --setenv="PKG_CONFIG_$name=$gnu-pkg-config"
    )
  fi
  # What it says of a folder that it made itself concerns nobody.
  systemd-nspawn "${options[@]}" -- "$@" </dev/null 2> >(grep --line-buffered -v '^Attempted to remove disk file system' >&2)
}

cargo=(cargo --locked)
selection=(--release --target "$triple" --workspace --features kinewatch/embedded-broker)
if [[ $# -gt 2 ]]; then
  inside "${cargo[@]}" "$3" "${selection[@]}" "${@:4}"
  exit
fi

begun=$SECONDS
inside rustc --version >&2
# With an example, as `make app`: so the tests, if they are wanted, need no other build of the libraries.
inside "${cargo[@]}" build "${selection[@]}" --bins --example rtsp-serve >&2
inside cross/gates.sh "$arch" "/build/$triple/release/kinewatch" >&2
# Not for cargo: with every commit it would compile whatever looks at it.
epoch=SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
deb=$1/debian/$(basename "$(inside env "$epoch" STRICT=yes cross/deb.sh /build "$arch")")
cp "$build/target/debian/$(basename "$deb")" "$deb"
lintian --fail-on error,warning --tag-display-limit 0 --allow-root "$deb" >&2
echo "$(du -h --apparent-size "$deb" | cut -f 1) in $((SECONDS - begun)) s; lintian finds nothing" >&2
echo "$deb"
