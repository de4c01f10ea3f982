"""One lock between the processes that share an output folder: of the system on one machine, a lease on a shared disk.

The system lets go of a lock when its process ends, however it ends. Not every disk that machines share carries such
locks from one machine to another. A lease is a file instead, which its holder touches again and again; who has seen it
untouched for long enough takes the next one. Times are read from the monotonic clock of the process that looks, and
clocks of machines are never compared, so a clock that jumps changes nothing.
"""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from experiments.ablation import SpecError
from mae.disk import locked, write_text

FILE, LEASE = "file", "lease"

#: Seconds between two touches of a lease, and for how long it must have been seen untouched to be taken.
BEAT, DEAD = 10.0, 120.0


class Held(Protocol):
    """A lock that is held."""

    def lost(self) -> bool:
        """Whether another has taken it, because this process was taken for dead."""
        ...


class Locks(Protocol):
    """Locks by name."""

    @contextmanager
    def hold(self, name: str, wait: bool = True) -> Iterator[Held | None]:
        """Hold a lock while the block lasts; with ``wait=False``, None at once when another holds it."""
        ...


@dataclass(frozen=True)
class FileLocks:
    """Locks of the system on files in ``folder``."""

    folder: Path

    @contextmanager
    def hold(self, name: str, wait: bool = True) -> Iterator[Held | None]:
        """See ``Locks``."""
        with locked(self.folder / name, wait) as mine:
            yield _Sure() if mine else None


class _Sure:
    def lost(self) -> bool:
        return False


@dataclass
class Leases:
    """Leases on files in ``folder``: ``NAME.1``, ``NAME.2``, ..., of which the last is the one that counts.

    Who makes a file, which a disk lets one process do, holds the lease until it says in the file that it is free. A
    file is never made twice nor removed, so that nobody who looked long ago can mistake one lease for another.
    """

    folder: Path
    beat: float = BEAT
    dead: float = DEAD
    _seen: dict[str, tuple[str, float]] = field(default_factory=dict)

    @contextmanager
    def hold(self, name: str, wait: bool = True) -> Iterator[Held | None]:
        """See ``Locks``. A lease whose holder is taken for dead is taken."""
        self.folder.mkdir(parents=True, exist_ok=True)
        while (lease := self._take(name)) is None:
            if not wait:
                yield None
                return
            time.sleep(min(0.5, self.beat))
        try:
            yield lease
        finally:
            lease.release()

    def _take(self, name: str) -> Lease | None:
        """The next lease of ``name``, if the last one is free or its holder is dead."""
        number = self._last(name)
        if number and not self._over(name, number):
            return None
        path = self.folder / f"{name}.{number + 1}"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:  # another was faster
            return None
        return Lease(path, self.folder / f"{name}.{number + 2}", self.beat, self.dead)

    def _last(self, name: str) -> int:
        pattern = re.compile(rf"{re.escape(name)}\.(\d+)")
        found = (pattern.fullmatch(entry.name) for entry in os.scandir(self.folder))
        number = max((int(match[1]) for match in found if match), default=0)
        while (self.folder / f"{name}.{number + 1}").exists():  # a listing may be older than a file
            number += 1
        return number

    def _over(self, name: str, number: int) -> bool:
        """Whether a lease is free, or has been seen untouched for so long that its holder is dead."""
        path = self.folder / f"{name}.{number}"
        content = path.read_text(encoding="utf-8")
        if content and json.loads(content)["free"]:
            return True
        now, sign = time.monotonic(), f"{number} {content}"
        before, since = self._seen.setdefault(name, (sign, now))
        if before != sign:
            self._seen[name] = sign, now
            return False
        return now - since > self.dead


class Lease:
    """A lease that is held: a thread touches it until it is released, or until another has taken it."""

    def __init__(self, path: Path, following: Path, beat: float, dead: float) -> None:
        self.path, self.following, self.beat, self.dead = path, following, beat, dead
        self.holder = f"{platform.node()} {os.getpid()} {secrets.token_hex(4)}"
        self._over, self._touched = threading.Event(), time.monotonic()
        self._touch(0, free=False)
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def lost(self) -> bool:
        """Whether another has taken it. It counts as lost, too, when it could not be touched for half the time."""
        return self.following.exists() or time.monotonic() - self._touched > self.dead / 2

    def release(self) -> None:
        """Say that it is free."""
        self._over.set()
        self._thread.join()
        self._touch(-1, free=True)

    def _live(self) -> None:
        count = 0
        while not self._over.wait(self.beat):
            count += 1
            try:
                self._touch(count, free=False)
            except OSError:  # a disk that is away for a moment; ``lost`` says when it is too long
                continue

    def _touch(self, count: int, free: bool) -> None:
        write_text(self.path, json.dumps({"holder": self.holder, "count": count, "free": free}))
        self._touched = time.monotonic()


def locks_of(out: Path) -> Locks:
    """The locks of an output folder, of the kind that it was first used with."""
    return Leases(out / "locks") if _known(out) == LEASE else FileLocks(out / "locks")


def use_locks(out: Path, kind: str, usual: str = FILE) -> Locks:
    """The same, made ``kind`` from now on, or where that is empty what they were, or else ``usual``.

    SpecError when another kind is asked for than is in use, since two kinds do not see each other.
    """
    known = _known(out)
    if kind and known and kind != known:
        raise SpecError(
            f"locks={kind}: {out} is used with locks={known}, and the two do not see each other; leave locks out, or "
            f"remove {out / 'locks'} when nothing runs there"
        )
    if not known:
        write_text(out / "locks" / "kind", f"{kind or usual}\n")
    return locks_of(out)


def _known(out: Path) -> str:
    said = out / "locks" / "kind"
    return said.read_text(encoding="utf-8").strip() if said.exists() else ""
