"""Why a measured value may differ from the published one: where the recipe departs from the published one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from experiments.ablation import SpecError, at_scale, exists, has_scale
from experiments.browse import overrides_of
from experiments.compose import flatten
from experiments.spec import spec_of

if TYPE_CHECKING:
    from experiments.ablation import Ablation, Row

DEVIATION_COLUMNS = ("scale", "what", "here", "published")
PAPER = "paper"
#: What a recipe is compared in, and the keys of a spec that say it.
_PRETRAINING = {
    "encoder (blocks × width)": ("model.encoder.depth", "model.encoder.width"),
    "decoder (blocks × width)": ("method.decoder.depth", "method.decoder.width"),
    "patch (frames × pixels)": ("model.patch",),
    "data of pre-training": ("data",),
    "samples of pre-training": ("data.samples.pretrain",),
    "resolution": ("data.input_size",),
    "frames (count × stride)": ("data.frames", "data.stride"),
    "epochs of pre-training": ("pretrain.epochs",),
    "batch of pre-training": ("pretrain.batch_size",),
    "base rate of pre-training": ("pretrain.base_lr",),
    "precision": ("precision",),
}
_EVALUATION = {
    "data of {}": ("evaluate_data",),
    "classes of {}": ("evaluate_data.classes",),
    "training samples of {}": ("evaluate_data.samples.train",),
    "test samples of {}": ("evaluate_data.samples.test",),
    "epochs of {}": ("evaluate.{}.protocol.recipe.epochs",),
    "batch of {}": ("evaluate.{}.protocol.recipe.batch_size",),
    "base rate of {}": ("evaluate.{}.protocol.recipe.base_lr",),
    "augmentation of {}": ("evaluate.{}.augment._target_", "evaluate.{}.augment.rand_augment"),
    "mixup × cutmix of {}": ("evaluate.{}.protocol.mixup", "evaluate.{}.protocol.cutmix"),
    "views of {} (clips × crops)": ("evaluate.{}.views.clips", "evaluate.{}.views.crops"),
    "pooling of {}": ("evaluate.{}.protocol.pooling",),
}

#: What stages are called; others by their own names.
STAGES = {
    "pretrain": "pre-training",
    "finetune": "fine-tuning",
    "linear": "linear probing",
    "partial": "partial fine-tuning",
    "knn": "nearest neighbours",
    "scratch": "training from scratch",
}


@dataclass(frozen=True)
class Recipe:
    """What one row is made of at one scale, in words, by what it is compared in; `updates` counts by schedule."""

    facts: Mapping[str, str]
    updates: Mapping[str, float]


def deviations(ablation: Ablation, scale: str, variant: str = "") -> pd.DataFrame:
    """Return where the default row (else the first that both scales have) departs from the published recipe.

    The columns are `DEVIATION_COLUMNS`. There is no line at the paper's scale without overrides, nor for a table of no
    paper or one whose specs cannot be composed here, such as those of a variant whose name does not hold its overrides.
    """
    lines: list[tuple[str, str, str, str]] = []
    rows = [ablation.rows[ablation.default]] if ablation.default is not None else []
    rows += [row for row in ablation.rows.values() if row not in rows]
    row = next((row for row in rows if exists(row, scale) and exists(row, PAPER)), None)
    if "where" in ablation.paper and row is not None and all(has_scale(ablation, name) for name in (scale, PAPER)):
        try:
            here = _recipe(ablation, row, scale, overrides_of(variant))
            published = _recipe(ablation, row, PAPER, ())
        except SpecError:
            return _typed(lines)
        for what in {**published.facts, **here.facts}:
            left, right = here.facts.get(what, "none"), published.facts.get(what, "none")
            if left != right:
                lines.append((scale, what, left, right))
        for what, count in published.updates.items():
            own = here.updates.get(what, count)
            if own != count:
                lines.append((scale, what, f"{own:,.0f}, {_share(own / count)}", f"{count:,.0f}"))
    return _typed(lines)


def _typed(lines: list[tuple[str, str, str, str]]) -> pd.DataFrame:
    frame: pd.DataFrame = pd.DataFrame(lines, columns=list(DEVIATION_COLUMNS)).astype("str")
    return frame


def _recipe(ablation: Ablation, row: Row, scale: str, overrides: tuple[str, ...] | list[str]) -> Recipe:
    facts: dict[str, str] = {}
    updates: dict[str, float] = {}
    for column in (column for column in ablation.columns.values() if exists(column, scale)):
        flat = flatten(spec_of(ablation, row, scale, 0, overrides, at_scale(column.set, scale)).tree)
        stage, name = column.stage, STAGES.get(column.stage, column.stage)
        for data in ("data", "evaluate_data"):
            flat[data] = _data_name(flat, data)
        for what, keys in _PRETRAINING.items():
            facts.setdefault(what, _words(flat, keys))
        _count(updates, "updates of pre-training", flat, "pretrain", "data")
        if stage == "pretrain":
            continue
        for what, keys in _EVALUATION.items():
            facts.setdefault(what.format(name), _words(flat, [key.format(stage) for key in keys]))
        _count(updates, f"updates of {name}", flat, f"evaluate.{stage}.protocol.recipe", "evaluate_data")
    return Recipe({what: words for what, words in facts.items() if words}, updates)


def _count(updates: dict[str, float], what: str, flat: Mapping[str, Any], recipe: str, data: str) -> None:
    """Note the steps of a schedule: epochs x samples / batch."""
    samples = flat.get(f"{data}.samples.{'pretrain' if recipe == 'pretrain' else 'train'}")
    epochs, batch = flat.get(f"{recipe}.epochs"), flat.get(f"{recipe}.batch_size")
    if samples and epochs and batch:
        updates.setdefault(what, epochs * samples / batch)


def _words(flat: Mapping[str, Any], keys: tuple[str, ...] | list[str]) -> str:
    return " × ".join(_word(flat[key]) for key in keys if flat.get(key))


def _data_name(flat: Mapping[str, Any], section: str) -> str:
    """The set of files as a person knows it, else the class that makes the data."""
    known = str(flat.get(f"{section}.had.source") or "").partition(": ")[2].partition(", http")[0]
    return known or str(flat[f"{section}.source._target_"]).rpartition(".")[2]


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " × ".join(map(_word, value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).rpartition(".")[2] if str(value).startswith("mae.") else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _share(share: float) -> str:
    return f"{share:.1%} of the published" if share >= 0.001 else f"{share:.2g} of the published"
