"""Decode a set of clips once, to one size, into one file on disk that every later run maps."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from mae.data.clips.source import DecodedClips
from mae.data.clips.video import LIMIT, Video, in_threads
from mae.data.files.listing import Listing, printable
from mae.data.files.tally import DecodeReport
from mae.data.files.workers import default_workers
from mae.disk import locked
from mae.errors import DataError

VERSION = 1  # raise it whenever the same files give other pixels

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Decoder:
    """Reads all frames of one clip of a listing."""

    listing: Listing
    size: tuple[int, int]
    limit: float

    def __call__(self, row: int) -> NDArray[np.uint8] | str:
        """``(n, 3, h, w)`` uint8, or why there are none."""
        try:
            video = Video(self.listing.path(row), limit=self.limit)
            return video.read(range(video.frames), size=self.size)
        except DataError as error:
            return str(error)


def decoded_clips(
    listing: Listing,
    cache: Path,
    *,
    size: tuple[int, int],
    workers: int | None = None,
    max_failed: float = 0.05,
    limit: float = LIMIT,
) -> DecodedClips:
    """All frames of all clips, each scaled to cover ``size = (h, w)`` and centre cropped.

    The file is kept under ``cache`` by the digest of the set and the size. A second process waits for the first;
    decoding that was stopped goes on where it was. An unusable clip is left out, named in ``report`` and in the JSON
    file beside the frames. ``workers`` decode at a time. Raises DataError when more than the share ``max_failed`` is
    unusable, or the disk is full.
    """
    if min(size) < 1 or not len(listing):
        raise DataError(f"{listing.root}: {len(listing)} clips at size={size}; give clips, and at least one pixel.")
    cache.mkdir(parents=True, exist_ok=True)
    stem = f"clips-v{VERSION}-{listing.digest(times=True)}-{size[0]}x{size[1]}"
    target = cache / f"{stem}.bin"
    if not _complete(target):
        with locked(cache / f"{stem}.lock"):
            if not _complete(target):
                _decode_all(_Decoder(listing, size, limit), target, workers or default_workers(), max_failed)
    account = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
    failed = {row: why for row, why in account["failed"]}
    report = DecodeReport(len(account["lengths"]), tuple((listing.name(row), why) for row, why in failed.items()))
    report.check(max_failed, str(target))
    kept = [row for row in range(len(listing)) if row not in failed]
    return DecodedClips(
        _mapped(target, size),
        torch.tensor([0, *account["lengths"]]).cumsum(0),
        torch.tensor(listing.labels, dtype=torch.int64)[kept],
        listing.classes,
        names=tuple(listing.name(row) for row in kept),
        failed=report.failed,
        max_failed=max_failed,
    )


def _mapped(target: Path, size: tuple[int, int]) -> Tensor:
    # Copy-on-write: torch wants writable memory, and nothing may alter the file.
    return torch.from_numpy(np.memmap(target, np.uint8, mode="c").reshape(-1, 3, *size))


def _complete(target: Path) -> bool:
    """Whether all frames and their account lie there; a damaged pair counts as none."""
    try:
        account = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
        return bool(target.stat().st_size == account["bytes"] and len(account["lengths"]))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _decode_all(decoder: _Decoder, target: Path, workers: int, max_failed: float) -> None:
    """Append clip after clip to a partial file, noting each in a journal."""
    partial, journal = target.with_suffix(".partial.bin"), target.with_suffix(".partial.jsonl")
    frame = 3 * decoder.size[0] * decoder.size[1]
    count = len(decoder.listing)
    done = _resume(partial, journal, frame)[:count]
    # Rewritten, since a line that the stop cut short must not run into the next; so is the last clip's end.
    journal.write_text("".join(json.dumps(note) + "\n" for note in done), encoding="utf-8")
    partial.touch()
    os.truncate(partial, frame * sum(note.get("frames", 0) for note in done))
    try:
        with (
            open(partial, "ab") as frames,
            open(journal, "a", encoding="utf-8") as notes,
            tqdm(total=count, initial=len(done), unit="clip", desc="decoding", disable=None) as bar,
        ):
            for clip in in_threads(decoder, range(len(done), count), min(workers, count)):
                done.append(_append(clip, frames))
                notes.write(json.dumps(done[-1]) + "\n")
                notes.flush()
                bar.update()
    except OSError as error:
        raise DataError(f"{target.parent} cannot take the decoded clips ({error}); use another disk.") from error
    failed = [(row, note["failed"]) for row, note in enumerate(done) if "failed" in note]
    named = tuple((decoder.listing.name(row), why) for row, why in failed)
    try:
        DecodeReport(count - len(failed), named).check(max_failed, str(target))
    except DataError:
        partial.unlink()
        journal.unlink()
        raise
    for name, why in named:
        log.warning("left out: %s: %s", printable(name), why)
    lengths = [note["frames"] for note in done if "frames" in note]
    draft = target.with_suffix(".partial.json")
    draft.write_text(
        json.dumps({"bytes": frame * sum(lengths), "lengths": lengths, "failed": failed}), encoding="utf-8"
    )
    draft.replace(target.with_suffix(".json"))
    partial.replace(target)  # last: the file's name says that all is there
    journal.unlink()


def _append(clip: NDArray[np.uint8] | str, frames: BinaryIO) -> dict[str, Any]:
    if isinstance(clip, str):
        return {"failed": clip}
    frames.write(clip.data)
    frames.flush()  # before the journal says that it is there
    return {"frames": len(clip)}


def _resume(partial: Path, journal: Path, frame: int) -> list[dict[str, Any]]:
    """Notes of the clips that a stopped decoding finished, as far as their frames are there."""
    done: list[dict[str, Any]] = []
    try:
        left = partial.stat().st_size
        for line in journal.read_text(encoding="utf-8").splitlines():
            note = json.loads(line)
            left -= frame * note.get("frames", 0)
            if left < 0:
                break
            done.append(note)
    except (OSError, ValueError):
        pass  # nothing was begun, or a last line cut short by the stop: what was read until here counts
    return done
