"""One bar over all trainings of a command, read from their files: whoever does them, and whenever they were begun."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments.plan import Job
from experiments.record import CURVES, Records

BAR = "{desc}{percentage:3.0f}%|{bar}| {elapsed} done, {remaining} left{postfix}"

#: Seconds between two looks at the files, and bytes of a file's end that hold its last line.
LOOK, TAIL = 0.5, 4096


class Progress:
    """How far ``jobs`` are. With ``launch``, only what that command has finished counts as done."""

    def __init__(self, jobs: Sequence[Job], records: Records, launch: str = "") -> None:
        self.records, self.launch = records, launch
        self.left = {job.fingerprint: job for job in jobs}
        self.done = 0.0
        self._seen: dict[str, tuple[int, dict[str, float]]] = {}

    def look(self) -> tuple[float, str, dict[str, float]]:
        """FLOPs that are done, the name of the training that has just said something, and what it said."""
        name, words = "", {}
        for fingerprint, job in list(self.left.items()):
            record = self.records.get(fingerprint)
            if record is not None and self.launch in ("", record.launch):
                self.done += job.flops
                del self.left[fingerprint]
            elif (point := self._last(fingerprint)) is not None:
                name, words = job.name, point
        shares = [(job, self._seen[name][1]["share"]) for name, job in self.left.items() if name in self._seen]
        return self.done + sum(job.flops * min(1.0, share) for job, share in shares), name, words

    def _last(self, fingerprint: str) -> dict[str, float] | None:
        """The last point of a training under way, None if it is the one that was seen before."""
        path = self.records.of(fingerprint) / CURVES
        size = path.stat().st_size if path.exists() else 0
        if size == self._seen.get(fingerprint, (0, {}))[0]:
            return None
        found = _last_line(path)
        if found is not None:
            self._seen[fingerprint] = size, found
        return found

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bar while the block lasts."""
        total = sum(job.flops for job in self.left.values())
        pause = LOOK if sys.stderr.isatty() else 30.0  # a log file wants a line now and then
        begun, *_ = self.look()
        bar = tqdm(
            total=total, initial=begun, dynamic_ncols=True, smoothing=0.05, mininterval=pause, bar_format=BAR
        )  # what is done before must not count as fast
        over = threading.Event()

        def watch() -> None:
            while not over.wait(LOOK):
                self._show(bar, total)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._show(bar, total)
            bar.close()

    def _show(self, bar: Any, total: float) -> None:
        with suppress(OSError):  # a disk that is away for a moment
            done, name, words = self.look()
            if name:
                bar.set_description(name, refresh=False)
                said = f"loss {words['loss']:.4f}, {words['samples_per_second']:.0f} samples/s"
                bar.set_postfix_str(said, refresh=False)
            bar.update(min(done, total) - bar.n)


def _last_line(path: Path) -> dict[str, float] | None:
    """The last whole line of a file of points; None if it has none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = file.read().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        found: dict[str, float] | None = json.loads(whole[-1]) if whole else None
        return found
    except (FileNotFoundError, ValueError):
        return None
