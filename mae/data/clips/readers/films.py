"""A film read by decord, or by PyAV, which finds frames by their presentation times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from mae.data.clips.readers.index import Index, film_in, packets_of
from mae.data.clips.readers.orientation import upright

CHUNK = 32  # frames that decord holds at their full size at a time

Frame = NDArray[np.uint8]


class Reader(Protocol):
    """An open clip: ``frames`` in the order of presentation, read as ``(h, w, 3)`` uint8; ``name`` says by what."""

    @property
    def name(self) -> str: ...

    @property
    def frames(self) -> int: ...

    def read(self, ids: Sequence[int]) -> Iterator[Frame]:
        """Frames ``ids``, ascending, repeats allowed."""
        ...


class LostError(ValueError):
    """A frame is not where the index says."""


class AvReader:
    """A film through PyAV: from the last start before the frames asked for, or ``in_order`` from the film's first.

    A jump is believed when it leads to the very packets that the index lists, and the decoder calls the first frame a
    key frame; else all is read in order, from then on. ``damaged`` are the frames asked for that the decoder called
    damaged: it notices most flipped bits, and fills in what they spoiled.
    """

    def __init__(self, path: str, index: Index, *, in_order: bool = False) -> None:
        self.path, self.index, self.frames = path, index, index.frames
        self.damaged: set[int] = set()
        self._jumps = len(index.starts) > 1 and not in_order

    @property
    def name(self) -> str:
        return "PyAV" if self._jumps else "PyAV in order"

    def read(self, ids: Sequence[int]) -> Iterator[Frame]:
        if ids and ids[-1] >= self.frames:
            raise ValueError(f"only {self.frames} frames can be decoded, frame {ids[-1]} is asked for")
        done = 0
        if self._jumps:
            try:
                for pixels in self._read(ids):
                    yield pixels
                    done += 1
            except (LostError, av.FFmpegError):
                self._jumps = False
        if done < len(ids):
            yield from self._read(ids[done:])

    def _read(self, ids: Sequence[int]) -> Iterator[Frame]:
        reformatter = VideoReformatter()  # one for all frames, since it keeps its tables
        with av.open(self.path) as container:
            stream = film_in(container)
            frames = self._in_order(container, stream)
            now, pixels = -1, np.empty((0, 0, 3), np.uint8)
            for wanted in ids:
                if self._jumps and self._start(wanted)[1] > now + 1:
                    frames = self._from(container, stream, *self._start(wanted))
                while now < wanted:
                    now, frame = next(frames, (self.frames, None))
                    if frame is not None and now == wanted:
                        if frame.is_corrupt:
                            self.damaged.add(now)
                        colours: Any = reformatter.reformat(frame, format="rgb24").to_ndarray()
                        pixels = upright(colours, frame)
                if now > wanted:
                    raise LostError(f"frame {wanted} of the {self.frames} that it lists cannot be decoded")
                yield pixels

    def _start(self, wanted: int) -> tuple[int, int]:
        """The packet from which ``wanted`` can be decoded, and the frame in it."""
        packet = self.index.start(wanted)
        return packet, self.index.frame(int(self.index.packets[packet, 0]))

    def _in_order(self, container: Any, stream: Any) -> Iterator[tuple[int, Any]]:
        """All frames with their numbers."""
        count = 0
        for packet in islice(packets_of(container, stream), self.index.begin, None):
            for frame in packet.decode():
                number = self.index.frame(frame.pts) if self.index.timed else count
                count += 1
                if number >= 0:
                    yield number, frame

    def _from(self, container: Any, stream: Any, start: int, first: int) -> Iterator[tuple[int, Any]]:
        """Frames from ``first`` on, which packet ``start`` holds, with their numbers."""
        begun = False
        for packet in self._packets_from(container, stream, start):
            for frame in packet.decode():
                number = self.index.frame(frame.pts)
                if not begun and number >= first:
                    if number > first or not frame.key_frame:
                        raise LostError("decoding cannot start there")
                    begun = True
                if begun and number >= 0:
                    yield number, frame

    def _packets_from(self, container: Any, stream: Any, start: int) -> Iterator[Any]:
        """The packets from ``start`` on, as the index lists them."""
        listed, starts = self.index.packets, self.index.starts
        before = starts[max(0, np.searchsorted(starts, start) - 1)]
        # Containers search by one time or the other; those of MPEG guess times anew after a jump, for some packets.
        for time in (*listed[start, :2], listed[before, 1]):
            container.seek(int(time), stream=stream)
            place = start
            for packet in packets_of(container, stream):
                if packet.size and (packet.pts, packet.dts or 0, packet.size) != tuple(listed[place].tolist()):
                    if place > start:
                        raise LostError("the packets differ from those of the index")
                    if packet.dts is not None and packet.dts > listed[start, 1]:
                        break  # too far; those before are passed over
                    continue
                place += bool(packet.size)
                if place > start:
                    yield packet
            if place > start:
                return
        raise LostError("there is no way to the packet")


class DecordReader:
    """A film through decord, which jumps by itself; right only where ``Index.for_decord`` holds.

    decord fails on all films of some small widths, 32 and 96 among them (dmlc/decord#336): PyAV reads those.
    """

    def __init__(self, path: str, index: Index) -> None:
        self.path, self.index, self.frames = path, index, index.frames
        self._instead: AvReader | None = None
        try:
            import decord

            decord.logging.set_level(decord.logging.QUIET)
            self._reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
            agrees = len(self._reader) == index.frames
        except Exception:  # decord has no type of its own for what it raises
            agrees = False
        if not agrees:
            self._give_up()

    @property
    def name(self) -> str:
        return self._instead.name if self._instead else "decord"

    def read(self, ids: Sequence[int]) -> Iterator[Frame]:
        for first in range(0, len(ids), CHUNK):
            chunk = ids[first : first + CHUNK]
            frames: Iterable[Frame] = ()
            if not self._instead:
                try:
                    frames = self._reader.get_batch(list(chunk)).asnumpy()
                except Exception:  # as above
                    self._give_up()
            yield from self._instead.read(chunk) if self._instead else frames

    def _give_up(self) -> None:
        self._reader, self._instead = None, AvReader(self.path, self.index)
