"""What the built-in data are made of: handwritten digits and photographs, divided once between the splits.

The digits are the 1,797 of scikit-learn, the photographs those inside the wheels of scikit-image and scikit-learn.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mae.errors import DataError

Bytes = NDArray[np.uint8]
Indices = NDArray[np.int64]

CLASSES = tuple(str(digit) for digit in range(10))
SPLITS = ("pretrain", "train", "test", "val")
DIGITS = 1797
DIGITS_PER_CLASS = {"test": 40, "val": 20}  # the others, some 140 or 120 of each class, are for training
SHARES = {"train": (0.0, 0.75), "test": (0.75, 1.0)}  # of the width of every photograph, from the left
VALIDATED = {"train": (0.0, 0.6), "val": (0.6, 0.75), "test": (0.75, 1.0)}  # where some is kept for validation
REDUCTIONS = (1, 2)  # crops come from the photograph and from its half-size copy: more variety of texture
MARGIN = 1  # empty cells around the 8x8 digit, whose ink otherwise ends in a hard edge at the border

# Flat subjects (stars, retina, moon, cells) and drawings are left out: on them a digit needs no looking for.
PHOTOGRAPHS = (
    ("skimage", "data", (
        "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png",
        "gravel.png", "ihc.png", "motorcycle_left.png", "rocket.jpg",
    )),
    ("sklearn", "datasets/images", ("china.jpg", "flower.jpg")),
)  # fmt: skip


def handwritten_digits() -> tuple[Bytes, Indices]:
    """The digits of scikit-learn: ``(1797, 8, 8)`` uint8 from 0 to 16 (ink), and their labels ``(1797,)``."""
    from sklearn.datasets import load_digits  # slow to import, and a plan does not need it

    bunch = load_digits()
    return bunch.images.astype(np.uint8), bunch.target.astype(np.int64)


def divide_digits(labels: Indices, seed: int, validated: bool = False) -> dict[str, Indices]:
    """Indices of the digits of each of SPLITS, ascending; no digit is in two of "train", "test" and "val".

    Pre-training has those of training. Digits for validation are taken from training, if any are (``validated``); those
    for testing are the same either way.
    """
    chance = np.random.RandomState([seed, 0])
    members = [chance.permutation(np.flatnonzero(labels == label)) for label in range(len(CLASSES))]
    tested = DIGITS_PER_CLASS["test"]
    kept = tested + (DIGITS_PER_CLASS["val"] if validated else 0)
    test, val, train = (
        np.sort(np.concatenate([ids[places] for ids in members]))
        for places in (slice(tested), slice(tested, kept), slice(kept, None))
    )
    return {"pretrain": train, "train": train, "test": test, "val": val}


def digits_for(split: str, validated: bool) -> int:
    """How many digits ``divide_digits`` gives to one of SPLITS."""
    sides = {name: len(CLASSES) * count for name, count in DIGITS_PER_CLASS.items() if name == "test" or validated}
    return sides[split] if split in sides else DIGITS - sum(sides.values())


def photographs() -> list[Bytes]:
    """The photographs inside the two wheels, ``(H, W, 3)`` uint8; grey ones have three equal channels."""
    return [np.array(Image.open(path).convert("RGB")) for path in _files()]


def regions(photos: Sequence[Bytes], split: str, size: int, validated: bool = False) -> list[Bytes]:
    """The part of each of ``photos: (H, W, 3)`` for one of SPLITS, per reduction; pre-training has that of training.

    The parts of "train", "test" and "val" share no pixel. Reduced copies are means over blocks of the part itself, so
    no pixel of one part reaches the other. A copy in which no crop of ``size`` pixels fits is left out.
    """
    start, end = (VALIDATED if validated else SHARES)["train" if split == "pretrain" else split]
    parts = []
    for photo in photos:
        part = photo[:, int(photo.shape[1] * start) : int(photo.shape[1] * end)]
        for k in REDUCTIONS:
            height, width = part.shape[0] // k, part.shape[1] // k
            if min(height, width) >= size:
                blocks = part[: height * k, : width * k].reshape(height, k, width, k, 3)
                area = k * k
                parts.append(((blocks.sum((1, 3), dtype=np.int64) + area // 2) // area).astype(np.uint8))
    return parts


def enlarge(glyphs: Bytes, side: int) -> Bytes:
    """``(n, 8, 8)`` ink from 0 to 16, made ``(n, side, side)`` from 0 to 255 by Keys' cubic (a = -0.5).

    The digit gets an empty margin of one cell, so ``side`` spans ten cells. Weights are integers in units of
    1/4096, so that every platform computes the same pixels.
    """
    source = glyphs.shape[-1]
    centre = (np.arange(side) + 0.5) * (source + 2 * MARGIN) / side - 0.5 - MARGIN
    first = np.floor(centre).astype(np.int64) - 1
    weights = np.zeros((side, source), np.int64)
    for tap in range(4):
        x = np.abs(first + tap - centre)
        value = np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2)
        inked = np.flatnonzero((first + tap >= 0) & (first + tap < source))
        weights[inked, first[inked] + tap] = np.rint(value[inked] * 4096).astype(np.int64)
    ink: Indices = weights @ glyphs.astype(np.int64) @ weights.T
    unit = 16 << 24  # full ink, in the units of the product of two weights
    return ((ink * 255 + unit // 2) // unit).clip(0, 255).astype(np.uint8)


@lru_cache
def digest() -> str:
    """Eight hex digits over the files of photographs and digits: a wheel that brings other ones makes other data."""
    found = hashlib.sha256()
    for path in (*_files(), _inside("sklearn", "datasets/data/digits.csv.gz")):
        found.update(path.read_bytes())
    return found.hexdigest()[:8]


@lru_cache
def _files() -> tuple[Path, ...]:
    return tuple(_inside(package, f"{folder}/{name}") for package, folder, names in PHOTOGRAPHS for name in names)


def _inside(package: str, name: str) -> Path:
    """A file of an installed package, which is not imported for that."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise DataError(f"The built-in data needs the photographs of {package}; install its wheel.")
    path = Path(found.origin).parent / name
    if not path.is_file():
        raise DataError(
            f"{path} is missing, which the built-in data needs; install scikit-image and scikit-learn anew."
        )
    return path
