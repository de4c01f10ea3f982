"""Rates of false and of right verdicts in simulated tables, each with a fixed stream of random numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from experiments.ablation import ablation_names, load_ablation
from reports.simulation.worlds import Layout, Verdicts, World, ever_decided, judge_fixed, judge_sequential
from reports.verdicts.sequential import Looks

WORLDS = (
    World("equal rows", unequal=0.0),
    World("unequal spreads (sigma 0.4)"),
    World("very unequal spreads (sigma 0.8)", unequal=0.8),
    World("wildly unequal spreads (sigma 1.5)", unequal=1.5),
    World("heavy tails (t with 3 df)", errors="heavy"),
    World("one outlying seed in each table", errors="outlier"),
)
USUAL = WORLDS[1]
MANY, FEW = Layout((5,) * 15), Layout((5,) * 3)
COUNTS = (2, 3, 5)
LOOKS = Looks()
SEED = 20220401
_CHUNK = 100

Rates = tuple[float, ...]


def repeated(sets: int, once: Callable[[int, np.random.Generator], Rates]) -> Rates:
    """Return the mean of what `once(sets, generator)` measures, over chunks of sets with a generator each."""
    chunks = [min(_CHUNK, sets - start) for start in range(0, sets, _CHUNK)]
    streams = np.random.SeedSequence(SEED).spawn(len(chunks))
    found = [once(size, np.random.default_rng(stream)) for size, stream in zip(chunks, streams, strict=True)]
    return tuple(float(value) for value in np.average(found, axis=0, weights=chunks))


def false_rates(world: World, layout: Layout, seeds: int, sets: int, shared: bool = True) -> Rates:
    """Return the share of claims with a verdict, and of tables with a corrected one, where all rows are equal."""

    def once(size: int, generator: np.random.Generator) -> Rates:
        found = judge_fixed(world.draw(layout, seeds, size, generator), layout, shared=shared)
        return found.rate(True) + found.rate(False), found.any_in_table(layout)

    return repeated(sets, once)


def sequential_rates(world: World, layout: Layout, sets: int, shift: float = 0.0) -> Rates:
    """Return these two shares when seeds are added until all stands, the share that holds, and seeds per row."""

    def once(size: int, generator: np.random.Generator) -> Rates:
        values = world.draw(layout, LOOKS.counts[-1], size, generator, shift)
        found, rows = judge_sequential(values, layout, LOOKS)
        return found.rate(True) + found.rate(False), found.any_in_table(layout), found.rate(True), float(rows.mean())

    return repeated(sets, once)


def unpaid_rates(sets: int) -> Rates:
    """Return the share of claims with a verdict at any look, each tested as if alone, by the moderated and plain t."""

    def once(size: int, generator: np.random.Generator) -> Rates:
        values = USUAL.draw(MANY, LOOKS.counts[-1], size, generator)
        return tuple(ever_decided(values, MANY, LOOKS, shared) for shared in (True, False))

    return repeated(sets, once)


def power(world: World, layout: Layout, seeds: int, sets: int, shift: float, shared: bool = True) -> Rates:
    """Return the share of true differences that are found, by themselves and after correction."""

    def once(size: int, generator: np.random.Generator) -> Rates:
        found = judge_fixed(world.draw(layout, seeds, size, generator, shift), layout, shared=shared)
        return found.rate(True), float((found.stands & found.holds).mean())

    return repeated(sets, once)


def equivalence_rates(world: World, seeds: int | None, sets: int, margin: float) -> Rates:
    """Return false holds and false contradictions at a true difference of the margin, then holds of equal rows.

    `seeds` None adds seeds until all stands.
    """

    def judge(values: np.ndarray) -> Verdicts:
        if seeds is None:
            return judge_sequential(values, MANY, LOOKS, margin)[0]
        return judge_fixed(values, MANY, margin)

    def once(size: int, generator: np.random.Generator) -> Rates:
        count = seeds or LOOKS.counts[-1]
        border = judge(world.draw(MANY, count, size, generator, margin))
        return border.rate(True), border.rate(False), judge(world.draw(MANY, count, size, generator)).rate(True)

    return repeated(sets, once)


def twins(sets: int) -> tuple[int, dict[int, Rates]]:
    """Return the number of A/A claims over all tables, and by number of seeds the mean verdicts on them per set.

    Each measured column of each table gets a second row like its default one; columns of one metric share a prior.
    """
    sizes: dict[str, list[int]] = {}
    for ablation in map(load_ablation, ablation_names()):
        for column in ablation.columns.values():
            if column.unit == "%" and column.relative_to is None:
                sizes.setdefault(column.metric, []).append(len(ablation.rows) + 1)
    layouts = [Layout(tuple(size), twins=True) for size in sizes.values()]

    def once_of(seeds: int) -> Callable[[int, np.random.Generator], Rates]:
        def once(size: int, generator: np.random.Generator) -> Rates:
            found = [judge_fixed(USUAL.draw(layout, seeds, size, generator), layout) for layout in layouts]
            return (sum((one.rate(True) + one.rate(False)) * one.p.shape[1] for one in found),)

        return once

    return sum(map(len, sizes.values())), {n: repeated(sets, once_of(n)) for n in COUNTS}
