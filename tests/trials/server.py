"""A tracking server that goes away: ``python -m tests.trials.server [workers=8] [away=60]``, with PostgreSQL installed.

``mlflow server`` on a PostgreSQL of its own; a smoke table with so many workers logs there, and in the middle the
server is stopped for a while. Nothing may be missing afterwards, and no training may take more than a second longer by
it. The database is reached on the loopback interface; all processes are ended by their ids.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from experiments import sync
from experiments.command import answer
from experiments.options import option, read
from experiments.record import Records
from experiments.tracking import Tracker
from experiments.view import View
from tests.trials.tables import TABLES, numbers, reference, start

BINARIES = Path("/usr/lib/postgresql/15/bin")
PORT, WEB = 15432, 15500


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    table: str = option("sampling", choices=tuple(TABLES))
    workers: int = option(8, least=1)
    away: float = option(60.0, least=1.0)
    folder: Path = Path(tempfile.gettempdir()) / "trial-server"


@contextmanager
def database(folder: Path) -> Iterator[str]:
    """A PostgreSQL in ``folder`` while the block lasts, as the user postgres where this is root; its address."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if user:
        shutil.chown(folder, "postgres")
    data = folder / "data"
    subprocess.run(
        [*user, BINARIES / "initdb", "-D", data, "-A", "trust", "-U", "mae"], check=True, stdout=subprocess.DEVNULL
    )
    options = ["-p", str(PORT), "-k", folder, "-h", "127.0.0.1"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([*user, BINARIES / "postgres", "-D", data, *options], stdout=log, stderr=log)
    try:
        for _ in range(240):
            time.sleep(0.5)
            made = subprocess.run(
                [BINARIES / "createdb", "-h", "127.0.0.1", "-p", str(PORT), "-U", "mae", "mlflow"],
                check=False,
                capture_output=True,
            )
            if made.returncode == 0:
                break
        else:
            raise SystemExit(f"PostgreSQL does not answer: see {folder / 'log'}")
        yield f"postgresql+psycopg://mae@127.0.0.1:{PORT}/mlflow"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def serve(address: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start a tracking server of one process, and wait until it answers."""
    words = ["server", "--backend-store-uri", address, "--host", "127.0.0.1", "--port", str(WEB), "--workers", "1"]
    words += ["--artifacts-destination", str(folder / "artifacts")]
    with open(folder / "server.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words], stdout=log, stderr=log, start_new_session=True
        )
    end = time.monotonic() + 600
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{WEB}/health", timeout=5):
                return process
        except OSError:
            time.sleep(1)
    raise SystemExit(f"the server does not answer: see {folder / 'server.log'}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and its own processes, which are a group of their own."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def trial(options: Options) -> int:
    """Train, take the server away, and compare."""
    expected = reference(options.table, options.folder)
    out, uri = options.folder / options.table, f"http://127.0.0.1:{WEB}"
    with database(options.folder / "postgres") as address:
        server = serve(address, options.folder)
        try:
            table = start(options.table, out, "launch=local", f"workers={options.workers}", MLFLOW_TRACKING_URI=uri)
            while not list(out.glob("runs/*/curves.jsonl")) and table.poll() is None:
                time.sleep(0.2)
            stop(server)
            gone = time.time()
            print("the server is away", flush=True)
            time.sleep(options.away)
            back, status = time.time(), table.poll()
            server = serve(address, options.folder)
            print(f"it is back after {time.time() - gone:.0f} s; the table had ended: {status is not None}", flush=True)
            if status := table.wait():
                raise SystemExit(f"the table ended with {status}: see {out}.err")
            left = View(Records(out), uri).left()
            pushed = sync.main([f"out={out}", f"to={uri}"])
            records = Records(out).finished()
            shown = {run.data.tags["fingerprint"]: run for run in Tracker(uri, out).runs("")}
            missing = [
                name for name, record in records.items()
                if name not in shown or any(shown[name].data.metrics.get(k) != v for k, v in record.results.items())
            ]  # fmt: skip
            steps = Counter({
                name: len(Tracker(uri, out).client.get_metric_history(run.info.run_id, "loss"))
                for name, run in shown.items()
            })  # fmt: skip
            short = [name for name, record in records.items() if steps[name] != len(record.curves["step"])]
        finally:
            stop(server)
    if numbers(out) != expected or missing or short or pushed:
        raise SystemExit(f"missing {missing}, cut short {short}, other numbers: {numbers(out) != expected}")
    during = [record for record in records.values() if gone < (record.ended or 0) < back]
    print(f"{len(records)} trainings, {len(during)} ended while it was away, {len(left)} pushed by sync afterwards")
    print(f"all {len(shown)} runs are shown, with every result and point of a curve; numbers equal to the last bit")
    print(f"longest pause between two logged steps: {longest_pause(out, gone, back)}")
    return 0


def longest_pause(out: Path, gone: float, back: float) -> str:
    """The longest time between two logged points of a training, while the server was away and otherwise."""
    pauses: dict[bool, float] = {True: 0.0, False: 0.0}
    for record in Records(out).finished().values():
        times = [time or 0.0 for time in record.curves["time"]]
        for before, after in pairwise(times):
            away = gone < before < back
            pauses[away] = max(pauses[away], after - before)
    return f"{pauses[True]:.2f} s while it was away, {pauses[False]:.2f} s otherwise"


if __name__ == "__main__":
    sys.exit(answer(lambda: trial(read(Options, sys.argv[1:]))))
