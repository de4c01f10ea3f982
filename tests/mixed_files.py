"""Folders as people have them: pictures of mixed size and mode, and clips in four codecs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from tests.data.clips.clip_writer import H264, write

#: Hues of the classes; what is learned is of no interest here.
CLASSES = {"red": (200, 60, 40), "green": (50, 180, 70), "blue": (60, 70, 210)}


def _grey(picture: Image.Image, path: Path) -> None:
    picture.convert("L").save(path.with_suffix(".png"))


def _palette(picture: Image.Image, path: Path) -> None:
    picture.quantize(32).save(path.with_suffix(".png"))


def _alpha(picture: Image.Image, path: Path) -> None:
    picture.convert("RGBA").save(path.with_suffix(".png"))


def _cmyk(picture: Image.Image, path: Path) -> None:
    picture.convert("CMYK").save(path.with_suffix(".jpg"))


def _deep(picture: Image.Image, path: Path) -> None:
    values = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    Image.fromarray(values).save(path.with_suffix(".png"))


def _turned(picture: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture.save(path.with_suffix(".jpg"), exif=exif)


def _plain(picture: Image.Image, path: Path) -> None:
    picture.save(path.with_suffix(".webp"))


MODES: tuple[Callable[[Image.Image, Path], None], ...] = (_plain, _grey, _palette, _alpha, _cmyk, _deep, _turned)


def pictures(root: Path, each: int = 100) -> Path:
    """``each`` pictures a class in ``root/<class>/``, of seven modes and as many sizes; the first one is broken."""
    for number, (name, hue) in enumerate(CLASSES.items()):
        (root / name).mkdir(parents=True)
        for index in range(each):
            chance = np.random.default_rng(1000 * number + index)
            coarse = np.clip(chance.normal(hue, 40, (4, 5, 3)), 0, 255).astype(np.uint8)
            size = (30 + 7 * (index % 9), 28 + 5 * (index % 7))
            picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
            MODES[index % len(MODES)](picture, root / name / f"{index:03}")
    next(iter(sorted((root / "red").iterdir()))).write_bytes(b"RIFF and nothing else")
    return root


#: Codecs by the end of a name, with the format of their pixels.
CODECS = {".mp4": (H264, "yuv420p"), ".avi": ("mpeg4", "yuv420p"), ".webm": ("libvpx-vp9", "yuv420p"),
          ".mov": ("mjpeg", "yuvj420p")}  # fmt: skip


def _moving(right: bool, seed: int, frames: int = 24, side: int = 36) -> NDArray[np.uint8]:
    chance = np.random.default_rng(seed)
    pixels = np.full((frames, side, side, 3), chance.integers(40, 90), np.uint8)
    top, colour = chance.integers(2, side - 10), chance.integers(120, 256, 3)
    for frame in range(frames):
        left = frame if right else side - 8 - frame
        pixels[frame, top : top + 8, max(0, left) : left + 8] = colour
    return pixels


def clips(root: Path, each: int = 20) -> Path:
    """``each`` clips a class in ``root/<class>/``, in four codecs."""
    for number, name in enumerate(("left", "right")):
        for index in range(each):
            suffix, (codec, pixels) = list(CODECS.items())[index % len(CODECS)]
            write(root / name / f"{index:02}{suffix}", _moving(number == 1, 100 * number + index), codec, pixels)
    return root
