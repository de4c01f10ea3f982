"""Files are the truth: a training leaves ``out/runs/<fingerprint>/record.json``; databases and reports are views.

Beside it lie ``reconstructions.png`` and ``strip.png``, what a training shows of itself by step in ``sketches`` and
leaves besides in ``kept``, ``log.txt`` where something failed, and while it is under way ``attempt.json`` and
``curves.jsonl``. A training is finished when its record is there. Nothing here imports torch, pandas or MLflow.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.locks import Locks, locks_of
from mae.disk import write_text
from mae.errors import NotFinite, UserError

if TYPE_CHECKING:
    import pandas as pd

#: Raised when a record is written in another way; a reader refuses what is newer than it knows.
FORMAT = 1

COLUMNS = ["ablation", "variant", "row", "seed", "scale", "metric", "value", "fingerprint", "run_id"]

#: The files of a run.
RECORD, ATTEMPT, CURVES, FAILURE, LOG, PICTURES, STRIP, SKETCHES, KEPT = (
    "record.json",
    "attempt.json",
    "curves.jsonl",
    "failure.json",
    "log.txt",
    "reconstructions.png",
    "strip.png",
    "sketches",
    "kept",
)


class JobFailed(UserError, RuntimeError):
    """A training failed; the message is its sentence."""


class RecordError(UserError, RuntimeError):
    """A record cannot be read; the message names it and says what to do."""

    status = 2


@dataclass(frozen=True)
class DataUsed:
    """What a training reads: the name of a data set, a digest of what of it is read, and facts that may be shown."""

    name: str
    digest: str
    use: str
    source: Mapping[str, Any]
    profile: Mapping[str, Any]


@dataclass(frozen=True)
class Record:
    """A training: what it is from its start, and from its end on what it gave.

    ``tables`` are the tables it serves, with its row in each. ``tags`` are further words about it, ``parameters`` the
    spec's values that it reads, ``spec`` all of the spec. ``results`` go by ``<stage>/<name>``; ``environment`` names
    versions, device and commit. ``curves`` hold ``step``, ``time`` (Unix seconds) and a list as long for each curve,
    with None where it has no point. ``launch`` is the command that trained it, ``attempts`` how often it was begun or
    taken up, ``run_id`` names this run of it. ``data`` holds the fields of a ``DataUsed``.
    """

    fingerprint: str
    name: str
    stage: str
    scale: str
    seed: int
    tables: Mapping[str, str]
    tags: Mapping[str, str]
    parameters: Mapping[str, Any]
    spec: Mapping[str, Any]
    launch: str = ""
    attempts: int = 1
    run_id: str = field(default_factory=lambda: secrets.token_hex(16))
    started: float = field(default_factory=time.time)
    ended: float | None = None
    results: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    curves: Mapping[str, list[float | None]] = field(default_factory=dict)
    data: Mapping[str, Any] | None = None

    def text(self) -> str:
        """What its file holds."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=None, separators=(",", ":"))

    @classmethod
    def read(cls, path: Path) -> Record:
        """The record in a file; RecordError if it is damaged, or newer than this code."""
        return cls.of(path.read_bytes(), path)

    @classmethod
    def of(cls, content: bytes, path: Path) -> Record:
        """The record that is the ``content`` of a file."""
        try:
            raw = json.loads(content)
            version = raw.pop("format")
            if version <= FORMAT:
                return cls(**raw)
            why = f"it has format {version}, and this code knows up to {FORMAT}: use the newer code for this out"
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            why = f"{type(error).__name__}: {error}; delete that file to train this run again (no other is touched)"
        raise RecordError(f"the record {path} cannot be read: {why}")


@dataclass(frozen=True)
class Failure:
    """A training that failed: ``reason`` in a sentence, ``kind`` the class of the error, ``log`` what it left."""

    fingerprint: str
    name: str
    kind: str
    reason: str
    log: str
    launch: str = ""

    def error(self) -> Exception:
        """What to raise where a failed training is the end of it all; a divergence is told from the rest."""
        kind = NotFinite if self.kind == NotFinite.__name__ else JobFailed
        return kind(f"{self.name}: {self.reason}; its log: {self.log}")


class Records:
    """The runs of an output folder."""

    def __init__(self, out: Path, locks: Locks | None = None) -> None:
        self.out, self.folder = out, out / "runs"
        self.locks = locks or locks_of(out)
        self._read: dict[Path, tuple[tuple[int, int], Record, str]] = {}

    def of(self, fingerprint: str) -> Path:
        """The folder of a run."""
        return self.folder / fingerprint

    def digest(self, fingerprint: str) -> str:
        """A digest of a record as it stands in its file, empty without one."""
        path = self.of(fingerprint) / RECORD
        return self._read[path][2] if self._at(path) else ""

    def get(self, fingerprint: str) -> Record | None:
        """The record of a training, None if it is not finished."""
        return self._at(self.of(fingerprint) / RECORD)

    def finished(self) -> dict[str, Record]:
        """All records by fingerprint, in the order in which they ended."""
        found = [record for path in self.folder.glob(f"*/{RECORD}") if (record := self._at(path))]
        return {record.fingerprint: record for record in sorted(found, key=lambda record: record.ended or 0.0)}

    def under_way(self) -> dict[str, Record]:
        """What has begun, and has neither finished nor been forgotten."""
        paths = [path for path in self.folder.glob(f"*/{ATTEMPT}") if not (path.parent / RECORD).exists()]
        return {record.fingerprint: record for path in paths if (record := self._at(path))}

    def begun(self) -> dict[str, tuple[int, int]]:
        """A sign of each attempt, which is another one when the attempt is taken up."""
        found = {}
        for path in self.folder.glob(f"*/{ATTEMPT}"):
            with suppress(FileNotFoundError):
                stat = path.stat()
                found[path.parent.name] = (stat.st_ino, stat.st_mtime_ns)
        return found

    def failures(self, launches: Collection[str]) -> dict[str, Failure]:
        """What failed under some commands."""
        found = [_failure(path) for path in self.folder.glob(f"*/{FAILURE}")]
        return {failure.fingerprint: failure for failure in found if failure and failure.launch in launches}

    def failure(self, fingerprint: str) -> Failure | None:
        """How the last attempt at a training failed, None if it did not."""
        return _failure(self.of(fingerprint) / FAILURE)

    def fail(self, fingerprint: str, kind: str, reason: str, trace: str) -> None:
        """Say that the training under way failed, and why; what it has written stays for the next attempt."""
        folder = self.of(fingerprint)
        record, log = Record.read(folder / ATTEMPT), folder / LOG
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {record.name}\n{trace.rstrip()}\n\n")
        failure = Failure(fingerprint, record.name, kind, reason, str(log), record.launch)
        write_text(folder / FAILURE, json.dumps(asdict(failure)))

    def write(self, record: Record) -> None:
        """Put a record in its place in one step; OSError when the disk will not take it."""
        write_text(self.of(record.fingerprint) / RECORD, record.text())

    def place(self, cells: Mapping[str, Mapping[str, str]], now: Mapping[tuple[str, str, int, str, str], str]) -> None:
        """Let finished runs name every table they serve, and take them out of cells whose spec has changed since.

        ``cells`` hold ``{table: row}`` by fingerprint, ``now`` the fingerprint of each cell by (table, row, seed,
        stage, scale).
        """

        def placed(record: Record) -> Record:
            print_, seed = record.fingerprint, record.seed
            kept = {
                table: row
                for table, row in record.tables.items()
                if now.get((table, row, seed, record.stage, record.scale), print_) == print_
            }
            return replace(record, tables={**kept, **cells.get(print_, {})})

        self._change(placed)

    def tag(self, fingerprint: str, tags: Mapping[str, str]) -> None:
        """Add words about a finished run."""
        self._change(lambda r: replace(r, tags={**r.tags, **tags}) if r.fingerprint == fingerprint else r)

    def _change(self, changed: Callable[[Record], Record]) -> None:
        """Rewrite the records that ``changed`` changes; two processes do so one after the other."""
        if not any(changed(record) != record for record in self.finished().values()):
            return
        with self.locks.hold("records"):
            for record in self.finished().values():  # another process may have changed them meanwhile
                if (new := changed(record)) != record:
                    self.write(new)

    def _at(self, path: Path) -> Record | None:
        """The record in a file, read again only if the file is another; None if there is none."""
        try:
            stat = path.stat()
            sign = (stat.st_ino, stat.st_mtime_ns)
            if path not in self._read or self._read[path][0] != sign:
                content = path.read_bytes()
                digest = hashlib.blake2b(content, digest_size=8).hexdigest()
                self._read[path] = sign, Record.of(content, path), digest
        except FileNotFoundError:
            return None
        return self._read[path][1]


def _failure(path: Path) -> Failure | None:
    try:
        return Failure(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


class Journal:
    """A training while it is under way. What it says survives the end of the process at any moment."""

    def __init__(self, folder: Path, record: Record) -> None:
        """Begin a training, or take up the attempt that ``folder`` holds, whose points of curves stay."""
        self.folder, self.path = folder, folder / CURVES
        (folder / FAILURE).unlink(missing_ok=True)
        fresh = not (folder / ATTEMPT).exists()
        self.record = _taken_up(folder / (RECORD if fresh else ATTEMPT), record, same=not fresh)
        write_text(folder / ATTEMPT, self.record.text())
        points = [] if fresh else list(points_of(self.path))
        self._last = max((point["step"] for point in points), default=-1)
        if points:  # a process that was killed in the middle of a line has left a part of it
            write_text(self.path, "".join(f"{json.dumps(point)}\n" for point in points))
        else:
            self.path.unlink(missing_ok=True)

    def point(self, step: int, share: float, values: Mapping[str, float]) -> None:
        """A point of each curve, and the ``share`` of the training that is done; what is known already stays."""
        if step <= self._last:
            return
        self._last = step
        line = {"step": step, "time": round(time.time(), 3), "share": round(share, 5), **values}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(f"{json.dumps(line)}\n")

    def finish(self, results: Mapping[str, float], environment: Mapping[str, Any]) -> Record:
        """Write the record: from here on the training counts as finished."""
        done = replace(
            self.record,
            ended=time.time(),
            results={key: float(value) for key, value in results.items()},
            environment={key: str(value) for key, value in environment.items()},
            curves=as_curves(list(points_of(self.path))),
        )
        write_text(self.folder / RECORD, done.text())
        for name in (ATTEMPT, CURVES, FAILURE, LOG):
            (self.folder / name).unlink(missing_ok=True)
        return done


def _taken_up(path: Path, record: Record, same: bool) -> Record:
    """``record`` after an earlier attempt or record in a file, as the ``same`` run; a damaged one is begun anew."""
    try:
        earlier = Record.read(path)
    except (FileNotFoundError, RecordError):
        return record
    found = replace(record, attempts=earlier.attempts + 1)
    return replace(found, run_id=earlier.run_id, started=earlier.started) if same else found


def points_of(path: Path, skip: int = 0) -> Iterator[dict[str, float]]:
    """The points of a training under way after the first ``skip``, a mapping for each logged step."""
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file):
                if number >= skip and line.endswith("\n"):
                    yield json.loads(line)
    except (FileNotFoundError, ValueError):
        return


def as_curves(points: Sequence[Mapping[str, float]]) -> dict[str, list[float | None]]:
    """Points as lists by curve, as a record holds them."""
    keys = dict.fromkeys(key for point in points for key in point if key != "share")
    return {key: [point.get(key) for point in points] for key in keys}


def measurements(records: Records, ablations: Iterable[str] | None = None) -> pd.DataFrame:
    """Results of finished runs, one line for each table cell they serve; empty when there are none.

    Columns: ``ablation, variant, row, seed, scale, metric, value, fingerprint, run_id``.
    """
    import pandas as pd

    wanted = None if ablations is None else set(ablations)
    lines = []
    for record in records.finished().values():
        for table, row in record.tables.items():
            ablation, _, variant = table.partition("--")
            if wanted is None or ablation in wanted:
                cell, identity = (
                    (ablation, variant, row, record.seed, record.scale),
                    (record.fingerprint, record.run_id),
                )
                lines += [(*cell, metric, value, *identity) for metric, value in record.results.items()]
    frame: pd.DataFrame = pd.DataFrame(lines, columns=COLUMNS)
    return frame
