"""A second built-in task on real pixels, for transfer: which photograph is this a crop of?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mae.data.builtin.digits_on_photos import PHOTOGRAPHS, SIZES, photographs, regions
from mae.data.source import Images, Splits
from mae.errors import DataError

VERSION = 1  # raise it whenever the same arguments give other pixels
CLASSES = tuple(Path(name).stem for _, _, names in PHOTOGRAPHS for name in names)


def which_photograph(
    cache: Path | None = None, *, train: int = 2000, test: int = 4000, size: int = 32, seed: int = 0
) -> Splits:
    """Crops ``(n, 3, size, size)`` uint8 of the photographs behind ``digits_on_photos``, labelled by photograph.

    Training crops come from the left three quarters of each photograph (or of its half-size copy), test crops from
    the rest, so that no pixel serves both; classes are balanced. The pixels are a function of the arguments and are
    made anew each time, which takes no longer than reading them would: ``cache`` is not used. DataError for sizes
    and counts that cannot be served.
    """
    if not SIZES[0] <= size <= SIZES[1]:
        raise DataError(f"which_photograph: size={size} is not possible; choose {SIZES[0]} to {SIZES[1]}.")
    if min(train, test) < len(CLASSES):
        raise DataError(
            f"which_photograph: {train} pictures for training and {test} for testing are fewer than the "
            f"{len(CLASSES)} photographs; ask for at least one of each."
        )
    photos = photographs()
    sides = []
    for stream, count in enumerate((train, test)):
        chance = np.random.RandomState([seed, stream])  # its stream is frozen for good (NumPy's NEP 19)
        parts = [regions([photo], held_out=stream == 1, size=size) for photo in photos]
        labels = chance.permutation(np.arange(count) % len(CLASSES))
        pixels = np.empty((count, 3, size, size), np.uint8)
        for i, label in enumerate(labels):
            part = parts[label][chance.randint(len(parts[label]))]
            top, left = (chance.randint(length - size + 1) for length in part.shape[:2])
            pixels[i] = part[top : top + size, left : left + size].transpose(2, 0, 1)
        sides.append(Images(torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64)), CLASSES))
    identity = f"which_photograph-v{VERSION}-{train}-{test}-{size}px-seed{seed}"
    return Splits(pretrain=sides[0], train=sides[0], test=sides[1], identity=identity)
