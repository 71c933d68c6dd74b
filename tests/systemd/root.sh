#!/usr/bin/env bash
# Makes the file system of the container once, and prints where it is: this machine's distribution with a system, what
# the package depends on and recommends for H.264, a broker, a name server and strace. Never boots or changes it afterwards.
#
#   tests/systemd/root.sh BUILD_DIR [ARCHITECTURE]    of another one: its programs have to run here, by qemu
set -euo pipefail

packages=(
  systemd systemd-sysv dbus
  libgstreamer1.0-0 libgstreamer-plugins-base1.0-0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-libav
  libgstrtspserver-1.0-0 mosquitto mosquitto-clients dnsmasq-base strace procps
)

"$(dirname "$0")/../../.ci/rooted" test-systemd systemd

suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
arch=${2:-$(dpkg --print-architecture)}
key=$( (cat "$0"; echo "$suite $arch") | sha256sum | cut -c1-12)
mkdir -p "$1/systemd"
root=$(realpath "$1")/systemd/$suite-$arch-$key
if [[ ! -d $root ]]; then
  echo "making $root (once; some minutes)" >&2
  rm -rf --one-file-system "$root.part"
  # Nothing in it has to survive a power cut, and nobody reads its locales.
  mmdebstrap --quiet --architectures="$arch" --variant=minbase --include="${packages[*]}" --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/locale/*' "$suite" "$root.part" >&2
  # The broker is started where a test wants it.
  systemctl --root="$root.part" --quiet disable mosquitto.service
  mv "$root.part" "$root"
fi
echo "$root"
