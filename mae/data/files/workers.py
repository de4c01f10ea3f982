"""The processes that read many files, and how many there are.

Nothing here imports torch, so that a worker process starts fast.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from mae.memory import keep_freed_memory

T = TypeVar("T")


def processors() -> int:
    """Processors that this process may use: its share of them where torchrun started several on this machine."""
    allowed = getattr(os, "sched_getaffinity", None)
    count = len(allowed(0)) if allowed else os.cpu_count() or 1
    return max(1, count // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def default_workers() -> int:
    """Processes for work that is done once: as many as processors, at most eight."""
    return min(8, processors())


_context: Any = None


def _keep(context: Any) -> None:
    global _context
    _context = context
    keep_freed_memory()


def _apply(task: Callable[[Any, Any], T], item: Any) -> T:
    return task(_context, item)


def in_processes(task: Callable[[Any, Any], T], context: Any, items: Iterable[Any], workers: int) -> Iterator[T]:
    """``task(context, item)`` for each item, in order; in this process when ``workers`` is 0.

    ``context`` is sent once per process. Processes are not forked, since a fork of a process with threads may
    hang. Raises RuntimeError when one of them is killed.
    """
    if workers == 0:
        for item in items:
            yield task(context, item)
        return
    methods = multiprocessing.get_all_start_methods()
    method = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    pool = ProcessPoolExecutor(workers, mp_context=method, initializer=_keep, initargs=(context,))
    try:
        for future in [pool.submit(_apply, task, item) for item in items]:
            yield future.result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a decoding process was killed (out of memory?) or could not start (a script needs "
            '`if __name__ == "__main__":`); use fewer workers, or workers=0 to decode in this process'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
