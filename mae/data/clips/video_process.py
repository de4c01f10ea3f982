"""The process that decodes clips: one request after another by decord, or by PyAV where decord fails.

A decoder can hang or crash inside its C code, which nothing in the same process can end. So this is a program of its
own (``python -m mae.data.clips.video_process``), driven by ``mae.data.clips.video`` through a pair of pipes. It sets
itself an alarm for each request; the kernel ends it when that goes off, wherever it is. Nothing here imports torch.

A request is a line of JSON: ``{"open": path, "limit": seconds}``, then any number of ``{"read": ids, "size": [h, w] or
null, "short_side": n or null, "limit": seconds}``. The answer is a line of JSON, for a read followed by the frames.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mae.data.pictures.decode import cover
from mae.memory import keep_freed_memory

CHUNK = 32  # frames held at their full size at a time

Frame = NDArray[np.uint8]


class Reader(Protocol):
    """An open file: ``frames`` in presentation order, read as ``(h, w, 3)`` uint8."""

    @property
    def frames(self) -> int: ...

    def read(self, ids: Sequence[int]) -> Iterator[Frame]: ...


class DecordReader:
    """A file through decord, which seeks."""

    def __init__(self, path: str) -> None:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        self._reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
        self.frames = len(self._reader)

    def read(self, ids: Sequence[int]) -> Iterator[Frame]:
        for first in range(0, len(ids), CHUNK):
            yield from self._reader.get_batch(list(ids[first : first + CHUNK])).asnumpy()


class AvReader:
    """A file through PyAV, from its start to the last frame asked for."""

    def __init__(self, path: str) -> None:
        self.path = path

    @cached_property
    def frames(self) -> int:
        """The header may lie or be silent; a packet of video is a frame."""
        with self._opened() as container:
            return sum(1 for packet in container.demux(video=0) if packet.size)

    def read(self, ids: Sequence[int]) -> Iterator[Frame]:
        """``ids`` must be ascending."""
        wanted, last = list(ids), -1
        with self._opened() as container:
            container.streams.video[0].codec_context.thread_count = 1
            for last, frame in enumerate(container.decode(video=0)):
                if wanted and wanted[0] == last:
                    pixels = frame.to_ndarray(format="rgb24")
                    while wanted and wanted[0] == last:
                        wanted.pop(0)
                        yield pixels
                if not wanted:
                    return
        raise ValueError(f"only {last + 1} frames can be decoded, frame {wanted[0]} is asked for")

    def _opened(self) -> Any:
        import av

        container = av.open(self.path)
        if not container.streams.video:
            container.close()
            raise ValueError("it has no video stream")
        return container


def opened(path: str) -> Reader:
    """The first reader that finds frames in the file; raises what the last one raised."""
    problem: Exception
    for kind in (DecordReader, AvReader):
        try:
            reader: Reader = kind(path)
            if reader.frames:
                return reader
            problem = ValueError("it has no frames")
        except Exception as error:  # decord and FFmpeg have no common type; each means: not by this reader
            problem = error
    raise problem


def frames_of(reader: Reader, path: str, ids: Sequence[int], scaling: Scaling) -> Frame:
    """``(n, 3, h, w)`` uint8; through PyAV when the reader fails on the way.

    decord fails on all files of some small widths, 32 and 96 among them (dmlc/decord#336).
    """
    try:
        return stacked(reader.read(ids), scaling)
    except Exception:
        if isinstance(reader, AvReader):
            raise
        return stacked(AvReader(path).read(ids), scaling)


class Scaling:
    """What is done to a frame: nothing, the centre ``size`` of it scaled to cover that, or the short side scaled."""

    def __init__(self, size: Sequence[int] | None, short_side: int | None) -> None:
        self.size, self.short_side = size, short_side

    def __call__(self, frame: Frame) -> Frame:
        height, width = frame.shape[:2]
        if self.size is not None:
            target = (self.size[0], self.size[1])
        elif self.short_side is not None:
            short = min(height, width)
            target = (round(height * self.short_side / short), round(width * self.short_side / short))
        else:
            return frame
        return frame if target == (height, width) else np.asarray(cover(Image.fromarray(frame), target))


def stacked(frames: Iterator[Frame], scaling: Scaling) -> Frame:
    return np.ascontiguousarray(np.stack([scaling(frame) for frame in frames]).transpose(0, 3, 1, 2))


def serve() -> None:
    """Answer requests from standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted run closes the pipe, which ends this process
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the kernel's own action: Python's would wait for the C code
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    keep_freed_memory()
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not run into the answers
    for name in ("decord", "av"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)  # before the clock of a request runs
    reader, path = None, ""
    for line in sys.stdin.buffer:
        request: dict[str, Any] = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, request["limit"])
        pixels: Frame | None = None
        answer: dict[str, Any]
        try:
            if "open" in request:
                reader, path = None, request["open"]
                reader = opened(path)
                answer = {"frames": reader.frames}
            else:
                assert reader is not None
                scaling = Scaling(request["size"], request["short_side"])
                pixels = frames_of(reader, path, request["read"], scaling)
                answer = {"shape": pixels.shape}
        except Exception as error:  # any: the file is unusable, and the next one must be served
            answer = {"error": describe(error, Path(path))}
        signal.setitimer(signal.ITIMER_REAL, 0)
        out.write(json.dumps(answer).encode() + b"\n")
        if pixels is not None:
            out.write(pixels.data)
        out.flush()


def describe(error: Exception, path: Path) -> str:
    """Why a clip cannot be used, in a few words; decoders' messages are long and name the path."""
    if not path.exists():
        return "no such file"
    if path.is_dir():
        return "a directory, not a clip"
    if not os.access(path, os.R_OK):
        return "no permission to read it"
    if path.is_file() and not path.stat().st_size:
        return "an empty file"
    if isinstance(error, ImportError):
        return "neither decord nor PyAV is installed; run pip install decord2 av"
    said = getattr(error, "strerror", None) or str(error)  # PyAV's have it without being OSErrors
    return " ".join(said.replace(str(path), "").split())[:160] or type(error).__name__


if __name__ == "__main__":
    serve()
