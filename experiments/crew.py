"""One training on several devices: a process for each, of which the first plans, tracks and writes.

The others wait for jobs and do their share. They are started here (``devices=N``) or by torchrun; the same store, which
only this machine sees unless torchrun was told otherwise, carries jobs one way and failures the other.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.ablation import SpecError
from experiments.sharing import Sharing
from mae.errors import RankLost

if TYPE_CHECKING:
    import torch
    from torch.distributed.distributed_c10d import Store

    from experiments.plan import Job
    from experiments.work import Workplace
    from mae.world import World

#: How long a process waits for the others in the middle of a step, and for the next job.
PATIENCE, FOREVER = timedelta(minutes=30), timedelta(days=365)

#: Seconds that a failure is given to reach everybody, before what still waits for a lost process is ended.
GRACE = 5.0

LOST = (
    "{which} of the training is gone (ended from outside, or out of memory); run the same command again: it goes on "
    "from the last checkpoint"
)


def check_sharing(jobs: Iterable[Job], device: str, sharing: Sharing) -> None:
    """SpecError if this machine lacks the devices, or a job cannot be shared so."""
    if sharing == Sharing():
        return
    import torch

    from mae.train.machine import device_of

    kind = device_of(device)
    if sharing.devices > 1 and (kind.index is not None or kind.type not in ("cpu", "cuda")):
        raise SpecError(f"device={device} is one device, and devices={sharing.devices}: choose device=cuda or cpu")
    found = torch.cuda.device_count()
    if kind.type == "cuda" and Place.by_torchrun() is None and sharing.devices > found:
        raise SpecError(f"devices={sharing.devices}, and this machine has {found}: choose up to {found}")
    for job in jobs:
        try:
            job.made().check_sharing(sharing.devices, sharing.micro_batch, sharing.sharding)
        except ValueError as error:
            raise SpecError(f"{job.name}: {error}") from error


@dataclass(frozen=True)
class Place:
    """Where torchrun, or ``devices=N``, has put this process: ``rank`` of ``size``, number ``local`` of its machine."""

    rank: int
    size: int
    local: int
    alone: bool = True

    @classmethod
    def by_torchrun(cls, said: Mapping[str, str] | None = None) -> Place | None:
        """What torchrun has put into the environment, None where it did not start this process."""
        environ = os.environ if said is None else said
        if "TORCHELASTIC_RUN_ID" not in environ:
            return None
        rank, size, local, here = (
            int(environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        )
        return cls(rank, size, local, here == size)

    def device(self, kind: str) -> torch.device:
        """The device of this process."""
        import torch

        return torch.device(kind, self.local) if kind == "cuda" else torch.device(kind)

    def join(self, store: Store, kind: str) -> World:
        """Meet the other processes; on this machine only, unless torchrun runs on several."""
        import torch
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import PrefixStore

        from mae.world import World

        if self.alone:
            loopback = "lo0" if sys.platform == "darwin" else "lo"
            for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
                os.environ.setdefault(name, loopback)
        if kind == "cuda":
            torch.cuda.set_device(self.local)
        backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
        group = PrefixStore("group", store)
        dist.init_process_group(backend, store=group, rank=self.rank, world_size=self.size, timeout=PATIENCE)
        return World(self.rank, self.size)


@dataclass
class Crew:
    """The first process of several, and what it knows of the others.

    It starts them before the first job, in ``own``, unless torchrun has: ``path`` is where their store lies then.
    """

    place: Place
    store: Store
    path: Path | None = None
    own: list[Any] = field(default_factory=list)
    world: World | None = None
    posted: int = 0
    _over: bool = False

    def begin(self, job: Job, where: Workplace) -> World:
        """Let the others do their share of ``job``, and say who takes part."""
        kind = where.device.type
        if self.world is None:
            if self.path is not None:
                self._start(self.path)
            self._post("start", (kind, sys.path))
            self.world = self.place.join(self.store, kind)
            threading.Thread(target=self._watch, daemon=True).start()
        self._post("job", (job, where))
        return self.world

    def _start(self, path: Path) -> None:
        context, size = multiprocessing.get_context("spawn"), self.place.size
        for rank in range(1, size):
            process = context.Process(target=_follow, args=(Place(rank, size, rank), str(path), os.getpid()))
            process.start()
            self.own.append(process)

    def _post(self, what: str, more: Any = None) -> None:
        self.store.set(f"post {self.posted}", pickle.dumps((what, more)))  # type: ignore[arg-type]
        self.posted += 1

    def reason(self, error: Exception) -> Exception:
        """What really failed: what another process said if ``error`` is that it is gone, else ``error`` itself."""
        if hasattr(error, "status") or not isinstance(error, RuntimeError):
            return error
        until = time.monotonic() + GRACE
        while (found := self.failure()) is None and time.monotonic() < until:
            time.sleep(0.1)
        if found is not None:
            return RankLost(found)
        return RankLost(LOST.format(which="another process")) if _is_lost(error) else error

    def failure(self) -> str | None:
        """What a process said before it ended, or that one ended without a word."""
        if self.store.check(["failure"]):
            return self.store.get("failure").decode()
        for rank, process in enumerate(self.own, 1):
            if process.exitcode is not None and not self._over:
                return LOST.format(which=f"process {rank} of {self.place.size}")
        return None

    def _watch(self) -> None:
        """End this process when it waits for one that is gone, which not all ways of waiting notice."""
        while not self._over:
            if (found := self.failure()) is not None:
                time.sleep(2 * GRACE)
                if not self._over:
                    print(f"error: {' '.join(found.split())}", file=sys.stderr, flush=True)
                    os._exit(1)
            time.sleep(0.5)

    def end(self, failed: bool) -> None:
        """Let the others go; at once where something failed."""
        self._over = True
        if not failed:
            self._post("end")
        for process in self.own:
            if failed:
                process.kill()
            process.join()
        if self.world is not None:
            import torch.distributed as dist

            if not failed or dist.get_backend() == "gloo":  # NCCL would wait for what is gone
                dist.destroy_process_group()


@contextmanager
def crew(devices: int) -> Iterator[Crew | None]:
    """The processes of each training: those of torchrun, or ``devices`` that are started here; None for one device."""
    place = Place.by_torchrun()
    if place is not None and devices not in (0, place.size):
        raise SpecError(f"devices={devices}, and torchrun started {place.size} processes: leave devices out")
    if place is None and devices <= 1:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="crew-") as folder:
        if place is None:
            from torch.distributed import FileStore  # type: ignore[attr-defined]

            path = Path(folder) / "store"
            found = Crew(Place(0, devices, 0), FileStore(str(path), devices), path)
        else:
            found = Crew(place, _store_of_torchrun())
        failed = True
        try:
            yield found
            failed = False
        finally:
            found.end(failed)


def _store_of_torchrun() -> Store:
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
    return store


def follow_torchrun(place: Place) -> int:
    """Body of a process of torchrun that is not the first."""
    follow(place, _store_of_torchrun())
    return 0


def _follow(place: Place, store: str, parent: int) -> None:
    """Body of a process that was started here. It ends with its parent, however that ends."""
    from torch.distributed import FileStore  # type: ignore[attr-defined]

    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    follow(place, FileStore(store, place.size))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def follow(place: Place, store: Store) -> None:
    """Do a share of every job that the first process posts, until it posts the end; what fails is told, and ends it."""
    from experiments.command import status_of
    from experiments.work import share_job

    world, posted = None, 0
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # the first process is asked, and says when all leave
        signal.signal(name, signal.SIG_IGN)
    try:
        while True:
            store.wait([f"post {posted}"], FOREVER)
            what, more = pickle.loads(store.get(f"post {posted}"))
            posted += 1
            if what == "end":
                return
            if what == "start":
                kind, sys.path[:] = more
                world = place.join(store, kind)
            else:
                job, where = more
                assert world is not None
                share_job(job, replace(where, device=place.device(where.device.type)), world)
    except KeyboardInterrupt:
        os._exit(130)
    except Exception as error:
        words = traceback.format_exc() if status_of(error) is None else str(error)
        lost = isinstance(error, RuntimeError) and status_of(error) is None and _is_lost(error)
        if not lost:  # what only waited for another is not the reason
            store.compare_set("failure", "", words)
        os._exit(1)  # nothing that waits for others may keep this process


def _is_lost(error: Exception) -> bool:
    """Whether ``error`` says that another process is gone."""
    return any(word in str(error).lower() for word in ("gloo", "nccl", "connection", "timed out"))
