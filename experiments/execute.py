"""Run a plan: what is finished is skipped, what was stopped goes on, what another process holds is waited for."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty
from typing import Any

import torch
from tqdm import tqdm

from experiments import work
from experiments.command import status_of
from experiments.crew import Crew
from experiments.plan import Job
from experiments.preflight import threads_for
from experiments.tracking import Tracker
from experiments.work import Progress, Workplace
from mae.disk import locked
from mae.errors import UserError
from mae.memory import keep_freed_memory
from mae.train.machine import device_of


class JobFailed(UserError, RuntimeError):
    """A job failed in a worker; the message is its sentence."""


def workplace(out: Path, device: str, scale: str) -> Workplace:
    """Where a scale's jobs run."""
    return Workplace(out, device_of(device), threads_for(scale))


def execute(
    jobs: Sequence[Job],
    tracker: Tracker,
    place: Workplace,
    workers: int = 1,
    again: bool = False,
    crew: Crew | None = None,
) -> None:
    """Run ``jobs`` with one progress bar over all of them, in ``workers`` processes side by side.

    Each worker takes the first job that nobody holds and that has the weights it needs. ``again`` runs finished ones.
    With a ``crew`` there is one worker, and each training runs on all of its devices.
    """
    since = time.time() if again else 0.0
    pause = 0.2 if sys.stderr.isatty() else 30.0  # a log file wants a line now and then
    total = sum(job.flops for job in jobs)
    with tqdm(total=total, dynamic_ncols=True, smoothing=0.05, mininterval=pause, bar_format=_BAR) as bar:

        def progress(flops: float, words: str) -> None:
            if words:
                bar.set_postfix_str(words, refresh=False)
            bar.update(min(flops, total - bar.n))  # rounding must not carry the bar past its end

        def begin(job: Job) -> None:
            bar.set_description(job.name, refresh=False)

        display = Display(begin, progress, lambda job: progress(job.flops, ""))
        if workers <= 1:
            _work(jobs, tracker, place, since, display, crew)
        else:
            _share(critical_first(jobs), tracker, place, since, workers, display)


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} done, {remaining} left{postfix}"


@dataclass(frozen=True)
class Display:
    """Who is told that a job begins, how it goes, and that another process has done it."""

    begin: Callable[[Job], None]
    progress: Progress
    skip: Callable[[Job], None]


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


def _work(
    jobs: Sequence[Job], tracker: Tracker, place: Workplace, since: float, display: Display, crew: Crew | None = None
) -> None:
    """Do every job that is free, again and again until none is left; another process does the ones it holds."""
    if place.device.type == "cpu":
        keep_freed_memory()
        if place.threads:
            torch.set_num_threads(place.threads)
    left = list(jobs)
    while left:
        waiting: list[Job] = []
        for job in left:
            held = job.needs in {other.fingerprint for other in waiting}
            if held or not _take(job, tracker, place, since, display, crew):
                waiting.append(job)
        if len(waiting) == len(left):
            time.sleep(0.5)
        left = waiting


def _take(job: Job, tracker: Tracker, place: Workplace, since: float, display: Display, crew: Crew | None) -> bool:
    """Do one job unless another process holds it or has done it; False if it is held."""
    with locked(place.out / "locks" / job.fingerprint, wait=False) as mine:
        if not mine:
            return False
        done = next(tracker.runs(f"tags.fingerprint = '{job.fingerprint}' and attributes.status = 'FINISHED'"), None)
        stale = done is None or (done.info.end_time or 0) < since * 1000
        if stale or (job.leaves_weights and not place.weights(job.fingerprint).index.exists()):
            display.begin(job)
            work.run_job(job, tracker, place, display.progress, crew)
        else:
            display.skip(job)
    return True


def _share(
    jobs: Sequence[Job], tracker: Tracker, place: Workplace, since: float, workers: int, display: Display
) -> None:
    """Let ``workers`` processes do the jobs between them and show how far they are."""
    context = multiprocessing.get_context("spawn")
    events: Queue[tuple[str, Any, Any]] = context.Queue()
    arguments = (jobs, tracker.uri, place, since, os.getpid(), events)
    # no daemons: those may not have processes of their own, which write and decode data
    processes = [context.Process(target=_worker, args=arguments) for _ in range(workers)]
    for process in processes:
        process.start()
    running, begun = workers, set()
    failure: str | None = None
    try:
        while running and failure is None:
            try:
                kind, first, second = events.get(timeout=1.0)
            except Empty:
                if any(process.exitcode not in (None, 0) for process in processes):
                    failure = "a worker process was ended from outside (out of memory?); run the same command again"
                continue
            if kind == "begin":
                begun.add(first)
                display.begin(jobs[first])
            elif kind == "progress":
                display.progress(first, second)
            elif kind == "skip":
                if first not in begun:  # else it was one of these workers that did it, and has told so
                    display.skip(jobs[first])
            elif kind == "failed":
                failure = first
            else:
                running -= 1
    finally:
        for process in processes:
            if failure is not None or sys.exc_info()[0] is not None:
                process.terminate()
            process.join()
    if failure is not None:
        raise JobFailed(failure)


def _worker(
    jobs: Sequence[Job], uri: str, place: Workplace, since: float, parent: int, events: Queue[tuple[str, Any, Any]]
) -> None:
    """Body of a worker process. It ends with its parent, however that ends."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    places = {job.fingerprint: index for index, job in enumerate(jobs)}
    display = Display(
        begin=lambda job: events.put(("begin", places[job.fingerprint], None)),
        progress=lambda flops, words: events.put(("progress", flops, words)),
        skip=lambda job: events.put(("skip", places[job.fingerprint], None)),
    )
    try:
        _work(jobs, Tracker(uri, place.out), place, since, display)
    except KeyboardInterrupt:
        return
    except Exception as error:
        words = traceback.format_exc() if status_of(error) is None else str(error)
        events.put(("failed", words, None))
        return
    events.put(("done", None, None))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
