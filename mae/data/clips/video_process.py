"""The process that decodes clips, one request after another.

A decoder can hang or crash inside its C code, which nothing in the same process can end. So this is a program of its
own (``python -m mae.data.clips.video_process``), driven by ``mae.data.clips.video`` through a pair of pipes. It sets
itself an alarm for each request; the kernel ends it when that goes off, wherever it is. Nothing here imports torch.

A request is a line of JSON: ``{"open": path, "in_order": whether, "limit": seconds}``, then any number of ``{"read":
ids, "size": [h, w] or null, "short_side": n or null, "channels": 1 or 3, "limit": seconds}``. The answer is a line of
JSON, for a read followed by the frames.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mae.data.clips.readers.films import AvReader, DecordReader, Frame, Reader
from mae.data.clips.readers.frame_folder import FrameFolder
from mae.data.clips.readers.index import index_of
from mae.data.pictures.decode import LARGEST, cover
from mae.memory import keep_freed_memory


def opened(path: str, *, in_order: bool = False) -> Reader:
    """The reader of a clip: pictures of a folder, decord for a film in which its jumps are proved right, else PyAV.

    With ``in_order`` a film is read by PyAV from its first frame on, whatever is asked for.
    """
    if Path(path).is_dir():
        return FrameFolder(path)
    index = index_of(path)
    if index.for_decord and not in_order:
        return DecordReader(path, index)
    return AvReader(path, index, in_order=in_order)


class Scaling:
    """What is done to a frame: nothing, the centre ``size`` of it scaled to cover that, or the short side scaled.

    Of 1 of the ``channels`` 1 and 3 it is made grey before.
    """

    def __init__(self, size: Sequence[int] | None, short_side: int | None, channels: int = 3) -> None:
        self.size, self.short_side, self.channels = size, short_side, channels

    def __call__(self, frame: Frame) -> Frame:
        """``(h, w, channels)`` of a frame ``(H, W, 3)``."""
        if self.channels == 1:
            frame = np.asarray(Image.fromarray(frame).convert("L"))
        scaled = self._scaled(frame)
        return scaled if scaled.ndim == 3 else scaled[..., None]

    def _scaled(self, frame: Frame) -> Frame:
        height, width = frame.shape[:2]
        if self.size is not None:
            target = (self.size[0], self.size[1])
        elif self.short_side is not None:
            short = min(height, width)
            target = (round(height * self.short_side / short), round(width * self.short_side / short))
            if target[0] * target[1] > max(LARGEST, height * width):
                raise ValueError(f"frames of {width}x{height} are too long to be scaled to {target[1]}x{target[0]}")
        else:
            return frame
        return frame if target == (height, width) else np.asarray(cover(Image.fromarray(frame), target))


def stacked(frames: Iterator[Frame], scaling: Scaling) -> Frame:
    """``(n, C, h, w)`` uint8. Raises ValueError when the frames differ in size."""
    scaled = [scaling(frame) for frame in frames]
    for height, width, _ in {frame.shape for frame in scaled} - {scaled[0].shape}:
        raise ValueError(f"its frames change from {scaled[0].shape[1]}x{scaled[0].shape[0]} to {width}x{height}")
    return np.ascontiguousarray(np.stack(scaled).transpose(0, 3, 1, 2))


def serve() -> None:
    """Answer requests from standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted run closes the pipe, which ends this process
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the kernel's own action: Python's would wait for the C code
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    keep_freed_memory()
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not run into the answers
    with contextlib.suppress(ImportError):
        importlib.import_module("decord")  # before the clock of a request runs
    reader, path = None, ""
    for line in sys.stdin.buffer:
        request: dict[str, Any] = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, request["limit"])
        pixels: Frame | None = None
        answer: dict[str, Any]
        try:
            if "open" in request:
                reader, path = None, request["open"]
                reader = opened(path, in_order=request["in_order"])
                answer = {"frames": reader.frames, "reader": reader.name}
            else:
                assert reader is not None
                scaling = Scaling(request["size"], request["short_side"], request["channels"])
                pixels = stacked(reader.read(request["read"]), scaling)
                answer = {
                    "shape": pixels.shape,
                    "reader": reader.name,
                    "damaged": sorted(getattr(reader, "damaged", ())),
                }
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
    if not os.access(path, os.R_OK):
        return "no permission to read it"
    if path.is_file() and not path.stat().st_size:
        return "an empty file"
    said = getattr(error, "strerror", None) or str(error)  # PyAV's have it without being OSErrors
    return " ".join(said.replace(str(path), "").split())[:160] or type(error).__name__


if __name__ == "__main__":
    serve()
