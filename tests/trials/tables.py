"""Smoke tables that trials run in processes of their own, and how they ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from experiments.record import ATTEMPT, Records
from experiments.tracking import Tracker, tracking_uri

ROOT = Path(__file__).resolve().parents[2]

#: Small tables of pictures and of clips, by name.
TABLES = {
    "pictures": ("ablation=decoder_depth", "scale=smoke", "row=1", "row=2"),
    "clips": ("ablation=video_masking", "scale=smoke", "row=tube 90", "row=random 90"),
    "sampling": ("ablation=mask_sampling", "scale=smoke"),
}


def start(table: str, out: Path, *more: str, **environment: str) -> subprocess.Popen[str]:
    """Start a table in a process group of its own; what it says goes to files beside ``out``."""
    out.parent.mkdir(parents=True, exist_ok=True)
    words = [*TABLES[table], f"out={out}", f"report_dir={out}-report", "device=cpu", *more]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **environment}
    with open(f"{out}.out", "a") as said, open(f"{out}.err", "a") as errors:
        return subprocess.Popen(
            [sys.executable, "experiments/run.py", *words],
            cwd=ROOT, env=environ, stdout=said, stderr=errors, text=True, start_new_session=True,
        )  # fmt: skip


def run(table: str, out: Path, *more: str) -> None:
    """Run a table to its end; SystemExit if it fails."""
    if status := start(table, out, *more).wait():
        raise SystemExit(f"the table {table} ended with {status}: see {out}.err")


def reference(table: str, folder: Path) -> dict[str, float]:
    """The numbers of a table that nothing disturbs, made once."""
    out = folder / f"undisturbed-{table}"
    run(table, out, "workers=1")
    return numbers(out)


def numbers(out: Path) -> dict[str, float]:
    """What finished trainings measured, by fingerprint and metric, but for times and memory."""
    return {
        f"{record.fingerprint} {key}": value
        for record in Records(out).finished().values()
        for key, value in record.results.items()
        if key.endswith(("top1", "/loss"))
    }


def verdict(out: Path, expected: dict[str, float]) -> str:
    """How a table ended, beside the ``expected`` numbers; SystemExit if anything is wrong."""
    found = numbers(out)
    if found != expected:
        wrong = {key: (expected.get(key), found.get(key)) for key in expected | found}
        raise SystemExit(f"other numbers: { {key: two for key, two in wrong.items() if two[0] != two[1]} }")
    if left := list((out / "runs").glob(f"*/{ATTEMPT}")):
        raise SystemExit(f"attempts are left: {left}")
    shown = Counter(run.info.status for run in Tracker(tracking_uri(out, own=True), out).runs(""))
    if set(shown) != {"FINISHED"} or shown["FINISHED"] != len(Records(out).finished()):
        raise SystemExit(f"MLflow shows {dict(shown)}")
    return f"{len(found)} numbers equal to the last bit, {sum(shown.values())} runs, all FINISHED"


def descendants(pid: int) -> Iterator[int]:
    """The processes that a process has started, and theirs."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in map(int, children):
        yield child
        yield from descendants(child)


def kind_of(pid: int) -> str:
    """What a process of a table is: a worker, or a decoder of films, or one of their helpers."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "gone"
    line = b" ".join(words)
    if b"video_process" in line:
        return "decoder"
    return "worker" if b"spawn_main" in line else "helper"


def kill(pid: int) -> bool:
    """End one process without warning; False if it was gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
