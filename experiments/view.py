"""A tracking store as a view of records: what is new is pushed beside the trainings, which never wait for it."""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from experiments.browse import NOTE, training_note
from experiments.database import check_database, database_of
from experiments.record import CURVES, KEPT, PICTURES, SKETCHES, DataUsed, Record, Records, as_curves, points_of
from experiments.tracking import EXPERIMENT, Entry, Tracker, table_tag, tracking_uri
from mae.disk import write_text

#: Seconds between two passes, after a pass that failed, and without an answer before a command ends without waiting.
PASS, AWAY, PATIENCE = 2.0, 30.0, 10.0

NONE: Mapping[str, object] = {}


@dataclass(frozen=True)
class Table:
    """What a store's run of a table tells."""

    name: str
    scale: str
    tags: Mapping[str, str]
    numbers: Mapping[str, float]
    files: tuple[Path, ...]

    def digest(self) -> str:
        """A digest of all of it, without the source that it was told from."""
        tags = {key: value for key, value in self.tags.items() if not key.startswith("mlflow.source.")}
        numbers = {key: float(value) for key, value in self.numbers.items()}
        digest = hashlib.blake2b(json.dumps([tags, numbers], sort_keys=True).encode(), digest_size=8)
        for path in self.files:
            digest.update(path.read_bytes())
        return digest.hexdigest()


class View:
    """The store at ``uri`` as a view of ``records``. ``out/tracking`` remembers what it shows already."""

    def __init__(self, records: Records, uri: str) -> None:
        self.records, self.uri = records, uri
        name = hashlib.blake2b(uri.encode(), digest_size=8).hexdigest()
        self.marks = records.out / "tracking" / f"{name}.json"
        self.answered = time.monotonic()
        self.problem = ""
        self._tracker: Tracker | None = None
        self._entries: dict[str, tuple[Entry, int]] = {}
        self._tables: list[Table] = []

    @property
    def tracker(self) -> Tracker:
        """The store, opened at first use; TrackingError if it does not answer."""
        if self._tracker is None:
            self._tracker = Tracker(self.uri, self.records.out)
        return self._tracker

    def shown(self) -> dict[str, str]:
        """What the store shows already: digests of records by fingerprint."""
        path = database_of(self.uri)
        try:
            found: dict[str, str] = json.loads(self.marks.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {} if path is not None and not path.exists() else found

    def left(self) -> list[str]:
        """Fingerprints of the records that the store does not show as they are now."""
        shown = self.shown()
        return [name for name in self.records.finished() if shown.get(name) != self.records.digest(name)]

    def push(self) -> int:
        """Push every record that the store does not show; return how many. Call it with the lock of the view held."""
        pushed = 0
        for name in self.left():
            record, digest = self.records.get(name), self.records.digest(name)
            if record is not None:
                self._push(record)
                write_text(self.marks, json.dumps({**self.shown(), name: digest}))
                pushed += 1
                self.answered = time.monotonic()
        return pushed

    @contextmanager
    def held(self) -> Iterator[bool]:
        """The lock of the view: one process at a time shows records, so that none shows what another has overtaken."""
        with self.records.locks.hold("tracking", wait=False) as mine:
            yield mine is not None

    def describe(
        self, table: str, scale: str, tags: Mapping[str, str], numbers: Mapping[str, float], files: Iterable[Path]
    ) -> None:
        """Let the store's run of a table tell this, once it can be reached, if it does not tell it already."""
        self._tables.append(Table(table, scale, tags, numbers, tuple(files)))

    def _tell(self) -> None:
        while self._tables:
            table = self._tables[0]
            name, digest = f"table {table.name} {table.scale}", table.digest()
            if self.shown().get(name) != digest:
                self.tracker.describe(table.name, table.scale, table.tags, table.numbers, table.files)
                marks = {**self.shown(), name: digest, EXPERIMENT: self.tracker.experiment}
                write_text(self.marks, json.dumps(marks))
                self.answered = time.monotonic()
            self._tables.pop(0)

    @property
    def experiment(self) -> str:
        """The store's number of the experiment, empty before the store was reached."""
        return self.shown().get(EXPERIMENT, "")

    def _push(self, record: Record) -> None:
        entry = self._open(record)
        entry.curves(record.curves)
        entry.config(record.spec)
        folder = self.records.of(record.fingerprint)
        if (picture := folder / PICTURES).exists():
            entry.picture(picture)
        self._sketches(entry, record.fingerprint)
        for path in (folder / KEPT).glob("*"):
            entry.kept(path)
        entry.results(record.results, record.ended or 0.0)
        entry.tags(record.environment)
        entry.close("FINISHED", record.ended)
        self._entries.pop(record.fingerprint, None)

    def _open(self, record: Record) -> Entry:
        used = DataUsed(**record.data) if record.data else None
        return self.tracker.open(record.name, _tags(record), record.parameters, record.started, used)

    def _sketches(self, entry: Entry, fingerprint: str) -> None:
        paths = {int(path.stem): path for path in (self.records.of(fingerprint) / SKETCHES).glob("[0-9]*.png")}
        if paths:
            entry.sketches(paths)

    def follow(self, last: bool = False, earlier: Mapping[str, object] = NONE) -> None:
        """Show trainings under way, but for ``earlier`` attempts that nobody has taken up.

        With ``last``, those that nobody works on any more are shown as ended.
        """
        begun = self.records.begun()
        for name, record in self.records.under_way().items():
            if begun.get(name) == earlier.get(name, ()):
                continue
            entry, seen = self._entries.get(name, (None, 0))
            if entry is None:
                entry = self._open(record)
            points = list(points_of(self.records.of(name) / CURVES, skip=seen))
            if points:
                entry.curves(as_curves(points))
                self._sketches(entry, name)
            self._entries[name] = entry, seen + len(points)
            self.answered = time.monotonic()
            if last:
                failure = self.records.failure(name)
                with self.records.locks.hold(name, wait=False) as free:
                    if free:
                        entry.tags({"error": failure.reason[:4000]} if failure else {})
                        entry.close("FAILED" if failure else "KILLED")

    @contextmanager
    def kept_up(self) -> Iterator[None]:
        """Push from a thread while the block lasts, and once more at its end; say what could not be pushed."""
        over = threading.Event()
        thread = threading.Thread(target=self._keep_up, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            self.answered = time.monotonic()
            patience = PATIENCE if database_of(self.uri) is None else math.inf  # a file always answers
            while thread.is_alive() and time.monotonic() - self.answered < patience:
                thread.join(0.1)
            why = self.problem or ("it does not answer" if thread.is_alive() else "")
            if why and (left := len(self.left())):
                print(
                    f"the tracking store lacks {left} records ({why}); they are safe in {self.records.folder}, and the "
                    f"next command pushes them, or experiments/sync.py out={self.records.out} to={shown(self.uri)}",
                    file=sys.stderr,
                )

    def _keep_up(self, over: threading.Event) -> None:
        """Show what is new, from when no other command does so until the end of this one."""
        earlier = self.records.begun()  # attempts that were given up before are none of this command's
        while True:
            ended = over.is_set()
            with self.held() as mine:
                while mine:
                    last = over.wait(AWAY if self.problem else PASS)
                    self._pass(last, earlier)
                    if last:
                        return
            if ended:  # another command shows what this one has trained
                return
            over.wait(PASS)

    def _pass(self, last: bool, earlier: Mapping[str, object]) -> None:
        try:
            self.push()
            self.follow(last, earlier)
            if last:
                self._tell()
            self.problem = ""
        except Exception as error:  # a view may fail in any way, and no training suffers from it
            self.problem = shown(" ".join(str(error).split()))[:200] or type(error).__name__

    def take_in(self) -> int:
        """Write records of the store's finished runs that have none; return how many."""
        count = 0
        marks = self.shown()
        for record in self.tracker.records(known=self.records.finished()):
            self.records.write(record)
            marks[record.fingerprint] = self.records.digest(record.fingerprint)
            count += 1
        write_text(self.marks, json.dumps(marks))
        return count


def _tags(record: Record) -> dict[str, str]:
    """What a store says of a run beside its numbers."""
    table, row = next(iter(record.tables.items()), (record.tags.get("ablation", ""), record.tags.get("row", "")))
    return {
        NOTE: training_note(table, row, record.seed, record.scale, list(record.tables)),
        **record.tags,
        "fingerprint": record.fingerprint,
        "stage": record.stage,
        "scale": record.scale,
        "seed": str(record.seed),
        "run": record.run_id,
        **{table_tag(table): row for table, row in record.tables.items()},
    }


def records_of(out: Path) -> Records:
    """The records of an output folder; what a database of MLflow holds from before there were records is taken in."""
    records = Records(out)
    uri = tracking_uri(out, own=True)
    path = database_of(uri)
    view = View(records, uri)
    if path is not None and path.exists() and not view.marks.exists():
        check_database(uri)
        if count := view.take_in():
            print(f"{count} finished runs of {path} are records in {records.folder} now", file=sys.stderr)
    return records


def shown(text: str) -> str:
    """A text without the names and passwords of the addresses in it."""
    return re.sub(r"://[^/\s]+@", "://...@", text)
