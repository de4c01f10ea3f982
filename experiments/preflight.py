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
from typing import TYPE_CHECKING

from experiments.ablation import SpecError
from experiments.plan import Job, local
from experiments.remember import kept
from experiments.spec import PRETRAIN, Spec
from mae.errors import CheckpointError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Offer:
    """What a device computes with: its ``type``, and the ``precision`` that ``auto`` stands for on it."""

    type: str
    precision: str


def offer_of(device: str) -> Offer:
    """What the device called ``device`` offers on this machine; SpecError if there is none."""

    def found() -> dict[str, str]:
        from mae.train.machine import best_precision

        chosen = device_of(device)
        return asdict(Offer(chosen.type, best_precision(chosen)))

    seen = [platform.node(), Path("/dev/nvidiactl").exists(), os.environ.get("CUDA_VISIBLE_DEVICES")]
    # elsewhere than on Linux nothing as cheap as that says whether there is a card
    return Offer(**kept(f"{device} of {seen}", found, keep=device in ("auto", "cpu") and sys.platform == "linux"))


def device_of(name: str) -> torch.device:
    """``auto`` is CUDA where there is one; SpecError on a device that this machine lacks."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise SpecError(
            f"device={name} cannot be used here: {str(error).splitlines()[0]}; choose device=cpu"
        ) from error
    return torch.device(name)


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
    """SpecError if data is not named, the disk has no room for what the jobs write, or a checkpoint is damaged."""
    check_named(jobs)
    # two checkpoints of weights and two moments at the worst moment, and the weights that each leaves
    sizes = {job.fingerprint: job.facts.weights for job in jobs if job.leaves_weights}
    need = 6 * max(sizes.values(), default=0) + sum(sizes.values()) + (32 << 20)
    free = shutil.disk_usage(out).free
    if jobs and free < need:
        raise SpecError(
            f"the disk of {out} has {free / 1e6:.0f} MB free and these runs need {need / 1e6:.0f} MB; "
            f"free some space or choose another out=PATH"
        )
    needed = {job.needs for job in jobs if job.needs and job.needs not in sizes}
    folders = [out / "checkpoints" / job.fingerprint for job in jobs] + [out / "weights" / name for name in needed]
    if existing := [folder for folder in folders if folder.exists()]:
        _check_checkpoints(existing)


def check_named(jobs: Iterable[Job]) -> None:
    """SpecError if a job reads files of data whose place nobody has said."""
    for job in jobs:
        name, key = ("data", "data") if job.stage == PRETRAIN else ("evaluate_data", _key_of(job.spec))
        data = job.spec.tree[name]
        shifts = {f"{key}.shifts.{shift}": section for shift, section in data.get("shifts", {}).items()}
        for place, section in {f"{key}.source": data["source"], **shifts}.items():
            if "root" in section and section["root"] is None:
                raise SpecError(f"{job.name} reads files, and nobody says where they lie; add {place}.root=PATH")


def _key_of(spec: Spec) -> str:
    return "data" if spec.data.source == spec.evaluate_data.source else "evaluate_data"


def _check_checkpoints(folders: Iterable[Path]) -> None:
    import torch

    from mae.train.checkpoint import Checkpoints

    try:
        for folder in folders:
            Checkpoints(folder).load(torch.device("cpu"))
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
