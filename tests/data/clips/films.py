"""Films of every make, written on the spot: containers, codecs, groups of pictures, rates and orientations.

The pictures move, so that a frame decoded from a wrong reference looks wrong, and show their number.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

COUNT = 40
CELL = 8  # pixels of a square that shows one bit of the number
UNEVEN = tuple(3 * n + n % 3 for n in range(COUNT))  # times in 1/100 s

ONE = 1 << 16
#: Display matrices (a, b, c, d), which take (x, y) to (a x + c y, b x + d y), and what they do to (h, w, 3).
TURNS = {
    "quarter right": ((0, ONE, -ONE, 0), lambda pixels: np.rot90(pixels, -1)),
    "half": ((-ONE, 0, 0, -ONE), lambda pixels: np.rot90(pixels, 2)),
    "quarter left": ((0, -ONE, ONE, 0), np.rot90),
    "mirrored": ((-ONE, 0, 0, ONE), lambda pixels: pixels[:, ::-1]),
    "upside down": ((ONE, 0, 0, -ONE), lambda pixels: pixels[::-1]),
    "swapped": ((0, ONE, ONE, 0), lambda pixels: pixels.swapaxes(0, 1)),
    "swapped the other way": ((0, -ONE, -ONE, 0), lambda pixels: pixels.swapaxes(0, 1)[::-1, ::-1]),
}


@dataclass(frozen=True)
class Film:
    """How a film is written; ``reader`` is what must read it by number."""

    suffix: str
    codec: str = "libx264"
    reader: str = "PyAV"
    options: dict[str, str] = field(default_factory=lambda: {"g": "12"})
    container: str | None = None
    container_options: dict[str, str] = field(default_factory=dict)
    pix_fmt: str = "yuv420p"
    size: tuple[int, int] = (48, 64)
    times: Sequence[int] | None = None

    def write(self, path: Path, count: int = COUNT) -> Path:
        with av.open(str(path), "w", format=self.container, options=self.container_options) as container:
            stream = container.add_stream(self.codec, rate=25, options=self.options)
            (stream.height, stream.width), stream.pix_fmt = self.size, self.pix_fmt
            stream.codec_context.thread_count = 1
            if self.times is not None:
                stream.codec_context.time_base = Fraction(1, 100)
            for index, pixels in enumerate(pictures(count, *self.size)):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                if self.times is not None:
                    frame.pts, frame.time_base = self.times[index], Fraction(1, 100)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path


def pictures(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """``(count, height, width, 3)``: a pattern that moves, and the number as black and white squares above it."""
    pattern = np.random.default_rng(0).integers(60, 200, (height // 4, width // 4), np.uint8).repeat(4, 0).repeat(4, 1)
    frames = np.stack([np.roll(pattern, (n, 2 * n), (0, 1)) for n in range(count)])
    for n in range(count):
        for bit in range(6):
            frames[n, :CELL, CELL * bit : CELL * (bit + 1)] = 235 if n >> bit & 1 else 16
    return frames[..., None].repeat(3, 3)


def shown(pixels: NDArray[np.uint8]) -> int:
    """The number that ``pixels: (h, w, 3)`` show."""
    return sum(int(pixels[2 : CELL - 2, CELL * bit + 2 : CELL * (bit + 1) - 2].mean() > 125) << bit for bit in range(6))


def turn(path: Path, kind: str) -> Path:
    """Write a display matrix into the track header of an MP4 film."""
    a, b, c, d = TURNS[kind][0]
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def _x264(text: str) -> dict[str, str]:
    return {"x264-params": text}


def _x265(text: str) -> dict[str, str]:
    return {"x265-params": f"log-level=none:pools=none:frame-threads=1:{text}"}


AHEAD = {"g": "12", "bf": "3"}
OPEN = "keyint=12:min-keyint=6:bframes=3:b-adapt=0:scenecut=0:open-gop=1"
REFRESH = "keyint=12:min-keyint=6:intra-refresh=1"
LARGE = (96, 128)  # for encoders that refuse smaller pictures
BOTH = {"g": "12", "bf": "2"}

FILMS = {
    "h264": Film(".mp4", reader="decord"),
    "h264 without B-frames": Film(".mp4", reader="decord", options={"g": "12", "bf": "0"}),
    "h264 with B-frames": Film(".mp4", reader="decord", options=AHEAD),
    "h264 pyramid": Film(".mp4", reader="decord", options=_x264("keyint=12:bframes=4:b-pyramid=normal:ref=4")),
    "h264 keys closer than the delay": Film(".mp4", reader="decord", options=_x264("keyint=3:bframes=2:b-adapt=0")),
    "h264 open": Film(".mp4", options=_x264(OPEN)),
    "h264 refreshed": Film(".mp4", reader="PyAV in order", options=_x264(REFRESH)),
    "h264 all keys": Film(".mp4", reader="decord", options={"g": "1"}),
    "h264 one key": Film(".mp4", reader="decord", options=_x264("keyint=1000:scenecut=0")),
    "h264 variable rate": Film(".mp4", reader="decord", options=AHEAD, times=UNEVEN),
    "h264 that starts late": Film(".mp4", reader="decord", options=AHEAD, times=range(50, 50 + 4 * COUNT, 4)),
    "h264 fragments": Film(
        ".mp4", reader="decord", options=AHEAD, container_options={"movflags": "frag_keyframe+empty_moov"}
    ),
    "h264 without edit list": Film(".mp4", reader="decord", options=AHEAD, container_options={"use_editlist": "0"}),
    "h264 444": Film(".mp4", reader="decord", options=AHEAD, pix_fmt="yuv444p"),
    "h264 10 bits": Film(".mp4", options=AHEAD, pix_fmt="yuv420p10le"),
    "h264 interlaced": Film(".mp4", reader="decord", options={**AHEAD, "flags": "+ildct+ilme"}),
    "h264 of a width that decord cannot copy": Film(".mp4", options=AHEAD, size=(32, 48)),
    "hevc": Film(".mp4", "libx265", options=_x265("keyint=12:open-gop=0"), size=LARGE),
    "hevc open": Film(".mp4", "libx265", options=_x265(OPEN), size=LARGE),
    "hevc refreshed": Film(".mp4", "libx265", "PyAV in order", _x265("keyint=12:intra-refresh=1"), size=LARGE),
    "mpeg4 mp4": Film(".mp4", "mpeg4"),
    "mpeg4 B-frames mp4": Film(".mp4", "mpeg4", options=BOTH),
    "mpeg2 mp4": Film(".mp4", "mpeg2video", options=BOTH),
    "mjpeg mp4": Film(".mp4", "mjpeg", pix_fmt="yuvj420p"),
    "vp9 mp4": Film(".mp4", "libvpx-vp9", reader="decord"),
    "h264 mkv": Film(".mkv", reader="decord", options=AHEAD),
    "h264 open mkv": Film(".mkv", options=_x264(OPEN)),
    "h264 refreshed mkv": Film(".mkv", reader="PyAV in order", options=_x264(REFRESH)),
    "h264 variable rate mkv": Film(".mkv", reader="decord", options=AHEAD, times=UNEVEN),
    "hevc mkv": Film(".mkv", "libx265", options=_x265(OPEN), size=LARGE),
    "mpeg2 mkv": Film(".mkv", "mpeg2video", options=BOTH),
    "mpeg4 mkv": Film(".mkv", "mpeg4", options=BOTH),
    "ffv1 mkv": Film(".mkv", "ffv1"),
    "vp8 webm": Film(".webm", "libvpx"),
    "vp9 webm": Film(".webm", "libvpx-vp9", reader="decord"),
    "vp9 alternative references": Film(
        ".webm", "libvpx-vp9", "decord", {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16"}
    ),
    "vp9 variable rate": Film(".webm", "libvpx-vp9", "decord", times=UNEVEN),
    "mpeg4 avi": Film(".avi", "mpeg4"),
    "mpeg4 B-frames avi": Film(".avi", "mpeg4", options=BOTH),
    "mpeg4 variable rate avi": Film(".avi", "mpeg4", times=UNEVEN),
    "h264 avi": Film(".avi", options={"g": "12", "bf": "0"}),
    "h264 B-frames avi": Film(".avi", reader="PyAV in order", options=AHEAD),
    "mjpeg avi": Film(".avi", "mjpeg", pix_fmt="yuvj420p"),
    "msmpeg4 avi": Film(".avi", "msmpeg4"),
    "huffyuv avi": Film(".avi", "huffyuv", pix_fmt="yuv422p"),
    "mpeg1 mpg": Film(".mpg", "mpeg1video", options=BOTH),
    "mpeg2 mpg": Film(".mpg", "mpeg2video", options=BOTH),
    "mpeg2 without B-frames": Film(".mpg", "mpeg2video"),
    "mpeg2 vob": Film(".vob", "mpeg2video", options=BOTH),
    "h264 ts": Film(".ts", options=AHEAD),
    "h264 open ts": Film(".ts", options=_x264(OPEN)),
    "h264 mts": Film(".mts", options=AHEAD, container="mpegts", container_options={"mpegts_m2ts_mode": "1"}),
    "hevc ts": Film(".ts", "libx265", options=_x265(OPEN), size=LARGE),
    "mpeg2 ts": Film(".ts", "mpeg2video", options=BOTH),
    "mpeg2 variable rate ts": Film(".ts", "mpeg2video", options=BOTH, times=range(0, 12 * COUNT, 12)),
    "h264 mov": Film(".mov", reader="decord", options=AHEAD),
    "mjpeg mov": Film(".mov", "mjpeg", pix_fmt="yuvj420p"),
    "wmv1": Film(".wmv", "wmv1"),
    "wmv2": Film(".wmv", "wmv2"),
    "h264 flv": Film(".flv", options=AHEAD),
    "flv1": Film(".flv", "flv"),
    "h263 3gp": Film(".3gp", "h263", size=LARGE),
    "raw mpeg4": Film(".m4v", "mpeg4", options=BOTH, container="m4v"),
    "gif": Film(".gif", "gif", "PyAV in order", pix_fmt="rgb8"),
}
