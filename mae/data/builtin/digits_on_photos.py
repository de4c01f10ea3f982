"""Built-in pictures that need no download: handwritten digits blended over crops of photographs.

The protocol is MNIST-M's (Ganin et al., arXiv 1505.07818): ``|photo - digit|`` in every channel.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mae.data.builtin import material
from mae.data.builtin.material import CLASSES, SPLITS, Bytes, Indices, divide_digits, enlarge, regions
from mae.data.source import DataSet, Holding, Images, Splits, Use
from mae.disk import write_bytes
from mae.errors import DataError

DIGIT_SHARE = (0.85, 1.0)  # side of the enlarged digit, its margin included, as a share of the picture's
SIZES = (16, 96)  # below, digits are not legible; above, crops do not fit the test part of every photograph
PICTURES_PER_DIGIT = 100  # beyond, further labelled pictures are near-copies and add no evidence

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DigitsOnPhotos(DataSet):
    """Sets of ``(n, 3, size, size)`` uint8 pictures, made on first use and kept under the cache.

    Training, testing and validation share neither digits nor photographed regions. Pre-training pictures are drawn as
    training pictures are, independently of them, and carry no label (-1). With ``val=0`` nothing is for validation;
    else digits and regions for it leave training and pre-training, and testing stays as it is. The pixels of each
    set are a function of its count, size, seed, and of whether there is validation; a cached file that is damaged is
    made again. Raises DataError for counts and sizes that cannot be served, missing photographs, and a cache that
    cannot be written.
    """

    pretrain: int = 20000
    train: int = 4000
    test: int = 2000
    size: int = 32
    seed: int = 0
    val: int = 0
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise DataError(f"digits_on_photos: seed={self.seed} is not usable; choose one from 0 to 4294967295.")
        if not SIZES[0] <= self.size <= SIZES[1]:
            raise DataError(f"digits_on_photos: size={self.size} is not possible; choose {SIZES[0]} to {SIZES[1]}.")
        for name in SPLITS:
            if getattr(self, name) < (name != "val"):
                raise DataError(f"digits_on_photos: {name}={getattr(self, name)} pictures; ask for at least 1.")
        for name in ("train", "test", *(["val"] if self.val else [])):
            digits = material.digits_for(name, self.val > 0)
            if getattr(self, name) > PICTURES_PER_DIGIT * digits:
                raise DataError(
                    f"digits_on_photos: {name}={getattr(self, name)} pictures of {digits} digits would be "
                    f"near-copies of one another; ask for at most {PICTURES_PER_DIGIT * digits}."
                )

    def reads(self, use: Use) -> dict[str, object]:
        return picked(self, use, "size", "seed")

    def holds(self) -> Holding:
        sizes = {"pretrain": self.pretrain, "train": self.train, "test": self.test}
        return Holding("digits_on_photos", sizes, len(CLASSES), 3)

    def __call__(self, cache: Path) -> Splits:
        sets = {name: self._made(name, cache) for name in SPLITS if getattr(self, name)}
        unlabelled = Images(sets["pretrain"].pixels, torch.full((self.pretrain,), -1), ())
        return Splits(unlabelled, sets["train"], sets["test"], sets.get("val"))

    def _made(self, name: str, cache: Path) -> Images:
        count, validated = getattr(self, name), self.val > 0
        # of the training digits some are kept for validation, so the pictures are others
        kind = f"{name}-beside-val" if validated and name in ("pretrain", "train") else name
        made = f"{kind}-{count}-{self.size}px-seed{self.seed}-{material.digest()}"
        path = Path(cache) / f"digits_on_photos-v{self.version}-{made}.safetensors"
        tensors = _read(path)
        if tensors is None:
            glyphs, labels = material.handwritten_digits()
            digits = divide_digits(labels, self.seed, validated)[name]
            crops = regions(material.photographs(), name, self.size, validated)
            if not crops:
                raise DataError(
                    f"digits_on_photos: no region for {name} holds {self.size} pixels; choose a smaller size."
                )
            chance = np.random.RandomState([self.seed, 1 + SPLITS.index(name)])
            chosen = _repeat_shuffled(digits, count, chance)
            pixels = torch.from_numpy(_blend(glyphs[chosen], crops, self.size, chance))
            tensors = {"pixels": pixels, "labels": torch.from_numpy(labels[chosen])}
            _write(path, tensors)
        return Images(tensors["pixels"], tensors["labels"], CLASSES)


def picked(source: DataSet, use: Use, *shared: str) -> dict[str, object]:
    """What a use reads of made data: the ``shared`` fields, the counts of its splits, and the material's digest."""
    validated = getattr(source, "val", 0) > 0
    counts = ("pretrain",) if use == "pretrain" else ("train", "test", *(["val"] if validated else []))
    found: dict[str, object] = {name: getattr(source, name) for name in (*shared, *counts)}
    return {**found, "material": material.digest(), **({"validated": True} if validated else {})}


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
