"""A folder (or list) of pictures as the data of a study: decoded once, or streamed from its files.

A streamed picture is cropped by the worker that decodes it, from the original file, as the papers do; what an
augmentation does after its crop is left to the device. ``staged`` divides an augmentation so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Generator, Tensor

from mae.data.augment.compose import Compose
from mae.data.augment.crops import CenterCrop, FixedSizeCrop, RandomResizedCrop
from mae.data.augment.resample import cover, unit
from mae.data.clips.files import TakenFiles
from mae.data.pictures.decode import cover as cover_picture
from mae.data.pictures.geometry import CentreView, Geometry, RandomView
from mae.data.pictures.images import ImageFiles, Listing, image_files, splits
from mae.data.source import Augment, Source, Splits
from mae.errors import DataError

VERSION = 1  # raise it whenever the same files give other pixels


@dataclass(frozen=True)
class CentreOfResized:
    """The papers' test view of a batch: resize to cover ``resize``, keep the centre ``size``, both (h, w)."""

    size: Sequence[int]
    resize: Sequence[int]

    def __post_init__(self) -> None:
        if not (0 < self.size[0] <= self.resize[0] and 0 < self.size[1] <= self.resize[1]):
            raise DataError(f"CentreOfResized: size={self.size} does not fit into resize={self.resize}; enlarge it.")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """``images: (B, C, H, W)`` uint8 or float in [0, 1] to float32 ``(B, C, h, w)``; nothing is random."""
        (h, w), images = self.size, cover(unit(images), *self.resize)
        top, left = round((images.shape[-2] - h) / 2), round((images.shape[-1] - w) / 2)
        return images[..., top : top + h, left : left + w].contiguous()


@dataclass(frozen=True)
class FixedView:
    """A crop at one scale in a random place (MAE Table 1e "crop, fixed size"), cut from the picture's file.

    The picture is scaled to cover ``resize``; the crop has ``size``; both (h, w).
    """

    size: tuple[int, int]
    resize: tuple[int, int]
    flip: bool = True

    def __call__(self, picture: Image.Image, generator: Generator) -> Image.Image:
        height, width = self.size
        rows, columns = self.resize
        longer = max(rows / picture.height, columns / picture.width)
        picture = cover_picture(
            picture, (max(rows, int(picture.height * longer)), max(columns, int(picture.width * longer)))
        )
        down, right, mirror = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        top, left = int(down * (picture.height - height + 1)), int(right * (picture.width - width + 1))
        picture = picture.crop((left, top, left + width, top + height))
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flip and mirror < 0.5 else picture


class StreamedFiles(ImageFiles):
    """``ImageFiles`` that can be looked at through another geometry, or in part. ``labels: (n,)`` int64."""

    def __init__(self, listing: Listing, geometry: Geometry, channels: int) -> None:
        super().__init__(listing, geometry, channels=channels)
        self.listing, self.geometry, self.channels = listing, geometry, channels
        self.labels = self._decoder.labels

    def through(self, geometry: Geometry) -> StreamedFiles:
        """The same files, each cropped by ``geometry`` where it is decoded."""
        return StreamedFiles(self.listing, geometry, self.channels)

    def part(self, ids: Tensor) -> StreamedFiles:
        """The files ``ids: (n,)`` int64, of which alone it reports; the classes stay those of all."""
        rows, found = ids.tolist(), self.listing
        names, labels = tuple(found.names[row] for row in rows), tuple(found.labels[row] for row in rows)
        return StreamedFiles(replace(found, names=names, labels=labels), self.geometry, self.channels)


def decoded_folder(
    cache: Path, *, root: str | None, size: Sequence[int], channels: int, train: int, test: int
) -> Splits:
    """The pictures under ``root``, decoded once to ``size = (h, w)`` and kept under ``cache``.

    ``train`` and ``test`` are how many the study uses. All are decoded and returned, so that one cache serves every
    part of them (``part_of``). Raises DataError when ``root`` is not given or holds fewer, and as ``image_files`` and
    ``cached`` do.
    """
    sides = _sides(root, train, test)
    height, width = size
    return splits(*sides, cache, size=(height, width), channels=channels, name="folder")


def streamed_folder(cache: Path | None = None, *, root: str | None, channels: int, train: int, test: int) -> Splits:
    """The pictures under ``root``, decoded anew for every batch by worker processes; ``staged`` gives them a crop.

    Nothing is kept, so ``cache`` is not used. Errors as in ``decoded_folder``.
    """
    first, second = _sides(root, train, test)
    train_files, test_files = (StreamedFiles(side, CentreView(), channels) for side in (first, second))
    identity = f"streamed-v{VERSION}-{first.digest()}-{second.digest()}-c{channels}"
    return Splits(pretrain=train_files, train=train_files, test=test_files, identity=identity)


def _sides(root: str | None, train: int, test: int) -> tuple[Listing, Listing]:
    if root is None:
        raise DataError("The data is a folder and none is named; add data.source.root=PATH.")
    sides = image_files(root, "train"), image_files(root, "test")
    for name, side, count in zip(("train", "test"), sides, (train, test), strict=True):
        if count > len(side):
            also = " (and data.samples.pretrain)" if name == "train" else ""
            raise DataError(
                f"{root} has {len(side)} pictures for {name}, the spec asks for {count}; lower data.samples.{name}"
                f"{also} to {len(side)} or less."
            )
    return sides


def staged(source: Source, augment: Augment) -> tuple[Source, Augment]:
    """``source`` and ``augment``, or for streamed files: the files cropped on decoding, and what is left to do."""
    if not isinstance(source, StreamedFiles | TakenFiles):
        return source, augment
    crop, *rest = _steps(augment)
    if isinstance(source, TakenFiles):
        return source.through(crop), Compose(tuple(rest))
    return source.through(_view(crop)), Compose(tuple(rest))


def _steps(augment: Augment) -> list[Augment]:
    if isinstance(augment, Compose):
        return [part for step in augment.steps for part in _steps(step)]
    return [augment]


def _view(crop: Augment) -> Geometry:
    """The crop of a batch as a crop of one encoded picture."""
    if isinstance(crop, RandomResizedCrop) and crop.interpolation == "bicubic":
        low, high = crop.scale
        narrow, wide = crop.ratio
        return RandomView(_pair(crop.size), (low, high), (narrow, wide), crop.flip)
    if isinstance(crop, FixedSizeCrop) and crop.padding is None:
        h, w = _pair(crop.size)
        return FixedView((h, w), (round(h * 256 / 224), round(w * 256 / 224)), crop.flip)
    if isinstance(crop, CentreOfResized):
        return CentreView(_pair(crop.size), _pair(crop.resize))
    if isinstance(crop, CenterCrop):
        return CentreView(_pair(crop.size), _pair(crop.size))
    raise DataError(
        f"Files that are streamed are cropped as they are decoded, and {crop} is no crop that can be taken there; "
        f"begin the augmentation with RandomResizedCrop (bicubic), FixedSizeCrop (no padding) or CenterCrop."
    )


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    h, w = (size, size) if isinstance(size, int) else size
    return h, w
