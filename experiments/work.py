"""One training, from its spec to its record: what a job does once it is its turn."""

from __future__ import annotations

import json
import platform
import secrets
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from experiments.browse import source_tags
from experiments.command import status_of
from experiments.compose import flatten
from experiments.hardware import fit_of
from experiments.locks import Held
from experiments.pictures import save_strips
from experiments.plan import Job
from experiments.record import KEPT, PICTURES, SKETCHES, STRIP, DataUsed, Journal, Record, Records
from experiments.remember import fingerprint
from experiments.sharing import Sharing
from experiments.spec import Data
from experiments.stages.pretraining import SKETCHED
from experiments.stages.stage import Outcome, Stage
from mae.disk import write_bytes
from mae.errors import CheckpointError
from mae.train.checkpoint import Checkpoints
from mae.train.loop import Runtime
from mae.train.machine import environment, matmul_peak, memory_of, peak_memory_gb, reset_peak_memory
from mae.train.parts import divisors
from mae.train.stop import Stop
from mae.visualise.sheet import noted, save_sheet, strip
from mae.world import World


@dataclass(frozen=True)
class Workplace:
    """Where jobs run: the one folder they write to, the device, seconds between checkpoints.

    On a CPU each job computes with ``threads`` threads, 0 for all cores: numbers repeat exactly for equal threads.
    Where seeds are added until claims are decided, ``planned_seeds`` is the most that a row may get, and is recorded.
    ``sharing`` says how devices share a training, ``launch`` names the command that all of this is done for.
    """

    out: Path
    device: torch.device
    threads: int = 0
    checkpoint_every: float = 20.0
    planned_seeds: int | None = None
    sharing: Sharing = field(default_factory=Sharing)
    launch: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def cache(self) -> Path:
        """Where data are kept that were decoded or made."""
        return self.out / "cache"

    def checkpoints(self, job: Job) -> Checkpoints:
        """The checkpoints of a job under way."""
        return checkpoints_of(job, self.out, self.checkpoint_every)

    def weights(self, fingerprint: str) -> Checkpoints:
        """The weights that a finished training leaves to those that start from it."""
        return Checkpoints(self.out / "weights" / fingerprint)


class Others(Protocol):
    """The other processes of a training that several devices share."""

    def begin(self, job: Job, where: Workplace) -> World:
        """Let them do their share of a job, and say who takes part."""
        ...

    def reason(self, error: Exception) -> Exception:
        """What really failed: what another process said if ``error`` is that it is gone."""
        ...


class Lost(Exception):
    """Another process has taken a job over, because this one was taken for dead."""


def run_job(
    job: Job, records: Records, place: Workplace, stop: Stop, held: Held, others: Others | None = None
) -> Record | None:
    """Train or evaluate, and write the record; an earlier attempt is taken up where its last checkpoint left it.

    The processes of ``others`` do their share. A training that fails says so in its files, and gives None. It leaves by
    KeyboardInterrupt when it is asked to ``stop``, and by Lost when its lock is no longer ``held``.
    """
    stage = job.made()
    journal = Journal(records.of(job.fingerprint), _begun(job, stage, place))
    try:
        return _recorded(job, stage, journal, place, stop, held, others)
    except Lost:
        raise
    except Exception as error:
        if stop.asked:  # the same signal ends the processes that a training reads with
            raise KeyboardInterrupt from error
        reason = error if others is None else others.reason(error)
        words = traceback.format_exc() if status_of(reason) is None else str(reason)
        kind = type(reason).__name__
        sentence = " ".join(str(reason).split())
        records.fail(job.fingerprint, kind, sentence if status_of(reason) is not None else f"{kind}: {sentence}", words)
        return None


def _recorded(
    job: Job, stage: Stage, journal: Journal, place: Workplace, stop: Stop, held: Held, others: Others | None
) -> Record:
    spec, facts = job.spec, job.facts
    peak = matmul_peak(place.device, spec.precision)  # before the training takes the device's memory
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if held.lost():
            raise Lost(f"{job.name} was taken over by another worker, since this one was not heard of")

    def observe(step: int, values: dict[str, float]) -> None:
        if facts.sample_flops:
            values = {**values, "utilisation": facts.sample_flops * values["samples_per_second"] / peak}
        journal.point(step, done / facts.steps, values)

    def sketch(step: int, pictures: Mapping[str, torch.Tensor], note: str) -> None:
        path = journal.folder / SKETCHES / f"{step}.png"
        save_sheet(_columns(pictures, spec.data, note), path, notes=_notes(note))

    def keep(name: str, content: bytes) -> None:
        write_bytes(journal.folder / KEPT / name, content)

    checkpoints = place.checkpoints(job)
    runtime = _runtime(job, place)
    runtime = replace(runtime, observe=observe, advance=advance, sketch=sketch, keep=keep, stop=stop)
    resumed = checkpoints.index.exists()
    started = time.monotonic()
    reset_peak_memory(place.device)
    if others is not None:
        runtime = replace(runtime, world=others.begin(job, place))
    outcome = _outcome(job, place, runtime)
    if job.leaves_weights and outcome.tensors is not None:
        place.weights(job.fingerprint).save(outcome.tensors, {"step": facts.steps, "spec": spec.tree})
    if outcome.pictures:
        columns, notes = _columns(outcome.pictures, spec.data, outcome.note), _notes(outcome.note)
        save_sheet(columns, journal.folder / PICTURES, notes=notes)
        save_strips(outcome.pictures, spec.data, outcome.note, journal.folder / STRIP)
        sketch(facts.steps, {name: clips[:SKETCHED] for name, clips in outcome.pictures.items()}, outcome.note)
    results = {**outcome.results, "wall_seconds": time.monotonic() - started}
    if not resumed:
        results["gflops_per_second"] = facts.flops / 1e9 / results["wall_seconds"]
    if place.planned_seeds:
        results["planned_seeds"] = place.planned_seeds
    results["peak_memory_gb"] = peak_memory_gb(place.device)
    environs = {**environment(place.device), **_software(), **source_tags(), "precision": spec.precision}
    advance(0)
    record = journal.finish({f"{job.stage}/{key}": value for key, value in results.items()}, environs)
    checkpoints.clear()
    return record


def _begun(job: Job, stage: Stage, place: Workplace) -> Record:
    cell = job.cells[0]
    return Record(
        fingerprint=job.fingerprint,
        name=job.name,
        stage=job.stage,
        scale=job.spec.scale,
        seed=job.spec.seed,
        tables={cell.table: cell.row for cell in job.shown},
        tags={
            "ablation": cell.table.partition("--")[0],
            "paper": cell.paper,
            "row": cell.row,
            "pretraining": job.needs or "none",
        },
        parameters=_parameters(job, stage),
        spec=job.spec.tree,
        launch=place.launch,
        data=asdict(_used(stage)),
    )


def checkpoints_of(job: Job, out: Path, every: float = 20.0) -> Checkpoints:
    """The checkpoints of a job under way."""
    computed = json.loads(json.dumps(job.made().identity()))
    return Checkpoints(out / "checkpoints" / job.fingerprint, every, computed)


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
