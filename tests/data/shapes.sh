#!/bin/sh
# Makes shapes.mp4 (a bright box crosses a still texture; 320x240, 30 fps, 2 s, nobody in it) and bright.mp4 (dark, but white
# from 2 s to 4 s of 6 s; 160x120, 25 fps).
set -eu
cd "$(dirname "$0")"
ffmpeg -v error -y \
  -f lavfi -i "nullsrc=s=320x240:r=30:d=2,format=yuv420p,geq=lum='120+50*sin(X/11)*cos(Y/13)':cb='128+30*sin(Y/31)':cr='128+30*cos(X/37)'" \
  -f lavfi -i "color=c=0xf0d020:s=56x56:r=30:d=2" \
  -filter_complex "[0][1]overlay=x='10+105*t':y='90+40*sin(3*t)',format=yuv420p" \
  -c:v libx264 -preset slow -crf 24 -bf 0 -g 30 -keyint_min 30 -sc_threshold 0 \
  -x264-params open-gop=0:threads=1 -movflags +faststart -fflags +bitexact -an shapes.mp4

ffmpeg -v error -y -f lavfi -i "color=black:size=160x120:rate=25:duration=6" \
  -vf "drawbox=c=white:t=fill:enable='gte(t,2)*lt(t,4)'" \
  -c:v libx264 -preset slow -bf 0 -g 25 -keyint_min 25 -sc_threshold 0 -pix_fmt yuv420p -fflags +bitexact -an bright.mp4
