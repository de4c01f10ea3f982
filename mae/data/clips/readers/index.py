"""What the packets of a film tell without decoding them: its frames, and where decoding may start.

A packet holds one coded frame, in the order of decoding. Its presentation timestamp says which frame of the film it is:
frame ``i`` is the one with the ``i``-th smallest.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from mae.data.clips.readers.orientation import turn_of
from mae.data.clips.readers.starts import begins, is_hidden

#: Where decord jumps to the right frame, if the rest of ``Index.for_decord`` holds, too.
DECORD_CODECS, DECORD_CONTAINERS = frozenset({"h264", "vp9"}), frozenset({"mov", "matroska"})
KEPT = 256  # films whose index the process remembers


@dataclass(frozen=True)
class Index:
    """``packets: (n, 3)`` int64 in the order of decoding: presentation time, decoding time, bytes.

    ``frames`` is the number of frames, ``begin`` the first packet that can be decoded. ``times: (frames,)`` are the
    presentation times of the frames, ascending, and ``places`` the packets that they are in. Decoding may start at the
    packets ``starts: (k,)``. A film without usable timestamps has neither packets nor times. ``for_decord`` says that
    decord's jumps are right.
    """

    frames: int
    begin: int
    packets: NDArray[np.int64]
    times: NDArray[np.int64]
    places: NDArray[np.int64]
    starts: NDArray[np.int64]
    for_decord: bool

    @property
    def timed(self) -> bool:
        return len(self.times) > 0

    def start(self, frame: int) -> int:
        """The last packet from which ``frame`` can be decoded."""
        in_file = np.searchsorted(self.starts, self.places[frame], "right")
        in_time = np.searchsorted(self.packets[self.starts, 0], self.times[frame], "right")
        return int(self.starts[min(in_file, in_time) - 1])

    def frame(self, time: int | None) -> int:
        """The frame that is shown at ``time``; -1 if there is none."""
        place = self.frames if time is None else int(np.searchsorted(self.times, time))
        return place if place < self.frames and self.times[place] == time else -1


_known: OrderedDict[tuple[str, int, int], Index] = OrderedDict()


def index_of(path: str) -> Index:
    """The index of a film, remembered while the file does not change. Raises what PyAV raises on an unusable one."""
    stat = os.stat(path)  # noqa: PTH116
    key = (path, stat.st_size, stat.st_mtime_ns)
    _known[key] = found = _known.pop(key, None) or _read(path)
    if len(_known) > KEPT:
        _known.popitem(last=False)
    return found


def film_in(container: Any) -> Any:
    """The stream that is the film, not a cover picture beside it; one thread decodes it."""
    stream = container.streams.best("video")
    if stream is None:
        raise ValueError("it has no video stream")
    stream.codec_context.thread_count = 1
    return stream


def packets_of(container: Any, stream: Any) -> Iterator[Any]:
    """Packets with content, then the empty one that makes the decoder give up what it holds back."""
    return (packet for packet in container.demux(stream) if packet.size or packet.dts is None)


@dataclass(frozen=True)
class _Stream:
    """What a pass over the packets finds: ``rows`` of two times, bytes and whether it is shown, and the key frames."""

    rows: list[tuple[int | None, int, int, bool]]
    keys: list[int]
    starts: list[int]
    first: Any
    codec: str
    container: str
    reorders: bool


def _pass(path: str) -> _Stream:
    rows: list[tuple[int | None, int, int, bool]] = []
    keys: list[int] = []
    starts: list[int] = []
    first = None
    with av.open(path) as container:
        stream = film_in(container)
        codec, header = stream.codec_context.name, stream.codec_context.extradata or b""
        for packet in packets_of(container, stream):
            if not packet.size:
                continue
            if packet.is_keyframe:
                if not keys:
                    first = next(iter([*packet.decode(), *stream.codec_context.decode(None)]), None)
                if not keys or begins(codec, memoryview(packet), header):
                    starts.append(len(rows))
                keys.append(len(rows))
            hidden = codec == "vp8" and is_hidden(memoryview(packet))
            rows.append((packet.pts, packet.dts or 0, packet.size, not (packet.is_discard or hidden)))
        kind, reorders = container.format.name.split(",")[0], bool(stream.codec_context.has_b_frames)
    if not keys:
        raise ValueError("it has no frames")
    return _Stream(rows, keys, starts, first, codec, kind, reorders)


def _read(path: str) -> Index:
    film = _pass(path)
    begin = film.keys[0]  # what lies before it cannot be decoded
    if any(row[0] is None for row in film.rows):
        return _counted(path, begin)
    packets = np.array([row[:3] for row in film.rows], np.int64)
    starts, pts = np.array(film.starts), packets[:, 0]
    shown = np.array([row[3] for row in film.rows]) & (pts >= pts[begin])
    shown[:begin] = False
    places = np.flatnonzero(shown)
    places = places[pts[places].argsort(kind="stable")]
    times = pts[places]
    guessed = film.container == "avi" and film.reorders and (np.diff(pts) > 0).all()  # it has no presentation times
    backwards = (np.diff(packets[begin:, 1]) < 0).any() or (np.diff(pts[starts]) <= 0).any()
    if guessed or backwards or (np.diff(times) == 0).any():
        return _counted(path, begin)
    latest, earliest = np.maximum.accumulate(pts), np.minimum.accumulate(pts[::-1])[::-1]
    closed = (latest[starts[1:] - 1] < pts[starts[1:]]).all() and (earliest[starts] == pts[starts]).all()
    for_decord = (
        film.codec in DECORD_CODECS
        and film.container in DECORD_CONTAINERS
        and starts.tolist() == film.keys
        and bool(shown.all() and closed)
        and film.first is not None
        and turn_of(film.first) == (False, False, False)
        and film.first.format.components[0].bits == 8  # of more bits decord makes other colours than PyAV
    )
    return Index(len(times), begin, packets, times, places, starts, for_decord)


def _counted(path: str, begin: int) -> Index:
    """Of a film without usable timestamps, whose frames are counted by decoding them."""
    with av.open(path) as container:
        stream = film_in(container)
        frames = sum(1 for packet in islice(packets_of(container, stream), begin, None) for _ in packet.decode())
    none = np.empty(0, np.int64)
    return Index(frames, begin, none.reshape(0, 3), none, none, none, for_decord=False)
