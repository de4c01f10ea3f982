"""Data sets that timm opens: torchvision's, those of Hugging Face and TensorFlow Datasets, tar files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch.utils.data import IterableDataset

from mae.data.files.content import content_of, stamp_of
from mae.data.pictures.cache import VERSION, DecodedImages, decoded_pictures
from mae.data.pictures.decode import Decoding, read_picture
from mae.data.source import DataSet, Holding, Splits, Use
from mae.errors import DataError

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, kw_only=True)
class TimmData(DataSet):
    """The set of pictures ``name`` of ``timm.data.create_dataset``, decoded once to ``size`` and kept under the cache.

    ``root`` is the local copy; the network is used only with ``download``. ``train`` and ``test`` are how many pictures
    a study uses; all are read, so that one cache serves every part of them. ``classes`` is the number of labels.
    ``train_split`` and ``test_split`` are what the set calls its splits, ``val_split`` likewise, if it has three.
    Pre-training reads the training pictures. The name stands for the content: a copy that was altered by hand is
    not told from another. A tar file, which has no name, counts by its bytes.
    """

    name: str | None
    root: str | None
    size: Sequence[int]
    channels: int
    classes: int
    train: int
    test: int
    train_split: str = "train"
    test_split: str = "validation"
    val_split: str | None = None
    download: bool = False
    version: ClassVar[int] = VERSION

    def reads(self, use: Use) -> dict[str, object]:
        shared = {"name": self.name, "size": list(self.size), "channels": self.channels, "train": self.train_split}
        others = {} if use == "pretrain" else {"test": self.test_split, "val": self.val_split, "classes": self.classes}
        tar = {"tar": content_of(Path(self.root).parent, [Path(self.root).name])} if not self.name and self.root else {}
        return {**shared, **others, **tar}

    def holds(self) -> Holding | None:
        if self.name is None:
            return None
        train, test = (len(self._opened(split)) for split in (self.train_split, self.test_split))
        return Holding(f"{self.name}", {"pretrain": train, "train": train, "test": test}, self.classes)

    def __call__(self, cache: Path) -> Splits:
        height, width = self.size

        def decoded(split: str) -> DecodedImages:
            return decoded_pictures(self._opened(split), cache, size=(height, width), decoding=Decoding(self.channels))

        train, test = decoded(self.train_split), decoded(self.test_split)
        val = decoded(self.val_split) if self.val_split else None
        for side in (train, test, *([val] if val else [])):
            if len(side.classes) > self.classes or int(side.labels.max()) >= self.classes:
                raise DataError(
                    f"{self.name} has {max(len(side.classes), int(side.labels.max()) + 1)} classes, the spec says "
                    f"{self.classes}; set data.classes to match."
                )
        return Splits(train, train, replace(test, classes=train.classes), val and replace(val, classes=train.classes))

    def _opened(self, split: str) -> TimmPictures:
        if self.name is None:
            raise DataError("The data is one of timm's and none is named; add data.source.name=torch/cifar10, say.")
        return timm_dataset(self.name, self.root, split, download=self.download)


class TimmPictures:
    """What ``timm.data.create_dataset`` opened, as ``Pictures``.

    Files and tar members are read through timm's reader, not through its data set, which answers for a
    damaged picture with the next one. A set that can only be iterated (tfds, wds) is read in order by one
    process.
    """

    def __init__(self, dataset: Any, key: str, root: str | None) -> None:
        self.dataset, self.key, self.root = dataset, key, root
        self.classes = _timm_classes(dataset)
        self.sequential = isinstance(dataset, IterableDataset)
        self._items: Iterator[Any] | None = None
        self._next = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        if self._members is not None:
            return str(self.dataset.filename(index))
        return f"{self.key}[{index}]"

    def read(self, index: int) -> tuple[Image.Image, int]:
        """The decoded picture and its label; OSError when an iterated set ends before ``index``."""
        if self.sequential:
            picture, label = self._iterate_to(index)
        elif self._reader is None:  # a torchvision data set hands out decoded pictures
            picture, label = self.dataset[index]
        else:
            file, label = self._reader[index][:2]
            with file:
                picture = read_picture(file)
        return picture, -1 if label is None else int(label)

    def stamp(self) -> str:
        """Hex digits over name, split, place, length and classes; of a tar file also over members, size and time.

        What Hugging Face says of the content counts, too.
        """
        content = getattr(getattr(self._reader, "dataset", None), "_fingerprint", "")
        digest = hashlib.sha256(
            f"{self.key}|{self.root}|{len(self)}|{self.classes}|{content}".encode(errors="surrogateescape")
        )
        if self._members is not None:
            for index in range(len(self)):
                digest.update(os.fsencode(self.name(index)) + b"\n")
            digest.update(stamp_of(Path(self._reader.root).parent, [Path(self._reader.root).name]).encode())
        return digest.hexdigest()[:32]

    @property
    def _reader(self) -> Any:
        return getattr(self.dataset, "reader", None)

    @property
    def _members(self) -> Any:
        """The tar file's members, None for other sets."""
        return getattr(self._reader, "samples", None)

    def _iterate_to(self, index: int) -> tuple[Image.Image, Any]:
        if self._items is None or index < self._next:
            self._items, self._next = iter(self.dataset), 0
        item: Any = None
        while self._next <= index:
            self._next += 1
            item = next(self._items, None)
        if item is None:
            raise OSError("the set ended before this picture")
        return item[0], item[1]


def timm_dataset(name: str, root: Path | str | None, split: str, *, download: bool = False) -> TimmPictures:
    """What ``timm.data.create_dataset`` opens: "torch/cifar10", "hfds/<name>", "tfds/<name>"; "" a tar file.

    ``root`` is the local copy (for hfds the cache folder); the network is used only when ``download`` is
    asked for. Raises DataError when there is no such set, no local copy, or a package that it needs is
    missing.
    """
    from timm.data.dataset_factory import create_dataset

    where = f"{name or 'tar file'} ({split} split) under {root}"
    place = None if root is None else str(Path(root).resolve())
    is_tar = name == "" and place is not None and place.endswith(".tar") and Path(place).is_file()
    if name.lower() in {"", "torch/folder", "torch/image_folder"} and not is_tar:
        raise DataError(f"{where}: no tar file there; folders of pictures are data=image_folder.")
    # For a large archive timm would keep, and trust, a pickle beside it.
    options: dict[str, Any] = {"cache_tarinfo": False} if is_tar else {}
    if name.lower().startswith("hfids/") and not download:
        raise DataError(
            f"{name} is streamed from the network; use hfds/ with a local copy, or add data.source.download=true."
        )
    try:
        with _network(download):
            dataset = create_dataset(name, root=place, split=split, download=download, **options)
            length = len(dataset)
    except Exception as error:  # each library behind timm has its own types
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(
            f"{where} cannot be opened: {why}; put a copy there, or add data.source.download=true."
        ) from error
    if not length:
        raise DataError(f"{where} is empty; check the split and the folder.")
    return TimmPictures(dataset, f"{name}|{split}", place)


def _timm_classes(dataset: Any) -> tuple[str, ...]:
    """Class names in label order, empty when the set does not tell them."""
    if getattr(dataset, "classes", None):
        return tuple(map(str, dataset.classes))
    numbers = getattr(getattr(dataset, "reader", None), "class_to_idx", None)
    numbers = numbers or getattr(getattr(dataset, "reader", None), "class_name_to_idx", None) or {}
    return tuple(str(name) for name, _ in sorted(numbers.items(), key=lambda item: item[1]))


@contextmanager
def _network(allowed: bool) -> Iterator[None]:
    """Keep the Hugging Face libraries on local copies unless ``allowed``; they ask at each call."""
    modules: list[Any] = []
    for name in ("huggingface_hub.constants", "datasets.config"):
        with suppress(ImportError):  # not installed: nothing to keep offline
            modules.append(import_module(name))
    before = [(module, module.HF_HUB_OFFLINE) for module in modules]
    try:
        for module, offline in before:
            module.HF_HUB_OFFLINE = offline or not allowed
        yield
    finally:
        for module, offline in before:
            module.HF_HUB_OFFLINE = offline
