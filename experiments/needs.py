"""What trainings read that nobody has named: data, weights, a tokenizer. All such needs are found at once.

A place that is named and wrong is an error like any other; one that is not named lets a plan go on, and ends a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from experiments.ablation import SpecError
from experiments.plan import Job
from experiments.spec import FILE, PRETRAIN, Section, Spec

#: Where the file of a class is had whose section has no place for such words.
HAD = {
    "mae.tokenizer.DalleTokenizer": "DALLE_ENCODER in the environment: the encoder of DALL-E's discrete VAE, "
    "encoder.pkl of https://github.com/openai/DALL-E, saved as safetensors"
}


@dataclass(frozen=True)
class Need:
    """A place that is to be named under ``key``, and in words ``had``, where its files are had."""

    key: str
    had: str

    def __str__(self) -> str:
        return f"{self.key}=PATH ({self.had})" if self.had else f"{self.key}=PATH"


def needs_of(jobs: Iterable[Job]) -> dict[Need, list[Job]]:
    """What the jobs read and nobody has named, with the jobs that read it, in their order."""
    found: dict[Need, list[Job]] = {}
    for job in jobs:
        for need in _needs(job):
            found.setdefault(need, []).append(job)
    return found


def check_needs(jobs: Iterable[Job]) -> None:
    """SpecError with all that is missing if anything is."""
    if needs := needs_of(jobs):
        first = next(iter(needs.values()))[0]
        raise SpecError(
            f"{first.name} reads files, and nobody says where they lie; add {' and '.join(map(str, needs))}"
        )


def describe_needs(jobs: Iterable[Job]) -> list[str]:
    """The same in lines, each with the number of trainings that wait for it."""
    needs = needs_of(jobs)
    lines = [f"  {need}: {len(found)}, the first is {found[0].name}" for need, found in needs.items()]
    return ["trainings that cannot run before files are named:", *lines] if lines else []


def _needs(job: Job) -> Iterator[Need]:
    spec, pretrains = job.spec, job.stage == PRETRAIN
    data = spec.data if pretrains else spec.evaluate_data
    key = "data" if pretrains or spec.data.source == data.source else "evaluate_data"
    shifts = {f"evaluate_data.shifts.{name}": shift for name, shift in data.shifts.items()}
    for place, section in {f"{key}.source": data.source, **shifts}.items():
        if "root" in section and section["root"] is None:
            yield Need(f"{place}.root", data.had.get(place.rpartition(".")[2], ""))
    if pretrains:
        for section in _unnamed(spec.method):
            place = next((group for group, own in spec.tree.items() if own == section), "method")
            yield Need(f"{place}.path", HAD.get(section["_target_"], ""))
    elif _starts_from_file(spec, job.stage) and not spec.origin.path:
        yield Need("origin.path", spec.origin.had)


def _starts_from_file(spec: Spec, stage: str) -> bool:
    return spec.evaluate[stage].init == "pretrained" and spec.origin.stage == FILE


def _unnamed(section: Any) -> Iterator[Section]:
    """Those of ``section`` and the sections in it that have a ``path``, and none is given."""
    if isinstance(section, Mapping):
        if "path" in section and section["path"] is None and "_target_" in section:
            yield section
        for value in section.values():
            yield from _unnamed(value)
