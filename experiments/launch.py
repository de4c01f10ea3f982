"""Where the workers of a plan run: here, or as an array of Slurm by submitit, which no other file imports."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.ablation import CONF, SpecError, nearest, read_yaml, typed
from experiments.plan import Job
from experiments.progress import Progress
from experiments.record import Records
from mae.disk import write_text

if TYPE_CHECKING:
    from submitit import Job as Submitted
    from submitit.helpers import DelayedSubmission

    from experiments.work import Workplace

INLINE, LOCAL, SLURM = "inline", "local", "slurm"

#: Seconds before its end that a task is told of it, and how often it may come back after its time is over.
NOTICE, TIMES = 90, 10_000

#: Seconds between two looks at the workers of an array.
LOOK = 2.0


@dataclass(frozen=True)
class Launch:
    """A file of ``conf/launch``: the ``engine``, and what each of ``workers`` tasks of an array asks of Slurm.

    ``device`` is resolved where a worker runs. ``precision`` is what ``auto`` stands for there.
    """

    engine: str
    device: str = "auto"
    precision: str = "auto"
    workers: int = 1
    gpus: int = 0
    cpus: int = 1
    memory_gb: int = 4
    minutes: int = 60
    partition: str | None = None
    account: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """SpecError for a value that cannot be."""
        if self.engine not in (INLINE, LOCAL, SLURM):
            raise SpecError(f"launch: unknown engine {self.engine!r}: {nearest(self.engine, (INLINE, LOCAL, SLURM))}")
        for name in ("workers", "cpus", "memory_gb", "minutes"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise SpecError(f"launch.{name}={getattr(self, name)}: give a whole number of at least 1")


def launch_names() -> list[str]:
    """The files of ``conf/launch``."""
    return sorted(path.stem for path in (CONF / "launch").glob("*.yaml"))


def launch_of(name: str, changes: Sequence[str] = ()) -> Launch:
    """A launch by name, or by the path of one's own file, with ``launch.KEY=VALUE`` changed; SpecError if wrong."""
    import yaml

    path = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else CONF / "launch" / f"{name}.yaml"
    if not path.is_file():
        raise SpecError(f"unknown launch {name!r}: {nearest(name, launch_names())}")
    raw = dict(read_yaml(path))
    known = [item.name for item in fields(Launch)]
    for change in changes:
        key, _, value = change.removeprefix("launch.").partition("=")
        head, dot, tail = key.partition(".")
        if head not in known or bool(dot) != (head == "more"):
            raise SpecError(f"unknown key 'launch.{key}': {nearest(key, known)}")
        said = yaml.safe_load(value)
        raw[head] = {**(raw.get("more") or {}), tail: said} if dot else said
    launch = typed(Launch, raw, f"launch {path.stem}", {})
    launch.check()
    return launch


@dataclass
class Worker:
    """What a task of the array calls. It is pickled, so it holds no device: that is found where it runs."""

    jobs: Sequence[Job]
    place: Workplace
    launch: Launch
    again: bool
    path: Sequence[str]

    def __call__(self) -> None:
        """Do jobs of the plan until none is left."""
        sys.path[:] = self.path
        from experiments.execute import places_of, share

        share(self.jobs, places_of(self.place, self.launch.device, self.launch.cpus, self.jobs), self.again)

    def checkpoint(self) -> DelayedSubmission:
        """What comes back in this one's place when its time is over, or it is preempted.

        submitit ends the call after this, and the end of the call lets its processes write checkpoints.
        """
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass(frozen=True)
class Array:
    """An array that was submitted: its ``ids``, and the ``fingerprints`` of the trainings that it is for."""

    launch: str
    cluster: str
    ids: Sequence[str]
    fingerprints: Sequence[str]

    def alive(self) -> bool:
        """Whether any of its workers runs or waits."""
        return any(map(_process, self.ids)) if self.cluster == LOCAL else _queued(self.ids[0].partition("_")[0])

    def ended_by(self) -> str:
        """The command that ends it."""
        return " ".join(["kill" if self.cluster == LOCAL else "scancel", *self.ids])


def _process(number: str) -> bool:
    """Whether a process of this machine is there."""
    with suppress(ChildProcessError):
        os.waitpid(int(number), os.WNOHANG)  # one that this process began and that has ended
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    return True


def _queued(number: str) -> bool:
    """Whether Slurm still knows the array as waiting or running. One that cannot be asked is taken to be alive."""
    done = subprocess.run(["squeue", "-h", "-j", number, "-o", "%i"], capture_output=True, text=True, check=False)
    return bool(done.stdout.strip()) if done.returncode == 0 else "Invalid job id" not in done.stderr


def arrays(out: Path) -> list[Array]:
    """The arrays that run or wait for this output folder."""
    found = []
    for path in (out / "launches").glob("*/array.json"):
        raw = json.loads(path.read_text(encoding="utf-8"))
        if (array := Array(**raw)).alive():
            found.append(array)
    return found


def on_cluster(
    jobs: Sequence[Job], place: Workplace, launch: Launch, cluster: str = SLURM, again: bool = False
) -> list[str]:
    """Let an array do ``jobs``, with one bar over all of them; return the launches that they were done under.

    What an array does that was submitted before is left to it. KeyboardInterrupt leaves the workers at work.
    """
    found = arrays(place.out)
    covered = {fingerprint for array in found for fingerprint in array.fingerprints}
    rest = [job for job in jobs if job.fingerprint not in covered]
    if rest:
        found.append(submit(rest, place, launch, cluster, again))
    names = ", ".join(array.ids[0].partition("_")[0] for array in found)
    print(f"workers: {cluster} {names}; their logs: {place.out / 'launches'}", file=sys.stderr, flush=True)
    progress = Progress(jobs, Records(place.out), place.launch if again else "")
    try:
        with progress.shown():
            while progress.left and any(array.alive() for array in found):
                time.sleep(LOOK)
    except KeyboardInterrupt:
        ways = "; ".join(array.ended_by() for array in found)
        print(f"\nthe workers go on, and the same command shows them again; to end them: {ways}", file=sys.stderr)
        raise
    return [array.launch for array in found]


def submit(jobs: Sequence[Job], place: Workplace, launch: Launch, cluster: str, again: bool) -> Array:
    """Submit an array of identical workers; SpecError if that is refused."""
    try:
        import submitit
    except ImportError:
        raise SpecError("launch=slurm needs submitit: pip install -e '.[slurm]'") from None
    folder = place.out / "launches" / place.launch
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, sys.path)))
    count = max(1, min(launch.workers, len({job.fingerprint for job in jobs})))
    worker = Worker(list(jobs), place, launch, again, list(sys.path))
    if cluster == SLURM and shutil.which("sbatch") is None:
        raise SpecError("this machine has no sbatch: run this where Slurm is, or add cluster=local")
    try:
        executor = submitit.AutoExecutor(folder / "%j", cluster=cluster, **{f"{cluster}_max_num_timeout": TIMES})
        executor.update_parameters(**_parameters(launch, cluster))
        with executor.batch():
            submitted: list[Submitted[None]] = [executor.submit(worker) for _ in range(count)]
    except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError, ValueError, RuntimeError) as error:
        why = " ".join(str(error).split())[:400]
        raise SpecError(f"{cluster} refused the job: {why}; change launch.KEY=VALUE, or conf/launch") from error
    array = Array(place.launch, cluster, [job.job_id for job in submitted], [job.fingerprint for job in jobs])
    write_text(folder / "array.json", json.dumps(asdict(array)))
    return array


def _parameters(launch: Launch, cluster: str) -> dict[str, Any]:
    """What submitit is told."""
    common = {"timeout_min": launch.minutes, "gpus_per_node": launch.gpus}
    if cluster == LOCAL:
        return common
    more = {"requeue": True, **launch.more}
    asked = {
        "slurm_partition": launch.partition,
        "slurm_account": launch.account,
        "slurm_signal_delay_s": NOTICE,
        "slurm_array_parallelism": launch.workers,
        "slurm_additional_parameters": more,
        "slurm_job_name": "mae-tables",
    }
    common |= {"cpus_per_task": launch.cpus, "mem_gb": launch.memory_gb, "tasks_per_node": 1, "nodes": 1}
    return common | {key: value for key, value in asked.items() if value is not None}
