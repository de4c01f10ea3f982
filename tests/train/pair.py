"""Two processes that train together, started once for a file of tests."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from mae.train.checkpoint import Checkpoints
from mae.train.distributed import Sharded
from mae.train.parts import Parts
from mae.world import World
from tests.train.trainings import Seen, see

Asked = tuple[str, dict[str, Any]]


class Pair:
    """``pair.see(...)`` is ``see(...)`` on two devices: what the first process saw of it, or raised."""

    def __init__(self, context: Any, store: Path, device: str) -> None:
        self.asked: list[Queue[Asked | None]] = [context.Queue() for _ in range(2)]
        self.told: Queue[tuple[int, Seen | str]] = context.Queue()
        self.processes = [
            context.Process(target=_serve, args=(rank, str(store), device, self.asked[rank], self.told))
            for rank in range(2)
        ]
        for process in self.processes:
            process.start()

    def see(self, name: str, **how: Any) -> Seen:
        for queue in self.asked:
            queue.put((name, how))
        found = dict(self.told.get(timeout=600) for _ in range(2))
        if isinstance(found[0], str):
            raise RuntimeError(found[0])
        return found[0]

    def end(self) -> None:
        for queue in self.asked:
            queue.put(None)
        for process in self.processes:
            process.join(20)


@contextmanager
def pair(store: Path, device: str = "cpu") -> Iterator[Pair]:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    running = Pair(multiprocessing.get_context("spawn"), store, device)
    try:
        yield running
    finally:
        running.end()


@contextmanager
def _short_of_memory(rank: int) -> Iterator[None]:
    """Let memory run out in parts of more than 4 samples: of a whole model on the second device only."""
    part = Parts._part

    def limited(self: Parts, prepared: Any, step: Any, here: slice, draws: Any) -> Any:
        if here.stop - here.start > 4 and (rank == 1 or isinstance(self.trained, Sharded)):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return part(self, prepared, step, here, draws)

    Parts._part = limited  # type: ignore[method-assign]
    try:
        yield
    finally:
        Parts._part = part  # type: ignore[method-assign]


def _serve(rank: int, store: str, device: str, asked: Queue[Asked | None], told: Queue[tuple[int, Seen | str]]) -> None:
    torch.set_num_threads(1)
    here = torch.device(device, rank) if device == "cuda" else torch.device(device)
    if device == "cuda":
        torch.cuda.set_device(here)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
        store=dist.FileStore(store, 2), rank=rank, world_size=2, timeout=timedelta(seconds=60),
    )  # fmt: skip
    while (question := asked.get()) is not None:
        name, how = question
        folder = how.pop("folder", None)
        if folder is not None:
            how["checkpoints"] = Checkpoints(Path(folder), every=0.0)
        limited = _short_of_memory(rank) if how.pop("short_of_memory", False) else nullcontext()
        try:
            with limited:
                told.put((rank, see(name, device=here, world=World(rank, 2), **how)))
        except Exception:
            told.put((rank, traceback.format_exc()))
    os._exit(0)  # all was told, and leaving the group in order takes seconds
