"""Where a batch of pixels comes from: one interface for pixels in memory and for files on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Generator, Tensor


class Augment(Protocol):
    """``(B, C, H, W)`` or ``(B, C, T, H, W)``, uint8 or float in [0, 1], to float32, by draws from the generator."""

    def __call__(self, images: Tensor, generator: Generator) -> Tensor: ...


class Batch(NamedTuple):
    """``images: (B, C, H, W)``, or clips ``(B, C, T, H, W)``, uint8, ``labels: (B,)`` int64, on the device asked for.

    ``rows: (B,)`` int64, on the CPU, says which items of the source these are: one that cannot be read is left out.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor


def generators(seed: int, rows: list[int]) -> Iterator[Generator]:
    """What is drawn from for each place of the batch ``rows``: a function of ``seed``, the batch and the place alone.

    So a draw depends neither on the number of workers nor on the batches before, and the next epoch draws anew.
    """
    key = np.asarray(rows, dtype="<i8").tobytes()
    for place in range(len(rows)):
        digest = hashlib.blake2b(key, digest_size=8, key=f"{seed} {place}".encode()).digest()
        yield Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


class Source(Protocol):
    """A labelled set of pictures or clips. ``classes`` may be empty for unlabelled data (labels are then -1)."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def batches(self, order: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        """One batch for each index tensor of ``order: (B,)`` int64, in that order."""
        ...


@dataclass(frozen=True)
class Images:
    """Pictures held as ``pixels: (n, C, H, W)`` uint8, with ``labels: (n,)`` int64.

    The tensor may be memory-mapped; a set that fits is moved to the device once by ``to``.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes

    def to(self, device: torch.device) -> Images:
        return Images(self.pixels.to(device), self.labels.to(device), self.classes)

    def batches(self, order: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        for rows in order:
            index = rows.to(self.pixels.device)
            yield Batch(
                self.pixels[index].to(device, non_blocking=True),
                self.labels[index].to(device, non_blocking=True),
                rows,
            )


class Shifted(NamedTuple):
    """Pictures to test on besides the test set, and what is done to a batch of them on the device.

    ``among: (K,)`` int64 are the classes that occur in them, ascending: predictions are made among those. None for all.
    """

    source: Source
    augment: Augment
    among: Tensor | None = None


class View(NamedTuple):
    """One look at the items of a test set: ``source`` gives a clip of each, each of ``augments`` a crop of that clip.

    Augmentations work on a batch on the device. Pictures have one view with one augmentation.
    """

    source: Source
    augments: tuple[Augment, ...]


@dataclass(frozen=True)
class Splits:
    """What a study needs of one data set: unlabelled pictures, labelled ones, and held-out ones.

    ``identity`` is the data's contribution to a run's fingerprint: name, version, sizes. ``shifts`` are the shifted
    test sets of a study of robustness by name, each in parts that count alike. ``views`` are the looks at ``test`` that
    an evaluation averages over; a study adds them, a data set leaves them empty.
    """

    pretrain: Source
    train: Source
    test: Source
    identity: str
    shifts: Mapping[str, tuple[Shifted, ...]] = field(default_factory=dict)
    views: tuple[View, ...] = ()


@runtime_checkable
class Held(Protocol):
    """A source whose pixels are a tensor of ``nbytes`` bytes, which ``to`` moves."""

    @property
    def nbytes(self) -> int: ...

    def to(self, device: torch.device) -> Source: ...


def resident(splits: Splits, device: torch.device, room: int) -> Splits:
    """``splits`` with their pixels on ``device``, if they are held in memory and all take at most ``room`` bytes.

    Otherwise as they are: batches then cross to the device one by one. A set that serves two splits is moved once.
    """
    sources = {id(source): source for source in (splits.pretrain, splits.train, splits.test)}
    held = {key: source for key, source in sources.items() if isinstance(source, Held)}
    if len(held) < len(sources) or sum(source.nbytes for source in held.values()) > room:
        return splits
    moved = {key: source.to(device) for key, source in held.items()}
    return replace(
        splits, pretrain=moved[id(splits.pretrain)], train=moved[id(splits.train)], test=moved[id(splits.test)]
    )
