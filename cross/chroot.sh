#!/usr/bin/env bash
# Makes the file system in which kinewatch is built for an architecture, once, and prints where it is: Debian 12 with its own
# Rust, the cross compiler and that architecture's GStreamer. Never changed afterwards: builds see it under an overlay.
#
#   cross/chroot.sh BUILD_DIR arm64|amd64
set -euo pipefail
. "$(dirname "$0")/target.sh" "$2"

"$(dirname "$0")/../.ci/rooted" "deb-$arch" cross
emulate "$arch"

# Development files of GStreamer for two architectures cannot be installed together: this has those of one.
packages=(
  ca-certificates pkg-config build-essential rustc-web cargo-web "libstd-rust-web-dev:$arch" libclang1
  "libgstreamer1.0-dev:$arch" "libgstreamer-plugins-base1.0-dev:$arch" "libgstrtspserver-1.0-dev:$arch"
)
[[ $arch == amd64 ]] || packages+=("crossbuild-essential-$arch")
architectures=$(printf 'amd64\n%s\n' "$arch" | sort -u | paste -sd,)

key=$( (cat "$0"; echo "$arch") | sha256sum | cut -c1-12)
mkdir -p "$1/cross"
root=$(realpath "$1")/cross/chroot-$arch-$key
if [[ ! -d $root ]]; then
  echo "making $root (once; a minute or two)" >&2
  rm -rf --one-file-system "$root.part"
  mmdebstrap --quiet --variant=minbase --architectures="$architectures" --include="$(IFS=,; echo "${packages[*]}")" \
    --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' bookworm "$root.part" >&2
  mv "$root.part" "$root"
fi
echo "$root"
