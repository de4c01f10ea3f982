"""Which files of a set were read, and which could not be and why: a few bad files are left out, many stop a run."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mae.data.files.listing import printable
from mae.errors import DataError

#: The share of a set's files that may be unreadable.
MAX_FAILED = 0.05

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecodeReport:
    """How many files were read, and which were left out and why: ``failed`` holds (name, reason)."""

    read: int
    failed: tuple[tuple[str, str], ...] = ()

    def check(self, max_failed: float, where: str) -> None:
        """Raise DataError when more than the share ``max_failed`` failed, or nothing was read."""
        total = self.read + len(self.failed)
        if self.failed and (self.read == 0 or len(self.failed) > max_failed * total):
            name, why = self.failed[0]
            raise DataError(
                f"{where}: {len(self.failed)} of {total} files are unreadable, more than the share "
                f"{max_failed} allowed (first: {printable(name)}: {why}); run `python -m mae.data.check` "
                "(`--clips` for clips), then repair or remove these files."
            )


def check_missing(file: Path, root: Path, missing: Sequence[tuple[str, str]], total: int) -> None:
    """DataError when a list names more files that are not there, each with its place in it, than may be unreadable."""
    if len(missing) > MAX_FAILED * total:
        (place, name), *others = missing
        more = f"does 1 other of {total}" if len(others) == 1 else f"do {len(others)} others of {total}"
        also = f", nor {more}" if others else ""
        raise DataError(
            f"{file}, {place}: {root / name} does not exist{also}; check where paths start (a share of {MAX_FAILED} "
            "may be missing)."
        )


class Tally:
    """The account of a set of files that is read batch by batch; each file counts once, however often it is read.

    ``names`` are the files by row. ``before`` are further files that had failed already, with the reason.
    """

    def __init__(
        self,
        names: Sequence[str],
        where: str,
        max_failed: float = MAX_FAILED,
        before: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.names, self.where, self.max_failed, self.before = names, where, max_failed, before
        self.failed: dict[int, str] = {}
        self._used = torch.zeros(len(names), dtype=torch.bool)

    @property
    def report(self) -> DecodeReport:
        """The files used so far, and all that failed."""
        return DecodeReport(int(self._used.sum()), self._failures)

    @property
    def _failures(self) -> tuple[tuple[str, str], ...]:
        return self.before + tuple((self.names[row], self.failed[row]) for row in sorted(self.failed))

    def note(self, rows: Tensor, failed: Iterable[tuple[int, str]]) -> None:
        """Count a batch: its ``rows: (n,)`` that were read, and those that ``failed`` with the reason.

        DataError when more than ``max_failed`` of the whole set has failed.
        """
        self._used[rows] = True
        found = dict(failed)
        for row in found.keys() - self.failed.keys():
            log.warning("left out: %s: %s", printable(self.names[row]), found[row])
        if found:
            self.failed |= found
            self._used[list(self.failed)] = False
            total = len(self.names) + len(self.before)
            DecodeReport(total - len(self._failures), self._failures).check(self.max_failed, self.where)
