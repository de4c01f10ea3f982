"""A search by four processes on a real PostgreSQL, one of which is killed, then resumed, then looked at in a browser.

Usage: python -m tests.trials.search_postgres [FOLDER]

Each process has an output folder of its own, as on a machine of its own: they share nothing but the database. Needs
the extra `postgres` and the programs of PostgreSQL; the browser needs optuna-dashboard, selenium, chromium and
chromedriver. What is missing is said, and skipped. Everything is written to FOLDER (default: a temporary one), and
everything listens on 127.0.0.1. Exit status: 0 shown or skipped, 1 something was not as it should be.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.context import ForkProcess as Process
from pathlib import Path
from typing import Any

import experiments.execute
import experiments.searching.study
import reports.trials
from experiments.search import main as command
from experiments.tracking import Tracker, tracking_uri

PROCESSES, TRIALS, MORE = 4, 10, 2
STUDY = "four_processes"

#: What a search imports when it comes to that: here it is loaded before the processes are forked.
LOADED = (experiments.execute, experiments.searching.study, reports.trials)

#: Small enough for seconds a trial; the database and the processes are what is looked at.
FEW = ["data.samples.pretrain=32", "data.samples.train=20", "data.samples.test=20"]


def missing() -> str | None:
    """What the search lacks here, None if it can be shown."""
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg: pip install -e '.[postgres]'"
    return None if programs() else "PostgreSQL: its programs in PATH or below /usr/lib/postgresql"


def programs() -> Path | None:
    """The folder of PostgreSQL's programs: in PATH, or the newest of Debian's."""
    needed = ("initdb", "postgres", "pg_isready", "createdb")
    folders = [Path(p) for p in os.environ.get("PATH", "").split(os.pathsep)]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"))[::-1]
    return next((folder for folder in folders if all((folder / name).is_file() for name in needed)), None)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(what: str, holds: Callable[[], bool], seconds: float = 1200.0) -> None:
    """Wait until something holds; SystemExit, which says what, if it takes too long."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            raise SystemExit(f"FAILED: {what} did not come about within {seconds:.0f} s")
        time.sleep(0.5)


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """A PostgreSQL of its own; the address of an empty database in it. It refuses to run as root."""
    bin_folder = programs()
    assert bin_folder is not None
    user = "postgres" if os.geteuid() == 0 else None
    folder.mkdir()
    if user:
        shutil.chown(folder, user)
    data, port = folder / "data", free_port()
    subprocess.run(
        [bin_folder / "initdb", "-D", data, "-U", "mae", "-A", "trust", "--no-sync"],
        check=True,
        stdout=subprocess.DEVNULL,
        user=user,
        cwd=folder,
    )
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(
            [bin_folder / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", folder],
            stdout=log,
            stderr=log,
            user=user,
            cwd=folder,
        )
    at = ["-h", "127.0.0.1", "-p", str(port), "-U", "mae"]
    try:
        ready = [bin_folder / "pg_isready", "-q", *at]
        wait_for("an answer of PostgreSQL", lambda: subprocess.run(ready, check=False).returncode == 0, 60)
        subprocess.run([bin_folder / "createdb", *at, "trials"], check=True)
        yield f"postgresql://mae@127.0.0.1:{port}/trials"
    finally:
        process.send_signal(signal.SIGINT)  # it drops its connections and ends
        process.wait(60)


def search(url: str, folder: Path, number: int, trials: int) -> Process:
    """One process of the search. It is forked, so that what all of them import is loaded and held in memory once."""
    process = get_context("fork").Process(target=_search, args=(url, folder, number, trials))
    process.start()
    return process


def _search(url: str, folder: Path, number: int, trials: int) -> None:
    with open(folder / f"machine{number}.log", "ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    out = folder / f"machine{number}"
    asked = ["search=masking_ratio", "scale=smoke", f"trials={trials}", f"study={STUDY}", f"storage={url}", "confirm=0"]
    status = command([*asked, f"out={out}", f"report_dir={out}/reports", *FEW])
    sys.stdout.flush()
    sys.exit(status)


def make_tracking(folder: Path) -> None:
    """A tracking database for each process: the migrations, which take seconds, are made once."""
    first, *others = (folder / f"machine{number}" for number in range(PROCESSES))
    Tracker(tracking_uri(first), first)
    for other in others:
        other.mkdir(parents=True, exist_ok=True)
        shutil.copy(first / "mlflow.db", other)


class Looked:
    """The trials in the database, as Optuna reads them."""

    def __init__(self, url: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.storage = optuna.storages.RDBStorage(url.replace("postgresql://", "postgresql+psycopg://"))

    def states(self) -> Counter[str]:
        return Counter(trial.state.name for trial in self.trials())

    def trials(self) -> list[Any]:
        found = {study.study_name: study._study_id for study in self.storage.get_all_studies()}
        return self.storage.get_all_trials(found[STUDY]) if STUDY in found else []


def check(what: str, holds: bool) -> None:
    print(f"{'ok' if holds else 'FAILED'}: {what}", flush=True)
    if not holds:
        raise SystemExit(1)


def finish(processes: list[Process], folder: Path) -> None:
    for process in processes:
        process.join(1800)
        check(f"process {process.pid} ended with status {process.exitcode} (logs: {folder})", process.exitcode == 0)


def show(url: str, folder: Path) -> None:
    """Make the trials, kill one process in the middle of one, and count what is there at the end."""
    make_tracking(folder)
    begun = time.monotonic()
    print(f"{PROCESSES} processes begin at once on an empty database", flush=True)
    processes = [search(url, folder, number, TRIALS) for number in range(PROCESSES)]
    try:
        wait_for("the study", lambda: _alive(processes) and _there(url))
        looked = Looked(url)
        of_each = f"a trial of each of {PROCESSES} processes"
        wait_for(of_each, lambda: _alive(processes) and looked.states()["RUNNING"] == PROCESSES)
        processes[0].kill()
        killed = time.monotonic()
        print(f"killed process {processes[0].pid} after {killed - begun:.0f} s: {dict(looked.states())}", flush=True)
        finish(processes[1:], folder)
    finally:
        for process in processes:
            process.kill()
    ended = time.monotonic()
    states, trials = looked.states(), looked.trials()
    print(f"the others ended {ended - killed:.0f} s later: {dict(states)}", flush=True)
    check(f"exactly {TRIALS} trials are finished", states["COMPLETE"] + states["PRUNED"] == TRIALS)
    check("none is stuck or left over", not states["RUNNING"] and not states["WAITING"])
    history = {trial.number: trial.system_attrs.get("retry_history") for trial in trials}
    again = [number for number, before in history.items() if before and trials[number].state.name == "COMPLETE"]
    check(f"one trial was made again, at its point: {history[again[0]] if again else None} as {again}", len(again) == 1)
    check("at the same point", trials[again[0]].params == trials[history[again[0]][0]].params)
    finish([search(url, folder, 0, TRIALS)], folder)
    check("the killed process, started again, finds nothing left to do", looked.states() == states)
    finish([search(url, folder, 0, TRIALS + MORE)], folder)
    check(f"resumed, the study has {TRIALS + MORE}", looked.states()["COMPLETE"] == TRIALS + MORE)


def _alive(processes: list[Process]) -> bool:
    """SystemExit if a process has ended before its time."""
    if gone := [process.pid for process in processes if process.exitcode is not None]:
        raise SystemExit(f"FAILED: process {gone[0]} has ended; its log says why")
    return True


def _there(url: str) -> bool:
    """Whether the tables of Optuna have been made."""
    import psycopg

    tables = "SELECT to_regclass('trials') IS NOT NULL AND to_regclass('alembic_version') IS NOT NULL"
    with psycopg.connect(url) as connection:
        found = connection.execute(tables).fetchone()
        return bool(found and found[0])


def browse(url: str, folder: Path) -> None:
    """Open the study in optuna-dashboard, as a person would, and keep pictures of it."""
    lacking = [name for name in ("optuna_dashboard", "selenium") if importlib.util.find_spec(name) is None]
    lacking += [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if lacking:
        print(f"SKIPPED: the browser, which needs {', '.join(lacking)}", flush=True)
        return
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    port = free_port()
    address = url.replace("postgresql://", "postgresql+psycopg://")
    dashboard = subprocess.Popen(
        [Path(sys.executable).parent / "optuna-dashboard", address, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1400,1600",
    ):
        options.add_argument(flag)
    browser = None
    try:
        wait_for("an answer of optuna-dashboard", lambda: _listens(port), 120)
        browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        page = browser
        for name, path, words in (
            ("studies", "", STUDY),
            ("history", "/studies/1", "mask.ratio"),
            ("trials", "/studies/1/trials", "complete"),
        ):
            page.get(f"http://127.0.0.1:{port}/dashboard{path}")
            shown = lambda: words in page.execute_script("return document.body.innerText").lower()  # noqa: B023, E731
            wait_for(f"{words!r} on the page {name}", shown, 120)
            time.sleep(2)  # charts are drawn after their words
            page.save_screenshot(str(folder / f"dashboard_{name}.png"))
            print(f"ok: the dashboard shows {words!r}: {folder / f'dashboard_{name}.png'}", flush=True)
    finally:
        if browser is not None:
            browser.quit()
        dashboard.terminate()
        dashboard.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main(arguments: list[str]) -> int:
    if lacks := missing():
        print(f"SKIPPED: a search by several processes on PostgreSQL, which needs {lacks}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the server is ended with it
    folder = Path(arguments[0] if arguments else tempfile.mkdtemp(prefix="search_postgres_")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # the user that runs the server reads its part
    with server(folder / "postgres") as url:
        show(url, folder)
        browse(url, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
