"""At which coded frames decoding may start: what their first bytes say, by codec.

Containers mark frames as key frames that need earlier ones: where a refresh takes several frames, or the mark is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator

IDR, SEI, SLICES = 5, 6, range(1, 6)  # kinds of NAL unit, Rec. ITU-T H.264, table 7-1
IRAP = range(16, 24)  # random access pictures, Rec. ITU-T H.265, table 7-1
RECOVERY_POINT = 6  # kind of message, Rec. ITU-T H.264, D.1


def begins(codec: str, frame: memoryview, extradata: bytes) -> bool:
    """Whether all frames shown from this key frame on can be decoded without any before it.

    For codecs that are not treated here the container's mark is believed; the decoder's word on the decoded frame is
    asked for later. ``extradata`` is the header of the stream.
    """
    if codec == "h264":
        return _h264_begins(frame, extradata)
    if codec == "hevc":
        return any(unit[0] >> 1 & 63 in IRAP for unit in _units(frame, extradata, 21) if unit)
    if codec == "vp9":
        return not frame[0] & 0b1100  # neither a frame shown again nor one that refers to others
    return True


def is_hidden(frame: memoryview) -> bool:
    """Whether a frame of VP8 only serves others and is never shown (RFC 6386, 9.1)."""
    return not frame[0] & 0b10000


def _h264_begins(frame: memoryview, extradata: bytes) -> bool:
    """At an IDR picture, or at a recovery point from which all pictures in order of output are exact at once."""
    exact = False
    for unit in _units(frame, extradata, 4):
        kind = unit[0] & 31 if unit else 0
        if kind == SEI:
            exact = exact or _is_exact_recovery_point(bytes(unit[1:]).replace(b"\0\0\3", b"\0\0"))
        elif kind in SLICES:
            return kind == IDR or exact
    return False


def _is_exact_recovery_point(messages: bytes) -> bool:
    """recovery_frame_cnt is 0, which is written as the bit 1, and exact_match_flag, the bit after it, is set."""
    place = 0
    while place + 2 < len(messages):
        kind = size = 0
        while messages[place] == 255 and place + 2 < len(messages):
            kind, place = kind + 255, place + 1
        kind, place = kind + messages[place], place + 1
        while messages[place] == 255 and place + 2 < len(messages):
            size, place = size + 255, place + 1
        size, place = size + messages[place], place + 1
        if kind == RECOVERY_POINT and place < len(messages):
            return messages[place] >> 6 == 3
        place += size
    return False


def _units(frame: memoryview, extradata: bytes, length_at: int) -> Iterator[memoryview]:
    """NAL units: each after its length, whose size byte ``length_at`` of the header tells, or after a start code."""
    if extradata[:1] == b"\1" and len(extradata) > length_at:
        width, place = (extradata[length_at] & 3) + 1, 0
        while place + width < len(frame):
            size = int.from_bytes(frame[place : place + width], "big")
            yield frame[place + width : place + width + size]
            place += width + size
        return
    data = bytes(frame)
    place = data.find(b"\0\0\1")
    while place >= 0:
        end = data.find(b"\0\0\1", place + 3)
        yield frame[place + 3 : end if end >= 0 else len(data)]
        place = end
