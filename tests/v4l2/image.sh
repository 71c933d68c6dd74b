#!/usr/bin/env bash
# Makes what the small machine boots: Debian's kernel, and a file system in memory with busybox, the modules of `vivid`
# (a camera that exists only in the kernel), v4l2-ctl, kinewatch and what of GStreamer it needs for V4L2. Nothing of this
# machine's disk is seen from inside.
#
#   tests/v4l2/image.sh KINEWATCH WORK_DIR    leaves WORK_DIR/kernel and WORK_DIR/initrd
set -euo pipefail

kinewatch=$(realpath "$1")
here=$(realpath "$(dirname "$0")")
mkdir -p "$2" && cd "$2"
root=$PWD/root

PATH=$PATH:/usr/sbin:/sbin

package=$(apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
if [[ -z $package ]]; then
  echo "error: apt knows no linux-image-amd64: this takes Debian's kernel; run apt-get update on a Debian" >&2
  exit 1
fi
if [[ ! -d $package ]]; then
  echo "fetching $package (70 MB, once)" >&2
  rm -rf linux-image-* part.* && mkdir part.deb part.tree
  # Its own user has no way into a folder of somebody else.
  (cd part.deb && apt-get -qq -o APT::Sandbox::User=root download "$package" >&2)
  dpkg-deb --fsys-tarfile part.deb/*.deb \
    | tar -C part.tree -x --wildcards './boot/vmlinuz*' '*/drivers/media/*' '*/modules.builtin*' '*/modules.order'
  rm -r part.deb && mv part.tree "$package"
fi
release=$(basename "$package"/lib/modules/*)
depmod --basedir "$package" "$release"
cp "$package"/boot/vmlinuz-* kernel

rm -rf "$root"
mkdir -p "$root"/{dev,proc,sys,tmp,etc,models} "$root"/usr/{bin,lib,lib64}
# As Debian has it: GStreamer looks for its plugins beside the library.
for folder in bin lib lib64; do ln -s "usr/$folder" "$root/$folder"; done
cp /bin/busybox "$root/bin/"
for program in $(/bin/busybox --list | grep -vx busybox); do ln -sf busybox "$root/bin/$program"; done
install -m 755 "$here/guest.sh" "$root/init"

# In the order in which they have to be loaded.
modprobe --dirname "$package" --set-version "$release" --show-depends vivid | sed -n 's/^insmod \([^ ]*\).*/\1/p' | while read -r module; do
  install -D -m 644 "$module" "$root/modules/$(basename "$module")"
  echo "/modules/$(basename "$module")" >>"$root/modules/order"
done

plugins=$(pkg-config --variable=pluginsdir gstreamer-1.0)
scanner=$(pkg-config --variable=pluginscannerdir gstreamer-1.0)/gst-plugin-scanner
programs=(/usr/bin/v4l2-ctl "$scanner")
for plugin in coreelements app video4linux2 videoconvertscale jpeg typefindfunctions; do
  programs+=("$plugins/libgst$plugin.so")
done
strip -o "$root/usr/bin/kinewatch" "$kinewatch"
{
  printf '%s\n' "${programs[@]}"
  ldd "$root/usr/bin/kinewatch" "${programs[@]}" | grep -o '/[^ ]*\.so[^ ]*' | grep -v ':$'
} | sort -u | xargs cp --parents --dereference --target-directory="$root"
cp -r "$here/../data/packages/tiny-bright" "$root/models/"
(cd "$root" && find . | cpio --quiet --create --format=newc) >initrd
echo "image: kernel $release, $(du -h initrd | cut -f 1) of files" >&2
