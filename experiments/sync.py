"""Bring records together: show those of this machine in a tracking store, or take in those of another.

Usage: python experiments/sync.py [out=PATH] [to=URI] [from=FOLDER|URI]

  out           the output folder whose records are meant (default: outputs)
  to            a tracking server or database to show them in: http://HOST:PORT, postgresql://USER@HOST/NAME,
                sqlite:////PATH.db (default, where there is no from: MLFLOW_TRACKING_URI, else the database of out)
  from          an output folder of another machine whose records are taken in, or a tracking store, whose finished runs
                become records; a training that has a record here keeps it

Both may be done again at any time: what is there already is left alone. Exit status: 0 done, 1 it failed,
2 what was asked for cannot be done.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    # as a script, Python looks into this folder first: the packages of the repository are one folder up
    sys.path[0] = str(ROOT)

from experiments.ablation import SpecError  # noqa: E402
from experiments.command import answer, home, make_out  # noqa: E402
from experiments.database import check_database, database_of  # noqa: E402
from experiments.options import asks_for_help, option, read  # noqa: E402
from experiments.record import ATTEMPT, CURVES, FAILURE, LOG, RECORD, Records  # noqa: E402
from experiments.tracking import tracking_uri  # noqa: E402
from experiments.view import View, records_of, shown  # noqa: E402


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    out: Path = home() / "outputs"
    to: str = ""
    source: str = option("", key="from")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if asks_for_help(arguments):
        print(__doc__)
        return 0
    return answer(lambda: run(read(Options, arguments)))


def run(options: Options) -> int:
    """Take in, then push, and say how many."""
    make_out(options.out)
    records = records_of(options.out)
    if options.source:
        count = _take_in(records, options.source)
        print(f"{count} records taken in from {shown(options.source)}; {len(records.finished())} are in {options.out}")
    if options.to or not options.source:
        uri = options.to or tracking_uri(options.out)
        check_database(uri)
        view = View(records, uri)
        with view.held() as mine:
            if not mine:
                raise SpecError(f"another command shows what is in {options.out} just now; run this when it has ended")
            print(f"{view.push()} records pushed to {shown(uri)}; it shows all {len(records.finished())}")
    return 0


def _take_in(records: Records, source: str) -> int:
    """Take in what ``source`` has and ``records`` lack; return how many. SpecError if it holds no records."""
    if "://" in source:
        check_database(source)
        path = database_of(source)
        if path is not None and not path.exists():
            raise SpecError(f"from={source}: there is no such database")
        return View(records, source).take_in()
    other = Path(source).expanduser().resolve()
    if not (other / "runs").is_dir() and not (other / "mlflow.db").exists():
        raise SpecError(f"from={source} is no output folder: it has neither runs/ nor mlflow.db")
    theirs = Records(other)
    if not theirs.folder.is_dir():
        return View(records, tracking_uri(other, own=True)).take_in()
    known, count = records.finished(), 0
    for fingerprint, record in theirs.finished().items():
        if fingerprint not in known:
            others = shutil.ignore_patterns(RECORD, ATTEMPT, CURVES, FAILURE, LOG)
            shutil.copytree(theirs.of(fingerprint), records.of(fingerprint), ignore=others, dirs_exist_ok=True)
            records.write(record)
            count += 1
    return count


if __name__ == "__main__":
    sys.exit(main())
