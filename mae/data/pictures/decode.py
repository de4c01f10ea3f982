"""One encoded picture to an array: reading, channels, resizing.

Nothing here imports torch, so that a worker process starts fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

#: Pictures that a reader opens, by the end of the name (lower case).
SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".pgm", ".ppm"})
CHANNELS_OF_MODE = {"1": 1, "L": 1, "LA": 2, "PA": 2, "La": 2, "RGBA": 4, "RGBa": 4}
MODE_OF_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
#: How a picture is turned upright, by its orientation in EXIF.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MAX_PIXELS = 178956970  # Pillow's own limit: a third of a GB, at two bytes a pixel
WHITE = 65535  # of 16 bits
LARGEST = 1 << 24  # pixels that a scaled picture may have where a part of it is wanted; more are never made


@dataclass(frozen=True)
class Decoding:
    """How the file of a picture becomes 8-bit pixels of 1 or 3 ``channels``.

    ``white`` is the value of 16-bit pixels that becomes 255, ``max_pixels`` what a picture may have at most.
    """

    channels: int = 3
    white: int = WHITE
    max_pixels: int = MAX_PIXELS

    def __call__(self, source: Path | BinaryIO) -> Image.Image:
        """The picture of a file; it raises whatever Pillow raises, ValueError on pixels that have no 8-bit form."""
        return self.converted(read_picture(source, self.max_pixels))

    def converted(self, picture: Image.Image) -> Image.Image:
        """A picture that was read, with the channels asked for."""
        return with_channels(picture, self.channels, self.white)


def read_picture(source: Path | BinaryIO, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The fully decoded picture, upright by its EXIF, the first frame of an animated one.

    Raises whatever Pillow raises on a file that is damaged, cut short or no picture; see ``reason``. ValueError on one
    of more than ``max_pixels``, before it is decoded, and on 16-bit colours that would become black.
    """
    # Other libraries switch it on for the whole process: grey filler would stand where pixels are missing.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    Image.MAX_IMAGE_PIXELS = None  # the limit below takes its place, with words that help
    with Image.open(source) as picture:
        if picture.width * picture.height > max_pixels:
            raise ValueError(
                f"{picture.width} x {picture.height} pixels are more than {max_pixels}; scale it down, or raise "
                "data.source.max_pixels"
            )
        raw = str([tile[3] for tile in picture.tile])  # what Pillow cuts down to 8 bits
        deep = (";16" in raw or "65535" in raw) and picture.mode[:1] != "I"
        picture.load()
        if deep and not picture.convert("L").point(lambda value: value // 17).getbbox():
            raise ValueError(
                "colours of 16 bits that hold less than the upper 4 would become black; store 8 bits, or use all 16"
            )
        if picture.mode == "I" and picture.format in ("PNG", "PPM"):  # they have no more than 16 bits
            return _upright(picture, Image.fromarray(np.asarray(picture).astype(np.uint16)))
        return _upright(picture, picture)


def _upright(read: Image.Image, picture: Image.Image) -> Image.Image:
    """``picture`` turned as the file that was ``read`` says; a tag that is damaged says nothing."""
    try:
        orientation = read.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Pillow's parser raises whatever damaged bytes lead to
        return picture
    return picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture


def reason(error: Exception, source: Path | None = None) -> str:
    """Why a picture could not be read, in a few words and without the path."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError) or (source is not None and source.is_dir()):
        return "a directory, not a picture"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if source is not None and source.exists() and source.stat().st_size == 0:
        return "an empty file"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in any known format"
    return " ".join(str(error).split()) or type(error).__name__


def channels_of(picture: Image.Image) -> int:
    """Channels that the file holds: 1 grey, 2 grey and alpha, 3 colour (palettes too), 4 colour and alpha."""
    if picture.mode.startswith("I;16"):
        return 1
    return CHANNELS_OF_MODE.get(picture.mode, 3)


def with_channels(picture: Image.Image, channels: int, white: int = WHITE) -> Image.Image:
    """The picture with 1, 2, 3 or 4 channels of 8 bits; of 16-bit grey ``white`` becomes 255.

    Raises ValueError for 32-bit pixels, whose white point no file states.
    """
    if picture.mode.startswith("I;16"):
        values = np.asarray(picture).astype(np.uint32)
        picture = Image.fromarray(
            (values >> 8 if white == WHITE else values.clip(max=white) * 255 // white).astype("u1")
        )
    elif picture.mode in {"I", "F"}:
        raise ValueError(f"pixels of mode {picture.mode} (32 bits) have no agreed white point; store 8 or 16 bits")
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    mode = MODE_OF_CHANNELS[channels]
    return picture if picture.mode == mode else picture.convert(mode)


def cover(picture: Image.Image, size: tuple[int, int], resize: tuple[int, int] | None = None) -> Image.Image:
    """The centre ``size = (h, w)`` of the picture scaled until it covers ``resize`` (by default ``size``).

    Bicubic with antialias. With a square ``resize`` this is "short side to 256, centre crop 224", the papers'
    test view.
    """
    height, width = size
    scaled = scaled_to_cover(picture, resize or size)
    left, top = round((scaled[0] - width) / 2), round((scaled[1] - height) / 2)
    return part_of_scaled(picture, scaled, (left, top, left + width, top + height))


def scaled_to_cover(picture: Image.Image, resize: tuple[int, int]) -> tuple[int, int]:
    """The (width, height) at which a picture just covers ``resize = (h, w)``."""
    rows, columns = resize
    if columns * picture.height <= rows * picture.width:
        return max(columns, int(rows * picture.width / picture.height)), rows
    return columns, max(rows, int(columns * picture.height / picture.width))


def part_of_scaled(picture: Image.Image, scaled: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """The ``box`` (left, top, right, bottom) of the picture scaled to ``scaled`` (width, height).

    Of a long line, which would become very large, only the part is made; that agrees to rounding.
    """
    if scaled[0] * scaled[1] > max(LARGEST, picture.width * picture.height):
        across, down = picture.width / scaled[0], picture.height / scaled[1]
        seen = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
        return picture.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.BICUBIC, box=seen)
    if scaled != picture.size:
        picture = picture.resize(scaled, Image.Resampling.BICUBIC)
    return picture if box == (0, 0, *scaled) else picture.crop(box)


def to_array(picture: Image.Image) -> NDArray[np.uint8]:
    """``(C, H, W)`` uint8."""
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[None].copy() if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
