"""What is found out before anything is trained: what the machine offers, whether there is room, what is damaged.

A plan that is known already needs none of torch, which takes seconds to load, so it is loaded where it is needed.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.ablation import SpecError
from experiments.needs import check_needs
from experiments.plan import Job, local
from experiments.remember import kept
from mae.errors import CheckpointError


@dataclass(frozen=True)
class Offer:
    """What a device computes with: its ``type``, and the ``precision`` that ``auto`` stands for on it."""

    type: str
    precision: str


def offer_of(device: str) -> Offer:
    """What the device called ``device`` offers on this machine; SpecError if there is none."""

    def found() -> dict[str, str]:
        from mae.train.machine import best_precision, device_of

        chosen = device_of(device)
        return asdict(Offer(chosen.type, best_precision(chosen)))

    seen = [platform.node(), Path("/dev/nvidiactl").exists(), os.environ.get("CUDA_VISIBLE_DEVICES")]
    # elsewhere than on Linux nothing as cheap as that says whether there is a card
    return Offer(**kept(f"{device} of {seen}", found, keep=device in ("auto", "cpu") and sys.platform == "linux"))


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_for(scale: str) -> int:
    """CPU threads of a job, 0 for all cores. Small models gain nothing from a second thread, and run side by side."""
    return 1 if scale in ("smoke", "desk", "study") else 0


def workers_for(jobs: Sequence[Job], scale: str, offer: Offer) -> int:
    """How many processes share the jobs when nobody says: one a core where a job takes one thread, else one."""
    threads = threads_for(scale)
    if offer.type != "cpu" or threads == 0:
        return 1
    last = {job.fingerprint for job in jobs} - {job.needs for job in jobs}  # so many can run at the same time
    return max(1, min(cores() // threads, len(last)))


def preflight(jobs: Sequence[Job], out: Path) -> None:
    """SpecError if files are not named, the disk has no room for what the jobs write, or a checkpoint is damaged."""
    check_needs(jobs)
    for sentence in full_disk(jobs, out):
        raise SpecError(sentence)
    check_checkpoints(jobs, out)


def disk_bytes(jobs: Sequence[Job]) -> int:
    """What the jobs write: two checkpoints of weights and two moments at the worst moment, and weights that stay."""
    sizes = [job.facts.weights for job in jobs if job.leaves_weights]
    return 6 * max(sizes, default=0) + sum(sizes) + (32 << 20)


def full_disk(jobs: Sequence[Job], out: Path) -> list[str]:
    """A sentence if the disk of ``out`` has no room for what the jobs write."""
    need, free = disk_bytes(jobs), shutil.disk_usage(out).free
    if not jobs or free >= need:
        return []
    return [
        f"the disk of {out} has {free / 1e6:.0f} MB free and these runs need {need / 1e6:.0f} MB; "
        f"free some space or choose another out=PATH"
    ]


def check_checkpoints(jobs: Sequence[Job], out: Path) -> None:
    """SpecError if a checkpoint is damaged, or is of another training, that a job goes on from, or starts from."""
    made = {job.fingerprint for job in jobs if job.leaves_weights}
    needed = {job.needs for job in jobs if job.needs and job.needs not in made}
    going_on = [job for job in jobs if (out / "checkpoints" / job.fingerprint).exists()]
    weights = [folder for name in needed if (folder := out / "weights" / name).exists()]
    if not going_on and not weights:
        return
    import torch

    from experiments.work import checkpoints_of
    from mae.train.checkpoint import Checkpoints

    try:
        for found in [*(checkpoints_of(job, out) for job in going_on), *map(Checkpoints, weights)]:
            found.load(torch.device("cpu"))
    except CheckpointError as error:
        raise SpecError(str(error)) from error


def parts_used(jobs: Iterable[Job]) -> list[str]:
    """What the jobs use of each folder that holds more than the spec asks for, in words."""
    found: list[str] = []
    for job in jobs:
        if not local(job.spec):
            continue
        stage = job.made()
        if (held := stage.data_set().holds()) is None:
            continue
        for side, count in stage.data.samples.items():
            words = f"{stage.key}.samples.{side}={count}: a part of the {held.sizes.get(side)} samples of {held.where}"
            if count < held.sizes.get(side, 0) and words not in found:
                found.append(words)
    return found
