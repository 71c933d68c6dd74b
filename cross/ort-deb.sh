#!/usr/bin/env bash
# Makes a Debian package of ONNX Runtime for a Jetson from a Python wheel that you have; prints where the package is.
#
#   ort-deb.sh jp6|jp7 WHEEL [OUT_DIR]      with ALLOW_ANY set, to try things out: also from a wheel without GPU providers, or for x86-64
#
# NVIDIA's and other people's wheels for JetPack hold the library that kinewatch loads; nothing of Python is needed on the
# device. The package puts it where kinewatch looks first, with its providers beside it, and keeps the wheel's licences. Runs
# anywhere with dpkg-deb and python3 (which unpacks the wheel), from this file alone; compiles and downloads nothing. The same
# wheel gives the same bytes.
set -euo pipefail

fail() { echo "ort-deb: $1" >&2; exit 1; }
[[ $# -ge 2 && $# -le 3 ]] || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }

for tool in python3 dpkg-deb; do
  command -v "$tool" >/dev/null || fail "$tool is missing; apt install ${tool%-deb}"
done

case $1 in
  jp6) glibc=2.35 cuda=12 python=3.10 other=jp7 ;;
  jp7) glibc=2.39 cuda=13 python=3.12 other=jp6 ;;
  *) fail "$1: write jp6 or jp7" ;;
esac
needs="nvidia-cudnn, nvidia-tensorrt"
package=kinewatch-onnxruntime-$1
wheel=$2
out=${3:-.}
[[ -f $wheel ]] || fail "$wheel: no such file"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
told=$(python3 -m zipfile -e "$wheel" "$work/wheel" 2>&1) \
  || fail "$wheel: cannot be unzipped (${told##*$'\n'}); is it a wheel, was it fetched whole, and is there room in ${TMPDIR:-/tmp}?"
capi=$work/wheel/onnxruntime/capi
shopt -s nullglob
libraries=("$capi"/libonnxruntime.so.[0-9]*)
[[ ${#libraries[@]} -eq 1 ]] || fail "$wheel: holds ${#libraries[@]} files onnxruntime/capi/libonnxruntime.so.VERSION, one is needed; is it a wheel of onnxruntime?"
library=${libraries[0]}
version=${library##*/libonnxruntime.so.}
[[ $version =~ ^1\.([0-9]+)\.[0-9]+$ ]] || fail "$wheel: its library has the version $version, which is not understood"
[[ ${BASH_REMATCH[1]} -ge 17 ]] || fail "$wheel: ONNX Runtime $version is too old; 1.17 or later is needed"

providers=("$capi"/libonnxruntime_providers_*.so)
names=$(printf '%s\n' "${providers[@]##*/}" | sed -n '/_shared\.so$/d; s/^libonnxruntime_providers_\(.*\)\.so$/\1/p' | paste -sd ' ')
if [[ -z $names ]]; then
  [[ -n ${ALLOW_ANY:-} ]] || fail "$wheel: is built for the processor alone; take one for the GPU (onnxruntime_gpu), or set ALLOW_ANY=1"
  needs=
fi

take="take a wheel of onnxruntime_gpu for Python $python on aarch64 that is built for JetPack ${1#jp} (CUDA $cuda)"
architecture=
for file in "$library" "${providers[@]}"; do
  name=${file##*/}
  [[ $(head -c 4 "$file" | tail -c 3) == ELF ]] || fail "$wheel: $name is not an ELF file; was the wheel fetched whole?"
  # Byte 18 of an ELF file names its machine.
  machine=$(od -An -tu2 -j18 -N2 --endian=little "$file" | tr -d ' ')
  case $machine in
    183) is=arm64 ;;
    62)
      [[ -n ${ALLOW_ANY:-} ]] || fail "$wheel: $name is for x86-64, and a Jetson is aarch64; $take"
      is=amd64
      ;;
    *) fail "$wheel: $name is for machine number $machine, and a Jetson is aarch64 (183); $take" ;;
  esac
  [[ ${architecture:=$is} == "$is" ]] || fail "$wheel: $name is for $is, the library for $architecture; $take"
done

note=
# What a library asks for is in it as text, so that no binutils are needed. CUDA's number is that of its runtime and of cuBLAS.
if [[ -n $names ]]; then
  asks=$(cat "${providers[@]}" | { grep -aoE 'lib(cudart|cublas)\.so\.[0-9]+' || true; } | sort -Vu)
  if [[ -z $asks ]]; then
    note="ort-deb: note: $wheel does not tell which CUDA it is for; JetPack ${1#jp} has CUDA $cuda"
  elif ! grep -q "\.$cuda\$" <<<"$asks"; then
    fail "$wheel: needs $(paste -sd ' ' <<<"$asks"), JetPack ${1#jp} has CUDA $cuda; $take"
  fi
fi

newest=$(cat "$library" "${providers[@]}" | { grep -aoE 'GLIBC_2\.[0-9]+' || true; } | sort -Vu | tail -n 1)
newest=${newest#GLIBC_}
if [[ -n $newest && $(printf '%s\n' "$newest" "$glibc" | sort -V | tail -n 1) != "$glibc" ]]; then
  fail "$wheel: needs glibc $newest, JetPack ${1#jp} has $glibc; $take"
fi

# Dates are those of the newest file in the wheel, and modes do not depend on who runs this.
newest_date='import calendar, sys, zipfile
print(max(calendar.timegm(i.date_time + (0, 0, 0)) for i in zipfile.ZipFile(sys.argv[1]).infolist()))'
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(python3 -c "$newest_date" "$wheel")}
export SOURCE_DATE_EPOCH

root=$work/root
home=$root/usr/lib/kinewatch/onnxruntime
doc=$root/usr/share/doc/$package
mkdir -p "$home" "$doc" "$root/DEBIAN"
cp "$library" "${providers[@]}" "$home"
ln -s "libonnxruntime.so.$version" "$home/libonnxruntime.so"
ln -s "libonnxruntime.so.$version" "$home/libonnxruntime.so.1"
{
  printf 'Made from %s.\n\n' "${wheel##*/}"
  find "$work/wheel" -type f \( -iname 'licen[cs]e*' -o -iname '*thirdparty*' -o -iname 'notice*' \) | LC_ALL=C sort | while read -r file; do
    printf '==== %s\n' "${file#"$work/wheel/"}"
    cat "$file"
    printf '\n'
  done
} >"$doc/copyright"

changed=$(date -uR -d "@$SOURCE_DATE_EPOCH")
printf '%s (%s-1) unstable; urgency=medium\n\n  * Made from %s.\n\n -- kinewatch <kinewatch@users.noreply.github.com>  %s\n' \
  "$package" "$version" "${wheel##*/}" "$changed" | gzip -9n >"$doc/changelog.Debian.gz"

size=$(du -sk --apparent-size "$root/usr" | cut -f1)
{
  cat <<END
Package: $package
Version: $version-1
Architecture: $architecture
Section: misc
Priority: optional
Maintainer: kinewatch <kinewatch@users.noreply.github.com>
Installed-Size: $size
Depends: libc6 (>= ${newest:-2.17}), libstdc++6, libgcc-s1
END
  [[ -z $needs ]] || echo "Recommends: $needs"
  cat <<END
Enhances: kinewatch
Provides: kinewatch-onnxruntime
Conflicts: kinewatch-onnxruntime-$other
Homepage: https://onnxruntime.ai
Description: ONNX Runtime $version for kinewatch on JetPack ${1#jp}
 The library alone, taken from a Python wheel, where kinewatch looks first.
 Providers beside the processor: ${names:-none}.
END
} >"$root/DEBIAN/control"
(cd "$root" && find usr -type f | LC_ALL=C sort | xargs -d '\n' md5sum >DEBIAN/md5sums)

find "$root" -type d -exec chmod 755 {} +
find "$root" -type f -exec chmod 644 {} +
find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
deb=$out/${package}_$version-1_$architecture.deb
mkdir -p "$out"
# Hundreds of megabytes of code for GPUs: the fast level takes seconds where the usual one takes minutes.
dpkg-deb --root-owner-group -Zxz -z1 --build "$root" "$deb" >/dev/null
[[ -z $note ]] || echo "$note" >&2
echo "$deb"
