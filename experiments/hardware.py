"""What trainings ask of cards: memory, micro-batches, hours, and samples a second, before any card is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import yaml

from experiments.ablation import CONF, Ablation, SpecError
from experiments.plan import Job
from mae.footprint import Fit, devices_that_fit, memory_that_fits, micro_batch_that_fits

#: Scales that are made for cards, for which a plan reckons with this one unless another is named.
CARD_SCALES, CARD = ("gpu", "day", "paper"), "a100-80gb"


@dataclass(frozen=True)
class Accelerator:
    """A card of ``conf/accelerators.yaml``: bytes of memory, FLOP/s by precision, and the share of them in reach."""

    name: str
    memory: float
    peak: Mapping[str, float]
    source: str
    utilisation: float

    @property
    def precision(self) -> str:
        """What ``auto`` stands for on it."""
        return "bf16" if "bf16" in self.peak else "fp32"

    def hours(self, job: Job, devices: int = 1) -> float:
        """How long a job takes on so many of it."""
        return job.flops / (self.peak[job.spec.precision] * self.utilisation * devices * 3600)


@lru_cache
def accelerators() -> Mapping[str, Accelerator]:
    """The cards that a plan can reckon with, by name."""
    raw = yaml.safe_load((CONF / "accelerators.yaml").read_text(encoding="utf-8"))
    return {name: Accelerator(**card, utilisation=raw["utilisation"]) for name, card in raw["cards"].items()}


@dataclass(frozen=True)
class Demand:
    """What a training asks of ``devices`` cards: ``fit`` is None where not one sample fits.

    ``card_hours`` are those of all cards together, ``rate`` is the samples a second that must be read (and decoded),
    ``written`` the bytes of the weights that it leaves, ``published`` the hours that the paper says, and on what.
    """

    job: Job
    fit: Fit | None
    card_hours: float
    rate: float
    written: int
    published: str


def demands_of(
    jobs: Sequence[Job], accelerator: Accelerator, devices: int, ablations: Sequence[Ablation]
) -> list[Demand]:
    """What each of the jobs asks of ``devices`` cards; SpecError if the card cannot compute in its precision."""
    tables = {ablation.name: ablation for ablation in ablations}
    found: list[Demand] = []
    for job in jobs:
        if job.spec.precision not in accelerator.peak:
            raise SpecError(
                f"{job.name} computes in {job.spec.precision}, which {accelerator.name} does not; choose "
                f"precision={accelerator.precision}, or another accelerator=NAME"
            )
        hours = accelerator.hours(job, devices)
        samples = job.facts.batch * job.facts.steps
        written = job.facts.weights if job.leaves_weights else 0
        fit = fit_of(job, accelerator.memory, devices)
        found.append(Demand(job, fit, devices * hours, samples / (3600 * hours), written, _published(job, tables)))
    return found


def fit_of(job: Job, memory: float, devices: int) -> Fit | None:
    """How a step of a job fits into ``devices`` cards of ``memory`` bytes, None where it does not."""
    assert job.facts.footprint is not None
    return micro_batch_that_fits(job.facts.footprint, max(1, job.facts.batch), memory, devices)


def side_by_side(jobs: Sequence[Job], memory: float) -> int:
    """How many of the jobs a card of ``memory`` bytes holds at a time, each with its whole batch and nothing twice."""
    fits = [fit_of(job, memory, 1) for job in jobs]
    if any(fit is None or fit.parts > 1 or fit.checkpointing for fit in fits):
        return 1
    return max(1, min(int(memory // max((fit.bytes for fit in fits if fit), default=memory)), len(jobs)))


def check_fits(jobs: Sequence[Job], memory: float, devices: int = 1) -> None:
    """SpecError on the first job of which not one sample fits, with the smallest change that makes it fit."""
    for job in jobs:
        if fit_of(job, memory, devices) is None:
            raise SpecError(does_not_fit(job, memory, devices))


def does_not_fit(job: Job, memory: float, devices: int) -> str:
    """Why a job is refused, and what would do."""
    footprint = job.facts.footprint
    assert footprint is not None
    needed = memory_that_fits(footprint, devices)
    many = devices_that_fit(footprint, memory)
    larger = sorted((card.memory, name) for name, card in accelerators().items() if card.memory >= needed)
    cures = [f"devices={many}"] if many else []
    cures += [f"a card of {needed / 1e9:.0f} GB, such as accelerator={larger[0][1]}"] if larger else []
    return (
        f"{job.name} does not fit: with activation checkpointing{' and sharding' if devices > 1 else ''} one sample "
        f"takes {needed / 1e9:.1f} GB of memory, a reserve included, and there are {memory / 1e9:.1f} GB; choose "
        f"{' or '.join(cures) or 'a smaller model'}"
    )


def _published(job: Job, tables: Mapping[str, Ablation]) -> str:
    """The hours of a training that one of its tables publishes, and on what hardware."""
    for cell in job.shown:
        table = tables.get(cell.table.partition("--")[0])
        for key, column in (table.columns if table else {}).items():
            hours = table.rows[cell.row].paper.get(key) if table else None
            if hours and column.metric == f"{job.stage}/hours":
                return f"{hours:g} h on {column.hardware}"
    return ""


#: The heads of the columns of a plan on cards.
HEADS = ("card-hours", "published", "GB a card", "micro-batch", "samples/s", "weights GB", "training")


def describe_demands(jobs: Sequence[Job], accelerator: Accelerator, devices: int, tables: Sequence[Ablation]) -> str:
    """A table in text of what each training asks of the cards, their sum, and what does not fit."""
    demands = demands_of(jobs, accelerator, devices, tables)
    lines = [HEADS, *(cells(demand) for demand in demands)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEADS) - 1)]
    table = ["  ".join([*map(str.rjust, line, widths), line[-1]]) for line in lines]
    total = sum(demand.card_hours for demand in demands)
    refused = [does_not_fit(d.job, accelerator.memory, devices) for d in demands if d.fit is None]
    return "\n".join([heading(accelerator, devices), *table, f"together {total:,.0f} card-hours", *refused])


def heading(accelerator: Accelerator, devices: int) -> str:
    """On what a plan reckons, in words."""
    peaks = " or ".join(f"{peak / 1e12:g} TFLOP/s in {name}" for name, peak in accelerator.peak.items())
    return f"on {devices} x {accelerator.name}, at {accelerator.utilisation:.0%} of {peaks} ({accelerator.source}):"


def cells(demand: Demand) -> tuple[str, ...]:
    """A training in the columns of ``HEADS``."""
    fit, job = demand.fit, demand.job
    micro = "-"
    if fit and job.facts.batch:
        ways = [*(["ckpt"] if fit.checkpointing else []), *(["FSDP"] if fit.sharded else [])]
        micro = " ".join([f"{fit.micro_batch} x {fit.parts}", *ways])
    return (
        f"{demand.card_hours:,.1f}",
        demand.published,
        f"{fit.bytes / 1e9:.1f}" if fit else "too much",
        micro,
        f"{demand.rate:,.0f}",
        f"{demand.written / 1e9:.1f}" if demand.written else "",
        job.name,
    )
