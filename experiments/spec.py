"""Specs: one row of a table, composed at a scale and read into typed sections."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from experiments.ablation import Ablation, Row, SpecError, at_scale, last_wins, scale_option, typed
from experiments.compose import check_overrides, compose
from experiments.references import Tree
from experiments.remember import kept

#: A section that names a class by ``_target_``, and the class's fields.
Section = Mapping[str, Any]

#: The stage that pre-trains, the one that trains on labels for others to start from, and the one that is a file.
PRETRAIN, SUPERVISED, FILE = "pretrain", "supervised", "file"

#: What a training can compute in; ``auto`` is the best of the machine that runs it.
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class Model:
    """The encoder and the decoder. ``patch`` is ``(pt, ph, pw)`` pixels; see ``mae.model.Encoder`` for the rest."""

    patch: tuple[int, int, int]
    encoder: Mapping[str, Any]
    decoder: Mapping[str, Any]
    class_token: bool
    positions: str
    mask_tokens: bool


@dataclass(frozen=True)
class Data:
    """Pictures or clips: where they come from, how many of each side are used, the size at which a model sees them.

    ``sampling`` says how frames are taken from a clip; pictures have none. ``shifts`` are changed test sets. ``had``
    says of ``source``, and of shifts by name, where their files are had.
    """

    source: Section
    samples: Mapping[str, int]
    classes: int
    channels: int
    frames: int
    input_size: tuple[int, int]
    flip: bool
    mean: Sequence[float]
    std: Sequence[float]
    test_augment: Section
    decoded: Sequence[int] | None = None
    stride: int | None = None
    half_stride: int | None = None
    sampling: Section | None = None
    shifts: Mapping[str, Section] = field(default_factory=dict)
    had: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """An evaluation: the weights it starts from (``init``), the head, what is done to training samples, the views."""

    init: str
    protocol: Section
    augment: Section
    sampling: Section | None = None
    views: Mapping[str, int] = field(default_factory=lambda: {"clips": 1, "crops": 1})
    repeats: int = 1


@dataclass(frozen=True)
class Origin:
    """Weights to start from: of the own pre-training, of the ``stage`` of the spec that ``set`` composes, of a file.

    ``had`` says where the file is had.
    """

    stage: str
    inputs: str | None
    set: tuple[str, ...] | None
    path: str | None
    had: str = ""


@dataclass(frozen=True)
class Spec:
    """One row for one seed. ``tree`` is all of it as plain values, which is what is logged.

    ``own`` is the folder with a user's own options, None without.
    """

    scale: str
    seed: int
    precision: str
    tested: str
    model: Model
    data: Data
    evaluate_data: Data
    method: Section
    augment: Section
    pretrain: Section
    evaluate: Mapping[str, Protocol]
    origin: Origin
    tree: Tree
    own: Path | None = None

    @classmethod
    def of(cls, tree: Tree, own: Path | None = None) -> Spec:
        """Read a resolved tree; SpecError names the section with an unknown or a missing key."""
        size = {"input_size": _counts(2), "channels": _count, "frames": _count}
        if tree["precision"] not in PRECISIONS:
            raise SpecError(f"precision={tree['precision']} is not possible; choose {', '.join(PRECISIONS)}")
        return cls(
            scale=tree["scale"],
            seed=tree["seed"],
            precision=tree["precision"],
            tested=tree["tested"],
            model=typed(Model, tree["model"], "model", {"patch": _counts(3)}),
            data=typed(Data, tree["data"], "data", size),
            evaluate_data=typed(Data, tree["evaluate_data"], "evaluate_data", size),
            method=tree["method"],
            augment=tree["augment"],
            pretrain=tree["pretrain"],
            evaluate={
                name: typed(Protocol, found, f"evaluate.{name}", {})
                for name, found in tree["evaluate"].items()
                if found
            },
            origin=typed(Origin, tree["origin"], "origin", {"set": lambda words: words and tuple(words)}),
            tree=tree,
            own=own,
        )

    def but(self, **values: Any) -> Spec:
        """The same row with another seed, or with the precision that ``auto`` stands for."""
        return replace(self, **values, tree={**self.tree, **values})


def _count(value: Any) -> int:
    """A whole number of at least 1; ValueError if it is none."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{value} is no whole number of at least 1")
    return value


def _counts(many: int) -> Callable[[Any], tuple[int, ...]]:
    """A reader of ``many`` such numbers."""

    def read(values: Any) -> tuple[int, ...]:
        if not isinstance(values, list | tuple) or len(values) != many:
            raise ValueError(f"{values} are not {many} whole numbers")
        return tuple(map(_count, values))

    return read


def spec_of(
    ablation: Ablation,
    row: Row,
    scale: str,
    seed: int,
    overrides: Sequence[str] = (),
    changes: Sequence[str] = (),
    stages: Collection[str] | None = None,
) -> Spec:
    """The spec of one row: scale, the table's base, the row, the ``changes`` of a column, then the user's.

    The seed comes last. Of evaluations it holds those of ``stages``, None for all.
    """
    if any(override.partition("=")[0] == "seed" for override in overrides):
        raise SpecError("seed is set by the plan: seeds=N runs seeds 0 to N - 1")
    option = scale_option(ablation.inputs, scale)
    own = [*at_scale(ablation.base, scale), *at_scale(row.set, scale), *changes]
    try:
        check_overrides(option, overrides, ablation.options, own)
        layers, wanted = tuple(last_wins([*own, *overrides])), None if stages is None else tuple(sorted(stages))
        return _resolved(option, layers, ablation.options, wanted).but(seed=seed)
    except SpecError as error:
        chosen = {override.partition("=")[0] for override in overrides}
        if "data" in chosen and "evaluate_data" not in chosen and any(o.startswith("evaluate_data=") for o in own):
            words = next(o for o in overrides if o.startswith("data="))
            raise SpecError(
                f"what {ablation.name} evaluates on is made of its own data, and {words} is other: add "
                f"evaluate_data=same to evaluate on that"
            ) from error
        raise SpecError(
            f"{ablation.file.name}, row {row.label!r}: {error}" if ablation.options else str(error)
        ) from error


def origin_of(spec: Spec) -> Spec | None:
    """The spec whose training ``spec`` starts from where that is not its own: composed at its scale, for its seed."""
    origin = spec.origin
    if origin.set is None or origin.inputs is None:
        return None
    found = _resolved(scale_option(origin.inputs, spec.scale), tuple(last_wins(origin.set)), None, (origin.stage,))
    return found.but(seed=spec.seed, precision=spec.precision)


@lru_cache(maxsize=1024)
def _resolved(scale: str, overrides: tuple[str, ...], own: Path | None, stages: tuple[str, ...] | None) -> Spec:
    # composing takes most of the time of a plan, and nothing in a spec refers to the seed
    key = json.dumps([scale, overrides, stages])
    return Spec.of(kept(key, lambda: compose(scale, overrides, own, stages), own is None), own)
