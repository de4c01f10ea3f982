"""Identical commands at once on one folder: ``python -m tests.trials.together [commands=4] [locks=file|lease]``.

Every training must be begun exactly once, which the records tell, and all must print the same table.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from experiments.command import answer
from experiments.options import option, read
from experiments.record import Records
from tests.trials.tables import reference, start, verdict


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    commands: int = option(4, least=2)
    locks: str = option("file", choices=("file", "lease"))
    table: str = option("pictures", choices=("pictures", "clips"))
    folder: Path = Path(tempfile.gettempdir()) / "trial-together"


def trial(options: Options) -> int:
    """Start them at once, and compare."""
    expected = reference(options.table, options.folder)
    out = options.folder / f"{options.table}-{options.commands}-{options.locks}"
    started = [start(options.table, out, "workers=1", f"locks={options.locks}") for _ in range(options.commands)]
    statuses = [process.wait() for process in started]
    if any(statuses):
        raise SystemExit(f"they ended with {statuses}: see {out}.err")
    tables = Counter(re.findall(r"^row .*?^-+$.*?^-+$", Path(f"{out}.out").read_text(), re.MULTILINE | re.DOTALL))
    records = Records(out).finished().values()
    if any(record.attempts != 1 for record in records):
        raise SystemExit(f"begun so often: {[record.attempts for record in records]}")
    shares = Counter(record.launch for record in records)
    print(
        f"{options.commands} commands: {verdict(out, expected)}; each begun once; "
        f"trainings by command {sorted(shares.values())}"
    )
    print(f"different tables printed: {len(tables)}, each {sorted(tables.values())} times")
    return 0 if len(tables) == 1 else 1


if __name__ == "__main__":
    sys.exit(answer(lambda: trial(read(Options, sys.argv[1:]))))
