"""Frames of one clip's file, decoded in a process of its own that a damaged file can neither hang nor crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mae.errors import DataError

T = TypeVar("T")
S = TypeVar("S")

#: Seconds that opening a clip, or one reading of frames from it, may take.
LIMIT = 60.0
#: Files that a decoder opens, by the end of the name (lower case).
SUFFIXES = frozenset(
    ".mp4 .webm .avi .mkv .mov .m4v .mpg .mpeg .vob .ts .mts .m2ts .wmv .asf .flv .3gp .gif".split()  # noqa: SIM905
)


class Video:
    """An open clip: ``frames`` is their number, ``reader`` what reads it.

    It is the thread's only one: opening another closes it. A folder of pictures is a clip, too. With ``in_order`` each
    reading decodes a film from its first frame on, which needs no jump. ``damaged`` are the frames that were read and
    that PyAV's decoder called damaged; decord says nothing of that.
    """

    def __init__(self, path: Path, *, in_order: bool = False, limit: float = LIMIT) -> None:
        self.path, self.limit, self._decoder = path, limit, _decoder()
        answer = self._decoder.ask({"open": os.fspath(path), "in_order": in_order, "limit": limit})
        self.frames: int = answer["frames"]
        self.reader: str = answer["reader"]
        self.damaged: list[int] = []

    def read(
        self,
        ids: Iterable[int],
        *,
        short_side: int | None = None,
        size: Sequence[int] | None = None,
        channels: int = 3,
    ) -> NDArray[np.uint8]:
        """Frames ``ids``, counted in presentation order, ascending, repeats allowed: ``(n, channels, h, w)`` uint8.

        Of 1 and 3 ``channels`` 1 is grey, by the weights of ITU-R 601-2. With ``short_side`` each is scaled so that
        its shorter side has that length, with ``size = (h, w)`` so that it covers that, of which the centre is
        kept (both bicubic with antialias). Raises DataError when a frame cannot be decoded, or not within ``limit``
        seconds.
        """
        sized = {"short_side": short_side, "size": size and list(size), "channels": channels}
        request = {"read": list(ids), **sized, "limit": self.limit}
        answer = self._decoder.ask(request)
        self.reader, self.damaged = answer["reader"], answer["damaged"]
        return self._decoder.pixels(answer["shape"])


def num_frames(path: Path, *, limit: float = LIMIT) -> int:
    """Frames of the clip at ``path``, at least 1. DataError, without the path, on an unusable file."""
    return Video(path, limit=limit).frames


def read_frames(
    path: Path,
    ids: Iterable[int],
    *,
    short_side: int | None = None,
    size: Sequence[int] | None = None,
    channels: int = 3,
    limit: float = LIMIT,
) -> NDArray[np.uint8]:
    """``(n, channels, h, w)`` uint8: frames ``ids`` of the clip at ``path``, as ``Video.read`` gives them."""
    return Video(path, limit=limit).read(ids, short_side=short_side, size=size, channels=channels)


class _Decoder:
    """A decoding process and the pipes to it; it is started anew after it was ended."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)  # noqa: PTH109
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mae.data.clips.video_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders chat about every damaged block
            env={**os.environ, "PYTHONPATH": paths},
        )
        weakref.finalize(self, _end, self.process, self.owner)

    @property
    def alive(self) -> bool:
        return self.owner == os.getpid() and self.process.returncode is None

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to ``request``; DataError when it reports an error or the process ends."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line.endswith(b"\n"):
            raise self._ended(request["limit"])
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise DataError(answer["error"])
        return answer

    def pixels(self, shape: Sequence[int]) -> NDArray[np.uint8]:
        """The frames that follow an answer."""
        assert self.process.stdout is not None
        pixels, filled = np.empty(shape, np.uint8), 0
        view = pixels.data.cast("B")
        while filled < len(view):
            count = self.process.stdout.readinto(view[filled:])  # type: ignore[attr-defined]
            if not count:
                raise self._ended()
            filled += count
        return pixels

    def _ended(self, limit: float = LIMIT) -> Exception:
        status = self.process.wait()
        if status == -signal.SIGALRM:
            return DataError(f"decoding took longer than {limit:g} s and was ended")
        return DataError(f"the decoder crashed on it (exit status {status})")


_of_thread = threading.local()


def _decoder() -> _Decoder:
    """The thread's own decoder; a process forked from this one needs another."""
    decoder: _Decoder | None = getattr(_of_thread, "decoder", None)
    if decoder is None or not decoder.alive:
        decoder = _of_thread.decoder = _Decoder()
    return decoder


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    """Close the pipes, which ends an idle decoder, and wait for it; a forked copy only lets go of them."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    if os.getpid() == owner:
        process.kill()
        process.wait()
    else:
        process.returncode = 0  # not this process's child: nothing to wait for


def in_threads(task: Callable[[S], T], items: Iterable[S], workers: int) -> Iterator[T]:
    """``task(item)`` for each item, in order, by ``workers`` threads; each that reads clips has its own decoder.

    Results wait for the caller only a few at a time, so they may be large.
    """
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            waiting.append(pool.submit(task, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
