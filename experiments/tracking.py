"""Every run in MLflow: the only file that imports it."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mae.disk import locked
from mae.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Metric, Run

EXPERIMENT = "masked-autoencoders"

#: Tags that place a run in a table: ``table.<ablation>[--<variant>] = <row>``, one for each table it serves.
TABLE_TAG = "table."

# MLflow's keys hold letters, digits and _ - . : / and space; names of tables also hold these, for the user's overrides
_TO_KEY = str.maketrans("=+,", ":/ ")
_FROM_KEY = str.maketrans(":/ ", "=+,")

COLUMNS = ["ablation", "variant", "row", "seed", "scale", "metric", "value", "fingerprint", "run_id"]

T = TypeVar("T")


def table_tag(table: str) -> str:
    """The key of the tag that places a run in a table."""
    return TABLE_TAG + table.translate(_TO_KEY)


def tables_of(tags: Mapping[str, str]) -> dict[str, str]:
    """The tables that a run serves, and its row in each."""
    return {
        key.removeprefix(TABLE_TAG).translate(_FROM_KEY): row for key, row in tags.items() if key.startswith(TABLE_TAG)
    }


class TrackingError(UserError, RuntimeError):
    """The tracking store cannot be used; the message says why and what to do."""

    status = 2


def tracking_uri(out: Path) -> str:
    """``MLFLOW_TRACKING_URI`` if it is set, else the SQLite database of ``out``, as an absolute URI."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{out.resolve() / 'mlflow.db'}"


def _database(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def stored(uri: str) -> bool:
    """Whether there is a store at ``uri``; of a server it is taken for granted."""
    path = _database(uri)
    return path is None or path.exists()


def check_database(uri: str) -> None:
    """Refuse a database file that is not whole or cannot be written, before MLflow touches it."""
    path = _database(uri)
    if path is None or not path.exists():
        return
    try:
        with sqlite3.connect(path, timeout=60) as connection:
            verdict = connection.execute("PRAGMA quick_check").fetchone()[0]
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.Error as error:
        verdict, tables = str(error), set()
    if verdict == "ok" and (not tables or {"runs", "alembic_version"} <= tables):
        return
    reason = verdict if verdict != "ok" else "it was only half created"
    raise TrackingError(
        f"the tracking database {path} cannot be used ({reason}); make it writable, or move it away (checkpoints "
        f"stay, results in it are lost to the report) and run the same command again, or choose another out=PATH"
    )


def _move_artifacts(database: Path, before: str, now: str) -> None:
    """Let an experiment and its runs find their artifacts where the folder of the database has been moved to."""
    with sqlite3.connect(database, timeout=60) as connection:
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?", (now, before))
        connection.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) WHERE substr(artifact_uri, 1, ?) = ?",
            (now, len(before) + 1, len(before) + 1, f"{before}/"),
        )


def _patient(call: Callable[[], T]) -> T:
    """Try again while another process holds SQLite's lock."""
    for attempt in range(60):
        try:
            return call()
        except Exception as error:  # MLflow wraps the driver's error in one of several classes
            if "database is locked" not in str(error) or attempt == 59:
                raise
            time.sleep(0.25)
    raise AssertionError("unreachable")


class Tracker:
    """A store of runs. Opening it creates the database and the experiment once, under a lock."""

    def __init__(self, uri: str, out: Path) -> None:
        self.uri = uri
        check_database(uri)
        for name in ("mlflow", "alembic", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.ERROR)
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        out.mkdir(parents=True, exist_ok=True)
        try:
            with locked(out / "tracking.lock"):
                self.client = MlflowClient(tracking_uri=uri)
                found = self.client.get_experiment_by_name(EXPERIMENT)
                location = (out.resolve() / "artifacts").as_uri() if _database(uri) else None
                if found is None:
                    kind = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens on runs, not on traces
                    self.experiment = self.client.create_experiment(EXPERIMENT, location, kind)
                else:
                    self.experiment = found.experiment_id
                    if found.lifecycle_stage == "deleted":  # its runs are there, and no other may have its name
                        self.client.restore_experiment(self.experiment)
                    if location and found.artifact_location != location:
                        _move_artifacts(cast(Path, _database(uri)), found.artifact_location, location)
        except (MlflowException, OSError) as error:
            raise TrackingError(f"cannot open the tracking store {uri}: {error}; check MLFLOW_TRACKING_URI") from error

    def runs(self, query: str) -> Iterator[Run]:
        """All runs that match an MLflow filter, page by page."""
        token: str | None = None
        while True:
            page = self.client.search_runs([self.experiment], query, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def finished(self) -> dict[str, Run]:
        """Finished runs by fingerprint."""
        return {run.data.tags["fingerprint"]: run for run in self.runs("attributes.status = 'FINISHED'")}

    def place(self, run: Run, cells: Mapping[str, str]) -> None:
        """Tag a finished run with the tables it serves (``{table: row}``)."""
        for table, row in cells.items():
            if run.data.tags.get(table_tag(table)) != row:
                _patient(lambda t=table, r=row: self.client.set_tag(run.info.run_id, table_tag(t), r))  # type: ignore[misc]

    def displace(self, run: Run, now: Mapping[tuple[str, str, int, str, str], str]) -> None:
        """Take a run out of cells whose spec has changed since.

        ``now`` holds the fingerprint of each cell, by (table, row, seed, stage, scale).
        """
        tags = run.data.tags
        for table, row in tables_of(tags).items():
            cell = (table, row, int(tags["seed"]), tags["stage"], tags["scale"])
            if now.get(cell, tags["fingerprint"]) != tags["fingerprint"]:
                _patient(lambda t=table: self.client.delete_tag(run.info.run_id, table_tag(t)))  # type: ignore[misc]

    def open(self, name: str, tags: Mapping[str, str], parameters: Mapping[str, Any]) -> Record:
        """Start the run of a fingerprint, or take up the one that an earlier attempt left."""
        earlier = list(self.runs(f"tags.fingerprint = '{tags['fingerprint']}'"))
        if earlier:
            run = earlier[0]
            _patient(lambda: self.client.set_terminated(run.info.run_id, "RUNNING"))
        else:
            all_tags = {**tags, "mlflow.runName": name}
            run = _patient(lambda: self.client.create_run(self.experiment, tags=all_tags))
        record = Record(self, run.info.run_id)
        if earlier:
            record.tags(tags)  # it may serve more tables by now
        else:
            record.parameters(parameters)
        return record


@dataclass
class Record:
    """One run while it is being made. Curve points are buffered and written in batches."""

    tracker: Tracker
    run_id: str
    _buffer: list[Metric] = field(default_factory=list)
    _last_step: int | None = None
    _flushed: float = field(default_factory=time.monotonic)

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Short, immutable facts; long values are in the resolved config."""
        from mlflow.entities import Param

        found = [Param(key, str(value)[:500]) for key, value in values.items()]
        for start in range(0, len(found), 100):
            _patient(lambda s=start: self.tracker.client.log_batch(self.run_id, params=found[s : s + 100]))  # type: ignore[misc]

    def tags(self, values: Mapping[str, Any]) -> None:
        from mlflow.entities import RunTag

        found = [RunTag(key, str(value)) for key, value in values.items()]
        _patient(lambda: self.tracker.client.log_batch(self.run_id, tags=found))

    def curve(self, step: int, values: Mapping[str, float]) -> None:
        """A point of each curve. A resumed run passes over points that its earlier attempt has written."""
        from mlflow.entities import Metric

        if self._last_step is None:
            history = self.tracker.client.get_metric_history(self.run_id, "loss")
            self._last_step = max((metric.step for metric in history), default=-1)
        if step <= self._last_step:
            return
        now = int(time.time() * 1000)
        self._buffer += [Metric(key, float(value), now, step) for key, value in values.items()]
        if time.monotonic() - self._flushed > 10:
            self.flush()

    def flush(self) -> None:
        for start in range(0, len(self._buffer), 1000):
            part = self._buffer[start : start + 1000]
            _patient(lambda p=part: self.tracker.client.log_batch(self.run_id, metrics=p))  # type: ignore[misc]
        self._buffer, self._flushed = [], time.monotonic()

    def config(self, spec: Mapping[str, Any]) -> None:
        self.tracker.client.log_dict(self.run_id, dict(spec), "spec.yaml")

    def picture(self, path: Path) -> None:
        self.tracker.client.log_artifact(self.run_id, str(path), "reconstructions")

    def finish(self, results: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Write the results (``<stage>/<name>``) and close the run: from here on it counts as finished."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._buffer += [Metric(key, float(value), now, 0) for key, value in results.items()]
        self.flush()
        self.tags(tags)
        _patient(lambda: self.tracker.client.set_terminated(self.run_id, "FINISHED"))

    def fail(self, reason: str) -> None:
        """Close the run as failed, with the reason; what was logged stays."""
        self.flush()
        self.tags({"error": reason[:4000]})
        _patient(lambda: self.tracker.client.set_terminated(self.run_id, "FAILED"))


def measurements(uri: str, ablations: Iterable[str] | None = None) -> pd.DataFrame:
    """Results of finished runs, one line for each table cell they serve; empty when there is no database.

    Columns: ``ablation, variant, row, seed, scale, metric, value, fingerprint, run_id``.
    """
    import pandas as pd

    path = _database(uri)
    if path is not None and not path.exists():
        empty: pd.DataFrame = pd.DataFrame(columns=COLUMNS)
        return empty
    wanted = None if ablations is None else set(ablations)
    tracker = Tracker(uri, path.parent if path else Path(gettempdir()) / "mae-tables")
    lines = []
    for run in tracker.runs("attributes.status = 'FINISHED'"):
        tags = run.data.tags
        for table, row in tables_of(tags).items():
            ablation, _, variant = table.partition("--")
            if wanted is not None and ablation not in wanted:
                continue
            for metric, value in run.data.metrics.items():
                if metric.startswith(f"{tags['stage']}/"):
                    identity = (tags["fingerprint"], run.info.run_id)
                    lines.append((ablation, variant, row, int(tags["seed"]), tags["scale"], metric, value, *identity))
    frame: pd.DataFrame = pd.DataFrame(lines, columns=COLUMNS)
    return frame


def results_of(run: Run) -> dict[str, float]:
    """The results of a finished run: ``<stage>/<name>`` to value."""
    stage = run.data.tags["stage"]
    return {key: value for key, value in run.data.metrics.items() if key.startswith(f"{stage}/")}
