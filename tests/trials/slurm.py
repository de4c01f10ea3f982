"""A real Slurm of one node: ``python -m tests.trials.slurm [table=sampling]``, as root, with slurm-wlm and munge.

It starts munged, slurmctld and slurmd with a configuration of its own, submits a smoke table with ``launch=slurm_cpu``,
cancels one task, requeues another, drains the node for a while, types the command a second time while the workers run,
and compares the numbers with those of an undisturbed table. Its processes are ended by their ids.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from experiments.command import answer
from experiments.options import option, read
from experiments.record import Records
from tests.trials.tables import TABLES, reference, start, verdict

CONF = """ClusterName=trial
SlurmctldHost={host}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
SlurmdParameters=config_overrides
JobRequeue=1
KillWait=60
SlurmctldParameters=preempt_send_user_signal
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=16000 State=UNKNOWN
PartitionName=trial Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    table: str = option("sampling", choices=tuple(TABLES))
    workers: int = option(3, least=3)
    folder: Path = Path(tempfile.gettempdir()) / "trial-slurm"


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """A Slurm of this machine alone while the block lasts."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=platform.node(), folder=folder))
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    os.environ["SLURM_CONF"] = str(conf)
    names = {"key": "munge.key", "socket": "munge.socket", "pid": "munge.pid", "log": "munge.log", "seed": "munge.seed"}
    options = [f"--{key}-file={folder / name}" for key, name in names.items() if key != "socket"]
    commands = [
        ["munged", "--foreground", "--force", f"--socket={folder / 'munge.socket'}", *options],
        ["slurmctld", "-D", "-f", str(conf)],
        ["slurmd", "-D", "-f", str(conf), "-N", platform.node()],
    ]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            with open(folder / f"{command[0]}.out", "wb") as said:
                started.append(subprocess.Popen(command, stdout=said, stderr=said))
            time.sleep(2)
        until(lambda: "idle" in asked("sinfo", "-h", "-o", "%T"), "the node is not idle")
        yield
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            process.wait()


def asked(*command: str) -> str:
    """What a command of Slurm answers."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def until(true: Callable[[], bool], otherwise: str, seconds: float = 900.0) -> None:
    """Wait for something; SystemExit if it does not come."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise SystemExit(f"{otherwise} after {seconds:.0f} s")
        time.sleep(0.5)


def tasks(state: str) -> list[str]:
    """The tasks of arrays in a state, as Slurm numbers them."""
    return asked("squeue", "-h", "-r", "-t", state, "-o", "%i").split()


def trial(options: Options) -> int:
    """Submit, disturb, and compare."""
    expected = reference(options.table, options.folder)
    out, node = options.folder / f"{options.table}-slurm", platform.node()
    words = ("launch=slurm_cpu", f"launch.workers={options.workers}")
    with cluster(options.folder / "cluster"):
        first = start(options.table, out, *words)
        until(lambda: bool(list(out.glob("runs/*/curves.jsonl"))), "no training has begun")
        running = tasks("RUNNING")
        print(f"running: {running}, waiting: {tasks('PENDING')}", flush=True)
        subprocess.run(["scancel", running[0]], check=True)
        subprocess.run(["scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=trial"], check=True)
        subprocess.run(["scontrol", "requeue", running[1]], check=True)
        first.send_signal(signal.SIGINT)
        print(f"cancelled {running[0]}, requeued {running[1]}, drained {node}; the command left with {first.wait()}")
        until(lambda: running[0] not in tasks("all"), "the cancelled task is still there")
        time.sleep(20)
        subprocess.run(["scontrol", "update", f"NodeName={node}", "State=RESUME"], check=True)
        second = start(options.table, out, *words)
        if status := second.wait():
            raise SystemExit(f"the command ended with {status}: see {out}.err")
        until(lambda: not tasks("all"), "tasks are left")  # one that comes back when all is done ends at once
        arrays = [json.loads(path.read_text())["ids"] for path in out.glob("launches/*/array.json")]
    attempts = sorted(record.attempts for record in Records(out).finished().values())
    print(f"{verdict(out, expected)}; arrays {arrays}; attempts at each training {attempts}")
    return 0


if __name__ == "__main__":
    sys.exit(answer(lambda: trial(read(Options, sys.argv[1:]))))
