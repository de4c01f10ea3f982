"""What the commands share: the folders they write to, what is left to run, exit statuses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from experiments.ablation import CONF, SpecError, read_yaml
from experiments.compose import groups
from experiments.plan import Job
from experiments.record import Records
from mae.options import answer as answer
from mae.options import status_of as status_of


def spec_keys() -> set[str]:
    """Keys of the spec that have no dot: groups, and the values that stand in config.yaml itself."""
    return set(groups()) | set(read_yaml(CONF / "config.yaml"))


def home() -> Path:
    """Where commands write unless they are told: the repository, or where it is installed the working directory."""
    root = CONF.parent.parent
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


def make_folder(key: str, folder: Path) -> None:
    """Create a folder that a command writes to, given as ``key``, and prove that it can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"\0" * 4096)
        probe.unlink(missing_ok=True)  # another process that starts now may have removed it
    except OSError as error:
        raise SpecError(f"{key}={folder} cannot be written: {error.strerror}; choose another {key}=PATH") from error


def make_out(out: Path) -> None:
    """Create the output folder; SpecError if it cannot be written, or a database cannot be named in it."""
    if found := re.search(r"\?|%[0-9A-Fa-f]{2}", str(out)):
        raise SpecError(
            f"out={out} cannot hold a database, whose name may not have {found[0]!r}; choose another out=PATH"
        )
    make_folder("out", out)


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


def place(jobs: Sequence[Job], records: Records) -> None:
    """Let finished runs name every cell they serve, and take them out of cells whose spec has changed since."""
    cells = {job.fingerprint: {cell.table: cell.row for cell in job.shown} for job in jobs}
    now = {(c.table, c.row, c.seed, job.stage, job.spec.scale): job.fingerprint for job in jobs for c in job.shown}
    records.place(cells, now)
