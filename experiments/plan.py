"""The plan: which trainings a table needs, each named by the hash of what it computes, shared ones once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from experiments.spec import Ablation, Row, Spec, SpecError, at_scale, fingerprint, origin_of, spec_of
from mae import NUMERICS
from mae.data.files.listing import listing_digest
from mae.flops import classify_flops, predicted_values, pretrain_flops, visible

PRETRAIN = "pretrain"
SUPERVISED = "supervised"
#: The stage of an origin that is no training of this project but a file of weights.
FILE = "file"

#: The sections of a spec that a pre-training reads; everything else can change without training again.
PRETRAIN_SECTIONS = ("model", "data", "mask", "target", "objective", "augment", "pretrain", "seed", "precision")
#: Those that only the specs of clips have.
CLIP_SECTIONS = ("target_frames",)


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


@dataclass
class Job:
    """One training. ``needs`` is the fingerprint of the training whose weights it starts from, None for none.

    ``flops`` are those of all it does, ``sample_flops`` those of one training sample (0 where the encoder does not
    take part in the steps). ``reported`` is False for a training that only serves others: no column of the table is
    its own.
    """

    stage: str
    fingerprint: str
    spec: Spec
    needs: str | None
    flops: float
    sample_flops: float = 0.0
    reported: bool = True
    cells: list[Cell] = field(default_factory=list)

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
    clips = str(value.get("_target_", "")).startswith("mae.data.clips.sets.")
    content = {"root": _clips if clips else _listing, "path": _file}
    named = {key: content[key](item) for key, item in value.items() if key in content and item is not None}
    return {key: portable(item) for key, item in value.items()} | named


@lru_cache
def _listing(root: str) -> str:
    return listing_digest(root)


@lru_cache
def _clips(root: str) -> str:
    """A digest of the names and sizes of the clips under a folder, and of the content of the lists among them."""
    from mae.data.clips.lists import clip_catalogue

    lists = sorted(path for path in Path(root).rglob("*") if path.suffix in (".txt", ".csv", ".json"))
    named = {path.relative_to(root).as_posix(): _file(str(path)) for path in lists}
    return fingerprint({"clips": listing_digest(clip_catalogue(root)), "lists": named})


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

    Jobs come row by row, each after the one whose weights it starts from. A training shared by rows, columns or
    tables appears once.
    """
    variant = variant_of(overrides)
    jobs: dict[str, Job] = {}
    for seed in range(seeds):
        for ablation in ablations:
            paper = f"arXiv {ablation.paper['arxiv']}, {ablation.paper['where']}"
            for row in ablation.rows.values():
                if (rows and row.label not in rows) or not exists(row, scale):
                    continue
                taken: dict[str, str] = {}  # the one training of each stage that the table shows in this row
                for changes, stages in stages_by_changes(ablation, scale).items():
                    spec = spec_of(ablation, row, scale, seed, overrides, changes)
                    for job in row_jobs(spec, stages):
                        own = job.spec is spec and taken.setdefault(job.stage, job.fingerprint) == job.fingerprint
                        cell = Cell(table_name(ablation.name, variant), row.label, seed, paper, own)
                        reported = job.reported
                        job = jobs.setdefault(job.fingerprint, job)
                        job.reported |= reported
                        _add(cell, job.cells)
    return list(jobs.values())


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
    for column in sorted(ablation.columns.values(), key=lambda column: bool(at_scale(column.set, scale))):
        stages = found.setdefault(tuple(at_scale(column.set, scale)), [])
        if column.stage not in stages:
            stages.append(column.stage)
    return found


def row_jobs(spec: Spec, stages: Sequence[str]) -> list[Job]:
    """The trainings behind one row for one seed: what its stages start from, if any does, and the stages."""
    evaluations = [stage for stage in stages if stage != PRETRAIN]
    origin = spec["origin"]
    sections = (*PRETRAIN_SECTIONS, *(key for key in CLIP_SECTIONS if key in spec))
    own = fingerprint({"numerics": NUMERICS, **{key: portable(spec[key]) for key in sections}})
    jobs: list[Job] = []
    start: Any = None  # what an evaluation of pre-trained weights starts from, as it stands in its identity
    if any(spec["evaluate"][stage]["init"] == "pretrained" for stage in evaluations):
        start = portable({"path": origin["path"]}) if origin["stage"] == FILE else own
        if (other := origin_of(spec)) is not None:
            jobs = [replace(job, reported=False) for job in row_jobs(other, [origin["stage"]])]
            start = jobs[-1].fingerprint
    if PRETRAIN in stages or start == own:
        a_sample = _pretrain_flops(spec)
        flops = a_sample * _samples_seen(spec["pretrain"], spec["data"]["samples"]["pretrain"])
        jobs.append(Job(PRETRAIN, own, spec, None, flops, a_sample, reported=PRETRAIN in stages))
    for stage in evaluations:
        source = start if spec["evaluate"][stage]["init"] == "pretrained" else None
        identity = {
            "numerics": NUMERICS,
            "from": source,
            "stage": stage,
            "evaluate": spec["evaluate"][stage],
            "data": portable(spec[data_section(stage)]),
            **{key: spec[key] for key in ("seed", "precision")},
        }
        if source != own:
            identity["model"] = {key: value for key, value in spec["model"].items() if key != "decoder"}
        needs = source if isinstance(source, str) else None
        jobs.append(Job(stage, fingerprint(identity), spec, needs, *_evaluate_flops(spec, stage)))
    return jobs


def _patches(spec: Spec) -> tuple[int, int, int]:
    """Temporal slots of a clip (a picture has one), patches in each, and values in a patch."""
    extent = [spec["data"]["frames"], *spec["data"]["input_size"]]
    slots, rows, columns = (length // part for length, part in zip(extent, spec["model"]["patch"], strict=True))
    return slots, rows * columns, prod(spec["model"]["patch"]) * spec["data"]["channels"]


def _samples_seen(recipe: dict[str, Any], samples: int) -> float:
    return float(recipe["epochs"] * recipe.get("schedule", 1.0) * samples)


def _pretrain_flops(spec: Spec) -> float:
    """Of one training sample: the backward pass costs twice the forward pass."""
    slots, plane, patch_dim = _patches(spec)
    patches, predicted = slots * plane, None
    try:
        kept = visible(spec["mask"], slots, plane)
    except ValueError as error:
        raise SpecError(str(error)) from error
    if "target_frames" in spec:
        patch, channels = spec["model"]["patch"], spec["data"]["channels"]
        predicted = predicted_values(spec["target_frames"], patches - kept, slots, patch, channels)
    return 3 * pretrain_flops(spec["model"], patches, kept, patch_dim, predicted)


def _evaluate_flops(spec: Spec, stage: str) -> tuple[float, float]:
    """Of the whole evaluation, and of one training sample (0 where the steps leave the encoder alone).

    A frozen block costs one forward pass a picture or clip; a trained one costs three.
    """
    slots, plane, patch_dim = _patches(spec)
    forward = classify_flops(spec["model"], slots * plane, patch_dim)
    data, section = spec[data_section(stage)], spec["evaluate"][stage]
    samples, protocol = data["samples"], section["protocol"]
    seen, a_sample = forward * samples["train"], 0.0
    tested = samples["test"] * prod(section.get("views", {}).values())
    if "recipe" in protocol and not protocol.get("cached"):
        a_sample = forward * (1 + 2 * _tuned_share(protocol, spec["model"]["encoder"]["depth"]))
        seen = a_sample * _samples_seen(protocol["recipe"], samples["train"])
    if "FineTune" in protocol["_target_"]:
        tested += sum(_shifted(shift, samples["test"]) for shift in data.get("shifts", {}).values())
    return seen * section.get("repeats", 1) + forward * tested, a_sample


def _tuned_share(protocol: dict[str, Any], depth: int) -> float:
    """The share of the encoder's blocks that a protocol trains."""
    if "FineTune" not in protocol["_target_"]:
        return 0.0
    tuned = protocol.get("tuned_blocks")
    return 1.0 if tuned is None else tuned / depth


def _shifted(shift: dict[str, Any], test: int) -> int:
    """Pictures of a shifted test set: its own, or all of the test set for each of its changes."""
    return shift["samples"] if "samples" in shift else len(shift["changes"]) * test
