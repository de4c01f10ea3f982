"""Look at every clip of a data set before a run does: ``python -m mae.data.check PATH --clips``.

Each file is hashed, decoded from its first frame to its last, and read by number as a run reads it, the last frames
first, which must give the same. Found is what is found of pictures, clips with too few frames, and clips in which the
decoder met damage and filled it in: a run reads those without a word. Of bits flipped in H.264 it notices about four in
five; those that decode to other valid pixels nobody can tell.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from mae.data.check.findings import Seen, Shares, VerifyReport, refusal, report_of
from mae.data.clips.lists import clips_in_json, clips_in_list
from mae.data.clips.readers.frame_folder import FRAME_SUFFIXES, is_frame
from mae.data.clips.video import LIMIT, SUFFIXES, Video, in_threads
from mae.data.files.folders import Catalogue, Entry, catalogue
from mae.data.files.listing import Listing
from mae.data.files.workers import default_workers
from mae.errors import DataError

PARTS, SMALL = 8, (64, 64)  # parts in which frames are also read by number, and the size at which they are compared


def verify_clips(
    source: Path | str | Catalogue,
    *,
    least: int = 2,
    workers: int | None = None,
    limit: float = LIMIT,
    progress: bool = False,
    shares: Shares = Shares(),  # noqa: B008, it is immutable
) -> VerifyReport:
    """Decode every clip of a folder, or of what ``listed_clips`` read; with fewer than ``least`` frames it is short.

    Raises DataError when ``source`` is no folder with clips.
    """
    if least < 1:
        raise DataError(f"{least} frames: ask for at least one.")
    found = source if isinstance(source, Catalogue) else catalogue(Path(source), SUFFIXES, FRAME_SUFFIXES)
    names = sorted({entry.name for entry in found.entries})
    seen: dict[str, Seen] = {}
    threads = max(1, min(default_workers() if workers is None else workers, len(names)))
    with tqdm(total=len(names), unit="clip", desc="verifying", disable=not progress) as bar:
        for name, result in zip(names, in_threads(_Look(found.root, limit), names, threads), strict=True):
            seen[name] = result
            bar.update()
    whole = {name: result.frames for name, result in seen.items() if not result.failure}
    return replace(
        report_of(found, seen),
        refused=refusal(found, shares),
        channels={},  # every clip is decoded to those asked for
        frames=dict(Counter(whole.values()).most_common()),
        readers=dict(Counter(result.reader for result in seen.values() if not result.failure).most_common()),
        damaged=tuple((name, result.damage) for name, result in seen.items() if result.damage),
        short=tuple(
            (name, f"has {frames} frames, {least} are asked for") for name, frames in whole.items() if frames < least
        ),
    )


def listed_clips(files: Sequence[Path], root: Path, labels: Path | None = None) -> Catalogue:
    """The clips under ``root`` that lists name: the first for training, the second, if there is one, for testing.

    A JSON file is Something-Something's official list, ``labels`` the file of its labels; others hold paths and labels.
    """
    if len(files) > 2:
        raise DataError(f"{len(files)} lists are given; give one for training, and one for testing.")
    entries: list[Entry] = []
    classes: dict[str, tuple[str, ...]] = {}
    for split, file in zip(("train", "test") if len(files) == 2 else ("",), files, strict=True):
        listing = _listing(file, root, labels)
        names = [listing.classes[label] if label >= 0 else "" for label in listing.labels]
        entries += [Entry(split, label, name) for label, name in zip(names, listing.names, strict=True)]
        classes[split] = listing.classes
    return Catalogue(root, tuple(entries), classes)


def _listing(file: Path, root: Path, labels: Path | None) -> Listing:
    if file.suffix.lower() != ".json":
        return clips_in_list(file, root=root)
    if labels is None:
        raise DataError(f"{file} is a JSON list; add --labels FILE, the official file of its labels.")
    return clips_in_json(file, labels=labels, root=root)


@dataclass(frozen=True)
class _Look:
    """Hash and decode one file under ``root``."""

    root: Path
    limit: float

    def __call__(self, name: str) -> Seen:
        path, digest, frames = self.root / name, "", 0
        try:
            video = Video(path, limit=self.limit)  # first: it refuses what is no file, and what never ends
            digest = _digest(path)
            frames = video.frames
            height, width = video.read([0]).shape[-2:]
            film = Video(path, in_order=True, limit=self.limit)
            in_order = film.read(range(frames), size=SMALL)  # small, so that few bytes are sent
            damage = f"{len(film.damaged)} of {frames} frames, the first {film.damaged[0]}" if film.damaged else ""
            video = Video(path, limit=self.limit)
            step = -(-frames // PARTS)
            for first in reversed(range(0, frames, step)):  # by number, as a run reads
                ids = range(first, min(first + step, frames))
                wrong = (video.read(ids, size=SMALL) != in_order[first : ids.stop]).any((1, 2, 3))
                if wrong.any():
                    raise DataError(
                        f"frame {first + int(wrong.argmax())} by number is another than in order ({video.reader}); "
                        "convert the film"
                    )
            return Seen(digest, 3, f"{width}x{height}", "", frames, video.reader, damage)
        except (ValueError, OSError) as error:
            return Seen(digest, 0, "", str(error), frames)


def _digest(path: Path) -> str:
    """Of the bytes of a file, or of all pictures of a folder in the order of their names."""
    digest = hashlib.sha256()
    for part in sorted(item for item in path.iterdir() if is_frame(item.name)) if path.is_dir() else [path]:
        with open(part, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()
