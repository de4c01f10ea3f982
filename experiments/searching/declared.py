"""A search as its YAML file states it: what varies, what is maximised, and the table whose values it stands beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from experiments.ablation import (
    CONF,
    Ablation,
    Column,
    Overrides,
    Row,
    SpecError,
    at_scale,
    load_ablation,
    nearest,
    overrides_of,
    typed,
)
from experiments.compose import groups

#: A value for every parameter, by its key.
Point = Mapping[str, float]

#: Ways to choose the next point.
SAMPLERS = ("tpe", "gp", "grid", "random")


@dataclass(frozen=True)
class Parameter:
    """A key of the spec and the range of numbers it may take; ``step`` None is a continuous range.

    With ``log`` values are drawn evenly in their logarithm, as suits a learning rate. ``whole`` numbers have a step of
    one. With ``times``, ``low``, ``high`` and ``grid`` are multiples of what the recipe at each scale says, so that one
    range serves all scales. ``grid`` lists what the grid sampler tries.
    """

    key: str
    low: float
    high: float
    label: str
    step: float | None = None
    log: bool = False
    whole: bool = False
    times: bool = False
    grid: tuple[float, ...] = ()

    @property
    def masks(self) -> bool:
        """Whether it acts through the number of patches that a mask keeps."""
        return self.key.startswith("mask.")

    def steps(self) -> list[float]:
        """Every value of a range with steps, none for a continuous one."""
        step = 1 if self.whole else self.step
        if step is None:
            return []
        return [self.low + k * step for k in range(int((self.high - self.low) / step + 1e-9) + 1)]

    def __str__(self) -> str:
        unit = " times the recipe's" if self.times else ""
        return f"{self.key} from {self.low:g} to {self.high:g}{unit}{' (log)' if self.log else ''}"


@dataclass(frozen=True)
class Published:
    """The column of an ablation whose published values stand beside the trials."""

    ablation: str
    column: str


@dataclass(frozen=True)
class Search:
    """One file of ``conf/search``: ``metric`` (``stage/name``) is maximised on validation data.

    The first trial is what the recipe at the scale says, those of ``enqueue`` follow: a value for each parameter.
    """

    name: str
    title: str
    question: str
    parameters: tuple[Parameter, ...]
    metric: str
    published: Published
    enqueue: tuple[tuple[float, ...], ...] = ()
    base: Overrides = field(default_factory=dict)

    @property
    def stage(self) -> str:
        """The stage that reports the metric."""
        return self.metric.split("/")[0]

    @property
    def beside(self) -> Ablation:
        """The table whose published values stand beside the trials."""
        return load_ablation(self.published.ablation)

    def curve(self, scale: str) -> dict[float, float]:
        """The published values by the parameter's value, where the table varies the one parameter that this does."""
        if len(self.parameters) > 1:
            return {}
        found: dict[float, float] = {}
        for label in self.beside.rows:
            value, published = self.setting(label, scale), self.beside.rows[label].paper.get(self.published.column)
            if value is not None and published is not None:
                found[value] = published
        return found

    def setting(self, label: str, scale: str) -> float | None:
        """What a row of the table sets the one parameter to, None if it does not."""
        settings = dict(override.split("=", 1) for override in at_scale(self.beside.rows[label].set, scale))
        key = self.parameters[0].key
        return float(settings[key]) if len(self.parameters) == 1 and key in settings else None

    def table(self, points: Sequence[Point], tested: str = "val") -> Ablation:
        """The search as a table: one row for each of ``points``, evaluated on ``tested``; no point is the recipe."""
        column = self.beside.columns[self.published.column]
        return Ablation(
            name=f"search_{self.name}" + ("" if tested == "val" else f"_{tested}"),
            title=self.title,
            question=self.question,
            paper=self.beside.paper,
            columns={"value": Column(self.metric, column.label, column.unit, set=column.set)},
            rows={
                row_label(point): Row(
                    row_label(point), {"all": (*(f"{k}={v!r}" for k, v in point.items()), f"tested={tested}")}
                )
                for point in points
            },
            inputs=self.beside.inputs,
            base=self.base,
        )


def row_label(point: Point) -> str:
    """A point as the label of its row: a number, or several with the last words of their keys."""
    if len(point) == 1:
        return f"{next(iter(point.values())):g}"
    return ", ".join(f"{key.rpartition('.')[2]} {value:g}" for key, value in point.items()) or "recipe"


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
    where = f"{name}.yaml"
    try:
        raw: dict[str, Any] = {**yaml.safe_load(text)}
        given = {key: {"key": key, **value} for key, value in dict(raw.pop("parameters", {})).items()}
        parameters = tuple(
            typed(Parameter, value, f"{where}, parameter {key}", {"grid": lambda grid: tuple(map(float, grid))})
            for key, value in given.items()
        )
    except SpecError:
        raise
    except (yaml.YAMLError, TypeError, ValueError, AttributeError) as error:
        raise SpecError(f"{where} is not a valid search: {error!r}; see conf/search/masking_ratio.yaml") from error
    search = typed(
        Search,
        {**raw, "name": name, "parameters": parameters},
        where,
        {"published": lambda value: typed(Published, value, where, {}), "enqueue": _points, "base": overrides_of},
    )
    for parameter in parameters:
        _check(parameter, where)
    _check_whole(search, where)
    return search


def _points(raw: Any) -> tuple[tuple[float, ...], ...]:
    """A list of points, each a list with a value for each parameter; of one parameter, a list of values."""
    return tuple(tuple(map(float, point if isinstance(point, list) else [point])) for point in raw)


def _check(parameter: Parameter, where: str) -> None:
    """SpecError if no value can be drawn from a parameter's range."""
    low, high, step = parameter.low, parameter.high, parameter.step
    if not low < high:
        raise SpecError(f"{where}: the range {low} to {high} of {parameter.key} is empty; low must be below high")
    if step is not None and not 0 < step <= high - low:
        raise SpecError(f"{where}: step {step} of {parameter.key} does not fit into {low} to {high}")
    if parameter.log and (low <= 0 or step is not None):
        raise SpecError(f"{where}: a range with log has no step and begins above 0; drop log, or change the range")
    if outside := [value for value in parameter.grid if not low <= value <= high]:
        raise SpecError(f"{where}: grid value {outside[0]:g} of {parameter.key} is outside {low} to {high}")


def _check_whole(search: Search, where: str) -> None:
    """SpecError if the parts of a search do not fit each other, or its table."""
    if not search.parameters:
        raise SpecError(f"{where} has no parameters; see conf/search/masking_ratio.yaml")
    if sum(parameter.masks for parameter in search.parameters) > 1:
        raise SpecError(f"{where} varies more than one value of the mask; leave one")
    stages = ["pretrain", *(group.partition("/")[2] for group in groups() if group.startswith("evaluate/"))]
    if search.stage not in stages or "/" not in search.metric:
        raise SpecError(
            f"{where}: metric {search.metric!r} is not STAGE/NAME; of stages, {nearest(search.stage, stages)}"
        )
    for point in search.enqueue:
        if len(point) != len(search.parameters):
            raise SpecError(f"{where}: enqueue {list(point)} has not one value for each of the parameters")
        for parameter, value in zip(search.parameters, point, strict=True):
            if not parameter.low <= value <= parameter.high:
                raise SpecError(f"{where}: enqueue {value:g} is outside {parameter.low} to {parameter.high}")
    if search.published.column not in search.beside.columns:
        raise SpecError(
            f"{where}: {search.beside.name} has no column {search.published.column!r}: "
            f"{nearest(search.published.column, search.beside.columns)}"
        )
