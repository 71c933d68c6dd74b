# Sourced with the name of a Debian architecture: what compilers call it, and how it is run on this machine.
# shellcheck shell=bash disable=SC2034

arch=$1
case $arch in
  arm64) triple=aarch64-unknown-linux-gnu gnu=aarch64-linux-gnu ;;
  amd64) triple=x86_64-unknown-linux-gnu gnu=x86_64-linux-gnu ;;
  *) echo "error: kinewatch is built for arm64 and amd64, not for $arch" >&2; exit 2 ;;
esac
command -v dpkg >/dev/null || { echo "error: this builds on Debian, with its packages; dpkg is missing" >&2; exit 2; }
if [[ $(dpkg --print-architecture) != amd64 ]]; then
  echo "error: this builds on x86-64 for others; on the device itself run: make deb" >&2
  exit 2
fi

# Lets the kernel start arm64 programs by qemu, also inside of a chroot. A booted Debian has done so when the packages came.
emulate() {
  local formats=/proc/sys/fs/binfmt_misc
  [[ $1 == amd64 || -e $formats/qemu-aarch64 ]] && return
  [[ -e $formats/register ]] || mount -t binfmt_misc binfmt_misc "$formats"
  update-binfmts --enable qemu-aarch64
  [[ -e $formats/qemu-aarch64 ]] || { echo "error: this kernel cannot be told to start arm64 programs by qemu" >&2; exit 1; }
}
