"""Look at every file that a table would read, with the code and the settings of its run, before anything is trained.

Usage: python experiments/verify.py ablation=NAME [scale=NAME] [report=FILE.json] [KEY=VALUE ...]

  ablation      a table by name, or one of one's own by its file: PATH/my_table.yaml
  scale         as for run.py (default: desk)
  row           only this row; may be given several times
  report        write all findings to this JSON file
  workers       processes that read files (default: one a core; 0: none)
  KEY=VALUE     any key of the spec, as for run.py: data=image_folder data.source.root=PATH data.classes=N

Each file is read and decoded to its end, and a clip is also read by number, as the run reads it; it is short if the
table takes more frames of it. Found are also identical files in training and testing or under two classes. Data that is
made on first use has no files. Exit status: 0 clean, 1 problems, 2 what was asked for cannot be run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    # as a script, Python looks into this folder first: the packages of the repository are one folder up
    sys.path[0] = str(ROOT)

from experiments.ablation import SCALES, Ablation, SpecError, ablation_names, load_ablation, nearest  # noqa: E402
from experiments.command import answer, spec_keys  # noqa: E402
from experiments.effects import check_effects  # noqa: E402
from experiments.needs import check_needs  # noqa: E402
from experiments.options import asks_for_help, option, read  # noqa: E402
from experiments.plan import Job, plan  # noqa: E402
from experiments.stages.stage import Stage  # noqa: E402
from mae.data.check.findings import VerifyReport  # noqa: E402
from mae.data.check.verify import verify  # noqa: E402
from mae.data.check.verify_clips import verify_clips  # noqa: E402
from mae.data.clips.sets import ClipSet  # noqa: E402
from mae.data.files.folders import Catalogue, Entry  # noqa: E402
from mae.data.files.sets import FileSet  # noqa: E402
from mae.data.pictures.folder import PictureFolder  # noqa: E402
from mae.disk import write_text  # noqa: E402

#: Lengths of clips that are tried to find out how many frames are taken.
LENGTHS = range(1, 513)


@dataclass(frozen=True)
class Options:
    """What the command line asks for, but for the keys of the spec."""

    ablation: str = ""
    scale: str = option("desk", choices=SCALES)
    rows: tuple[str, ...] = option((), key="row")
    report: Path | None = None
    workers: int | None = option(None, least=0)
    overrides: tuple[str, ...] = ()


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return its exit status."""
    if not arguments or asks_for_help(arguments):
        print(__doc__)
        print(f"Tables: {', '.join(ablation_names())}")
        return 0
    return answer(lambda: run(read(Options, arguments, spec_keys)))


def run(options: Options) -> int:
    """Look at the files of every data set that the table reads, and print what is wrong with them."""
    if not options.ablation:
        raise SpecError(f"say which table: ablation=NAME, one of {', '.join(ablation_names())}")
    table = load_ablation(options.ablation)
    for row in options.rows:
        if row not in table.rows:
            raise SpecError(f"unknown row {row!r} of {table.name}: {nearest(row, table.rows)}")
    reports = [look(stages, options.workers) for stages in by_source(jobs_of(table, options)).values()]
    for report in reports:
        print(report.text())
    if not reports:
        print(f"{table.name} at scale={options.scale} reads no files: its data is made on first use")
    if options.report:
        found = [{"clean": report.clean, **asdict(report)} for report in reports]
        write_text(options.report, json.dumps(found, indent=1) + "\n")
    return 0 if all(report.clean for report in reports) else 1


def jobs_of(table: Ablation, options: Options) -> list[Job]:
    """The trainings of a table for one seed; SpecError for all that a run refuses before it trains."""
    jobs = plan([table], options.scale, 1, options.overrides, options.rows)
    check_effects([table], options.scale, options.overrides, options.rows, "fp32")
    check_needs(jobs)
    return jobs


def by_source(jobs: Iterable[Job]) -> dict[str, list[Stage]]:
    """The stages of ``jobs`` that read files, by the data set that they read."""
    found: dict[str, list[Stage]] = {}
    for job in jobs:
        stage = job.made()
        if isinstance(stage.data_set(), FileSet):
            found.setdefault(json.dumps(stage.data.source, sort_keys=True), []).append(stage)
    return found


def look(stages: Sequence[Stage], workers: int | None) -> VerifyReport:
    """What is wrong with the files of the one data set that ``stages`` read, which do not refuse it as a whole."""
    source = stages[0].data_set()
    assert isinstance(source, FileSet)
    sides = source.sides()
    listings = {split: side for split, side in sides._asdict().items() if side}
    entries = tuple(
        Entry(split, side.classes[label] if label >= 0 else "", name)
        for split, side in listings.items()
        for label, name in zip(side.labels, side.names, strict=True)
    )
    found = Catalogue(sides.train.root, entries, {split: side.classes for split, side in listings.items()})
    progress = sys.stderr.isatty()
    if isinstance(source, ClipSet):
        report = verify_clips(found, least=max(map(frames_taken, stages)), workers=workers, progress=progress)
    else:
        assert isinstance(source, PictureFolder)
        report = verify(found, workers=workers, progress=progress, max_pixels=source.max_pixels, white=source.white)
    return replace(report, refused=())


def frames_taken(stage: Stage) -> int:
    """How many frames a clip must have for ``stage``."""
    sampling = stage.sampling()
    assert sampling is not None
    for length in LENGTHS:
        try:
            sampling.test(length, 0, 1)
        except ValueError:
            continue
        return length
    return LENGTHS.stop


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
