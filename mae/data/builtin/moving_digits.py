"""Built-in clips that need no download: two handwritten digits moving over photographs, kept as MP4 files.

One set of clips serves two tasks, as VideoMAE's two data sets do. *motion* asks how the digits move about one
another (``mae.data.builtin.motions``), which no single digit's direction tells, and a single frame hardly;
*appearance* asks which digit both are, which any frame shows. Digits are white, upright and partly see-through at
their edges; the photograph is dimmed and magnified, so that a small model sees digits before textures. The camera pans
and zooms over both alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, NamedTuple

import av
import numpy as np
import torch
from tqdm import tqdm

from mae.data.builtin import material
from mae.data.builtin.digits_on_photos import picked
from mae.data.builtin.material import CLASSES, SPLITS, Bytes, Indices, divide_digits, enlarge, regions
from mae.data.builtin.motions import MOTIONS, Floats, paths
from mae.data.clips.cache import decoded_clips
from mae.data.files.listing import Listing
from mae.data.files.workers import default_workers, in_processes
from mae.data.source import DataSet, Holding, Splits, Use
from mae.disk import locked, replacing
from mae.errors import DataError

TASKS = {"motion": MOTIONS, "appearance": CLASSES}
FILMED = 40  # side of the pictures in the files; decord fails on some small widths, 24 and 32 among them
SIZES = (24, FILMED)  # of the decoded pictures: below, digits are not legible; above, there is nothing more to see
LENGTHS = (2, 256)
SIDE = (0.34, 0.44)  # of an enlarged digit, its margin included, as a share of the picture's side
WINDOW = 0.8  # side of the photograph's piece that the camera may show, in sides of the picture
CONTRAST = 0.6  # of the photograph, under digits of full brightness
MAGNIFIED = 2.0  # how much larger the photograph is shown than it is: less texture, which nothing predicts
FRAMES_PER_SECOND = 16
CHUNK = 32  # clips per task of a process


@dataclass(frozen=True, kw_only=True)
class MovingDigits(DataSet):
    """Sets of clips of ``frames`` frames, made on first use, kept under the cache and decoded to ``size`` a side.

    ``labels`` is "motion" (8 classes) or "appearance" (10); both label the same clips. Training, testing and validation
    share neither digits nor photographed regions; pre-training clips are drawn as training clips are, independently of
    them, and carry no label (-1). With ``val=0`` nothing is kept for validation; otherwise digits and regions for it
    leave training and pre-training. What a clip shows is a function of the fields alone, its bytes also depend on
    FFmpeg. Filming that was stopped goes on where it was; a second process waits for the first. Raises DataError for
    fields that cannot be served, missing photographs, and a cache that cannot be written or is damaged.
    """

    labels: str = "motion"
    pretrain: int = 4000
    train: int = 2000
    test: int = 1000
    size: int = 32
    frames: int = 32
    seed: int = 0
    val: int = 0
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.labels not in TASKS:
            raise DataError(f"moving_digits: labels={self.labels!r} is not known; choose one of {', '.join(TASKS)}.")
        for name in SPLITS:
            if getattr(self, name) < (name != "val"):
                raise DataError(f"moving_digits: {name}={getattr(self, name)} clips; ask for at least 1.")
        if not SIZES[0] <= self.size <= SIZES[1]:
            raise DataError(f"moving_digits: size={self.size} is not possible; choose {SIZES[0]} to {SIZES[1]}.")
        if not LENGTHS[0] <= self.frames <= LENGTHS[1]:
            raise DataError(
                f"moving_digits: frames={self.frames} is not possible; choose {LENGTHS[0]} to {LENGTHS[1]}."
            )
        if not 0 <= self.seed < 2**32:
            raise DataError(f"moving_digits: seed={self.seed} is not usable; choose one from 0 to 4294967295.")

    def reads(self, use: Use) -> dict[str, object]:
        labels = ("labels",) if use == "evaluate" else ()
        return picked(self, use, "size", "frames", "seed", *labels)

    def holds(self) -> Holding:
        sizes = {"pretrain": self.pretrain, "train": self.train, "test": self.test}
        return Holding("moving_digits", sizes, len(TASKS[self.labels]), 3, self.frames)

    def __call__(self, cache: Path) -> Splits:
        studios = self._studios(Path(cache))
        sets = {}
        for (name, studio), listing in zip(studios.items(), filmed(tuple(studios.values())), strict=True):
            shown = studio.motions if self.labels == "motion" else studio.digits
            clips = decoded_clips(listing, Path(cache), size=(self.size, self.size), max_failed=0.0)
            sets[name] = clips.labelled(torch.from_numpy(shown), TASKS[self.labels])
        unlabelled = sets["pretrain"].labelled(torch.full((self.pretrain,), -1), ())
        return Splits(unlabelled, sets["train"], sets["test"], sets.get("val"))

    def _studios(self, cache: Path) -> dict[str, _Pairs]:
        photos, (glyphs, classes) = material.photographs(), material.handwritten_digits()
        validated = self.val > 0
        studios = {}
        for stream, name in enumerate(SPLITS, start=1):
            count = getattr(self, name)
            if not count:
                continue
            digits = divide_digits(classes, self.seed, validated)[name]
            chance = np.random.RandomState([self.seed, stream])
            # of the training digits some are kept for validation, so the clips are others
            kind = f"{name}-beside-val" if validated and name in ("pretrain", "train") else name
            made = f"{kind}-{count}-{FILMED}px-{self.frames}-seed{self.seed}-{material.digest()}"
            studios[name] = _Pairs(
                folder=cache / f"moving_digits-v{self.version}-{made}",
                glyphs=glyphs[digits],
                labels=classes[digits],
                regions=tuple(regions(photos, name, window_of(FILMED), validated)),
                count=count,
                size=FILMED,
                frames=self.frames,
                seed=(self.seed, stream),
                motions=_balanced(count, len(MOTIONS), chance),
                digits=_balanced(count, len(CLASSES), chance),
            )
        return studios


@dataclass(frozen=True)
class Studio(ABC):
    """What a process needs to film the ``count`` clips of one split into ``folder``."""

    folder: Path
    glyphs: Bytes  # (n, 8, 8), the digits of this split
    labels: Indices
    regions: tuple[Bytes, ...]
    count: int
    size: int
    frames: int
    seed: tuple[int, int]

    @abstractmethod
    def film(self, index: int) -> Bytes:
        """Clip ``index`` as ``(F, size, size, 3)``, a function of the studio's seed and the index."""

    def path(self, index: int) -> Path:
        return self.folder / f"{index:06}.mp4"

    def listing(self) -> Listing:
        """All of its files, unlabelled."""
        names = tuple(self.path(index).name for index in range(self.count))
        return Listing(self.folder, names, (-1,) * self.count, ())


@dataclass(frozen=True)
class _Pairs(Studio):
    """Clips of two digits: ``motions`` and ``digits: (clips,)`` say what each shows."""

    motions: Indices
    digits: Indices

    def film(self, index: int) -> Bytes:
        chance = np.random.RandomState([*self.seed, index])
        way = paths(MOTIONS[self.motions[index]], self.frames, chance)
        seen = seen_by(way.camera, way.zoom, self.size)
        clip = backdrop(self.regions, seen, chance)
        pair = chance.choice(np.flatnonzero(self.labels == self.digits[index]), 2, replace=False)
        for digit, centre in zip(pair, way.digits, strict=True):
            side = chance.randint(round(SIDE[0] * self.size), round(SIDE[1] * self.size) + 1)
            clip += (255 - clip) * inked(self.glyphs[digit], side, centre, seen)[..., None]
        return levels(clip)


def filmed(studios: tuple[Studio, ...]) -> list[Listing]:
    """The MP4 files of each studio, after filming those that are not there; all labels are -1."""
    try:
        with ExitStack() as locks:
            for studio in studios:
                studio.folder.mkdir(parents=True, exist_ok=True)
                locks.enter_context(locked(studio.folder.with_suffix(".lock")))
            chunks = [chunk for place, studio in enumerate(studios) for chunk in _chunks(place, studio)]
            total, left = sum(studio.count for studio in studios), sum(len(chunk.clips) for chunk in chunks)
            workers = default_workers() if left >= 8 * CHUNK else 0
            with tqdm(
                total=total, initial=total - left, unit="clip", desc="filming", disable=None if left else True
            ) as bar:
                for done in in_processes(_film_chunk, studios, chunks, workers):
                    bar.update(done)
    except (OSError, RuntimeError) as error:
        message = f"The built-in clips cannot be kept in {studios[0].folder.parent} ({error}); name another folder."
        raise DataError(message) from error
    return [studio.listing() for studio in studios]


class _Chunk(NamedTuple):
    """Some clips of the studio at ``place``."""

    place: int
    clips: list[int]


def _chunks(place: int, studio: Studio) -> list[_Chunk]:
    """What is still to be filmed."""
    there = {path.name for path in studio.folder.iterdir()}
    todo = [index for index in range(studio.count) if studio.path(index).name not in there]
    return [_Chunk(place, todo[first : first + CHUNK]) for first in range(0, len(todo), CHUNK)]


def _film_chunk(studios: tuple[Studio, ...], chunk: _Chunk) -> int:
    studio = studios[chunk.place]
    for index in chunk.clips:
        write_clip(studio.path(index), studio.film(index))
    return len(chunk.clips)


def _balanced(count: int, classes: int, chance: np.random.RandomState) -> Indices:
    """``(count,)`` classes in random order, each equally often, give or take one."""
    rounds = [chance.permutation(classes) for _ in range(-(-count // classes))]
    return np.concatenate(rounds)[:count]


def window_of(size: int) -> int:
    """Side in pixels of the photograph's piece that the camera may show in pictures of ``size``."""
    return int(np.ceil(WINDOW * size))


def seen_by(camera: Floats, zoom: Floats, size: int) -> Floats:
    """Where the rows and columns of the picture lie on the photograph, in sides of the picture: ``(F, 2, size)``."""
    pixel = (np.arange(size) + 0.5) / size - 0.5
    seen: Floats = camera[:, :, None] + pixel / zoom[:, None, None]
    return seen


def backdrop(regions: Sequence[Bytes], seen: Floats, chance: np.random.RandomState) -> Floats:
    """A clip ``(F, size, size, 3)`` of a random piece of ``regions``, dimmed, so that digits stand out."""
    frames, _, size = seen.shape
    window = window_of(size)
    region = regions[chance.randint(len(regions))]
    top, left = (chance.randint(length - window + 1) for length in region.shape[:2])
    piece = region[top : top + window, left : left + window].astype(np.float64)
    rows, columns = (_weights(seen[:, axis] * size / MAGNIFIED + window / 2 - 0.5, window) for axis in (0, 1))
    # (F, y, h) @ (h, w * C) -> (F, y, w, C); (F, 1, x, w) @ that -> (F, y, x, C)
    across = (rows @ piece.reshape(window, -1)).reshape(frames, size, window, 3)
    dimmed: Floats = CONTRAST * (columns[:, None] @ across)
    return dimmed


def inked(glyph: Bytes, side: int, centre: Floats, seen: Floats, scale: Floats | float = 1.0) -> Floats:
    """How much of each pixel a digit covers, ``(F, size, size)`` in [0, 1].

    ``glyph: (8, 8)`` is enlarged to ``side`` pixels, shown ``scale: (F, 1)`` times as large, around ``centre: (F, 2)``.
    """
    size = seen.shape[2]
    large = enlarge(glyph[None], side)[0].astype(np.float64)
    rows, columns = (
        _weights((seen[:, axis] - centre[:, axis, None]) * size / scale + side / 2 - 0.5, side) for axis in (0, 1)
    )
    ink: Floats = (rows @ large @ columns.transpose(0, 2, 1)) / 255
    return ink


def levels(clip: Floats) -> Bytes:
    """``clip`` as bytes."""
    return np.rint(clip).clip(0, 255).astype(np.uint8)


def _weights(places: Floats, length: int) -> Floats:
    """Linear interpolation between ``length`` pixels, nothing beyond: ``places: (F, S)`` to ``(F, S, length)``."""
    return np.maximum(0, 1 - np.abs(places[..., None] - np.arange(length)))


def write_clip(path: Path, clip: Bytes) -> None:
    """``clip: (F, h, w, 3)`` as MP4, H.264 where FFmpeg has x264, else MPEG-4; all or nothing."""
    codec, options = ("mpeg4", {"qscale": "2"})
    if "libx264" in av.codecs_available:
        # a fixed quantiser: under crf, x264's macroblock tree made other bytes of the same tiny frames now and then
        codec, options = "libx264", {"qp": "15", "preset": "veryfast"}
    with replacing(path) as draft, av.open(str(draft), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=FRAMES_PER_SECOND, options=options)
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for time, pixels in enumerate(clip):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, FRAMES_PER_SECOND)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
