"""Where a batch of pixels comes from: one interface for pixels in memory and for files on disk."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields, replace
from itertools import accumulate
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Generator, Tensor

from mae.errors import DataError


class Augment(Protocol):
    """``(B, C, H, W)`` or ``(B, C, T, H, W)``, uint8 or float in [0, 1], to float32, by draws from the generator."""

    def __call__(self, images: Tensor, generator: Generator) -> Tensor: ...


class Places(NamedTuple):
    """What lies where in the items of a batch; ``mae.data.augment.places`` moves it with the pixels.

    ``boxes: (N, ..., 4)`` float32 are left, top, right and bottom in pixels from the upper left corner, ``items: (N,)``
    int64 the place in the batch of the item that each box lies in; axes between are frames, if a box has them.
    ``masks: (B, K, H, W)`` are K maps of every item, of any type, such as a class for each pixel. ``labels: (N, ...)``
    say what is in each box: a class, or which of several classes at once.
    """

    boxes: Tensor
    items: Tensor
    masks: Tensor | None = None
    labels: Tensor | None = None

    def part(self, here: slice) -> Places:
        """Those of the items ``here`` of the batch, numbered from the first of these."""
        kept = (self.items >= here.start) & (self.items < here.stop)
        return Places(
            self.boxes[kept],
            self.items[kept] - here.start,
            None if self.masks is None else self.masks[here],
            None if self.labels is None else self.labels[kept],
        )

    def to(self, device: torch.device) -> Places:
        """The same on ``device``."""
        return Places(*(None if part is None else sent(part, device) for part in self))  # type: ignore[arg-type]


def joined(parts: Sequence[tuple[int, Places | None]]) -> Places | None:
    """The places of batches of so many items one after the other, in which all have places or none has."""
    found = [places for _, places in parts if places is not None]
    if not found:
        return None
    starts = accumulate((items for items, _ in parts), initial=0)
    items = [places.items + start for (_, places), start in zip(parts, starts, strict=False) if places is not None]
    masks = [places.masks for places in found if places.masks is not None]
    labels = [places.labels for places in found if places.labels is not None]
    return Places(
        torch.cat([places.boxes for places in found]),
        torch.cat(items),
        torch.cat(masks) if masks else None,
        torch.cat(labels) if labels else None,
    )


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``, without the host waiting for it: it goes through pinned memory to CUDA."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Batch(NamedTuple):
    """``images: (B, C, H, W)``, or clips ``(B, C, T, H, W)``, uint8, ``labels: (B,)`` int64, on the device asked for.

    ``rows: (B,)`` int64, on the CPU, says which items of the source these are: one that cannot be read is left out.
    ``places`` are boxes and masks, for sources that have them.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor
    places: Places | None = None

    def part(self, here: slice) -> Batch:
        """The items ``here`` of the batch, which has a start and an end."""
        places = None if self.places is None else self.places.part(here)
        return Batch(self.images[here], self.labels[here], self.rows[here], places)


#: All places of a batch.
WHOLE = slice(None)


def generators(seed: int, rows: Sequence[int], places: slice = WHOLE) -> Iterator[Generator]:
    """What is drawn from for ``places`` of the batch ``rows``: a function of ``seed``, the batch and the place alone.

    So a draw depends neither on the number of workers nor on the batches before, and the next epoch draws anew.
    """
    key = np.asarray(rows, dtype="<i8").tobytes()
    for place in range(len(rows))[places]:
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


@runtime_checkable
class ReadsSome(Protocol):
    """A source that draws as it reads, by the place in the batch: to read some of it, it must know the whole."""

    def reading(self, places: slice) -> Source:
        """The same source, of each of whose batches only ``places`` are read."""
        ...


P = TypeVar("P", bound="ReadsPlaces")


class ReadsPlaces:
    """What sources share that read ``places`` of each batch, at first all of them."""

    places: slice = WHOLE

    def reading(self: P, places: slice) -> P:
        """The same source, of each of whose batches only ``places`` are read; the report is the same one."""
        found = copy(self)
        found.places = places
        return found


@dataclass(frozen=True)
class SomeOf:
    """``source``, of each of whose batches only ``places`` are read."""

    source: Source
    places: slice

    @property
    def classes(self) -> tuple[str, ...]:
        return self.source.classes

    def __len__(self) -> int:
        return len(self.source)

    def batches(self, order: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        return self.source.batches((rows[self.places] for rows in order), device)


def reading(source: Source, places: range) -> Source:
    """``source``, of each of whose batches only ``places`` are read: a process reads its share of the global order."""
    some = slice(places.start, places.stop)
    return source.reading(some) if isinstance(source, ReadsSome) else SomeOf(source, some)


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
            index = sent(rows, self.pixels.device)
            yield Batch(sent(self.pixels[index], device), sent(self.labels[index], device), rows)


class Shifted(NamedTuple):
    """Pictures to test on besides the test set, and what is done to a batch of them on the device.

    ``among: (K,)`` int64 are the classes that occur in them, ascending: predictions are made among those. None for all.
    ``reference`` is the error of a reference model on such pictures, in percent, where one is published.
    """

    source: Source
    augment: Augment
    among: Tensor | None = None
    reference: float | None = None


class View(NamedTuple):
    """One look at the items of a test set: ``source`` gives a clip of each, each of ``augments`` a crop of that clip.

    Augmentations work on a batch on the device. Pictures have one view with one augmentation.
    """

    source: Source
    augments: tuple[Augment, ...]


@dataclass(frozen=True)
class Splits:
    """What a study needs of one data set: unlabelled items to pre-train on, and labelled ones to train and test on.

    ``val`` is for what is chosen: epochs, rates, thresholds; None where the data set keeps nothing for it. ``shifts``
    are the shifted test sets of a study of robustness by name, each in parts that count alike. ``views`` are the looks
    at ``test`` that an evaluation averages over. A study adds shifts and views, a data set leaves them empty.
    """

    pretrain: Source
    train: Source
    test: Source
    val: Source | None = None
    shifts: Mapping[str, tuple[Shifted, ...]] = field(default_factory=dict)
    views: tuple[View, ...] = ()


#: What a study does with a data set: it pre-trains on it, or it trains and tests with its labels.
Use = Literal["pretrain", "evaluate"]


class Holding(NamedTuple):
    """What a set holds: ``where``, how many items of each side (``pretrain``, ``train``, ``test``), and the classes.

    ``channels`` and ``frames`` of an item are None where no file is opened to find out.
    """

    where: str
    sizes: Mapping[str, int]
    classes: int
    channels: int | None = None
    frames: int | None = None


class DataSet(ABC):
    """A data set as a spec names it: a frozen dataclass whose fields say which items there are.

    A subclass states ``version``, and raises it whenever the same fields and files give other items: every run on them
    is then to be run again. ``boxed`` says that its items have boxes and what is in them, in the place of labels.
    """

    version: ClassVar[int]
    boxed: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, cache: Path) -> Splits:
        """The items, made or decoded on first use and kept under ``cache``; DataError when there are none."""

    def reads(self, use: Use) -> dict[str, object]:
        """What of this data set ``use`` depends on, as JSON: by default all fields.

        A subclass leaves out what the use does not read, and puts the content of files in the place of their paths.
        """
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def holds(self) -> Holding | None:
        """What there is for a spec to ask for, found without making or opening it; None where that cannot be said."""
        return None

    def keeps_validation(self) -> bool:
        """Whether it has items for what is chosen: by default where it has a field ``val`` above 0."""
        return bool(getattr(self, "val", 0))

    def streams(self) -> bool:
        """Whether each file is cropped as it is read, so that a step has one view of it."""
        return False

    def identity(self, use: Use) -> dict[str, object]:
        """What makes the items of ``use`` the same on every machine: the version, and what ``use`` reads."""
        version = getattr(self, "version", None)
        if not isinstance(version, int):
            raise DataError(
                f"the data set {type(self).__name__} has no version; add `version: ClassVar[int] = 1` to the class, "
                "and raise it whenever the same fields give other items."
            )
        return {"version": version, **self.reads(use)}


def identity_of(source: object, use: Use) -> dict[str, object]:
    """``source.identity(use)``; DataError when ``source`` is no data set, or its identity is not plain JSON."""
    if not isinstance(source, DataSet):
        raise DataError(
            f"{getattr(source, '__name__', type(source).__name__)} is no data set; name a frozen dataclass that "
            "inherits mae.data.source.DataSet."
        )
    identity = source.identity(use)
    try:
        json.dumps(identity)
    except TypeError as error:
        raise DataError(
            f"the identity of {type(source).__name__} is not plain JSON ({error}); leave that field out of `reads`, or "
            "put a digest in its place."
        ) from error
    return identity


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
    found = (splits.pretrain, splits.train, splits.test, splits.val)
    sources = {id(source): source for source in found if source is not None}
    held = {key: source for key, source in sources.items() if isinstance(source, Held)}
    if len(held) < len(sources) or sum(source.nbytes for source in held.values()) > room:
        return splits
    moved = {key: source.to(device) for key, source in held.items()}
    first, second, third = (moved[id(source)] for source in (splits.pretrain, splits.train, splits.test))
    val = None if splits.val is None else moved[id(splits.val)]
    return replace(splits, pretrain=first, train=second, test=third, val=val)
