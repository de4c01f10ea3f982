"""Small pictures of the page: points in a unit square, which the templates draw in the colours of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A place in the unit square, `y` upwards; what it is in words, and the `name` that stands beside it."""

    x: float
    y: float
    words: str = ""
    name: str = ""


@dataclass(frozen=True)
class Plot:
    """Points, what both axes are, their least and greatest values in words, and the rows, where `y` stands for rows."""

    points: tuple[Point, ...]
    x: str
    y: str
    x_ends: tuple[str, str] = ("", "")
    y_ends: tuple[str, str] = ("", "")
    rows: tuple[str, ...] = ()


def curve(values: Sequence[float | None]) -> tuple[Point, ...]:
    """Return values in their order over the whole square; those that are not known are left out."""
    known = [value for value in values if value is not None]
    last = max(len(values) - 1, 1)
    return tuple(
        Point(place / last, unit(value, known), f"{value:g}") for place, value in enumerate(values) if value is not None
    )


def scatter(places: Mapping[str, tuple[float, float]], x: str, y: str) -> Plot:
    """Return a plot of one point for each name, both axes from their least to their greatest value."""
    across, upwards = [place[0] for place in places.values()], [place[1] for place in places.values()]
    points = tuple(
        Point(unit(a, across), unit(b, upwards), f"{name}: {a:.3g} {x}, {b:.4g} {y}", name)
        for name, (a, b) in places.items()
    )
    return Plot(points, x, y, ends(across), ends(upwards))


def strips(seeds: Mapping[str, Mapping[int, float]], x: str) -> Plot:
    """Return a plot with a strip for each row, from the top, and a point for each of its seeds."""
    values = [value for row in seeds.values() for value in row.values()]
    points = [
        Point(unit(value, values), 1 - (place + 0.5) / len(seeds), f"{row}, seed {seed}: {value:.4g} {x}")
        for place, (row, found) in enumerate(seeds.items())
        for seed, value in found.items()
    ]
    return Plot(tuple(points), x, "row", ends(values), rows=tuple(seeds))


def unit(value: float, among: Sequence[float]) -> float:
    """Return where `value` lies between the least and the greatest, a half where they are equal; three decimals."""
    low, high = min(among), max(among)
    return round((value - low) / (high - low), 3) if high > low else 0.5


def ends(values: Sequence[float]) -> tuple[str, str]:
    """Return the least and the greatest value in words."""
    return (f"{min(values):.4g}", f"{max(values):.4g}") if values else ("", "")
