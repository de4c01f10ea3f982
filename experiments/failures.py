"""What failed, why, and the command that repeats it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.plan import Job
from experiments.record import Failure, Records


def failures_of(jobs: Sequence[Job], records: Records, launches: Sequence[str]) -> list[Failure]:
    """Those of ``jobs`` that failed under some commands, or were left, and those that start from such a one."""
    failed, found = records.failures(launches), dict[str, Failure]()
    for job in jobs:  # each comes after what it needs
        if records.get(job.fingerprint) is not None and job.fingerprint not in failed:
            continue
        reason, log = "its worker ended before it was done; run the same command again", records.out / "launches"
        if job.needs in found:
            reason, log = f"it starts from {found[job.needs].name}, which failed", Path(found[job.needs].log)
        left = Failure(job.fingerprint, job.name, "Left", reason, str(log))
        found[job.fingerprint] = failed.get(job.fingerprint, left)
    return list(found.values())


def describe_failures(failures: Sequence[Failure], jobs: Sequence[Job], repeating: Callable[[Job], str]) -> str:
    """Each training that failed, why, its log, the rows that lack it, and the command that is ``repeating`` it."""
    known = {job.fingerprint: job for job in jobs}
    lines = [f"error: {len(failures)} of {len(jobs)} trainings are missing; the others are done"]
    for failure in failures:
        job = known.get(failure.fingerprint)
        lines += [f"  {failure.name}: {failure.reason}", f"    log: {failure.log}"]
        if job is not None and job.shown:
            lines.append(f"    missing in: {', '.join(f'{cell.table} [{cell.row}]' for cell in job.shown)}")
        if job is not None:
            lines.append(f"    repeat: {repeating(job)}")
    return "\n".join(lines)
