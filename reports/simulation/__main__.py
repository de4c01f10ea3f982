"""Simulate whole tables and write how often verdicts are false, and how often differences are found, into the docs.

Usage: python -m reports.simulation [sets=2000]

It replaces what stands between the marks of docs/statistics.md. `sets` is the number of simulated sets of tables; with
2000 it takes some five minutes of one core.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from reports.files import write_atomically
from reports.simulation.rates import (
    COUNTS,
    FEW,
    MANY,
    USUAL,
    WORLDS,
    equivalence_rates,
    false_rates,
    power,
    sequential_rates,
    twins,
    unpaid_rates,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "statistics.md"
_BEGIN, _END = "<!-- simulated: begin -->", "<!-- simulated: end -->"


def page(sets: int) -> str:
    """Return the simulated part of the page, as Markdown."""
    fewer = max(sets // 4, 1)
    command = ["```", f"python -m reports.simulation sets={sets}", "```", ""]
    lines = [f"From {sets} simulated sets of tables each, and {fewer} where it says so, by", "", *command]
    return "\n".join([*lines, *_errors(sets, fewer), *_found(fewer), *_equivalences(fewer), *_twins(fewer)])


def _errors(sets: int, fewer: int) -> list[str]:
    lines = [
        "**False verdicts when all rows are equal**: per cent of claims, each by itself / per cent of tables with a"
    ]
    lines += [f"verdict after correction. Seeds are added up to ten ({fewer} sets).", ""]
    for layout, tables in ((MANY, "Fifteen"), (FEW, "Three")):
        lines += [f"{tables} tables of five rows share a variance:", ""]
        lines += _table(["world", *(f"{n} seeds" for n in COUNTS), "added seeds", "plain t, 3 seeds"], [
            [
                world.name,
                *(_pair(false_rates(world, layout, n, sets)) for n in COUNTS),
                _pair(sequential_rates(world, layout, fewer)[:2]),
                _pair(false_rates(world, layout, 3, sets, shared=False)),
            ]
            for world in WORLDS
        ])  # fmt: skip
    lines += [
        f"Were each look after 2 to 10 seeds tested at 5% ({USUAL.name}, {fewer} sets), the rates by the moderated /"
    ]
    return [*lines, f"plain t would be {_pair(unpaid_rates(fewer))}.", ""]


def _found(sets: int) -> list[str]:
    body = []
    for seeds in (*COUNTS, 10):
        cells = []
        for shift in (1.0, 2.0, 3.0):
            ours, plain = (power(USUAL, MANY, seeds, sets, shift, shared) for shared in (True, False))
            cells.append(f"{_pair((ours[0], plain[0]), 0)}; {_pair((ours[1], plain[1]), 0)}")
        body.append([f"{seeds} seeds", *cells])
    added = [sequential_rates(USUAL, MANY, sets, shift) for shift in (1.0, 2.0, 3.0)]
    body.append(["added seeds", *(f"{100 * one[2]:.0f} with {one[3]:.1f} seeds a row" for one in added)])
    lines = [
        "**True differences found**: per cent of claims by the moderated / plain t; then both after correction. The"
    ]
    lines += [f"difference is in standard deviations of a seed; {USUAL.name}, fifteen tables ({sets} sets).", ""]
    lines += _table(["", "1 sd", "2 sd", "3 sd"], body)
    lines += ["The same in every world, three seeds and 2 sd, before correction:", ""]
    return lines + _table(["world", "found"], [
        [one.name, _pair([power(one, MANY, 3, sets, 2.0, shared)[0] for shared in (True, False)], 0)] for one in WORLDS
    ])  # fmt: skip


def _equivalences(sets: int) -> list[str]:
    lines = [
        "**Equivalence**: per cent of claims that falsely hold / are falsely contradicted where the true difference is"
    ]
    lines += [f"the margin; then those that hold where the rows are equal ({USUAL.name}, {sets} sets).", ""]
    kinds = (*((f"{n} seeds", n) for n in (*COUNTS, 10)), ("added seeds", None))
    body = []
    for name, seeds in kinds:
        found = [equivalence_rates(USUAL, seeds, sets, margin) for margin in (1.0, 2.0, 3.0)]
        body.append([name, *(f"{_pair(rates[:2])}; {100 * rates[2]:.0f}" for rates in found)])
    return lines + _table(["", "margin 1 sd", "margin 2 sd", "margin 3 sd"], body)


def _twins(sets: int) -> list[str]:
    count, verdicts = twins(sets)
    lines = [
        "**A/A**: over all tables, each column of per cents gets a second row like the default one, with seeds of its"
    ]
    lines += [f"own: {count} claims. Mean number of verdicts on them ({sets} sets; each is alone in its family):", ""]
    return lines + _table(list(map("{} seeds".format, COUNTS)), [[f"{verdicts[n][0]:.2f}" for n in COUNTS]])


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    rows = [head, ["---"] * len(head), *body]
    return [*(f"| {' | '.join(row)} |" for row in rows), ""]


def _pair(rates: Sequence[float], digits: int = 1) -> str:
    return " / ".join(f"{100 * rate:.{digits}f}" for rate in rates)


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return 0, or 2 for a wrong argument."""
    key, _, value = (arguments[0] if arguments else "sets=2000").partition("=")
    if len(arguments) > 1 or key != "sets" or not value.isdigit() or int(value) < 1:
        print(__doc__, file=sys.stderr)
        return 2
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        print(f"{PAGE} lacks the marks {_BEGIN} and {_END}; restore them.", file=sys.stderr)
        return 2
    write_atomically(PAGE, f"{before}{begin}\n{page(int(value))}\n{end}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
