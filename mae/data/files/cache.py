"""Decode a set of files once, to one size, into one array on disk that every later run maps."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from mae.data.files.listing import printable
from mae.data.files.tally import DecodeReport
from mae.disk import locked, write_text
from mae.errors import DataError

log = logging.getLogger(__name__)


class Item(NamedTuple):
    """One decoded file: ``pixels: (frames, C, h, w)`` uint8, one frame for a picture, and its label, -1 without."""

    pixels: NDArray[np.uint8]
    label: int = -1


class Decoded(NamedTuple):
    """A decoded set: ``frames: (all frames, C, h, w)`` uint8, mapped from disk.

    ``lengths`` has the frames of each item, ``labels`` its label, ``rows`` its place among the files; ``report`` says
    which files were left out.
    """

    frames: Tensor
    lengths: list[int]
    labels: list[int]
    rows: list[int]
    report: DecodeReport


def decoded_once(
    target: Path,
    names: Sequence[str],
    decode: Callable[[int], Iterator[Item | str]],
    shape: tuple[int, int, int],
    *,
    unit: str,
    max_failed: float,
    need: int = 0,
) -> Decoded:
    """What ``decode(first)`` yields of the files from ``first`` on, in order: an item, or why there is none.

    The frames of ``shape`` (C, h, w) are kept in the file ``target``, whose name must tell all that they depend on,
    with an account in JSON beside it. A second process waits for the first. Decoding that was stopped goes on where it
    was. A file that cannot be used is left out, and named in the report. ``unit`` is what a file is called, ``need`` is
    how many bytes are known to be needed. DataError when more than the share ``max_failed`` of the files cannot be
    used, or the disk is too small.
    """
    if not _complete(target):
        with locked(target.with_suffix(".lock")):
            if not _complete(target):
                _need_space(target.parent, need)
                _decode_all(target, names, decode, int(np.prod(shape)), unit, max_failed)
    account = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
    failed = {row: why for row, why in account["failed"]}
    report = DecodeReport(len(account["lengths"]), tuple((names[row], why) for row, why in failed.items()))
    report.check(max_failed, str(target))
    # Copy-on-write: torch wants writable memory, and nothing may alter the file.
    frames = torch.from_numpy(np.memmap(target, np.uint8, mode="c").reshape(-1, *shape))
    rows = [row for row in range(len(names)) if row not in failed]
    return Decoded(frames, account["lengths"], account["labels"], rows, report)


def _complete(target: Path) -> bool:
    """Whether all frames and their account lie there; a damaged pair counts as none."""
    try:
        account = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
        whole = target.stat().st_size == account["bytes"]
        return bool(whole and len(account["lengths"]) == len(account["labels"]) > 0)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _decode_all(
    target: Path,
    names: Sequence[str],
    decode: Callable[[int], Iterator[Item | str]],
    frame: int,
    unit: str,
    max_failed: float,
) -> None:
    """Append item after item to a partial file, noting each in a journal."""
    partial, journal = target.with_suffix(".partial.bin"), target.with_suffix(".partial.jsonl")
    done = _resume(partial, journal, frame)[: len(names)]
    # Rewritten, since a line that the stop cut short must not run into the next; so is the last item's end.
    write_text(journal, "".join(json.dumps(note) + "\n" for note in done))
    partial.touch()
    os.truncate(partial, frame * sum(note.get("frames", 0) for note in done))
    try:
        with (
            open(partial, "ab") as frames,
            open(journal, "a", encoding="utf-8") as notes,
            tqdm(total=len(names), initial=len(done), unit=unit, desc="decoding", disable=None) as bar,
        ):
            for item in decode(len(done)):
                done.append(_append(item, frames))
                notes.write(json.dumps(done[-1]) + "\n")
                notes.flush()
                bar.update()
    except OSError as error:
        raise DataError(f"{target.parent} cannot take the decoded data ({error}); use another disk.") from error
    failed = [(row, note["failed"]) for row, note in enumerate(done) if "failed" in note]
    named = tuple((names[row], why) for row, why in failed)
    try:
        DecodeReport(len(done) - len(failed), named).check(max_failed, str(target))
    except DataError:
        partial.unlink()
        journal.unlink()
        raise
    for name, why in named:
        log.warning("left out: %s: %s", printable(name), why)
    read = [note for note in done if "frames" in note]
    lengths, labels = [note["frames"] for note in read], [note["label"] for note in read]
    account = {"bytes": frame * sum(lengths), "lengths": lengths, "labels": labels, "failed": failed}
    write_text(target.with_suffix(".json"), json.dumps(account))
    partial.replace(target)  # last: the file's name says that all is there
    journal.unlink()


def _append(item: Item | str, frames: BinaryIO) -> dict[str, Any]:
    if isinstance(item, str):
        return {"failed": item}
    frames.write(np.ascontiguousarray(item.pixels).data)
    frames.flush()  # before the journal says that it is there
    return {"frames": len(item.pixels), "label": item.label}


def _resume(partial: Path, journal: Path, frame: int) -> list[dict[str, Any]]:
    """Notes of the items that a stopped decoding finished, as far as their frames are there."""
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


def _need_space(folder: Path, size: int) -> None:
    """Refuse before hours of decoding what the disk cannot take."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DataError(f"{folder} has {free / 1e9:.1f} GB free, the data need {size / 1e9:.1f} GB; use another disk.")
