#!/bin/sh
# Makes small damaged or unusual videos for the bad-input tests: bad-media.sh FOLDER. Needs ffmpeg; takes seconds.
# Nothing made here is committed.
set -eu
out=${1:?usage: bad-media.sh FOLDER}
mkdir -p "$out"
here=$(cd "$(dirname "$0")" && pwd)

ff() { ffmpeg -v error -y "$@"; }
encode="-c:v libx264 -preset ultrafast -pix_fmt yuv420p -bf 0 -g 25"
# shellcheck disable=SC2086
scene() { ff -f lavfi -i "testsrc2=s=$1:r=$2:d=$3" $encode "$out/$4"; }

: > "$out/empty.mp4"
printf 'this is not a video\n' > "$out/text.mp4"
head -c 6000 "$here/shapes.mp4" > "$out/truncated.mp4"
ff -f lavfi -i "sine=d=1" -c:a aac "$out/no-video-track.mp4"
# shellcheck disable=SC2086
ff -f lavfi -i "testsrc2=s=320x240:r=25" -frames:v 1 $encode "$out/one-frame.mp4"
scene 240x426 25 1 portrait.mp4
scene 3840x2160 10 0.5 4k.mp4
scene 322x242 25 1 odd-stride.mp4
# Codecs without a description of ours: GStreamer chooses the decoder.
ff -f lavfi -i "testsrc2=s=320x240:r=25:d=1" -c:v mpeg4 "$out/mpeg4.mp4"
ff -f lavfi -i "testsrc2=s=320x240:r=25:d=1" -c:v libvpx -deadline realtime "$out/vp8.mkv"
ff -display_rotation 90 -i "$here/shapes.mp4" -c copy "$out/rotated.mp4" 2>/dev/null \
  || ff -i "$here/shapes.mp4" -c copy -metadata:s:v rotate=90 "$out/rotated.mp4"
# Variable rate: every third frame only in the second half.
# shellcheck disable=SC2086
ff -i "$here/shapes.mp4" -vf "select='lt(t,1)+not(mod(n,3))'" -vsync vfr $encode "$out/variable-rate.mp4"

# Resolution, then codec, changes midway in one transport stream.
scene 320x240 25 1 part-a.ts
scene 176x144 25 1 part-b.ts
ff -f lavfi -i "testsrc2=s=320x240:r=25:d=1" -c:v mpeg2video -bf 0 "$out/part-c.ts"
cat "$out/part-a.ts" "$out/part-b.ts" > "$out/resolution-changes.ts"
cat "$out/part-a.ts" "$out/part-c.ts" > "$out/codec-changes.ts"
rm "$out/part-a.ts" "$out/part-b.ts" "$out/part-c.ts"
