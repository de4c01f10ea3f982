"""Files that a reader never sees half written, and one lock between processes. Nothing here imports torch."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new path beside ``path`` for a writer; what it wrote takes the place of ``path`` in one step at the end.

    The folder is made where it is missing. The content reaches the disk before the name does, so a stop at any moment
    leaves the old file or the new one. After an error the old file stays and the draft is removed. Processes that write
    the same path at the same time replace each other's file. OSError when the disk will not take it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name[-80:]}.{secrets.token_hex(4)}{path.suffix[:16]}")
    try:
        yield draft
        with open(draft, "rb+") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content``, as ``replacing`` does."""
    with replacing(path) as draft:
        draft.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Replace ``path`` by ``content`` in UTF-8 with line feeds on every system, as ``replacing`` does."""
    write_bytes(path, content.encode())


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock named ``path`` between processes and threads; the end of the process lets go of it.

    Yields True. With ``wait=False`` it yields False at once when another holds the lock. The file stays, empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
