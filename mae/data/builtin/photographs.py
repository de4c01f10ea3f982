"""A second built-in task on real pixels, for transfer: which photograph is this a crop of?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from mae.data.builtin import material
from mae.data.builtin.digits_on_photos import SIZES
from mae.data.builtin.material import PHOTOGRAPHS, regions
from mae.data.source import DataSet, Holding, Images, Splits, Use
from mae.errors import DataError

CLASSES = tuple(Path(name).stem for _, _, names in PHOTOGRAPHS for name in names)


@dataclass(frozen=True, kw_only=True)
class WhichPhotograph(DataSet):
    """Crops ``(n, 3, size, size)`` uint8 of the photographs behind ``DigitsOnPhotos``, labelled by photograph.

    Training crops come from the left three quarters of each photograph (or of its half-size copy), test crops from
    the rest, so that no pixel serves both; with ``val`` above 0, crops for validation come from a strip between them,
    which training then lacks. Classes are balanced. Pre-training reads the training crops. The pixels are a function
    of the fields and are made anew each time, which takes no longer than reading them would: the cache is not used.
    DataError for sizes and counts that cannot be served.
    """

    train: int = 2000
    test: int = 4000
    size: int = 32
    seed: int = 0
    val: int = 0
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not SIZES[0] <= self.size <= SIZES[1]:
            raise DataError(f"which_photograph: size={self.size} is not possible; choose {SIZES[0]} to {SIZES[1]}.")
        if min(self.train, self.test, self.val or self.test) < len(CLASSES):
            raise DataError(
                f"which_photograph: train={self.train}, test={self.test} or val={self.val} is fewer than the "
                f"{len(CLASSES)} photographs; ask for at least one of each."
            )

    def reads(self, use: Use) -> dict[str, object]:
        counts = ("train",) if use == "pretrain" else ("train", "test")
        kept = {"val": self.val} if self.val else {}
        found = {name: getattr(self, name) for name in ("size", "seed", *counts)}
        return {**found, **kept, "material": material.digest()}

    def holds(self) -> Holding:
        sizes = {"pretrain": self.train, "train": self.train, "test": self.test}
        return Holding("photographs", sizes, len(CLASSES), 3)

    def __call__(self, cache: Path) -> Splits:
        train, test = (self._made(name) for name in ("train", "test"))
        return Splits(pretrain=train, train=train, test=test, val=self._made("val") if self.val else None)

    def _made(self, name: str) -> Images:
        count, size = getattr(self, name), self.size
        chance = np.random.RandomState([self.seed, ("train", "test", "val").index(name)])  # a stream frozen by NEP 19
        parts = [regions([photo], name, size, self.val > 0) for photo in material.photographs()]
        if missing := [label for label, part in zip(CLASSES, parts, strict=True) if not part]:
            raise DataError(
                f"which_photograph: {missing[0]} has no region of {size} pixels for {name}; choose a smaller size."
            )
        labels = chance.permutation(np.arange(count) % len(CLASSES))
        pixels = np.empty((count, 3, size, size), np.uint8)
        for i, label in enumerate(labels):
            part = parts[label][chance.randint(len(parts[label]))]
            top, left = (chance.randint(length - size + 1) for length in part.shape[:2])
            pixels[i] = part[top : top + size, left : left + size].transpose(2, 0, 1)
        return Images(torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64)), CLASSES)
