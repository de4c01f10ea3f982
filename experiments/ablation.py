"""A table as its YAML file states it: what it asks, its rows and columns, the published values, the claims."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from experiments.claim_entry import ClaimEntry, claim_entries
from mae.errors import SpecError as SpecError
from mae.options import expanded as expanded
from mae.options import nearest as nearest

try:
    from yaml import CSafeLoader as _Loader  # ten times as fast
except ImportError:
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

CONF = Path(__file__).resolve().parent / "conf"

SCALES = ("smoke", "desk", "study", "gpu", "day", "paper")
#: Scales that take the rows and columns of another, unless a table names them itself.
LIKE = {"study": "desk"}
#: What stands before the name of a scale in ``conf/scale``, by what the tables of a paper are made on.
INPUTS = {"pictures": "", "clips": "clips_"}

#: Overrides for each scale; those under ``all`` come first, at every scale.
Overrides = Mapping[str, tuple[str, ...]]

T = TypeVar("T")


class Loader(_Loader):
    """It reads YAML as plain values."""


@dataclass(frozen=True)
class Column:
    """A column of a table: ``metric`` is ``stage/name``, ``set`` what its stage changes in the spec of every row.

    ``relative_to`` names the row whose value divides every other (``invert``: is divided by it). At the paper's scale a
    value within ``tolerance`` of the published one is reproduced; ``tolerance_from`` says which published spread of
    seeds the tolerance comes from. A column without chance (FLOPs) has ``exact``, a relative tolerance, and needs no
    seeds. ``hardware`` says on what published hours were measured.
    """

    metric: str
    label: str
    unit: str = "%"
    better: str = "higher"
    relative_to: str | None = None
    invert: bool = False
    tolerance: float | None = None
    tolerance_from: str = ""
    exact: float | None = None
    hardware: str = ""
    set: Overrides = field(default_factory=dict)

    @property
    def stage(self) -> str:
        """The stage that measures the column."""
        return self.metric.split("/")[0]


@dataclass(frozen=True)
class Row:
    """A row: the overrides that make it, and the published value of each column (None where there is none)."""

    label: str
    set: Overrides
    paper: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """``lines`` draws columns over the row labels as numbers, ``bars`` groups them by row."""

    kind: str = "bars"
    xlabel: str = ""
    log: bool = False


@dataclass(frozen=True)
class Ablation:
    """One table or figure. ``paper`` says where it is published (``arxiv``, ``where``), if it is.

    ``inputs`` chooses the scales of pictures or of clips. ``observe`` names what its test
    looks at to tell each row from the default row. ``file`` is where it was read; options for groups may lie beside it.
    """

    name: str
    title: str
    question: str
    columns: Mapping[str, Column]
    rows: Mapping[str, Row]
    paper: Mapping[str, str] = field(default_factory=dict)
    inputs: str = "pictures"
    default: str | None = None
    base: Overrides = field(default_factory=dict)
    claims: tuple[ClaimEntry, ...] = ()
    figure: Figure = field(default_factory=Figure)
    notes: tuple[str, ...] = ()
    observe: tuple[str, ...] = ()
    file: Path = CONF / "ablation"

    @property
    def options(self) -> Path | None:
        """The folder of a user's own file, which may hold options for groups (``mask/mine.yaml``)."""
        return None if self.file.is_relative_to(CONF) else self.file.parent


def ablation_names() -> list[str]:
    """The tables that come with the project, by file name."""
    return sorted(path.stem for path in (CONF / "ablation").glob("*.yaml"))


def load_ablation(name: str) -> Ablation:
    """Read the table called ``name``, or the one in the file ``name`` if it ends in ``.yaml``.

    SpecError on an unknown name, and on a file that is not a table: it says which key of which file is wrong.
    """
    own = name.endswith((".yaml", ".yml"))
    path = Path(expanded(name)).resolve() if own else CONF / "ablation" / f"{name}.yaml"
    if not own and name not in ablation_names():
        raise SpecError(f"unknown ablation {name!r}: {nearest(name, ablation_names())} A table of your own is a file: "
                        f"ablation=PATH.yaml")  # fmt: skip
    if own and not path.is_relative_to(CONF) and path.stem in ablation_names():
        raise SpecError(f"{path} has the name of a table that comes with the project; give the file another name")
    return parse_ablation(read_yaml(path), path)


def read_yaml(path: Path, loader: type[Loader] = Loader) -> Any:
    """The content of a YAML file; SpecError says what is wrong with it, and in which line."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), loader)
    except OSError as error:
        raise SpecError(
            f"{path} cannot be read ({error.strerror}); give the file of a table: ablation=PATH.yaml"
        ) from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SpecError(f"{path}{line} is not YAML: {error.problem}; mend that line, or the one before") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise SpecError(f"{path} is not YAML: {' '.join(str(error).split())}; save it as text in UTF-8") from error


def parse_ablation(raw: Any, path: Path) -> Ablation:
    """The table that ``raw``, the content of the file ``path``, declares; SpecError says what is wrong with it."""
    where = path.name
    raw = {"claims": (), "notes": (), "observe": (), **_mapping(raw, where)}
    columns = {
        str(key): typed(Column, value, f"{where}, column {key!r}", {"set": overrides_of})
        for key, value in _mapping(raw.get("columns"), f"{where}, columns").items()
    }
    rows = {
        str(label): _row(str(label), row, f"{where}, row {str(label)!r}")
        for label, row in _mapping(raw.get("rows"), f"{where}, rows").items()
    }
    ablation: Ablation = typed(
        Ablation,
        {**raw, "name": short_name(path.stem), "file": path, "columns": columns, "rows": rows},
        where,
        {
            "paper": lambda value: {key: str(text) for key, text in (value or {}).items()},
            "default": lambda value: None if value is None else str(value),
            "base": overrides_of,
            "figure": lambda value: Figure(kind=value) if isinstance(value, str) else typed(Figure, value, where, {}),
            "claims": claim_entries,
            **{key: lambda value: tuple(value or ()) for key in ("notes", "observe")},
        },
    )
    if not columns or not rows:
        raise SpecError(f"{where} has no {'rows' if columns else 'columns'}; see CONTRIBUTING.md, 'An ablation'")
    if ablation.default is not None and ablation.default not in rows:
        raise SpecError(f"{where}: default {ablation.default!r} is not a row: {nearest(ablation.default, rows)}")
    if ablation.inputs not in INPUTS:
        raise SpecError(f"{where}: unknown inputs {ablation.inputs!r}: {nearest(ablation.inputs, INPUTS)}")
    for column in columns.values():
        if column.relative_to is not None and column.relative_to not in rows:
            raise SpecError(
                f"{where}: relative_to {column.relative_to!r} is not a row: {nearest(column.relative_to, rows)}"
            )
    for row in rows.values():
        if unknown := sorted(set(row.paper) - set(columns)):
            raise SpecError(f"{where}, row {row.label!r}: no column {unknown[0]!r}: {nearest(unknown[0], columns)}")
    return ablation


def _row(label: str, raw: Any, where: str) -> Row:
    given = {"label": label, "set": (), **_mapping(raw, where)}
    return typed(Row, given, where, {"set": overrides_of, "paper": lambda value: dict(value or {})})


def _mapping(raw: Any, where: str) -> dict[Any, Any]:
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise SpecError(
            f"{where}: expected keys with values, not {str(raw)[:60]!r}; see CONTRIBUTING.md, 'An ablation'"
        )
    return dict(raw)


def typed(cls: type[T], raw: Any, where: str, convert: Mapping[str, Any]) -> T:
    """An object of the dataclass ``cls`` from the mapping ``raw``; SpecError names a key that is unknown or missing."""
    given = _mapping(raw, where)
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(str(key) for key in set(given) - set(known)):
        raise SpecError(f"{where}: unknown key {unknown[0]!r}: {nearest(unknown[0], known)}")
    needed = [name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in needed if name not in given]:
        raise SpecError(f"{where}: the key {missing[0]!r} is missing; see CONTRIBUTING.md, 'An ablation'")
    try:
        return cls(**{key: convert[key](value) if key in convert else value for key, value in given.items()})
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f"{where}: {error}; see CONTRIBUTING.md, 'An ablation'") from error


def overrides_of(raw: Any) -> Overrides:
    """A list holds at every scale; a mapping names scales, and ``all``. ValueError on an unknown scale."""
    if not isinstance(raw, Mapping):
        return {"all": tuple(map(str, raw or ()))}
    if unknown := sorted(set(raw) - {"all", *SCALES}):
        raise ValueError(f"unknown scale {unknown[0]!r}: {nearest(str(unknown[0]), ['all', *SCALES])}")
    return {str(scale): tuple(map(str, overrides)) for scale, overrides in raw.items()}


def at_scale(overrides: Overrides, scale: str) -> list[str]:
    """What ``overrides`` hold at ``scale``."""
    return [*overrides.get("all", ()), *overrides.get(named_scale(overrides, scale), ())]


def named_scale(overrides: Overrides, scale: str) -> str:
    """The scale whose overrides hold at ``scale``: itself if it is named, else the one that it is like."""
    return scale if scale in overrides else LIKE.get(scale, scale)


def exists(part: Row | Column, scale: str) -> bool:
    """Whether a row or a column is there at ``scale``: one whose overrides name scales is not at any other."""
    return not part.set or "all" in part.set or named_scale(part.set, scale) in part.set


def scale_option(inputs: str, scale: str) -> str:
    """The file of ``conf/scale`` that composes ``inputs`` at ``scale``."""
    return f"{INPUTS[inputs]}{scale}"


def has_scale(ablation: Ablation, scale: str) -> bool:
    """Whether a file of ``conf/scale`` composes a table at ``scale``, and the table has rows there."""
    there = (CONF / "scale" / f"{scale_option(ablation.inputs, scale)}.yaml").is_file()
    return there and any(exists(row, scale) for row in ablation.rows.values())


def short_name(text: str) -> str:
    """``text`` as part of file names and of MLflow's keys: letters of English, digits and ``=.+-_,``, at most eighty.

    Texts that differ in what is left out differ in a hash.
    """
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "=.+-_,") else "_" for c in text)
    if safe == text and len(safe) <= 80:
        return safe
    return f"{safe[:63]}-{hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:16]}"


def table_name(ablation: str, variant: str) -> str:
    """The key of a table: the ablation, and the user's overrides if any."""
    return f"{ablation}--{variant}" if variant else ablation


def last_wins(overrides: Sequence[str]) -> list[str]:
    """Drop all but the last choice of each key: a later layer replaces an earlier one."""
    return list({override.partition("=")[0]: override for override in overrides}.values())
