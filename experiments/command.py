"""What the commands share: KEY=VALUE arguments, the output folder, what is left to run, exit statuses."""

from __future__ import annotations

import difflib
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from experiments.plan import Job
from experiments.spec import CONF, SpecError, groups, nearest

if TYPE_CHECKING:
    from mlflow.entities import Run

    from experiments.tracking import Tracker


def read(arguments: Sequence[str], own: Collection[str]) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """``KEY=VALUE`` arguments as the values given to each of a command's ``own`` keys, and the overrides of the spec.

    SpecError on what is not KEY=VALUE, and on a key that looks like a misspelt one of ``own``.
    """
    given: dict[str, list[str]] = {}
    overrides = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise SpecError(f"cannot read {argument!r}: write KEY=VALUE; --help shows the keys")
        if key in own:
            given.setdefault(key, []).append(value)
        elif "." not in key and key not in _spec_keys() and (close := difflib.get_close_matches(key, own)):
            raise SpecError(f"unknown key {key!r}: did you mean {' or '.join(close)}?")
        else:
            overrides.append(argument)
    return given, tuple(overrides)


def _spec_keys() -> set[str]:
    """Keys of the spec that have no dot: groups, and the values that stand in config.yaml itself."""
    return set(groups()) | set(yaml.safe_load((CONF / "config.yaml").read_text()))


def one_of(key: str, valid: Sequence[str], given: dict[str, list[str]], default: str) -> str:
    """The last value given to ``key``, which must be one of ``valid``."""
    value = given.get(key, [default])[-1]
    if value not in valid:
        raise SpecError(f"unknown {key} {value!r}: {nearest(value, valid)}")
    return value


def count(key: str, given: dict[str, list[str]], default: int) -> int:
    """The last value given to ``key``, a whole number of at least 1."""
    value = given.get(key, [str(default)])[-1]
    if not value.isdecimal() or int(value) < 1:
        raise SpecError(f"{key}={value}: give a whole number of at least 1")
    return int(value)


def flag(key: str, given: dict[str, list[str]]) -> bool:
    """The last value given to ``key``, true or false (default: false)."""
    value = given.get(key, ["false"])[-1]
    if value.lower() not in ("true", "false"):
        raise SpecError(f"{key}={value}: give true or false")
    return value.lower() == "true"


def folder(key: str, given: dict[str, list[str]], default: Path) -> Path:
    """The last value given to ``key``, as an absolute path."""
    return Path(given.get(key, [str(default)])[-1]).expanduser().resolve()


def make_out(out: Path) -> None:
    """Create the output folder and prove that it can be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.write_bytes(b"\0" * 4096)
        probe.unlink(missing_ok=True)  # another process that starts now may have removed it
    except OSError as error:
        raise SpecError(f"out={out} cannot be written: {error.strerror}; choose another out=PATH") from error


def pending(jobs: Sequence[Job], done: set[str], out: Path) -> list[Job]:
    """The jobs still to run. A finished one runs again only if its weights are gone and someone needs them.

    One that is not finished runs if someone needs it, or if the table reports on it. A job comes after what it needs.
    """
    needed: set[str | None] = set()
    wanted: list[Job] = []
    for job in reversed(jobs):
        gone = not (out / "weights" / job.fingerprint / "checkpoint.json").exists()
        missing = job.fingerprint not in done
        if (missing and job.reported) or (job.fingerprint in needed and (missing or gone)):
            wanted.append(job)
            needed.add(job.needs)
    return wanted[::-1]


def place(jobs: Sequence[Job], finished: dict[str, Run], tracker: Tracker) -> None:
    """Tag finished runs with every cell they serve, and take the tags off runs whose spec has changed since."""
    for job in jobs:
        if run := finished.get(job.fingerprint):
            tracker.place(run, {cell.table: cell.row for cell in job.shown})
    now = {(c.table, c.row, c.seed, job.stage, job.spec["scale"]): job.fingerprint for job in jobs for c in job.shown}
    for run in finished.values():
        tracker.displace(run, now)


@dataclass(frozen=True)
class Pace:
    """How fast jobs go here: FLOP per second of one process, by stage and for any other, and how many run at a time."""

    of_stage: Mapping[str, float]
    of_others: float
    workers: int = 1

    def seconds(self, jobs: Iterable[Job]) -> float:
        """How long ``jobs`` take together if no process is ever idle."""
        return sum(job.flops / self.of_stage.get(job.stage, self.of_others) for job in jobs) / self.workers

    def describe(self, jobs: Sequence[Job]) -> str:
        """The time that ``jobs`` take, and the rate behind it, in words."""
        seconds = self.seconds(jobs)
        rate = sum(job.flops for job in jobs) / seconds / 1e9
        source = "as earlier runs went" if self.of_stage else "as a matrix product suggests"
        return f"about {seconds / 60:.0f} min on this machine, at {rate:.0f} GFLOP/s, {source}"


def pace_of(finished: dict[str, Run], scale: str, workers: int = 1) -> Pace:
    """The pace of finished runs of a scale; where there are none, what a matrix product suggests."""
    import numpy as np

    rates: dict[str, list[float]] = {}
    for run in finished.values():
        stage = run.data.tags["stage"]
        if run.data.tags["scale"] == scale and (rate := run.data.metrics.get(f"{stage}/gflops_per_second")):
            rates.setdefault(stage, []).append(1e9 * rate)
    if rates:
        usual = float(np.median([rate for found in rates.values() for rate in found]))
        return Pace({stage: float(np.median(found)) for stage, found in rates.items()}, usual, workers)
    size = 768
    left, right = np.ones((size, size), np.float32), np.ones((size, size), np.float32)
    left @ right
    start = time.perf_counter()
    for _ in range(10):
        left @ right
    together = 0.5 * 10 * 2 * size**3 / (time.perf_counter() - start)
    return Pace({}, together / workers, workers)


def answer(command: Callable[[], int]) -> int:
    """Exit status of ``command``: its own, or that of an error in words, which is printed. A defect is raised."""
    try:
        return command()
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    except Exception as error:
        if (status := _status(error)) is None:
            raise
        print(f"error: {error}", file=sys.stderr)
        return status


def _status(error: Exception) -> int | None:
    """Exit status of an error that has been put into words: 2 before training, 1 once it runs; None for a defect."""
    if isinstance(error, SpecError):
        return 2
    names = {"TrackingError": 2, "DataError": 2, "CheckpointError": 1, "NotFinite": 1, "JobFailed": 1, "ReportError": 1}
    if type(error).__name__ in names:
        return names[type(error).__name__]
    return 1 if isinstance(error, OSError) else None
