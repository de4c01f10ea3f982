"""The plan: which trainings a table needs, each named by the hash of what it computes, shared ones once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from experiments.spec import Ablation, Row, Spec, SpecError, fingerprint, spec_of
from mae import NUMERICS
from mae.data.listing import listing_digest
from mae.flops import classify_flops, num_keep, pretrain_flops

PRETRAIN = "pretrain"

#: The sections of a spec that a pre-training reads; everything else can change without training again.
PRETRAIN_SECTIONS = ("model", "data", "mask", "target", "objective", "augment", "pretrain", "seed", "precision")


@dataclass(frozen=True)
class Cell:
    """Where a result belongs: a row of a table, for one seed; ``paper`` says where that table is published."""

    table: str
    row: str
    seed: int
    paper: str = ""


@dataclass
class Job:
    """One training. ``needs`` is the fingerprint of the pre-training an evaluation starts from, None for none.

    ``reported`` is False for a pre-training that only serves evaluations: no column of the table is its own.
    """

    stage: str
    fingerprint: str
    spec: Spec
    needs: str | None
    flops: float
    reported: bool = True
    cells: list[Cell] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What a person calls it: the first cell it serves, and its stage."""
        cell = self.cells[0]
        return f"{cell.table} [{cell.row}] seed {cell.seed} {self.stage}"


def data_section(stage: str) -> str:
    """The section of a spec that names the data of a stage."""
    return "data" if stage == PRETRAIN else "evaluate_data"


def exists(row: Row, scale: str) -> bool:
    """Whether a row is to be had at ``scale``: one whose overrides name scales is not to be had at any other."""
    return "all" in row.set or scale in row.set


def portable(value: Any) -> Any:
    """``value`` with the content of what its local paths name in the place of the paths: no machine in an identity.

    A ``root`` is a data set, a ``path`` a file. DataError when there is no such data set.
    """
    if isinstance(value, list):
        return [portable(item) for item in value]
    if not isinstance(value, dict):
        return value
    named = {key: _CONTENT[key](item) for key, item in value.items() if key in _CONTENT and item is not None}
    return {key: portable(item) for key, item in value.items()} | named


@lru_cache
def _listing(root: str) -> str:
    return listing_digest(root)


@lru_cache
def _file(path: str) -> str:
    """A digest of a file's bytes; the name of one that is not there, which is refused when it is asked for."""
    if not Path(path).is_file():
        return path
    with open(path, "rb") as file:
        digest = hashlib.blake2b(digest_size=8)
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


_CONTENT = {"root": _listing, "path": _file}


def table_name(ablation: str, variant: str) -> str:
    """The key of a table: the ablation, and the user's overrides if any."""
    return f"{ablation}--{variant}" if variant else ablation


def variant_of(overrides: Iterable[str]) -> str:
    """A short name for the user's own overrides, empty for none; part of the names of table files."""
    kept = sorted(overrides)
    text = "+".join(override.replace("/", "-") for override in kept)
    safe = "".join(c if c.isalnum() or c in "=.+-_," else "_" for c in text)
    return safe if len(safe) <= 80 else f"{safe[:63]}-{fingerprint({'overrides': kept})}"


def plan(
    ablations: Sequence[Ablation], scale: str, seeds: int, overrides: Sequence[str] = (), rows: Sequence[str] = ()
) -> list[Job]:
    """Every training that ``ablations`` need at ``scale`` for seeds 0 .. ``seeds - 1``, in the order to run them.

    Jobs come row by row: a pre-training, then its evaluations. A training shared by rows or tables appears once.
    """
    variant = variant_of(overrides)
    jobs: dict[str, Job] = {}
    for seed in range(seeds):
        for ablation in ablations:
            paper = f"arXiv {ablation.paper['arxiv']}, {ablation.paper['where']}"
            stages = list(dict.fromkeys(column.stage for column in ablation.columns.values()))
            for row in ablation.rows.values():
                if (rows and row.label not in rows) or not exists(row, scale):
                    continue
                spec = spec_of(ablation, row, scale, seed, overrides)
                for job in row_jobs(spec, stages):
                    reported = job.reported
                    job = jobs.setdefault(job.fingerprint, job)
                    job.reported |= reported
                    job.cells.append(Cell(table_name(ablation.name, variant), row.label, seed, paper))
    return list(jobs.values())


def row_jobs(spec: Spec, stages: Sequence[str]) -> list[Job]:
    """The trainings behind one row for one seed: its pre-training if any stage starts from one, and the stages."""
    needs_pretraining = [s for s in stages if s == PRETRAIN or spec["evaluate"][s]["init"] == "pretrained"]
    source = {"numerics": NUMERICS, **{key: portable(spec[key]) for key in PRETRAIN_SECTIONS}}
    pretraining = fingerprint(source)
    jobs = []
    if needs_pretraining:
        jobs.append(Job(PRETRAIN, pretraining, spec, None, _pretrain_flops(spec), reported=PRETRAIN in stages))
    for stage in stages:
        if stage == PRETRAIN:
            continue
        needs = pretraining if stage in needs_pretraining else None
        identity = {
            "numerics": NUMERICS,
            "from": needs,
            "stage": stage,
            "evaluate": spec["evaluate"][stage],
            "data": portable(spec[data_section(stage)]),
            **{key: spec[key] for key in ("seed", "precision")},
        }
        if needs is None:
            identity["model"] = {key: value for key, value in spec["model"].items() if key != "decoder"}
        jobs.append(Job(stage, fingerprint(identity), spec, needs, _evaluate_flops(spec, stage)))
    return jobs


def _patches(spec: Spec) -> tuple[int, int]:
    """Number of patches of a clip, and values in one."""
    extent = [spec["data"]["frames"], *spec["data"]["input_size"]]
    return (
        prod(length // part for length, part in zip(extent, spec["model"]["patch"], strict=True)),
        prod(spec["model"]["patch"]) * spec["data"]["channels"],
    )


def _samples_seen(recipe: dict[str, Any], samples: int) -> float:
    return float(recipe["epochs"] * recipe.get("schedule", 1.0) * samples)


def _pretrain_flops(spec: Spec) -> float:
    patches, patch_dim = _patches(spec)
    try:
        visible = num_keep(patches, spec["mask"]["ratio"], spec["mask"]["rounding"])
    except ValueError as error:
        raise SpecError(str(error)) from error
    forward = pretrain_flops(spec["model"], patches, visible, patch_dim)
    return 3 * forward * _samples_seen(spec["pretrain"], spec["data"]["samples"]["pretrain"])


def _evaluate_flops(spec: Spec, stage: str) -> float:
    """A frozen encoder costs one forward pass a picture; a trained one costs three."""
    forward = classify_flops(spec["model"], *_patches(spec))
    data = spec[data_section(stage)]
    samples, protocol = data["samples"], spec["evaluate"][stage]["protocol"]
    seen, tested = float(samples["train"]), samples["test"]
    if "recipe" in protocol and not protocol.get("cached"):
        seen = _samples_seen(protocol["recipe"], samples["train"]) * (3 if "FineTune" in protocol["_target_"] else 1)
    if "FineTune" in protocol["_target_"]:
        tested += sum(_shifted(shift, samples["test"]) for shift in data.get("shifts", {}).values())
    return forward * (seen + tested)


def _shifted(shift: dict[str, Any], test: int) -> int:
    """Pictures of a shifted test set: its own, or all of the test set for each of its changes."""
    return shift["samples"] if "samples" in shift else len(shift["changes"]) * test
