"""One training, from its spec to its record: what a job does once it is its turn."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from experiments.browse import NOTE, source_tags, training_note
from experiments.compose import flatten
from experiments.hardware import fit_of
from experiments.pictures import save_strips
from experiments.plan import Job
from experiments.remember import fingerprint
from experiments.sharing import Sharing
from experiments.spec import Data
from experiments.stages.pretraining import SKETCHED
from experiments.stages.stage import Outcome, Stage
from experiments.tracking import DataUsed, Tracker, table_tag
from mae.disk import write_bytes
from mae.errors import CheckpointError
from mae.train.checkpoint import Checkpoints
from mae.train.loop import Runtime
from mae.train.machine import environment, matmul_peak, memory_of, peak_memory_gb, reset_peak_memory
from mae.train.parts import divisors
from mae.visualise.sheet import noted, save_sheet, sheet_of, strip
from mae.world import World

#: Told how many FLOPs were just done, and in a few words how it goes.
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Workplace:
    """Where jobs run: the one folder they write to, the device, seconds between checkpoints.

    On a CPU each job computes with ``threads`` threads, 0 for all cores: numbers repeat exactly for equal threads.
    Where seeds are added until claims are decided, ``planned_seeds`` is the most that a row may get, and is recorded.
    ``sharing`` says how devices share a training.
    """

    out: Path
    device: torch.device
    threads: int = 0
    checkpoint_every: float = 20.0
    planned_seeds: int | None = None
    sharing: Sharing = field(default_factory=Sharing)

    @property
    def cache(self) -> Path:
        """Where data are kept that were decoded or made."""
        return self.out / "cache"

    def checkpoints(self, job: Job) -> Checkpoints:
        """The checkpoints of a job under way."""
        return Checkpoints(self.out / "checkpoints" / job.fingerprint, self.checkpoint_every)

    def weights(self, fingerprint: str) -> Checkpoints:
        """The weights that a finished training leaves to those that start from it."""
        return Checkpoints(self.out / "weights" / fingerprint)

    def pictures(self, job: Job) -> Path:
        """Where the pictures of a job go, and what else is looked at."""
        return self.out / "pictures" / job.fingerprint


class Others(Protocol):
    """The other processes of a training that several devices share."""

    def begin(self, job: Job, where: Workplace) -> World:
        """Let them do their share of a job, and say who takes part."""
        ...

    def reason(self, error: Exception) -> Exception:
        """What really failed: what another process said if ``error`` is that it is gone."""
        ...


def run_job(job: Job, tracker: Tracker, place: Workplace, progress: Progress, others: Others | None = None) -> None:
    """Train or evaluate, and record the result; an earlier attempt is taken up where its last checkpoint left it.

    The processes of ``others`` do their share.
    """
    spec, stage, facts = job.spec, job.made(), job.facts
    peak = matmul_peak(place.device, spec.precision)  # before the training takes the device's memory
    record = tracker.open(job.name, {**_tags(job), **source_tags()}, _parameters(job, stage), _used(stage))
    record.config(spec.tree)
    spent = 0.0

    def advance(count: int) -> None:
        nonlocal spent
        spent += facts.flops * count / facts.steps
        progress(facts.flops * count / facts.steps, "")

    def observe(step: int, values: dict[str, float]) -> None:
        speed = values["samples_per_second"]
        progress(0.0, f"loss {values['loss']:.4f}, {speed:.0f} samples/s")
        if facts.sample_flops:
            values = {**values, "utilisation": facts.sample_flops * speed / peak}
        record.curve(step, values)

    def sketch(step: int, pictures: Mapping[str, torch.Tensor], note: str) -> None:
        record.sketch(step, sheet_of(_columns(pictures, spec.data, note), notes=_notes(note)))

    checkpoints = place.checkpoints(job)

    def keep(name: str, content: bytes) -> None:
        path = place.pictures(job) / name
        write_bytes(path, content)
        record.kept(path)

    runtime = replace(_runtime(job, place), observe=observe, advance=advance, sketch=sketch, keep=keep)
    resumed = checkpoints.index.exists()
    started = time.time()
    reset_peak_memory(place.device)
    try:
        if others is not None:
            runtime = replace(runtime, world=others.begin(job, place))
        outcome = _outcome(job, place, runtime)
    except Exception as error:
        reason = error if others is None else others.reason(error)
        record.fail(f"{type(reason).__name__}: {reason}")
        raise reason from (None if reason is error else error)
    if job.leaves_weights and outcome.tensors is not None:
        place.weights(job.fingerprint).save(outcome.tensors, {"step": facts.steps, "spec": spec.tree})
    if outcome.pictures:
        columns, path = _columns(outcome.pictures, spec.data, outcome.note), place.pictures(job) / "reconstructions.png"
        record.picture(save_sheet(columns, path, notes=_notes(outcome.note)))
        save_strips(outcome.pictures, spec.data, outcome.note, place.pictures(job) / "strip.png")
        sketch(facts.steps, {name: clips[:SKETCHED] for name, clips in outcome.pictures.items()}, outcome.note)
    results = {**outcome.results, "wall_seconds": time.time() - started}
    if not resumed:
        results["gflops_per_second"] = facts.flops / 1e9 / results["wall_seconds"]
    if place.planned_seeds:
        results["planned_seeds"] = place.planned_seeds
    results["peak_memory_gb"] = peak_memory_gb(place.device)
    environs = {**environment(place.device), **_software(), "precision": spec.precision}
    record.finish({f"{job.stage}/{key}": value for key, value in results.items()}, environs)
    checkpoints.clear()
    progress(facts.flops - spent, "")


def share_job(job: Job, place: Workplace, world: World) -> None:
    """Do the share of a job that the process ``world.rank`` has beside the first, which records it."""
    if place.device.type == "cpu" and place.threads:
        torch.set_num_threads(place.threads)
    _outcome(job, place, replace(_runtime(job, place), world=world))


def sharing_of(job: Job, place: Workplace) -> Sharing:
    """How a job is shared: as asked, and on a card whose memory a step would not fit, by the memory model.

    It may choose smaller parts, to compute blocks again, or to shard the model, where nobody has chosen parts.
    """
    asked = place.sharing
    if place.device.type != "cuda" or asked.micro_batch is not None or not job.facts.batch:
        return asked
    own = job.facts.batch // asked.devices
    fit = fit_of(job, memory_of(place.device), asked.devices)
    if fit is None or (fit.parts == 1 and not fit.checkpointing and not fit.sharded):
        return asked
    size = max(number for number in divisors(own) if number <= fit.micro_batch)
    found = Sharing(
        asked.devices,
        None if size == own else size,
        "fsdp" if fit.sharded else asked.sharding,
        asked.recompute or fit.checkpointing,
        asked.compile,
    )
    try:
        job.made().check_sharing(found.devices, found.micro_batch, found.sharding)
    except ValueError:  # a loss that has no parts is tried as it is
        return asked
    return found


def _runtime(job: Job, place: Workplace) -> Runtime:
    sharing = sharing_of(job, place)
    return Runtime(
        seed=job.spec.seed,
        device=place.device,
        precision=job.spec.precision,
        checkpoints=place.checkpoints(job),
        log_every=max(1, job.facts.steps // 200),
        micro_batch=sharing.micro_batch,
        sharding=sharing.sharding,
        recompute=sharing.recompute,
        compile=sharing.compile,
    )


def _outcome(job: Job, place: Workplace, runtime: Runtime) -> Outcome:
    torch.manual_seed(job.spec.seed)
    return job.made().run(_start(job, place), place.cache, runtime)


def _start(job: Job, place: Workplace) -> dict[str, torch.Tensor] | None:
    """The tensors of the training that a job starts from, None where there is none."""
    if job.needs is None:
        return None
    found = place.weights(job.needs).load(torch.device("cpu"))
    if found is None:
        raise CheckpointError(f"the weights of training {job.needs} are gone; run the same command again")
    return found[0]


def _columns(pictures: Mapping[str, torch.Tensor], data: Data, note: str) -> dict[str, torch.Tensor]:
    return noted({name: strip(clips, data.mean, data.std) for name, clips in pictures.items()}, note)


def _notes(note: str) -> Sequence[str]:
    return (f"* {note}",) if note else ()


def _tags(job: Job) -> dict[str, str]:
    cell = job.cells[0]
    return {
        "ablation": cell.table.partition("--")[0],
        "paper": cell.paper,
        "row": cell.row,
        "seed": str(job.spec.seed),
        "stage": job.stage,
        "scale": job.spec.scale,
        "fingerprint": job.fingerprint,
        "pretraining": job.needs or "none",
        NOTE: training_note(
            cell.table, cell.row, job.spec.seed, job.spec.scale, list(dict.fromkeys(c.table for c in job.cells))
        ),
        **{table_tag(cell.table): cell.row for cell in job.shown},
    }


def _used(stage: Stage) -> DataUsed:
    """The data of a training, named by its set and by what of it the training reads."""
    read, data = stage.identity()["data"], stage.data
    profile = {"samples": data.samples, "classes": data.classes, "input": read["input"]}
    name = str(read["source"]["name"]).rpartition("/")[2]
    return DataUsed(name, fingerprint(read), stage.side, data.source, profile)


def _parameters(job: Job, stage: Stage) -> dict[str, Any]:
    """The spec's sections that this job reads, flat, with both the base and the effective learning rate."""
    recipe = stage.recipe
    effective = {} if recipe is None else {"base_lr": recipe.base_lr, "effective_lr": recipe.peak_lr}
    return {**flatten(stage.reads()), **effective, "steps": job.facts.steps}


def _software() -> dict[str, str]:
    """Versions, as tags."""
    import timm

    return {"python": platform.python_version(), "timm": timm.__version__, "platform": platform.platform()}
