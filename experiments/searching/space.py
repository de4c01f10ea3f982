"""The space of a search: one YAML file names what varies and what to maximise; equal computations share one value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from experiments.ablation import (
    CONF,
    Ablation,
    Column,
    Figure,
    Overrides,
    Row,
    SpecError,
    at_scale,
    load_ablation,
    nearest,
)
from experiments.compose import groups
from experiments.spec import Spec


@dataclass(frozen=True)
class Parameter:
    """A key of the spec and the range of numbers it may take; ``step`` None is a continuous range.

    With ``log`` values are drawn evenly in their logarithm, as suits a learning rate.
    """

    key: str
    low: float
    high: float
    label: str
    step: float | None = None
    log: bool = False


@dataclass(frozen=True)
class Published:
    """The column of an ablation whose published values are drawn beside the trials."""

    ablation: str
    column: str


@dataclass(frozen=True)
class Search:
    """One file of ``conf/search``: ``metric`` (``stage/name``) is maximised on validation data.

    The values of ``enqueue`` come first.
    """

    name: str
    title: str
    question: str
    parameter: Parameter
    metric: str
    enqueue: tuple[float, ...]
    published: Published
    base: Overrides = field(default_factory=dict)

    @property
    def stage(self) -> str:
        """The stage that reports the metric."""
        return self.metric.split("/")[0]

    def curve(self, scale: str) -> dict[float, float]:
        """The published values by the parameter's value."""
        ablation = load_ablation(self.published.ablation)
        column = self.published.column
        points = {_setting(self.parameter.key, row, scale): row.paper.get(column) for row in ablation.rows.values()}
        return {x: y for x, y in points.items() if x is not None and y is not None}

    def table(self, values: Sequence[float], published: Mapping[float, float] | None = None) -> Ablation:
        """The search as a table: one row for each of ``values``, with its published value if there is one."""
        paper = published or {}
        where = load_ablation(self.published.ablation)
        column = where.columns[self.published.column]
        return Ablation(
            name=f"search_{self.name}",
            title=self.title,
            question=self.question,
            paper=where.paper,
            columns={"value": Column(self.metric, column.label, column.unit)},
            rows={
                label: Row(
                    label, {"all": (f"{self.parameter.key}={value!r}", "tested=val")}, {"value": paper.get(value)}
                )
                for label, value in ((row_label(value), value) for value in values)
            },
            inputs=where.inputs,
            base=self.base,
            figure=Figure("lines", xlabel=self.parameter.label),
        )


def row_label(value: float) -> str:
    """A value as the label of its row."""
    return f"{value:g}"


def _setting(key: str, row: Row, scale: str) -> float | None:
    """What a row of a table sets ``key`` to, None if it does not."""
    settings = dict(override.split("=", 1) for override in at_scale(row.set, scale))
    return float(settings[key]) if key in settings else None


def search_names() -> list[str]:
    """The searches that can be asked for, by file name."""
    return sorted(path.stem for path in (CONF / "search").glob("*.yaml"))


def load_search(name: str) -> Search:
    """Read ``conf/search/<name>.yaml``; SpecError on an unknown name, a file that is no search, an empty range."""
    if name not in search_names():
        raise SpecError(f"unknown search {name!r}: {nearest(name, search_names())}")
    return parse_search(name, (CONF / "search" / f"{name}.yaml").read_text(encoding="utf-8"))


def parse_search(name: str, text: str) -> Search:
    """The search that the YAML ``text`` of ``<name>.yaml`` declares; SpecError says what is wrong with it."""
    try:
        raw: dict[str, Any] = yaml.safe_load(text)
        known = set(Search.__dataclass_fields__) - {"name"}
        if unknown := set(raw) - known:
            key = sorted(unknown)[0]
            raise SpecError(f"{name}.yaml: unknown key {key!r}: {nearest(key, known)}")
        given = raw.pop("base", None) or {}
        base = {"all": tuple(given)} if isinstance(given, list) else {k: tuple(v) for k, v in given.items()}
        parameter, published = Parameter(**raw.pop("parameter")), Published(**raw.pop("published"))
        enqueue = tuple(float(value) for value in raw.pop("enqueue"))
        search = Search(name=name, parameter=parameter, published=published, enqueue=enqueue, base=base, **raw)
    except SpecError:
        raise
    except (yaml.YAMLError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise SpecError(f"{name}.yaml is not a valid search: {error!r}; see conf/search/masking_ratio.yaml") from error
    if not parameter.low < parameter.high:
        raise SpecError(f"{name}.yaml: the range {parameter.low} to {parameter.high} is empty; low must be below high")
    if parameter.step is not None and not 0 < parameter.step <= parameter.high - parameter.low:
        raise SpecError(f"{name}.yaml: step {parameter.step} does not fit into {parameter.low} to {parameter.high}")
    if parameter.log and (parameter.low <= 0 or parameter.step is not None):
        raise SpecError(f"{name}.yaml: a range with log has no step and begins above 0; drop log, or change the range")
    stages = ["pretrain", *(group.partition("/")[2] for group in groups() if group.startswith("evaluate/"))]
    if search.stage not in stages or "/" not in search.metric:
        raise SpecError(
            f"{name}.yaml: metric {search.metric!r} is not STAGE/NAME; of stages, {nearest(search.stage, stages)}"
        )
    if not search.enqueue:
        raise SpecError(f"{name}.yaml: enqueue is empty; give at least the paper's own value")
    for value in search.enqueue:
        if not parameter.low <= value <= parameter.high:
            raise SpecError(f"{name}.yaml: enqueue {value} is outside {parameter.low} to {parameter.high}")
    ablation, column = load_ablation(search.published.ablation), search.published.column
    if column not in ablation.columns:
        raise SpecError(f"{name}.yaml: {ablation.name} has no column {column!r}: {nearest(column, ablation.columns)}")
    return search


@dataclass(frozen=True)
class Space:
    """The values that can be tried at one scale, and which of them compute the same.

    A parameter of a mask acts through the number of patches it keeps, so many ratios are one experiment under several
    names, and as many fingerprints. ``settle`` gives all of them one name: the first of the enqueued and the
    published ratios, then of whole percents and of whole thousandths, that keeps as many patches. A trial trains the
    settled ratio, which is often one that a table has trained before. Other parameters keep six significant digits.
    """

    parameter: Parameter
    enqueue: tuple[float, ...]
    names: Mapping[int, float]
    visible: Callable[[float], int] | None = None

    def settle(self, value: float) -> float:
        """The value that stands for all values that compute what ``value`` computes."""
        shown = float(f"{value:.6g}")
        return shown if self.visible is None else self.names.get(self.visible(shown), shown)


def space_of(search: Search, spec: Spec, scale: str) -> Space:
    """The space of ``search`` for a ``spec`` of it; a range wider than the grid allows is narrowed to what it does.

    Enqueued values that do not exist on the grid are left out, but for the first: SpecError if that, or all but one,
    cannot be tried.
    """
    parameter = search.parameter
    section, _, name = parameter.key.partition(".")
    if section != "mask":
        return Space(parameter, search.enqueue, {})
    from experiments.assemble import grid_of, make

    grid = grid_of(spec)

    def visible(value: float) -> int:
        kept: int = make({**spec.tree["mask"], name: value}).visible(grid)
        return kept

    first = [*search.enqueue, *sorted(search.curve(scale))]
    fine = [k / 100 for k in range(1, 100)] + [k / 1000 for k in range(1, 1000)]
    names: dict[int, float] = {}
    possible: list[float] = []
    refused: dict[float, str] = {}
    for ratio in dict.fromkeys([*first, *fine, parameter.low, parameter.high]):
        if parameter.low <= ratio <= parameter.high:
            try:
                kept = visible(ratio)
            except ValueError as error:
                refused[ratio] = str(error)
                continue
            possible.append(ratio)
            names.setdefault(kept, ratio)
    if len(names) < 2:
        reason = next(iter(refused.values()), "every ratio keeps as many patches")
        raise SpecError(f"search {search.name} has nothing to choose from: {reason}")
    default, *others = search.enqueue
    if default in refused:
        raise SpecError(
            f"search {search.name} begins with {parameter.key}={default}, which cannot be: {refused[default]}"
        )
    enqueue = (default, *(ratio for ratio in others if ratio not in refused))
    return Space(replace(parameter, low=min(possible), high=max(possible)), enqueue, names, visible)
