"""Run a plan: what is finished is skipped, what was stopped goes on, what another process holds is waited for."""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from experiments.assemble import (
    augment_of,
    autoencoder_of,
    check,
    encoder_of,
    evaluation_of,
    mask_of,
    parameter_bytes,
    recipe_of,
    splits_of,
)
from experiments.pictures import save_pictures
from experiments.plan import PRETRAIN, Job
from experiments.spec import SpecError, flatten
from experiments.tracking import Record, Tracker, locked
from mae.train.checkpoint import CheckpointError, Checkpoints
from mae.train.loop import Runtime, best_precision, environment, peak_memory_gb
from mae.train.pretrain import pretrain, reconstruct

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Machine:
    """Where jobs run: the one folder they write to, the device, seconds between checkpoints."""

    out: Path
    device: torch.device
    checkpoint_every: float = 20.0

    def checkpoints(self, job: Job) -> Checkpoints:
        """The checkpoints of a job under way."""
        return Checkpoints(self.out / "checkpoints" / job.fingerprint, self.checkpoint_every)

    def weights(self, fingerprint: str) -> Checkpoints:
        """The weights that a finished pre-training leaves to its evaluations."""
        return Checkpoints(self.out / "weights" / fingerprint)


def device_of(name: str) -> torch.device:
    """``auto`` is CUDA where there is one; SpecError on a device that this machine lacks."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise SpecError(f"device={name} cannot be used here: {str(error).splitlines()[0]}; choose device=cpu") from error
    return torch.device(name)


def preflight(jobs: Sequence[Job], machine: Machine) -> None:
    """Everything that can be refused before training: values, room on the disk, damaged checkpoints."""
    check(jobs)
    if not jobs:
        return
    # two checkpoints of weights and two moments at the worst moment, and the weights of each pre-training
    sizes = {job.fingerprint: parameter_bytes(job.spec) for job in jobs if job.stage == PRETRAIN}
    need = 6 * max(sizes.values(), default=0) + sum(sizes.values()) + (32 << 20)
    free = shutil.disk_usage(machine.out).free
    if free < need:
        raise SpecError(
            f"the disk of {machine.out} has {free / 1e6:.0f} MB free and these runs need {need / 1e6:.0f} MB; "
            f"free some space or choose another out=PATH"
        )
    for job in jobs:
        machine.checkpoints(job).load(torch.device("cpu"))
    for needed in {job.needs for job in jobs if job.needs and job.needs not in sizes}:
        machine.weights(needed).load(torch.device("cpu"))


def execute(jobs: Sequence[Job], tracker: Tracker, machine: Machine, again: bool = False) -> None:
    """Run ``jobs`` in order (``again``: finished ones too), with one progress bar over all of them; then those that another process had."""
    total = sum(job.flops for job in jobs)
    with tqdm(total=total, unit="FLOP", unit_scale=True, dynamic_ncols=True, smoothing=0.05, bar_format=_BAR) as bar:
        postponed: list[Job] = []
        for index, job in enumerate(jobs, 1):
            waits = job.needs in {p.fingerprint for p in postponed}
            if waits or not _run_locked(job, tracker, machine, bar, f"{index}/{len(jobs)}", again=again, wait=False):
                postponed.append(job)
        for job in postponed:
            bar.set_description(f"waiting for another process: {job.name}")
            _run_locked(job, tracker, machine, bar, "shared", again=False, wait=True)


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} done, {remaining} left{postfix}"


def _run_locked(job: Job, tracker: Tracker, machine: Machine, bar: Any, label: str, again: bool, wait: bool) -> bool:
    with locked(machine.out / "locks" / job.fingerprint, wait=wait) as mine:
        if not mine:
            return False
        done = next(tracker.runs(f"tags.fingerprint = '{job.fingerprint}' and attributes.status = 'FINISHED'"), None)
        bar.set_description(f"{label} {job.name}")
        if again or done is None or (job.stage == PRETRAIN and not machine.weights(job.fingerprint).index.exists()):
            _run(job, tracker, machine, bar)
        else:
            bar.update(job.flops)
    return True


def _run(job: Job, tracker: Tracker, machine: Machine, bar: Any) -> None:
    spec, stage = job.spec, job.stage
    precision = best_precision(machine.device) if spec["precision"] == "auto" else spec["precision"]
    record = tracker.open(job.name, _tags(job), _parameters(job))
    record.config(spec)
    steps = _steps(job)
    before = bar.n

    def advance(count: int) -> None:
        bar.update(job.flops * count / steps)

    def observe(step: int, values: dict[str, float]) -> None:
        bar.set_postfix_str(f"loss {values['loss']:.4f}, {values['samples_per_second']:.0f} samples/s")
        record.curve(step, values)

    checkpoints = machine.checkpoints(job)
    runtime = Runtime(
        seed=spec["seed"],
        device=machine.device,
        precision=precision,
        checkpoints=checkpoints,
        log_every=max(1, steps // 200),
        observe=observe,
        advance=advance,
    )
    started = time.time()
    try:
        torch.manual_seed(spec["seed"])
        results = _pretrain(job, machine, runtime, record) if stage == PRETRAIN else _evaluate(job, machine, runtime)
    except Exception as error:
        record.fail(f"{type(error).__name__}: {error}")
        raise
    results["wall_seconds"] = time.time() - started
    results["peak_memory_gb"] = peak_memory_gb(machine.device)
    facts = {**environment(machine.device), **_software(), "precision": precision}
    record.finish({f"{stage}/{key}": value for key, value in results.items()}, facts)
    checkpoints.clear()
    bar.update(before + job.flops - bar.n)


def _pretrain(job: Job, machine: Machine, runtime: Runtime, record: Record) -> dict[str, float]:
    spec = job.spec
    splits = splits_of(spec, machine.out / "cache")
    model = autoencoder_of(spec).to(machine.device)
    mask = mask_of(spec)
    fitted = pretrain(model, splits.pretrain, mask, augment_of(spec, spec["augment"]), recipe_of(spec), runtime)
    machine.weights(job.fingerprint).save(model.state_dict(), {"step": fitted.steps, "spec": spec})
    view = augment_of(spec, spec["data"]["test_augment"])
    batch = next(iter(splits.test.batches([torch.arange(min(8, len(splits.test)))], machine.device)))
    clips = view(batch.images, torch.Generator(machine.device))
    pictures = reconstruct(model, clips, mask, seed=0)
    folder = machine.out / "pictures"
    record.picture(save_pictures(pictures, spec, folder / f"{job.fingerprint}.png"))
    return {
        "loss": fitted.loss,
        "seconds": fitted.seconds,
        "samples_per_second": fitted.samples_per_second,
        "gflops": job.flops / (3e9 * fitted.steps * spec["pretrain"]["batch_size"]),
    }


def _evaluate(job: Job, machine: Machine, runtime: Runtime) -> dict[str, float]:
    spec, section = job.spec, job.spec["evaluate"][job.stage]
    encoder = encoder_of(spec)
    if job.needs is not None:
        found = machine.weights(job.needs).load(torch.device("cpu"))
        if found is None:
            raise CheckpointError(f"the weights of pre-training {job.needs} are gone; run the same command again")
        tensors = {name: tensor for name, tensor in found[0].items() if name.startswith("encoder.")}
        encoder.load_state_dict({name.removeprefix("encoder."): tensor for name, tensor in tensors.items()})
    evaluation = evaluation_of(spec, job.stage)
    splits = splits_of(spec, machine.out / "cache")
    train, test = augment_of(spec, section["augment"]), augment_of(spec, spec["data"]["test_augment"])
    return evaluation(encoder, splits, train, test, runtime)


def _steps(job: Job) -> int:
    samples = job.spec["data"]["samples"]
    if job.stage == PRETRAIN:
        return recipe_of(job.spec).steps(samples["pretrain"])
    return evaluation_of(job.spec, job.stage).recipe.steps(samples["train"])


def _tags(job: Job) -> dict[str, str]:
    cell = job.cells[0]
    tags = {
        "ablation": cell.table.partition("--")[0],
        "row": cell.row,
        "seed": str(job.spec["seed"]),
        "stage": job.stage,
        "scale": job.spec["scale"],
        "fingerprint": job.fingerprint,
        "pretraining": job.needs or "none",
        **{f"table.{cell.table}": cell.row for cell in job.cells},
    }
    return tags


def _parameters(job: Job) -> dict[str, Any]:
    """The spec's sections that this job reads, flat, with both the base and the effective learning rate."""
    spec, stage = job.spec, job.stage
    if stage == PRETRAIN:
        shown = {key: spec[key] for key in ("model", "mask", "target", "objective", "augment", "pretrain")}
        recipe = recipe_of(spec)
    else:
        shown = {"model": spec["model"], stage: spec["evaluate"][stage]}
        recipe = evaluation_of(spec, stage).recipe
    effective = {"base_lr": recipe.base_lr, "effective_lr": recipe.peak_lr, "batch_size": recipe.batch_size}
    return {**flatten(shown), **effective, "steps": _steps(job)}


@lru_cache(maxsize=1)
def _software() -> dict[str, str]:
    """Versions and the state of the source, as tags."""
    import timm

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    state = {"git.commit": git("rev-parse", "HEAD"), "git.dirty": str(bool(git("status", "--porcelain")))}
    return {"python": platform.python_version(), "timm": timm.__version__, "platform": platform.platform(), **state}
