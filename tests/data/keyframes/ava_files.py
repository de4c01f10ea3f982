"""A small set in AVA's official layout, written on the spot: films of a white rectangle on grey, and its boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mae.data.keyframes.sets import AVA, Layout
from tests.data.clips.clip_writer import write

HEIGHT, WIDTH, FRAMES, RATE = 48, 80, 60, 10
ACTIONS = 5
LABEL_MAP = 'item {\n  name: "stand"\n  id: 1\n}\nitem {\n  name: "talk to (e.g., self)"\n  id: 3\n}\n'
LAYOUT = Layout()

#: Film, second, and the rectangle in pixels: left, top, right, bottom.
RECTANGLES = {
    ("one", 902): (8, 8, 32, 40),
    ("one", 904): (40, 4, 72, 28),
    ("two", 903): (24, 16, 64, 44),
}


def line(film: str, second: int, box: tuple[float, ...], *rest: object) -> str:
    sides = ",".join(f"{side:.4f}" for side in box)
    return ",".join([f"{film},{second:04d},{sides}", *map(str, rest)])


def shares(rectangle: tuple[int, int, int, int]) -> tuple[float, ...]:
    """The rectangle in shares of the picture."""
    left, top, right, bottom = rectangle
    return left / WIDTH, top / HEIGHT, right / WIDTH, bottom / HEIGHT


def film(path: Path, name: str) -> None:
    """A film in which each rectangle is there for a second around its keyframe."""
    pixels = np.full((FRAMES, HEIGHT, WIDTH, 3), 60, np.uint8)
    for (own, second), (left, top, right, bottom) in RECTANGLES.items():
        if own == name:
            middle = (second - 900) * RATE
            pixels[max(0, middle - 9) : middle + 10, top:bottom, left:right] = 250
    write(path, pixels, options={"qp": "4"})


def laid_down(root: Path) -> Path:
    """All files of a set: two films, three keyframes on each side, of which testing excludes one."""
    for name in ("one", "two"):
        film(root / "videos" / f"{name}.mp4", name)
    boxes = [
        line(name, second, shares(box), action, 0)
        for (name, second), box in RECTANGLES.items()
        for action in (1, 3)
    ]  # fmt: skip
    detections = [line(name, second, shares(box), "", 0.9) for (name, second), box in RECTANGLES.items()]
    detections.append(line("one", 902, (0.0, 0.0, 0.1, 0.1), "", 0.5))
    for side in ("train", "test"):
        (root / LAYOUT.boxes(side)).write_text("\n".join(boxes) + "\n")
        (root / LAYOUT.excluded(side)).write_text("")
    (root / LAYOUT.test_excluded).write_text("two,0903\n")
    (root / LAYOUT.detections).write_text("\n".join(detections) + "\n")
    (root / LAYOUT.label_map).write_text(LABEL_MAP)
    return root


def ava(root: Path, **fields: Any) -> AVA:
    given = {"classes": ACTIONS, "rate": float(RATE), "short_side": HEIGHT, "workers": 0, **fields}
    return AVA(root=str(root), **given)
