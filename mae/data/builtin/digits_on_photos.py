"""Built-in pictures that need no download: handwritten digits blended over crops of photographs.

The protocol is MNIST-M's (Ganin et al., arXiv 1505.07818): ``|photo - digit|`` in every channel, here with
the 1,797 digits of scikit-learn and the photographs inside the wheels of scikit-image and scikit-learn.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from sklearn.datasets import load_digits
from torch import Tensor

from mae.data.source import Images, Splits
from mae.disk import write_bytes
from mae.errors import DataError

Bytes = NDArray[np.uint8]
Indices = NDArray[np.int64]

VERSION = 1  # raise it whenever the same arguments give other pixels
CLASSES = tuple(str(digit) for digit in range(10))
TEST_DIGITS_PER_CLASS = 40
TRAIN_SHARE = 0.75  # the left three quarters of every photograph; the rest is for testing
REDUCTIONS = (1, 2)  # crops come from the photograph and from its half-size copy: more variety of texture
DIGIT_SHARE = (0.85, 1.0)  # side of the enlarged digit, its margin included, as a share of the picture's
MARGIN = 1  # empty cells around the 8x8 digit, whose ink otherwise ends in a hard edge at the border
SIZES = (16, 96)  # below, digits are not legible; above, crops do not fit the test part of every photograph
PICTURES_PER_DIGIT = 100  # beyond, further labelled pictures are near-copies and add no evidence

# Flat subjects (stars, retina, moon, cells) and drawings are left out: on them a digit needs no looking for.
PHOTOGRAPHS = (
    ("skimage", "data", (
        "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png",
        "gravel.png", "ihc.png", "motorcycle_left.png", "rocket.jpg",
    )),
    ("sklearn", "datasets/images", ("china.jpg", "flower.jpg")),
)  # fmt: skip

log = logging.getLogger(__name__)


def digits_on_photos(
    cache: Path, *, pretrain: int = 20000, train: int = 4000, test: int = 2000, size: int = 32, seed: int = 0
) -> Splits:
    """Three sets of ``(n, 3, size, size)`` uint8 pictures, made on first use and kept under ``cache``.

    Training and testing share neither digits nor photographed regions. Pre-training pictures are drawn as
    training pictures are, independently of them, and carry no label (-1). The pixels are a function of the
    arguments alone; a cached file that is damaged is made again. Errors: DataError for counts and sizes that
    cannot be served, missing photographs, and a cache that cannot be written.
    """
    if not 0 <= seed < 2**32:
        raise DataError(f"digits_on_photos: seed={seed} is not usable; choose one from 0 to 4294967295.")
    counts = {"pretrain": pretrain, "train": train, "test": test}
    glyphs, labels = handwritten_digits()
    learn, held_out = divide_digits(labels, seed)
    digits_of = {"pretrain": learn, "train": learn, "test": held_out}
    for name, count in counts.items():
        most = PICTURES_PER_DIGIT * len(digits_of[name])
        if count < 1:
            raise DataError(f"digits_on_photos: {name}={count} pictures were asked for; ask for at least 1.")
        if name != "pretrain" and count > most:
            raise DataError(
                f"digits_on_photos: {name}={count} pictures of {len(digits_of[name])} digits would be "
                f"near-copies of one another; ask for at most {most}."
            )
    if not SIZES[0] <= size <= SIZES[1]:
        raise DataError(f"digits_on_photos: size={size} is not possible; choose {SIZES[0]} to {SIZES[1]}.")

    material = _material(glyphs, labels)
    identity = f"digits_on_photos-v{VERSION}-{pretrain}-{train}-{test}-{size}px-seed{seed}-{material}"
    path = Path(cache) / f"{identity}.safetensors"
    tensors = _read(path)
    if tensors is None:
        tensors = {}
        photos = photographs()
        for stream, (name, count) in enumerate(counts.items(), start=1):
            crops = regions(photos, held_out=name == "test", size=size)
            chance = np.random.RandomState([seed, stream])
            chosen = _repeat_shuffled(digits_of[name], count, chance)
            pixels = _blend(glyphs[chosen], crops, size, chance)
            tensors[f"{name}.pixels"] = torch.from_numpy(pixels)
            tensors[f"{name}.labels"] = torch.from_numpy(labels[chosen])
        _write(path, tensors)
    sets = {name: Images(tensors[f"{name}.pixels"], tensors[f"{name}.labels"], CLASSES) for name in counts}
    unlabelled = Images(sets["pretrain"].pixels, torch.full((pretrain,), -1), ())
    return Splits(unlabelled, sets["train"], sets["test"], identity)


def handwritten_digits() -> tuple[Bytes, Indices]:
    """The digits of scikit-learn: ``(1797, 8, 8)`` uint8 from 0 to 16 (ink), and their labels ``(1797,)``."""
    bunch = load_digits()
    return bunch.images.astype(np.uint8), bunch.target.astype(np.int64)


def divide_digits(labels: Indices, seed: int) -> tuple[Indices, Indices]:
    """Indices of the training digits and of the test digits (40 of each class), both ascending."""
    chance = np.random.RandomState([seed, 0])
    members = [np.flatnonzero(labels == label) for label in range(len(CLASSES))]
    held_out = np.concatenate([chance.permutation(ids)[:TEST_DIGITS_PER_CLASS] for ids in members])
    return np.setdiff1d(np.arange(len(labels)), held_out), np.sort(held_out)


def photographs() -> list[Bytes]:
    """The photographs inside the two wheels, ``(H, W, 3)`` uint8; grey ones have three equal channels."""
    return [np.array(Image.open(path).convert("RGB")) for path in _photograph_files()]


def regions(photos: Sequence[Bytes], *, held_out: bool, size: int) -> list[Bytes]:
    """The part of each of ``photos: (H, W, 3)`` for training (left) or ``held_out`` (right), per reduction.

    Reduced copies are means over blocks of the part itself, so no pixel of one part reaches the other. A copy
    in which no crop of ``size`` pixels fits is left out.
    """
    parts = []
    for photo in photos:
        border = int(photo.shape[1] * TRAIN_SHARE)
        part = photo[:, border:] if held_out else photo[:, :border]
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


def _material(glyphs: Bytes, labels: Indices) -> str:
    """Eight hex digits over photographs and digits: a wheel that brings other ones makes another data set."""
    digest = hashlib.sha256()
    for path in _photograph_files():
        digest.update(path.read_bytes())
    for array in (glyphs, labels):
        digest.update(array.astype("<i8").tobytes())
    return digest.hexdigest()[:8]


def _photograph_files() -> list[Path]:
    files = []
    for package, folder, names in PHOTOGRAPHS:
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None:
            raise DataError(f"The built-in data needs the photographs of {package}; install its wheel.")
        files += [Path(found.origin).parent / folder / name for name in names]
    for file in files:
        if not file.is_file():
            raise DataError(f"The photograph {file} is missing; install scikit-image and scikit-learn anew.")
    return files


def _repeat_shuffled(digits: Indices, count: int, chance: np.random.RandomState) -> Indices:
    """``count`` digits in random order, each used equally often (give or take one)."""
    rounds = [chance.permutation(digits) for _ in range(-(-count // len(digits)))]
    return np.concatenate(rounds)[:count]


def _blend(glyphs: Bytes, crops: Sequence[Bytes], size: int, chance: np.random.RandomState) -> Bytes:
    """One picture ``(3, size, size)`` for each glyph of ``(n, 8, 8)``, over a random crop of a random region.

    RandomState is used because its stream is frozen for good (NumPy's NEP 19).
    """
    n = len(glyphs)
    sides = chance.randint(round(DIGIT_SHARE[0] * size), round(DIGIT_SHARE[1] * size) + 1, n)
    region = chance.randint(0, len(crops), n)
    place = chance.random_sample((4, n))  # of the digit (row, column) and of the crop (row, column)

    photo = np.empty((n, 3, size, size), np.uint8)
    for k, part in enumerate(crops):
        where = np.flatnonzero(region == k)
        windows = np.lib.stride_tricks.sliding_window_view(part, (size, size), axis=(0, 1))
        top, left = (_floor(place[2 + axis, where], windows.shape[axis]) for axis in (0, 1))
        photo[where] = windows[top, left]

    digit = np.zeros((n, size, size), np.uint8)
    for side in np.unique(sides):
        where = np.flatnonzero(sides == side)
        top, left = (_floor(place[axis, where], size - side + 1) for axis in (0, 1))
        windows = np.lib.stride_tricks.sliding_window_view(digit, (side, side), axis=(1, 2), writeable=True)
        windows[where, top, left] = enlarge(glyphs[where], int(side))
    # |photo - digit| without leaving uint8
    return np.maximum(photo, digit[:, None]) - np.minimum(photo, digit[:, None])


def _floor(share: NDArray[np.float64], choices: int) -> Indices:
    return (share * choices).astype(np.int64)


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Tensor] | None:
    """The tensors of an intact file; None where there is no file or a damaged one."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            expected = (file.metadata() or {}).get("sha256")
    except (SafetensorError, OSError) as error:
        log.warning("%s cannot be read (%s); it is made again.", path, error)
        return None
    if expected != _checksum(tensors):
        log.warning("%s does not match its checksum; it is made again.", path)
        return None
    return tensors


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    try:
        write_bytes(path, save(tensors, metadata={"sha256": _checksum(tensors)}))
    except OSError as error:
        message = f"The built-in data cannot be kept in {path.parent} ({error}); name another folder."
        raise DataError(message) from error
