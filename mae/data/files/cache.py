"""Decode a set of pictures once, to one size, into one array on disk that every later run maps or loads."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mae.data.files.listing import printable
from mae.data.files.tally import DecodedImages, DecodeReport, Pictures
from mae.data.files.workers import default_workers, in_processes
from mae.data.pictures.decode import channels_of, cover, reason, to_array, with_channels
from mae.disk import locked
from mae.errors import DataError

VERSION = 1  # raise it whenever the same files give other pixels
CHUNK = 256  # pictures per task: large enough to hide its cost, small enough for the bar to move

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job:
    """What a process needs to fill rows of the array at ``path``."""

    pictures: Pictures
    path: Path
    size: tuple[int, int]
    channels: int
    strict: bool  # the files' own channels were asked for: another count is a failure, not converted


def cached(
    pictures: Pictures,
    cache: Path,
    *,
    size: int | tuple[int, int],
    channels: int | None = 3,
    budget: int = 4 * 2**30,
    workers: int | None = None,
    max_failed: float = 0.05,
) -> DecodedImages:
    """All pictures as ``pixels: (n, channels, h, w)`` uint8, scaled to cover ``size``, centre cropped.

    ``channels`` is 1, 3, or None for those of the first readable picture. The array is kept under ``cache``
    by the digest of the set, the size and the channels; it is loaded when it has at most ``budget`` bytes,
    else mapped. A second process waits for the first; decoding that was stopped goes on where it was. An
    unreadable picture is left out, named in ``report`` and in the JSON file beside the array. ``workers``:
    processes, 0 for this one. Raises DataError when more than the share ``max_failed`` is unreadable, or the
    disk is too small.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1 or channels not in (1, 3, None):
        raise DataError(f"size={size}, channels={channels}: give a size from 1 pixel and channels 1, 3 or None.")
    if not len(pictures):
        raise DataError("There are no pictures to decode; check the folder and the split.")
    cache.mkdir(parents=True, exist_ok=True)
    stem = f"pictures-v{VERSION}-{pictures.digest(times=True)}-{height}x{width}-c{channels or 'file'}"
    target = cache / f"{stem}.npy"
    if not _complete(target):
        with locked(cache / f"{stem}.lock"):
            if not _complete(target):
                _decode_all(pictures, target, (height, width), channels, workers, max_failed)
    account = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
    report = DecodeReport(account["read"], tuple((name, why) for name, why in account["failed"]))
    report.check(max_failed, str(target))
    # Copy-on-write: torch wants writable memory, and nothing may alter the file.
    pixels = np.load(target) if target.stat().st_size <= budget else np.load(target, mmap_mode="c")
    classes = pictures.classes or tuple(str(label) for label in range(max(account["labels"]) + 1))
    return DecodedImages(torch.from_numpy(pixels), torch.tensor(account["labels"]), classes, report)


def _complete(target: Path) -> bool:
    """Whether a whole array and its account lie there; a damaged pair counts as none."""
    try:
        account = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
        pixels = np.load(target, mmap_mode="r")
        return bool(len(pixels) == account["read"] == len(account["labels"]))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _decode_all(
    pictures: Pictures,
    target: Path,
    size: tuple[int, int],
    channels: int | None,
    workers: int | None,
    max_failed: float,
) -> None:
    """Fill a partial array chunk by chunk, noting each in a journal; then drop failed rows."""
    count = len(pictures)
    if workers is None:
        workers = default_workers() if count >= 2 * CHUNK else 0  # starting a process costs more than a few files
    if pictures.sequential:
        workers = 0
    strict = channels is None
    if channels is None:
        channels = next(in_processes(_first_channels, pictures, [0], min(workers, 1)))
    shape = (count, channels, *size)
    partial, journal = target.with_suffix(".partial.npy"), target.with_suffix(".partial.jsonl")
    chunks = {first: min(first + CHUNK, count) for first in range(0, count, CHUNK)}
    done = {} if pictures.sequential else _resume(partial, journal, shape, chunks)
    if not done:
        _need_space(target.parent, int(np.prod(shape)))
        np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape).flush()
    # Rewritten, since a line that the stop cut short must not run into the next.
    journal.write_text("".join(json.dumps(note) + "\n" for note in done.values()), encoding="utf-8")
    job = _Job(pictures, partial, size, channels, strict)
    todo = [chunk for chunk in chunks.items() if chunk[0] not in done]
    known = sum(len(note["labels"]) for note in done.values())
    try:
        with (
            open(journal, "a", encoding="utf-8") as notes,
            tqdm(total=count, initial=known, unit="file", desc="decoding", disable=None) as bar,
        ):
            for note in in_processes(_fill, job, todo, workers):
                notes.write(json.dumps(note) + "\n")
                notes.flush()
                done[note["first"]] = note
                bar.update(len(note["labels"]))
    except RuntimeError as error:
        raise DataError(str(error)) from error
    labels = [label for first in sorted(done) for label in done[first]["labels"]]
    failed = [(int(row), str(why)) for first in sorted(done) for row, why in done[first]["failed"]]
    report = DecodeReport(count - len(failed), tuple((pictures.name(row), why) for row, why in failed))
    try:
        report.check(max_failed, str(target))
    except DataError:
        partial.unlink()
        journal.unlink()
        raise
    for name, why in report.failed:
        log.warning("left out: %s: %s", printable(name), why)
    if failed:
        _without(partial, {row for row, _ in failed})
    left_out = {row for row, _ in failed}
    account = {
        "read": report.read,
        "failed": report.failed,
        "labels": [label for row, label in enumerate(labels) if row not in left_out],
    }
    draft = target.with_suffix(".partial.json")
    draft.write_text(json.dumps(account), encoding="utf-8")
    draft.replace(target.with_suffix(".json"))
    partial.replace(target)  # last: the array's name says that all is there
    journal.unlink()


def _fill(job: _Job, chunk: tuple[int, int]) -> dict[str, Any]:
    """Decode rows ``chunk[0]`` to ``chunk[1] - 1``; labels of these, and the rows that failed with the reason."""
    rows = np.load(job.path, mmap_mode="r+")
    labels: list[int] = []
    failed: list[tuple[int, str]] = []
    for row in range(*chunk):
        label = -1
        try:
            picture, label = job.pictures.read(row)
            found = channels_of(picture)
            if job.strict and found != job.channels:
                raise ValueError(f"{found} channels, the first picture {job.channels}; pass channels=1 or 3")
            rows[row] = to_array(cover(with_channels(picture, job.channels), job.size))
        except Exception as error:  # Pillow raises a dozen types; each means: unusable
            failed.append((row, reason(error, _path(job.pictures, row))))
        labels.append(int(label))
    rows.flush()
    return {"first": chunk[0], "labels": labels, "failed": failed}


def _first_channels(pictures: Pictures, start: int) -> int:
    for row in range(start, len(pictures)):
        try:
            return channels_of(pictures.read(row)[0])
        except Exception as error:  # an unreadable picture is reported by the decoding proper
            log.debug("%s: %s", pictures.name(row), error)
    return 3


def _path(pictures: Pictures, row: int) -> Path | None:
    return pictures.path(row) if hasattr(pictures, "path") else None


def _resume(partial: Path, journal: Path, shape: Sequence[int], chunks: dict[int, int]) -> dict[int, dict[str, Any]]:
    """Chunks that a stopped decoding noted as done; none when its array is missing or of another shape."""
    done: dict[int, dict[str, Any]] = {}
    try:
        if np.load(partial, mmap_mode="r").shape != tuple(shape):
            return {}
        for line in journal.read_text(encoding="utf-8").splitlines():
            note = json.loads(line)
            if chunks.get(note["first"]) == note["first"] + len(note["labels"]):
                done[note["first"]] = note
    except (OSError, ValueError):
        pass  # no partial array, or a last line cut short by the stop: what was read until here counts
    return done


def _need_space(folder: Path, size: int) -> None:
    """A full disk would kill the process that writes through a map, so it is looked at beforehand."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"{folder} has {free / 1e9:.1f} GB free, the pictures need {size / 1e9:.1f} GB; use another disk."
        )


def _without(path: Path, rows: set[int]) -> None:
    """Rewrite the array without ``rows``, order kept."""
    pixels: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    keep = np.array([row for row in range(len(pixels)) if row not in rows])
    _need_space(path.parent, keep.size * pixels[0].nbytes)
    draft = path.with_suffix(".kept.npy")
    kept = np.lib.format.open_memmap(draft, mode="w+", dtype=np.uint8, shape=(keep.size, *pixels.shape[1:]))
    for first in range(0, keep.size, CHUNK):
        kept[first : first + CHUNK] = pixels[keep[first : first + CHUNK]]
    kept.flush()
    draft.replace(path)
