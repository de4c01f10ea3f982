"""Fifty times kill -9 at random moments: ``python -m tests.trials.kills [kills=50] [table=pictures|clips] [seed=0]``.

A smoke table runs with ``launch=local``. Again and again its parent, a worker or a decoder of films is killed; a
command that is gone is typed again. In the end the numbers must be those of an undisturbed table, and no run may be
left running.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

from experiments.command import answer
from experiments.options import option, read
from tests.trials.tables import descendants, kill, kind_of, reference, start, verdict


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    kills: int = option(50, least=1)
    table: str = option("pictures", choices=("pictures", "clips"))
    workers: int = option(2, least=1)
    most: float = option(20.0, least=0.1)
    seed: int = 0
    folder: Path = Path(tempfile.gettempdir()) / "trial-kills"


def trial(options: Options) -> int:
    """Kill, type the command again, and compare."""
    expected = reference(options.table, options.folder)
    chance, killed, rounds = Random(options.seed), Counter[str](), 0
    while sum(killed.values()) < options.kills:
        out = options.folder / f"{options.table}-{options.seed}-{rounds}"
        words = ("launch=local", f"workers={options.workers}")
        process, begun = start(options.table, out, *words), 1
        while True:
            time.sleep(chance.uniform(0.2, options.most))
            if process.poll() == 0:
                break
            if process.poll() is not None:  # killed, or given up after its workers were
                process, begun = start(options.table, out, *words), begun + 1
                continue
            if sum(killed.values()) < options.kills:
                below = {pid: kind_of(pid) for pid in descendants(process.pid)}
                kinds = {"parent": [process.pid]}
                for pid, kind in below.items():
                    if kind in ("worker", "decoder"):
                        kinds.setdefault(kind, []).append(pid)
                kind = chance.choice(sorted(kinds))
                if kill(chance.choice(kinds[kind])):
                    killed[kind] += 1
                if kind == "parent":
                    process.wait()
                    until = time.monotonic() + 60
                    while any(kind_of(pid) != "gone" for pid in below) and time.monotonic() < until:
                        time.sleep(0.1)
                    assert all(kind_of(pid) in ("gone", "helper") for pid in below), "workers outlive their parent"
        print(f"round {rounds}: {begun} commands, kills so far {dict(killed)}; {verdict(out, expected)}", flush=True)
        rounds += 1
    print(f"{sum(killed.values())} kills in {rounds} tables: {dict(killed)}")
    return 0


if __name__ == "__main__":
    sys.exit(answer(lambda: trial(read(Options, sys.argv[1:]))))
