"""The space of a search at one scale: the values that can be tried, and which of them compute the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from experiments.ablation import SpecError
from experiments.compose import flatten
from experiments.searching.declared import Parameter, Point, Search
from experiments.spec import Spec

#: A range with no more steps than these is looked at step by step before a search begins.
FEW = 16


@dataclass(frozen=True)
class Space:
    """The parameters with their ranges at one scale, and the points that are tried first, the recipe's own foremost.

    A masking ratio acts through the number of patches it keeps, so many ratios are one experiment under several
    names, and as many fingerprints. ``settle`` gives all of them one name: the first of the enqueued and the
    published ratios, then of whole percents and of whole thousandths, that keeps as many patches. A trial trains the
    settled ratio, which is often one that a table has trained before. Other parameters keep six significant digits.
    """

    parameters: tuple[Parameter, ...]
    first: tuple[Point, ...]
    names: Mapping[int, float]
    visible: Callable[[float], int] | None = None

    @property
    def own(self) -> Point:
        """What the recipe at this scale says, which at the paper's scale is what is published."""
        return self.first[0]

    def settle(self, point: Point) -> dict[str, float]:
        """The point that stands for all points that compute what ``point`` computes."""
        return {p.key: self._settled(p, point[p.key]) for p in self.parameters}

    def _settled(self, parameter: Parameter, value: float) -> float:
        shown = _round(parameter, value)
        return self.names.get(self.visible(shown), shown) if self.visible and parameter.masks else shown

    def patches(self, point: Point) -> int | None:
        """How many patches stay visible at ``point``, None where no parameter is of the mask."""
        ratios = [point[p.key] for p in self.parameters if p.masks]
        return self.visible(ratios[0]) if self.visible and ratios else None

    def grid(self) -> list[Point]:
        """The recipe's own point, and every combination of the parameters' ``grid``; SpecError if one has none."""
        for parameter in self.parameters:
            if not parameter.grid:
                raise SpecError(
                    f"{parameter.key} has no grid: list values under grid: in its file, or choose another sampler"
                )
        keys = [parameter.key for parameter in self.parameters]
        product = itertools.product(*(parameter.grid for parameter in self.parameters))
        points = [self.settle(dict(zip(keys, values, strict=True))) for values in product]
        return list({tuple(point.items()): point for point in [self.own, *points]}.values())

    def edges(self) -> Iterator[Point]:
        """The recipe's own point with one parameter at a time at an end of its range, or at each of few steps."""
        for parameter in self.parameters:
            steps = parameter.steps()
            for value in steps if 0 < len(steps) <= FEW else (parameter.low, parameter.high):
                yield self.settle({**self.own, parameter.key: value})

    def words(self) -> str:
        """The ranges, in words."""
        return ", ".join(str(parameter) for parameter in self.parameters)


def space_of(search: Search, spec: Spec, scale: str) -> Space:
    """The space of ``search`` around ``spec``, its recipe at ``scale``; a masking ratio is narrowed to what the grid
    of patches allows.

    Enqueued points that do not exist there are left out. SpecError if the recipe's own point is none of the space, or
    nothing is left to choose from.
    """
    tree = flatten(spec.tree)
    if unknown := [p.key for p in search.parameters if not isinstance(tree.get(p.key), int | float)]:
        raise SpecError(f"search {search.name} varies {unknown[0]}, which is no number at scale={scale}")
    own = {p.key: tree[p.key] for p in search.parameters}
    parameters = [_around(p, own[p.key]) for p in search.parameters]
    for parameter in parameters:
        if not parameter.low <= own[parameter.key] <= parameter.high:
            raise SpecError(
                f"search {search.name} begins with the recipe's {parameter.key}={own[parameter.key]:g}, which at "
                f"scale={scale} is outside {parameter.low:g} to {parameter.high:g}; widen the range in its file"
            )
    points = [own]
    for point in search.enqueue:
        values = zip(search.parameters, point, strict=True)
        points.append({p.key: _round(p, v * own[p.key] if p.times else v) for p, v in values})
    masks = next((p for p in parameters if p.masks), None)
    if masks is None:
        return Space(tuple(parameters), tuple(points), {})
    space = _masks(search, spec, masks, [point[masks.key] for point in points], scale)
    narrowed = tuple(space.parameters[0] if p is masks else p for p in parameters)
    there = [p for p in points if space.parameters[0].low <= p[masks.key] <= space.parameters[0].high]
    return Space(narrowed, tuple(there), space.names, space.visible)


def _around(parameter: Parameter, own: float) -> Parameter:
    """The parameter at a scale whose recipe has the value ``own``: multiples of that become values."""
    if not parameter.times:
        return parameter
    low, high, *grid = (_round(parameter, v * own) for v in (parameter.low, parameter.high, *parameter.grid))
    if parameter.whole:
        low = max(1, low)
        high = max(low + 1, high)
        grid = [max(1, value) for value in grid]
    return replace(parameter, low=low, high=high, grid=tuple(dict.fromkeys(grid)), times=False)


def _round(parameter: Parameter, value: float) -> float:
    return round(value) if parameter.whole else float(f"{value:.6g}")


def _masks(search: Search, spec: Spec, parameter: Parameter, first: Sequence[float], scale: str) -> Space:
    """The space of a masking ratio alone: which ratios exist, and the one name of those that keep as many patches."""
    from experiments.assemble import grid_of, make

    grid, section = grid_of(spec), spec.tree["mask"]

    def visible(value: float) -> int:
        mask: Any = make({**section, parameter.key.partition(".")[2]: value})
        return int(mask.visible(grid))

    fine = [k / 100 for k in range(1, 100)] + [k / 1000 for k in range(1, 1000)]
    names: dict[int, float] = {}
    possible: list[float] = []
    refused: dict[float, str] = {}
    for ratio in dict.fromkeys([*first, *sorted(search.curve(scale)), *fine, parameter.low, parameter.high]):
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
    low, high = min(possible), max(possible)
    grid_values = tuple(value for value in parameter.grid if low <= value <= high)
    return Space((replace(parameter, low=low, high=high, grid=grid_values),), (), names, visible)
