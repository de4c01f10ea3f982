"""One training, from its spec to its record: what a job does once it is its turn."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from experiments.assemble import (
    autoencoder_of,
    data_of,
    encoder_of,
    evaluation_of,
    mask_of,
    recipe_of,
)
from experiments.pictures import save_pictures
from experiments.plan import PRETRAIN, Job, data_section
from experiments.spec import flatten
from experiments.tracking import Record, Tracker, table_tag
from mae.data.source import Source
from mae.errors import CheckpointError
from mae.train.checkpoint import Checkpoints
from mae.train.loop import Runtime
from mae.train.machine import best_precision, environment, matmul_peak, peak_memory_gb, reset_peak_memory
from mae.train.optim import Recipe
from mae.train.pretrain import pretrain, reconstruct
from mae.weights import adapt, read

ROOT = Path(__file__).resolve().parent.parent

#: Before the names of the encoder's tensors in the weights that a training leaves.
ENCODER = "encoder."

#: Told how many FLOPs were just done, and in a few words how it goes.
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Machine:
    """Where jobs run: the one folder they write to, the device, seconds between checkpoints.

    On a CPU each job computes with ``threads`` threads, 0 for all cores: numbers repeat exactly for equal threads.
    """

    out: Path
    device: torch.device
    threads: int = 0
    checkpoint_every: float = 20.0

    def checkpoints(self, job: Job) -> Checkpoints:
        """The checkpoints of a job under way."""
        return Checkpoints(self.out / "checkpoints" / job.fingerprint, self.checkpoint_every)

    def weights(self, fingerprint: str) -> Checkpoints:
        """The weights that a finished training leaves to those that start from it."""
        return Checkpoints(self.out / "weights" / fingerprint)


def run_job(job: Job, tracker: Tracker, machine: Machine, progress: Progress) -> None:
    """Train or evaluate, and record the result; an earlier attempt is taken up where its last checkpoint left it."""
    spec, stage = job.spec, job.stage
    precision = best_precision(machine.device) if spec["precision"] == "auto" else spec["precision"]
    peak = matmul_peak(machine.device, precision)  # before the training takes the device's memory
    record = tracker.open(job.name, _tags(job), _parameters(job))
    record.config(spec)
    steps = _steps(job)
    spent = 0.0

    def advance(count: int) -> None:
        nonlocal spent
        spent += job.flops * count / steps
        progress(job.flops * count / steps, "")

    def observe(step: int, values: dict[str, float]) -> None:
        speed = values["samples_per_second"]
        progress(0.0, f"loss {values['loss']:.4f}, {speed:.0f} samples/s")
        if job.sample_flops:
            values = {**values, "utilisation": job.sample_flops * speed / peak}
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
    resumed = checkpoints.index.exists()
    started = time.time()
    reset_peak_memory(machine.device)
    try:
        torch.manual_seed(spec["seed"])
        results = _pretrain(job, machine, runtime, record) if stage == PRETRAIN else _evaluate(job, machine, runtime)
    except Exception as error:
        record.fail(f"{type(error).__name__}: {error}")
        raise
    results["wall_seconds"] = time.time() - started
    if not resumed:
        results["gflops_per_second"] = job.flops / 1e9 / results["wall_seconds"]
    results["peak_memory_gb"] = peak_memory_gb(machine.device)
    facts = {**environment(machine.device), **_software(), "precision": precision}
    record.finish({f"{stage}/{key}": value for key, value in results.items()}, facts)
    checkpoints.clear()
    progress(job.flops - spent, "")


def _pretrain(job: Job, machine: Machine, runtime: Runtime, record: Record) -> dict[str, float]:
    spec = job.spec
    splits, augment = data_of(spec, PRETRAIN, machine.out / "cache", machine.device)
    model = autoencoder_of(spec).to(machine.device)
    mask = mask_of(spec)
    fitted = pretrain(model, splits.pretrain, mask, augment, recipe_of(spec), runtime)
    machine.weights(job.fingerprint).save(model.state_dict(), {"step": fitted.steps, "spec": spec})
    source, (view, *_) = splits.views[0]
    batch = next(iter(source.batches([torch.arange(min(8, len(source)))], machine.device)))
    clips = view(batch.images, torch.Generator(machine.device))
    pictures = reconstruct(model, clips, mask, seed=0)
    folder = machine.out / "pictures" / job.fingerprint
    record.picture(save_pictures(pictures, spec, folder / "reconstructions.png"))
    return {
        "loss": fitted.loss,
        "seconds": fitted.seconds,
        "hours": fitted.seconds / 3600,
        "samples_per_second": fitted.samples_per_second,
        "gflops": job.sample_flops / 3e9,
        **_unreadable(splits.pretrain),
    }


def _evaluate(job: Job, machine: Machine, runtime: Runtime) -> dict[str, float]:
    spec = job.spec
    encoder = encoder_of(spec)
    if job.needs is not None:
        found = machine.weights(job.needs).load(torch.device("cpu"))
        if found is None:
            raise CheckpointError(f"the weights of training {job.needs} are gone; run the same command again")
        parts = {name: tensor for name, tensor in found[0].items() if name.startswith(ENCODER)}
        tensors = {name.removeprefix(ENCODER): tensor for name, tensor in parts.items()}
        encoder.load_state_dict(tensors if spec["origin"]["set"] is None else adapt(tensors, encoder))
    elif spec["evaluate"][job.stage]["init"] == "pretrained":
        encoder.load_state_dict(adapt(read(Path(spec["origin"]["path"])), encoder))
    splits, augment = data_of(spec, job.stage, machine.out / "cache", machine.device)
    results = evaluation_of(spec, job.stage)(encoder, splits, augment, runtime)
    if job.leaves_weights:
        tensors = {ENCODER + name: tensor for name, tensor in encoder.state_dict().items()}
        machine.weights(job.fingerprint).save(tensors, {"step": _steps(job), "spec": spec})
    return results | _unreadable(splits.train, *(view.source for view in splits.views))


def _unreadable(*sources: Source) -> dict[str, float]:
    """How many items of ``sources`` could not be read, if any."""
    reports = [source.report for source in sources if hasattr(source, "report")]
    names = {name for report in reports for name, _ in report.failed}
    return {"unreadable": float(len(names))} if names else {}


def _steps(job: Job) -> int:
    """Optimiser steps of a job; one, for the progress bar, where nothing is trained."""
    samples = job.spec[data_section(job.stage)]["samples"]
    if job.stage == PRETRAIN:
        return recipe_of(job.spec).steps(samples["pretrain"])
    recipe = evaluation_of(job.spec, job.stage).recipe
    return recipe.steps(samples["train"]) if recipe else 1


def _tags(job: Job) -> dict[str, str]:
    cell = job.cells[0]
    return {
        "ablation": cell.table.partition("--")[0],
        "paper": cell.paper,
        "row": cell.row,
        "seed": str(job.spec["seed"]),
        "stage": job.stage,
        "scale": job.spec["scale"],
        "fingerprint": job.fingerprint,
        "pretraining": job.needs or "none",
        **{table_tag(cell.table): cell.row for cell in job.shown},
    }


def _parameters(job: Job) -> dict[str, Any]:
    """The spec's sections that this job reads, flat, with both the base and the effective learning rate."""
    spec, stage = job.spec, job.stage
    if stage == PRETRAIN:
        keys = ("model", "mask", "target", "target_frames", "objective", "augment", "pretrain")
        shown = {key: spec[key] for key in keys if key in spec}
        recipe: Recipe | None = recipe_of(spec)
    else:
        shown = {"model": spec["model"], stage: spec["evaluate"][stage]}
        recipe = evaluation_of(spec, stage).recipe
    effective = {} if recipe is None else {"base_lr": recipe.base_lr, "effective_lr": recipe.peak_lr}
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
