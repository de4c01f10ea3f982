"""What files hold, as a digest: the part of a data set's identity that its fields do not tell.

A copy elsewhere has the same digest; a file replaced by another of the same name and size has another one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from stat import S_ISDIR

from mae.data.files.workers import default_workers
from mae.disk import write_text

WHOLE = 1 << 16  # files of up to so many bytes are read whole
#: Files whose bytes are pixels, by the end of the name: a part of one changes without the others, so all are read.
UNPACKED = frozenset(".bmp .tif .tiff .pgm .ppm .gif".split())  # noqa: SIM905
PIECES, PIECE = 8, 1 << 12  # of a larger one so many pieces of so many bytes, from its first byte to its last

_memory: dict[str, str] = {}
_folder: Path | None = None


def remember_in(folder: Path | None) -> None:
    """Keep the digests of sets of files in ``folder``, for later processes; None keeps them for this process alone.

    What is kept is found again by names, sizes and times of the files, so it never answers for files that changed.
    """
    global _folder
    _folder = folder


def stamp_of(root: Path, names: Sequence[str]) -> str:
    """32 hex digits over ``names`` below ``root``, sizes and times: they change whenever a file is touched."""
    digest = hashlib.blake2b(digest_size=16)
    for name in names:
        try:
            facts = (root / name).stat()
            stamp = f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"
            if S_ISDIR(facts.st_mode):
                stamp += stamp_of(root / name, sorted(os.listdir(root / name)))  # noqa: PTH208
        except OSError:
            stamp = "missing"
        digest.update(b"\0".join([os.fsencode(name), stamp.encode()]) + b"\n")
    return digest.hexdigest()


def content_of(root: Path, names: Sequence[str]) -> str:
    """16 hex digits over what the files hold, in their order and without their names. A missing file counts as such.

    A compressed file of more than 64 KiB counts by its size and eight pieces of 4 KiB spread over it: encoded pictures
    and clips that differ anywhere differ there. Of a folder, a clip that is kept as pictures, all files count, by name.
    Files that were not touched since an earlier call are not read again.
    """
    stamp = stamp_of(root, names)
    kept = _folder / f"content-{stamp}.txt" if _folder else None
    if stamp not in _memory and kept and kept.is_file():
        _memory[stamp] = kept.read_text(encoding="ascii")
    if stamp not in _memory:
        digest = hashlib.blake2b(digest_size=8)
        files = [root / name for name in names]
        if len(files) < 100:  # threads would not pay
            parts = [_piecewise(file) for file in files]
        else:
            with ThreadPoolExecutor(default_workers()) as pool:
                parts = list(pool.map(_piecewise, files))
        for part in parts:
            digest.update(part)
        _memory[stamp] = digest.hexdigest()
        if kept:
            write_text(kept, _memory[stamp])
    return _memory[stamp]


def _piecewise(path: Path) -> bytes:
    digest = hashlib.blake2b(digest_size=8)
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            digest.update(str(size).encode())
            if size <= WHOLE or path.suffix.lower() in UNPACKED:
                while part := file.read(1 << 20):
                    digest.update(part)
            else:
                for piece in range(PIECES):
                    file.seek((size - PIECE) * piece // (PIECES - 1))
                    digest.update(file.read(PIECE))
    except IsADirectoryError:
        for part in sorted(os.listdir(path)):  # noqa: PTH208
            digest.update(os.fsencode(part) + b"\0" + _piecewise(path / part))
    except OSError:
        digest.update(b"missing")
    return digest.digest()
