"""Turn a decoded frame as the film's display matrix says: phones film on their side and note which side is up."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def turn_of(frame: Any) -> tuple[bool, bool, bool]:
    """Of PyAV's frame: whether its axes are swapped for display, and whether it is then mirrored in x and in y.

    The matrix takes (x, y) to (a x + c y, b x + d y). Turns by other than quarters are taken as the nearest.
    """
    found = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(found), np.int32)[:5].astype(int)
    swapped = abs(b) + abs(c) > abs(a) + abs(d)
    return swapped, bool((c if swapped else a) < 0), bool((b if swapped else d) < 0)


def upright(pixels: NDArray[np.uint8], frame: Any) -> NDArray[np.uint8]:
    """``pixels: (h, w, 3)`` of ``frame`` as they are meant to be seen: ``(h, w, 3)`` or ``(w, h, 3)``."""
    swapped, mirrored, upset = turn_of(frame)
    if swapped:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if upset else 1, :: -1 if mirrored else 1]
