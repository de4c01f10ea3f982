"""Rebuild every table, figure and page from committed results and finished runs.

Usage: python reports/build.py [out=PATH] [report_dir=PATH] [ablation=NAME[,NAME]] [scale=NAME[,NAME]]
                               [save_results=true] [save_docs=true] [check=true]

  out           folder of the runs on this machine (default: outputs in the repository); without runs
                there, the report is built from the committed results alone
  report_dir    where tables/, figures/, index.html and index.md go (default: reports in the repository)
  ablation      the ablations to rebuild (default: all)
  scale         the scales to show (default: all)
  save_results  true merges the runs on this machine into reports/results, to be committed (default: false)
  save_docs     true writes the numbers and pictures of README and docs anew from the committed results, and builds no
                report (default: false)
  check         true builds nothing and fails when README or docs quote what the committed results do not give
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
if __name__ == "__main__":
    # As a script, Python looks into this folder first; the packages of the repository are one folder up.
    sys.path[:] = [
        str(ROOT),
        *(entry for entry in sys.path if Path(entry or ".").resolve() not in (HERE, ROOT)),
    ]

import pandas as pd  # noqa: E402

from experiments.ablation import SCALES, Ablation, ablation_names, load_ablation  # noqa: E402
from experiments.command import answer, home  # noqa: E402
from experiments.options import asks_for_help, option, read  # noqa: E402
from experiments.record import Records, measurements  # noqa: E402
from experiments.view import records_of  # noqa: E402
from reports.classes import write_classes  # noqa: E402
from reports.collect import EVIDENCE, collect, save_evidence, stem, variants_in  # noqa: E402
from reports.files import write_atomically  # noqa: E402
from reports.tables import SHOWN, read_table, write_tables  # noqa: E402
from reports.trainings import gather  # noqa: E402


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    out: Path = home() / "outputs"
    report_dir: Path = home() / "reports"
    ablation: tuple[str, ...] = ()
    scale: tuple[str, ...] = option((), choices=SCALES)
    save_results: bool = False
    save_docs: bool = False
    check: bool = False


def build(
    ablations: Sequence[Ablation],
    frame: pd.DataFrame,
    report_dir: Path,
    redraw: bool = True,
    out: Path | None = None,
) -> list[Path]:
    """Write tables and figures of `ablations`, then the page over them and all of the project that were built there.

    `frame` is the merged one of `reports.collect.collect`; rows of other ablations in it are
    ignored. Without `redraw`, the figures of a table that has not changed are left as they are: drawing takes most of
    the time. Curves, pictures and provenance are taken from the runs of the folder `out` where they are not in
    `report_dir` already. Returns the files written. Raises ValueError for a specification or measurement that cannot
    be shown.
    """
    from reports.render.html import page
    from reports.render.page import index_markdown, parts_in

    written: list[Path] = []
    records = None if out is None else Records(out)
    for ablation in ablations:
        name = ablation.name
        for variant in variants_in(frame, name):
            before = _content(report_dir, name, variant)
            written += write_tables(ablation, frame, report_dir / "tables", variant)
            written += write_classes(ablation, frame, report_dir / "classes", variant)
            if redraw or None in before or before != _content(report_dir, name, variant):
                from reports.render.figures import write_figure

                written += write_figure(ablation, frame, report_dir / "figures", variant)
            if records is not None:
                shown = read_table(report_dir / "tables" / f"{stem(name, variant)}{SHOWN}.csv")
                written += gather(shown, records, report_dir)
    given = {ablation.name: ablation for ablation in ablations}
    known = [given[name] if name in given else load_ablation(name) for name in ablation_names()]
    own = [ablation for ablation in ablations if ablation.name not in ablation_names()]
    parts = parts_in([*known, *own], report_dir)
    written.append(write_atomically(report_dir / "index.html", page(parts)))
    written.append(write_atomically(report_dir / "index.md", index_markdown(parts)))
    return written


def _content(report_dir: Path, name: str, variant: str) -> list[bytes | None]:
    """The table's values, and whether its figures are there; None for what is not."""
    table = report_dir / "tables" / f"{stem(name, variant)}.csv"
    figures = [report_dir / "figures" / f"{stem(name, variant)}.{suffix}" for suffix in ("png", "svg")]
    return [table.read_bytes() if table.exists() else None, *(b"" if path.exists() else None for path in figures)]


def parse(arguments: Sequence[str]) -> Options:
    """Read KEY=VALUE arguments; SpecError says in one sentence what is wrong and what is near it."""
    options = read(Options, arguments)
    return options if options.ablation else replace(options, ablation=tuple(ablation_names()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, 1 for data that cannot be reported, or 2 for a wrong argument."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if asks_for_help(arguments):
        print(__doc__)
        return 0
    return answer(lambda: run(parse(arguments)))


def run(options: Options) -> int:
    """Collect, build, and say what was written."""
    if options.check or options.save_docs:
        return _quotes(options)
    ablations = [load_ablation(name) for name in options.ablation]
    try:
        local = measurements(records_of(options.out), [ablation.name for ablation in ablations])
        merged = collect(EVIDENCE, local)
        merged = merged[merged["scale"].isin(options.scale)] if options.scale else merged
        saved = save_evidence(local, EVIDENCE) if options.save_results else []
        written = build(ablations, merged, options.report_dir, out=options.out)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    for path in saved:
        print(f"Saved {path}.")
    print(f"{len(ablations)} ablations; {len(merged)} measurements, {len(local)} from runs here.")
    print(f"Wrote {len(written)} files; open {options.report_dir / 'index.html'}.")
    return 0


def _quotes(options: Options) -> int:
    """Check what documents quote against the committed results, or write it anew."""
    from reports.quoted import rewrite, stale

    frame = collect(EVIDENCE)
    if options.save_docs:
        for path in rewrite(ROOT, frame):
            print(f"Wrote {path}.")
    wrong = stale(ROOT, frame)
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    if wrong:
        print("Run python reports/build.py save_docs=true, or restore the results.", file=sys.stderr)
    else:
        print("README and docs quote what the committed results give.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
