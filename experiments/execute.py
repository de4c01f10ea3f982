"""Run a plan: what is finished is skipped, what was stopped goes on, what another process holds is waited for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from experiments.command import status_of
from experiments.crew import Crew, crew
from experiments.failures import failures_of
from experiments.hardware import side_by_side
from experiments.plan import Job
from experiments.preflight import threads_for
from experiments.progress import Progress
from experiments.record import Failure, Records
from experiments.work import Lost, Workplace, run_job
from mae.errors import UserError
from mae.memory import keep_freed_memory
from mae.train.machine import device_of, memory_of
from mae.train.stop import Stop

#: Seconds that workers get for a last checkpoint, and how many may be ended from outside in the middle of one job.
GRACE, LOSSES = 25.0, 2

#: What a worker ends with that was asked to stop.
STOPPED = 130


class WorkersLost(UserError, RuntimeError):
    """Workers end as soon as they begin; the message says what to do."""


def workplace(out: Path, device: str, scale: str) -> Workplace:
    """Where a scale's jobs run."""
    return Workplace(out, device_of(device), threads_for(scale))


def execute(
    jobs: Sequence[Job],
    place: Workplace,
    workers: int | Sequence[Workplace] = 1,
    again: bool = False,
    others: Crew | None = None,
) -> list[Failure]:
    """Run ``jobs`` with one progress bar over all of them, and return which failed.

    Each of ``workers`` side by side, which may have places of their own, takes the first job that nobody holds and that
    has the weights it needs. ``again`` runs finished ones. With ``others`` there is one worker, and each training runs
    on all of its devices.
    KeyboardInterrupt, after checkpoints, when a signal asks for an end.
    """
    with Progress(jobs, Records(place.out), place.launch if again else "").shown():
        if workers == 1:
            stop = Stop()
            with asked_by_signals(stop.ask):
                work_through(jobs, place, stop, again, others)
        else:
            share(critical_first(jobs), [place] * workers if isinstance(workers, int) else workers, again)
    return failures_of(jobs, Records(place.out), [place.launch])


def places_of(place: Workplace, device: str, cores: int, jobs: Sequence[Job], workers: int = 0) -> list[Workplace]:
    """Where workers of this machine work, each with a process of its own: ``workers`` of them, or as many as fit.

    On each card it is one, or several where their trainings fit side by side; on a CPU one for the threads of a job.
    Devices that share a training are one worker.
    """
    chosen = device_of(device)
    if place.sharing.devices > 1:
        return [replace(place, device=chosen)]
    if chosen.type == "cuda" and chosen.index is None:
        cards = torch.cuda.device_count()
        count = workers or cards * side_by_side(jobs, memory_of(chosen))
        return [replace(place, device=torch.device("cuda", number % cards)) for number in range(count)]
    usual = cores // place.threads if chosen.type == "cpu" and place.threads else 1
    return [replace(place, device=chosen)] * (workers or max(1, min(usual, len(jobs))))


def critical_first(jobs: Sequence[Job]) -> list[Job]:
    """Jobs by the length of the path from each to its end, longest first: what others wait for is not left for last.

    The path of a job is its own work and that of the longest chain of jobs that start from its weights.
    """
    path: dict[str, float] = {}
    beyond: dict[str | None, float] = {}
    for job in reversed(jobs):  # each comes after what it needs
        path[job.fingerprint] = job.flops + beyond.get(job.fingerprint, 0.0)
        beyond[job.needs] = max(beyond.get(job.needs, 0.0), path[job.fingerprint])
    return sorted(jobs, key=lambda job: -path[job.fingerprint])


@contextmanager
def asked_by_signals(ask: Callable[[], None], *more: signal.Signals) -> Iterator[None]:
    """Let Ctrl-C, SIGTERM, SIGUSR1 and ``more`` ask for an end while the block lasts; only Ctrl-C is heard again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def handle(number: int, _: object) -> None:
        nonlocal asked
        before, asked = asked, True
        if not before or number == signal.SIGINT:  # whoever ends many processes may send several signals to each
            ask()

    names = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, *more)
    before = {name: signal.signal(name, handle) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def work_through(
    jobs: Sequence[Job],
    place: Workplace,
    stop: Stop,
    again: bool = False,
    others: Crew | None = None,
    begin: Callable[[Job | None], None] = lambda job: None,
) -> None:
    """Do every job that is free, until none is left; another process does the ones it holds.

    What failed under the same command is left, and what starts from it. ``begin`` is told which job is at work.
    """
    records = Records(place.out)
    if place.device.type == "cpu":
        keep_freed_memory()
        if place.threads:
            torch.set_num_threads(place.threads)
    left, failed = list(jobs), set[str]()
    while left:
        waiting: list[Job] = []
        for job in left:
            if job.needs in failed or _failed(job, records, place):
                failed.add(job.fingerprint)
                continue
            held = job.needs in {other.fingerprint for other in waiting}
            if held or not _take(job, records, place, stop, again, others, begin):
                waiting.append(job)
            if others is not None and _failed(job, records, place):
                return  # they are gone with what failed
        if len(waiting) == len(left):
            time.sleep(0.5)
        left = waiting


def _failed(job: Job, records: Records, place: Workplace) -> bool:
    failure = records.failure(job.fingerprint)
    return failure is not None and failure.launch == place.launch


def _take(
    job: Job,
    records: Records,
    place: Workplace,
    stop: Stop,
    again: bool,
    others: Crew | None,
    begin: Callable[[Job | None], None],
) -> bool:
    """Do one job unless another process holds it or has done it; False if it is held, or failed."""
    with records.locks.hold(job.fingerprint, wait=False) as held:
        if held is None:
            return False
        record = records.get(job.fingerprint)
        stale = record is None or (again and record.launch != place.launch)
        if not stale and not (job.leaves_weights and not place.weights(job.fingerprint).index.exists()):
            return True
        if _failed(job, records, place):
            return False
        begin(job)
        try:
            return run_job(job, records, place, stop, held, others) is not None
        except Lost:
            return False
        finally:
            begin(None)


def share(jobs: Sequence[Job], places: Sequence[Workplace], again: bool = False) -> None:
    """Let a process at each of ``places`` do the jobs between them. One that is ended from outside is replaced.

    A job that has been under way in ``LOSSES`` such processes counts as failed. KeyboardInterrupt when a signal asks
    for an end: the workers write checkpoints first.
    """
    context = multiprocessing.get_context("spawn")
    current = context.Array("i", [-1] * len(places))

    def start(number: int) -> Any:
        current[number] = -1
        # no daemons: those may not have processes of their own, which write and decode data
        process = context.Process(target=_worker, args=(jobs, places[number], again, os.getpid(), current, number))
        process.start()
        return process

    processes = [start(number) for number in range(len(places))]
    lost: dict[int, int] = {}
    with asked_by_signals(Stop().ask):
        try:
            while any(process.exitcode != 0 for process in processes):
                for number, process in enumerate(processes):
                    if process.exitcode in (None, 0):
                        continue
                    if process.exitcode == STOPPED:
                        raise KeyboardInterrupt
                    index = current[number]
                    lost[index] = lost.get(index, 0) + 1
                    _count_loss(jobs, index, lost[index], places[number])
                    processes[number] = start(number)
                time.sleep(0.1)
        finally:
            _end(processes)


def _count_loss(jobs: Sequence[Job], index: int, count: int, place: Workplace) -> None:
    """Give up a job whose workers are ended again and again; WorkersLost if they end without one."""
    if count < LOSSES + (index < 0):
        return
    if index < 0:
        raise WorkersLost("workers end before they begin a training (out of memory?); see above, or choose workers=1")
    records, job = Records(place.out), jobs[index]
    reason = f"its worker was ended from outside {count} times (out of memory?); run the same command again"
    with suppress(FileNotFoundError):  # it had not begun
        records.fail(job.fingerprint, "WorkerLost", reason, reason)


def _end(processes: Sequence[Any]) -> None:
    """End what still runs: ask for checkpoints, wait a while, then kill; Ctrl-C kills at once."""
    if threading.current_thread() is threading.main_thread():
        for name in (signal.SIGTERM, signal.SIGUSR1):  # who asks for an end of an array sends more of them
            signal.signal(name, signal.SIG_IGN)
    running = [process for process in processes if process.is_alive()]
    try:
        for process in running:
            process.terminate()
        until = time.monotonic() + GRACE
        for process in running:
            process.join(max(0.0, until - time.monotonic()))
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
            process.join()


def _worker(jobs: Sequence[Job], place: Workplace, again: bool, parent: int, current: Any, number: int) -> None:
    """Body of a worker process. It ends with its parent, however that ends."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    places = {job.fingerprint: index for index, job in enumerate(jobs)}
    stop = Stop()

    def begin(job: Job | None) -> None:
        current[number] = -1 if job is None else places[job.fingerprint]

    try:
        with asked_by_signals(stop.ask, signal.SIGUSR2), crew(place.sharing.devices) as others:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C asks the parent, which asks its workers
            work_through(jobs, place, stop, again, others, begin)
    except KeyboardInterrupt:
        os._exit(STOPPED)
    except Exception as error:
        print(traceback.format_exc() if status_of(error) is None else f"error: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
