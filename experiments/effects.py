"""Settings without effect are refused: what a user sets must change what is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from experiments.ablation import Ablation, Row, SpecError, exists, last_wins
from experiments.plan import row_trainings, stages_by_changes
from experiments.spec import FILE, PRETRAIN, spec_of

#: A row of a table at a scale, and what ``auto`` stands for as its precision.
Cell = tuple[Ablation, Row, str, str]


#: Last words of keys that say how something is done, and are not meant to change what is computed.
APART = ("workers",)


def check_effects(
    ablations: Sequence[Ablation], scale: str, overrides: Sequence[str], rows: Sequence[str], precision: str
) -> None:
    """SpecError names the first of ``overrides`` without which every training of the tables stays what it is.

    One that states what holds anyway is fine. ``precision`` is what ``auto`` stands for.
    """
    cells = [(ablation, row, scale, precision) for ablation in ablations for row in _rows(ablation, scale, rows)]
    for override in last_wins(overrides):
        key = override.partition("=")[0]
        if key.rpartition(".")[2] in APART:
            continue
        others = [other for other in overrides if other.partition("=")[0] != key]
        if _same(_trainings, cells, overrides, others) and not _same(_trees, cells, overrides, others):
            raise SpecError(_without_effect(override, ablations, scale))


def _same(found: Callable[[Cell, Sequence[str]], object], cells: Sequence[Cell], *overrides: Sequence[str]) -> bool:
    """Whether some of the overrides find in every cell what others find."""
    return all(len({repr(found(cell, words)) for words in overrides}) == 1 for cell in cells)


def _rows(ablation: Ablation, scale: str, rows: Sequence[str]) -> Iterator[Row]:
    return (row for row in ablation.rows.values() if exists(row, scale) and (not rows or row.label in rows))


def _trainings(cell: Cell, overrides: Sequence[str]) -> list[str] | None:
    """The fingerprints of a row, None where it cannot be made."""
    ablation, row, scale, precision = cell
    try:
        return [job.fingerprint for job, _ in row_trainings(ablation, row, scale, 0, overrides, precision)]
    except SpecError:
        return None


def _trees(cell: Cell, overrides: Sequence[str]) -> list[object] | None:
    """All that the specs of a row say, None where they cannot be composed."""
    ablation, row, scale, precision = cell
    found: list[object] = []
    try:
        for changes in stages_by_changes(ablation, scale):
            spec = spec_of(ablation, row, scale, 0, overrides, changes)
            found.append(spec.but(precision=precision).tree if spec.precision == "auto" else spec.tree)
    except SpecError:
        return None
    return found


def _without_effect(override: str, ablations: Sequence[Ablation], scale: str) -> str:
    """Why an override changes nothing, as far as its key tells, and what to do."""
    key = override.partition("=")[0]
    names = ", ".join(ablation.name for ablation in ablations[:4]) + (" and others" if len(ablations) > 4 else "")
    stages = {column.stage for ablation in ablations for column in ablation.columns.values()}
    section, _, rest = key.replace("/", ".").lstrip("+~").partition(".")
    if section == "origin":
        why = f"only origin={FILE} reads a file, and each of the others says what it starts from"
        cure = f"add origin={FILE}" if rest == "path" else "choose another origin"
    elif section == "evaluate" and rest.partition(".")[0] not in stages:
        why = f"what is evaluated is {', '.join(sorted(stages - {PRETRAIN})) or 'nothing'}"
        cure = "leave it out, or choose a table that does"
    else:
        why = "nothing that is trained there reads it"
        cure = "leave it out, or choose what reads it"
    return f"{override} has no effect on {names} at scale={scale}: {why}; {cure}"
