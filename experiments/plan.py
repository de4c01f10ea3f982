"""The plan: which trainings a table needs, each named by the hash of what it computes, shared ones once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from experiments.ablation import Ablation, Row, SpecError, at_scale, exists, short_name, table_name
from experiments.compose import PATHS, flatten
from experiments.remember import fingerprint, kept
from experiments.spec import PRETRAIN, SUPERVISED, Spec, origin_of, spec_of
from mae.footprint import Footprint

if TYPE_CHECKING:
    from experiments.stages.stage import Stage


#: Where seeds are added until claims are decided, these are looked at after 2, 3, ... and at last after 10 seeds.
FIRST_LOOK, MOST_SEEDS = 2, 10


@dataclass(frozen=True)
class Cell:
    """Where a result belongs: a row of a table, for one seed; ``paper`` says where that table is published.

    ``shown`` is False for a training that serves the row and that its table does not report on.
    """

    table: str
    row: str
    seed: int
    paper: str = ""
    shown: bool = True


@dataclass(frozen=True)
class Facts:
    """What a plan knows of a training before it runs: its name, what it starts from, what it costs.

    ``needs`` is the fingerprint of the training whose weights it starts from, None for none. ``flops`` are those of all
    it does, ``sample_flops`` those of one training sample, ``weights`` the bytes that its parameters take. ``batch`` is
    the number of samples in a step, ``footprint`` what a step keeps in memory.
    """

    fingerprint: str
    needs: str | None
    flops: float
    sample_flops: float
    steps: int
    weights: int
    batch: int = 0
    footprint: Footprint | None = None


@dataclass
class Job:
    """One training of a plan. ``reported`` is False for one that only serves others: no column is its own."""

    spec: Spec
    stage: str
    facts: Facts
    reported: bool = True
    cells: list[Cell] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """The name of the training."""
        return self.facts.fingerprint

    @property
    def needs(self) -> str | None:
        """The name of the training whose weights it starts from."""
        return self.facts.needs

    @property
    def flops(self) -> float:
        """FLOPs of all that it does."""
        return self.facts.flops

    @property
    def name(self) -> str:
        """What a person calls it: the first cell it serves, and its stage."""
        cell = self.cells[0]
        return f"{cell.table} [{cell.row}] seed {cell.seed} {self.stage}"

    @property
    def leaves_weights(self) -> bool:
        """Whether others may start from its weights."""
        return self.stage in (PRETRAIN, SUPERVISED)

    @property
    def shown(self) -> list[Cell]:
        """The cells whose tables report on it."""
        return [cell for cell in self.cells if cell.shown]

    def made(self) -> Stage:
        """The stage as an object that can check and run itself."""
        from experiments.stages.evaluation import (
            stage_of,  # it loads torch, which a plan that is known already does not need
        )

        return stage_of(self.spec, self.stage)


def facts_of(spec: Spec, stage: str) -> Facts:
    """The facts of a stage; an earlier command's are taken where nothing on this disk can change them."""
    tree = {key: value for key, value in spec.tree.items() if key != "evaluate"}
    tree["evaluate"] = spec.tree["evaluate"].get(stage)
    text = json.dumps([stage, tree], sort_keys=True)
    found = kept(fingerprint({"facts": text}), lambda: _facts(spec, stage), keep=not local(spec))
    return Facts(**{**found, "footprint": Footprint.read(found["footprint"])})


def local(spec: Spec) -> bool:
    """Whether a spec names files or classes of this machine, which may change between two commands."""
    return spec.own is not None or any(
        value and key.rpartition(".")[2] in PATHS for key, value in flatten(spec.tree).items()
    )


def _facts(spec: Spec, stage: str) -> dict[str, object]:
    from experiments.stages.evaluation import Evaluation, stage_of
    from experiments.stages.stage import Stage

    made = stage_of(spec, stage)
    try:
        made.check()
        start = made.origin() if isinstance(made, Evaluation) else None
        return {
            "fingerprint": made.fingerprint(),
            "needs": start.fingerprint() if isinstance(start, Stage) else None,
            "flops": made.flops(),
            "sample_flops": made.sample_flops(),
            "steps": made.steps(),
            "weights": made.parameter_bytes(),
            "batch": made.batch(),
            "footprint": asdict(made.footprint()),
        }
    except (ValueError, TypeError, OverflowError) as error:
        raise SpecError(str(error)) from error


def variant(overrides: Iterable[str]) -> str:
    """A short name for the user's own overrides, empty for none; part of the names of table files."""
    text = "+".join(sorted(overrides))
    plain = text.replace("/", "-")  # of the options of groups, which are not taken for others
    return short_name(plain if re.fullmatch(r"[\w+.,=/-]*", text, re.ASCII) else text)


def plan(
    ablations: Sequence[Ablation],
    scale: str,
    seeds: int | Sequence[int],
    overrides: Sequence[str] = (),
    rows: Sequence[str] = (),
    precision: str = "fp32",
    distinct: bool = True,
) -> list[Job]:
    """Every training that ``ablations`` need at ``scale`` for ``seeds``, in the order to run them.

    A number N stands for the seeds 0 .. N - 1. Jobs come row by row, each after the one whose weights it starts from. A
    training shared by rows, columns or tables appears once. ``precision`` is what ``auto`` stands for on the machine
    that runs them. SpecError if two rows of a table compute the same and they are to be ``distinct``.
    """
    name = variant(overrides)
    jobs: dict[str, Job] = {}
    for seed in range(seeds) if isinstance(seeds, int) else seeds:
        for ablation in ablations:
            computed: dict[tuple[str, ...], str] = {}
            for row in ablation.rows.values():
                if (rows and row.label not in rows) or not exists(row, scale):
                    continue
                try:
                    found = row_trainings(ablation, row, scale, seed, overrides, precision)
                except SpecError as error:
                    raise SpecError(f"{ablation.name} [{row.label}]: {error}") from error
                trainings = tuple(job.fingerprint for job, _ in found)
                if distinct and (other := computed.setdefault(trainings, row.label)) != row.label:
                    raise SpecError(_same(ablation, other, row.label, overrides))
                for job, shown in found:
                    published = ablation.paper
                    known_place = {"arxiv", "where"} <= set(published)
                    paper = f"arXiv {published['arxiv']}, {published['where']}" if known_place else ""
                    cell = Cell(table_name(ablation.name, name), row.label, seed, paper, shown)
                    known = jobs.setdefault(job.fingerprint, job)
                    known.reported |= job.reported
                    _add(cell, known.cells)
    return list(jobs.values())


def row_trainings(
    ablation: Ablation, row: Row, scale: str, seed: int, overrides: Sequence[str], precision: str
) -> list[tuple[Job, bool]]:
    """The trainings of a row, and whether its table shows each: of each stage it shows one."""
    found: list[tuple[Job, bool]] = []
    taken: dict[str, str] = {}
    for changes, stages in stages_by_changes(ablation, scale).items():
        spec = spec_of(ablation, row, scale, seed, overrides, changes, stages)
        if spec.precision == "auto":
            spec = spec.but(precision=precision)
        for job in row_jobs(spec, stages):
            own = job.spec is spec and taken.setdefault(job.stage, job.fingerprint) == job.fingerprint
            found.append((job, own))
    return found


def _same(ablation: Ablation, first: str, second: str, overrides: Sequence[str]) -> str:
    """Why two rows that compute the same are refused, and what to do."""
    why = f" under {' '.join(overrides)}" if overrides else ""
    cure = f"choose one of them: row={first!r}" if overrides else "give the second something else to set"
    return f"{ablation.file.name}: rows {first!r} and {second!r} compute the same{why}; {cure}"


def _add(cell: Cell, cells: list[Cell]) -> None:
    """Put ``cell`` among ``cells`` once; it is shown if it is for any reason."""
    for other in (cell, replace(cell, shown=not cell.shown)):
        if other in cells:
            cells[cells.index(other)] = replace(cell, shown=cell.shown or other.shown)
            return
    cells.append(cell)


def stages_by_changes(ablation: Ablation, scale: str) -> dict[tuple[str, ...], list[str]]:
    """The stages of a table by what their columns change at ``scale``, those that change nothing first."""
    found: dict[tuple[str, ...], list[str]] = {}
    there = [column for column in ablation.columns.values() if exists(column, scale)]
    for column in sorted(there, key=lambda column: bool(at_scale(column.set, scale))):
        stages = found.setdefault(tuple(at_scale(column.set, scale)), [])
        if column.stage not in stages:
            stages.append(column.stage)
    return found


def row_jobs(spec: Spec, stages: Sequence[str]) -> list[Job]:
    """The trainings behind one row for one seed: what its stages start from, if any does, and the stages."""
    jobs: dict[str, Job] = {}
    evaluations = [stage for stage in stages if stage != PRETRAIN]
    starts = [Job(spec, stage, facts_of(spec, stage)) for stage in evaluations]
    if any(job.needs for job in starts) and (other := origin_of(spec)) is not None:
        for job in row_jobs(other, [spec.origin.stage]):
            jobs[job.fingerprint] = replace(job, reported=False)
    own = any(job.needs and job.needs not in jobs for job in starts)
    if PRETRAIN in stages or own:
        pretraining = Job(spec, PRETRAIN, facts_of(spec, PRETRAIN), reported=PRETRAIN in stages)
        jobs[pretraining.fingerprint] = pretraining
    return [*jobs.values(), *starts]
