"""Clips that users have as the data of a study: decoded once (``size``), or streamed from files (``short_side``).

Every function takes exactly one of the two: with ``size = (h, w)`` clips are decoded once, cropped to that and kept
under ``cache``; with ``short_side`` they are decoded for every batch. ``train`` and ``test`` are the numbers of clips
that the spec counts on. They raise DataError when files are missing or counts differ, and as ``decoded_clips`` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mae.data.clips import cache as clip_cache
from mae.data.clips import lists as clip_lists
from mae.data.clips.cache import decoded_clips
from mae.data.clips.files import ClipFiles
from mae.data.clips.source import ClipSource
from mae.data.files.listing import Listing
from mae.data.source import Splits
from mae.errors import DataError

VERSION = 1  # raise it whenever the same files give other pixels


def clip_folder(
    cache: Path,
    *,
    root: str | None,
    train: int,
    test: int,
    size: Sequence[int] | None = None,
    short_side: int | None = None,
) -> Splits:
    """Clips in train/<class>/ and test|val/<class>/ under ``root``."""
    folder = Path(_given(root))
    first, second = (clip_lists.clips_in_folder(folder, split) for split in ("train", "test"))
    return _splits("clips", first, second, cache, (train, test), size, short_side)


def clip_list(
    cache: Path,
    *,
    root: str | None,
    train_list: str,
    test_list: str,
    classes: int,
    train: int,
    test: int,
    size: Sequence[int] | None = None,
    short_side: int | None = None,
    delimiter: str | None = None,
) -> Splits:
    """Clips under ``root`` that two lists name, in lines of a path and a label; so are Kinetics and others shared.

    The lists' names start from ``root`` too. ``classes`` is the number of labels.
    """
    folder = Path(_given(root))
    first = clip_lists.clips_in_list(folder / train_list, root=folder, delimiter=delimiter)
    numbered = not first.classes or first.classes[0] == "0"
    second = clip_lists.clips_in_list(
        folder / test_list, root=folder, classes=classes if numbered else first.classes, delimiter=delimiter
    )
    if len(first.classes) > classes or (not numbered and len(first.classes) != classes):
        raise DataError(
            f"{folder / train_list} has {len(first.classes)} classes, the spec says {classes}; "
            "set data.classes to match."
        )
    first = Listing(first.root, first.names, first.labels, second.classes)
    return _splits("list", first, second, cache, (train, test), size, short_side)


def something_something(
    cache: Path,
    *,
    root: str | None,
    train_list: str,
    test_list: str,
    labels: str,
    videos: str,
    train: int,
    test: int,
    size: Sequence[int] | None = None,
    short_side: int | None = None,
) -> Splits:
    """Something-Something V2 by its official JSON files and its folder ``videos``, all under ``root``.

    The test set is the validation list, as in the paper.
    """
    folder = Path(_given(root))
    first, second = (
        clip_lists.clips_in_json(folder / name, labels=folder / labels, root=folder / videos)
        for name in (train_list, test_list)
    )
    return _splits("ssv2", first, second, cache, (train, test), size, short_side)


def ucf101(
    cache: Path,
    *,
    root: str | None,
    lists: str,
    videos: str,
    train: int,
    test: int,
    fold: int = 1,
    size: Sequence[int] | None = None,
    short_side: int | None = None,
) -> Splits:
    """UCF101 by the official files in the folder ``lists``, clips in ``videos``, both under ``root``."""
    folder = Path(_given(root))
    first, second = (
        clip_lists.ucf101(folder / lists, split, root=folder / videos, fold=fold) for split in ("train", "test")
    )
    return _splits(f"ucf101-{fold}", first, second, cache, (train, test), size, short_side)


def hmdb51(
    cache: Path,
    *,
    root: str | None,
    lists: str,
    videos: str,
    train: int,
    test: int,
    fold: int = 1,
    size: Sequence[int] | None = None,
    short_side: int | None = None,
) -> Splits:
    """HMDB51 by the official files in the folder ``lists``, clips in ``videos``/<class>/, both under ``root``."""
    folder = Path(_given(root))
    first, second = (
        clip_lists.hmdb51(folder / lists, split, root=folder / videos, fold=fold) for split in ("train", "test")
    )
    return _splits(f"hmdb51-{fold}", first, second, cache, (train, test), size, short_side)


def _given(root: str | None) -> str:
    if root is None:
        raise DataError("The data is clips in a folder and none is named; add data.source.root=PATH.")
    return root


def _splits(
    name: str,
    train: Listing,
    test: Listing,
    cache: Path,
    counts: tuple[int, int],
    size: Sequence[int] | None,
    short_side: int | None,
) -> Splits:
    """Pre-training reads the training clips (the paper does). ``identity`` holds the content's digests."""
    for split, side, count in zip(("train", "test"), (train, test), counts, strict=True):
        if len(side) != count:
            raise DataError(
                f"{side.root} has {len(side)} clips for {split}, the spec says {count}; "
                f"set data.source.{split} to match."
            )
    digests = f"{train.digest()}-{test.digest()}"
    first: ClipSource
    second: ClipSource
    if size is not None and short_side is None:
        h, w = size
        first, second = (decoded_clips(side, cache, size=(h, w)) for side in (train, test))
        identity = f"{name}-v{clip_cache.VERSION}-{digests}-{h}x{w}-{len(first)}-{len(second)}"
    elif short_side is not None and size is None:
        first, second = (ClipFiles(side, short_side=short_side) for side in (train, test))
        identity = f"{name}-streamed-v{VERSION}-{digests}-{short_side}"
    else:
        raise DataError(f"size={size}, short_side={short_side}: give one of the two.")
    return Splits(pretrain=first, train=first, test=second, identity=identity)
