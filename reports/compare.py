"""Compare two sets of measurements cell by cell: what changed, and whether it is noise.

Usage: python reports/compare.py A B [ablation=NAME[,NAME]] [scale=NAME]

  A, B      each a folder of results (CSV files as in reports/results), an output folder of runs (with runs/), a
            commit (its reports/results), or a scale of the committed results
  ablation  the ablations to compare (default: all that both have)
  scale     the scale to compare (default: all that both have); not where A and B are scales

A change is noise where its 95% interval holds zero. The interval is paired over the seeds that both have, else Welch's.
Below two seeds on a side it is not known. Exit status: 0, also where something changed; 2 for what cannot be read.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
if __name__ == "__main__":
    # as a script, Python looks into this folder first: the packages of the repository are one folder up
    sys.path[:] = [str(ROOT), *(entry for entry in sys.path if Path(entry or ".").resolve() not in (HERE, ROOT))]

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from experiments.ablation import SCALES, SpecError, ablation_names, load_ablation  # noqa: E402
from experiments.command import answer  # noqa: E402
from experiments.options import asks_for_help, option, read  # noqa: E402
from experiments.record import measurements  # noqa: E402
from experiments.view import records_of  # noqa: E402
from reports.collect import EVIDENCE, collect, read_evidence, variants_in  # noqa: E402
from reports.render.phrases import measured_text  # noqa: E402
from reports.verdicts.cells import LEVEL, cells, summarise  # noqa: E402

CELL = ["table", "scale", "row", "column"]
NOISE, CHANGED, UNKNOWN, SAME = "noise", "changed", "not known: two seeds a side are needed", "the same"


@dataclass(frozen=True)
class Options:
    """What the command line asks for, besides the two sets."""

    ablation: tuple[str, ...] = ()
    scale: tuple[str, ...] = option((), choices=SCALES)


def seeds_by_cell(frame: pd.DataFrame, names: Sequence[str]) -> dict[tuple[str, str, str, str], pd.Series]:
    """Return the values by seed of every cell of the tables `names`; a cell is (table, scale, row, column)."""
    found = {}
    for name in names:
        ablation = load_ablation(name)
        for variant in variants_in(frame, name):
            here = frame[(frame["ablation"] == name) & (frame["variant"] == variant)]
            for scale in sorted(set(here["scale"])):
                for (row, column), part in cells(ablation, here, scale, variant).groupby(["row", "metric"], sort=False):
                    key = (f"{name} ({variant})" if variant else name, scale, str(row), str(column))
                    found[key] = part.set_index("seed")["value"]
    return found


def difference(before: pd.Series, after: pd.Series) -> tuple[float, float | None, float | None, str]:
    """Return the mean change, its 95% interval (None where there is none), and whether it is noise."""
    from scipy.special import stdtrit

    if before.equals(after):
        return 0.0, None, None, SAME
    both = before.index.intersection(after.index)
    if len(both) > 1:
        found = summarise((after[both] - before[both]).to_numpy())
        mean, low, high = found.mean, found.ci_low, found.ci_high
        if mean is None or low is None or high is None:
            raise AssertionError("two seeds have an interval")
    else:
        mean, low, high = float(after.mean() - before.mean()), None, None
        shares = np.array([part.var(ddof=1) / len(part) for part in (before, after) if len(part) > 1])
        if len(shares) == 2 and shares.sum() > 0:
            df = shares.sum() ** 2 / (shares**2 / np.array([len(before) - 1, len(after) - 1])).sum()
            half = float(stdtrit(df, 0.5 + LEVEL / 2)) * float(shares.sum()) ** 0.5
            low, high = mean - half, mean + half
    if low is None or high is None:
        return mean, None, None, UNKNOWN
    return mean, low, high, NOISE if low <= 0 <= high else CHANGED


def compare(before: pd.DataFrame, after: pd.DataFrame, names: Sequence[str], across: bool = False) -> pd.DataFrame:
    """Return a line for each cell that either set measured, with both values, their difference and what it is.

    `across` compares one scale of `before` with another of `after`, whatever their names.
    """
    sides = [seeds_by_cell(frame, names) for frame in (before, after)]
    if across:
        sides = [{(table, "", row, name): seeds for (table, _, row, name), seeds in side.items()} for side in sides]
    lines = []
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        left, right = (side.get(key, pd.Series(dtype="float64")) for side in sides)
        words = [measured_text(s.mean or 0.0, s.std or 0.0, s.n) for s in map(summarise, (left, right))]
        if len(left) and len(right):
            lines.append((*key, *words, *difference(left, right)))
        else:
            lines.append((*key, *words, None, None, None, "only in A" if len(left) else "only in B"))
    return pd.DataFrame(lines, columns=[*CELL, "A", "B", "difference", "ci_low", "ci_high", "what"])


def render(found: pd.DataFrame) -> str:
    """Return the lines as text, what changed first, then a count."""
    if found.empty:
        return "Neither has a cell of these tables.\n"
    order = [CHANGED, UNKNOWN, "only in A", "only in B", NOISE]
    shown = found[found["what"] != SAME].assign(place=lambda frame: frame["what"].map(order.index))
    lines = []
    for line in shown.sort_values("place", kind="stable").to_dict("records"):
        change = "" if pd.isna(line["difference"]) else f"  {line['difference']:+.2f}"
        change += "" if pd.isna(line["ci_low"]) else f" ({line['ci_low']:+.2f} to {line['ci_high']:+.2f})"
        cell = f"{line['table']} {line['scale']} {line['column']}[{line['row']}]".replace("  ", " ")
        lines.append(f"{cell}: {line['A']} -> {line['B']}{change}  {line['what']}")
    counts = ", ".join(f"{count} {what}" for what, count in found["what"].value_counts(sort=False).items())
    return "\n".join([*lines, f"{len(found)} cells: {counts}."]) + "\n"


def results(word: str) -> pd.DataFrame:
    """Return the measurements that `word` names: a folder of results or of runs, a scale, or a commit."""
    folder = Path(word).expanduser()
    if (folder / "runs").exists() or (folder / "mlflow.db").exists():
        return collect(folder / "nothing committed", measurements(records_of(folder)))
    if folder.is_dir():
        return read_evidence(folder)
    if word in SCALES:
        frame = read_evidence(EVIDENCE)
        return frame[frame["scale"] == word]
    where = EVIDENCE.relative_to(ROOT).as_posix()
    listed = subprocess.run(
        ["git", "ls-tree", "-z", "--name-only", "--end-of-options", word, f"{where}/"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        raise SpecError(f"{word!r} is no folder, no scale ({', '.join(SCALES)}) and no commit of {ROOT}; name one")
    with TemporaryDirectory() as place:
        for path in filter(None, listed.stdout.split("\0")):
            held = subprocess.run(["git", "show", f"{word}:{path}"], cwd=ROOT, capture_output=True, check=True)
            (Path(place) / Path(path).name).write_bytes(held.stdout)
        return read_evidence(Path(place))


def run(arguments: Sequence[str]) -> int:
    """Read both sets, and print what changed."""
    words = [argument for argument in arguments if "=" not in argument or Path(argument).is_dir()]
    if len(words) != 2:
        raise SpecError("name two sets of results: python reports/compare.py A B; --help says what they may be")
    options = read(Options, [argument for argument in arguments if argument not in words])
    frames = [results(word) for word in words]
    across = all(word in SCALES and not Path(word).is_dir() for word in words)
    if options.scale and not across:
        frames = [frame[frame["scale"].isin(options.scale)] for frame in frames]
    print(render(compare(frames[0], frames[1], options.ablation or ablation_names(), across)), end="")
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return its exit status."""
    if not arguments or asks_for_help(arguments):
        print(__doc__)
        return 0
    return answer(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
