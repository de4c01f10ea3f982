"""Every run in MLflow: the only file that imports it."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, cast

from experiments.browse import ACCURACY, NOTE, VIEW_TAG, experiment_note, view_state
from experiments.database import TrackingError, check_database, database_of, move_artifacts, patient
from mae.disk import locked

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Metric, Run
    from PIL.Image import Image

EXPERIMENT = "masked-autoencoders"

#: Tags that place a run in a table: ``table.<ablation>[--<variant>] = <row>``, one for each table it serves.
TABLE_TAG = "table."

#: Tag of a run that stands for a whole table at a scale; its trainings lie under it by ``PARENT``.
GROUP_TAG, PARENT = "table", "mlflow.parentRunId"

# MLflow's keys hold letters, digits and _ - . : / and space; names of tables also hold these, for the user's overrides
_TO_KEY = str.maketrans("=+,", ":/ ")
_FROM_KEY = str.maketrans(":/ ", "=+,")

COLUMNS = ["ablation", "variant", "row", "seed", "scale", "metric", "value", "fingerprint", "run_id"]


def table_tag(table: str) -> str:
    """The key of the tag that places a run in a table."""
    return TABLE_TAG + table.translate(_TO_KEY)


def tables_of(tags: Mapping[str, str]) -> dict[str, str]:
    """The tables that a run serves, and its row in each."""
    return {
        key.removeprefix(TABLE_TAG).translate(_FROM_KEY): row for key, row in tags.items() if key.startswith(TABLE_TAG)
    }


def tracking_uri(out: Path) -> str:
    """``MLFLOW_TRACKING_URI`` if it is set, else the SQLite database of ``out``, as an absolute URI."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{out.resolve() / 'mlflow.db'}"


def stored(uri: str) -> bool:
    """Whether there is a store at ``uri``; of a server it is taken for granted."""
    path = database_of(uri)
    return path is None or path.exists()


@dataclass(frozen=True)
class DataUsed:
    """What a training reads: the name of a data set, a digest of what of it is read, and facts that may be shown."""

    name: str
    digest: str
    use: str
    source: Mapping[str, Any]
    profile: Mapping[str, Any]


class Tracker:
    """A store of runs. Opening it creates the database and the experiment once, under a lock.

    A run is a training, or stands for a table at a scale: the first of those that a training serves has it under it.
    """

    def __init__(self, uri: str, out: Path) -> None:
        self.uri, self._lock = uri, out / "tracking.lock"
        self._groups: dict[tuple[str, str], str] = {}
        check_database(uri)
        for name in ("mlflow", "alembic", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.ERROR)
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        out.mkdir(parents=True, exist_ok=True)
        try:
            with locked(self._lock):
                self.client = MlflowClient(tracking_uri=uri)
                found = self.client.get_experiment_by_name(EXPERIMENT)
                location = (out.resolve() / "artifacts").as_uri() if database_of(uri) else None
                if found is None:
                    kind = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens on runs, not on traces
                    self.experiment = self.client.create_experiment(EXPERIMENT, location, kind)
                else:
                    self.experiment = found.experiment_id
                    if found.lifecycle_stage == "deleted":  # its runs are there, and no other may have its name
                        self.client.restore_experiment(self.experiment)
                    if location and found.artifact_location != location:
                        move_artifacts(cast(Path, database_of(uri)), found.artifact_location, location)
                shown = {VIEW_TAG: view_state(), NOTE: experiment_note(self.experiment)}
                for key, value in shown.items():
                    if found is None or found.tags.get(key) != value:
                        self.client.set_experiment_tag(self.experiment, key, value)
        except (MlflowException, OSError) as error:
            raise TrackingError(f"cannot open the tracking store {uri}: {error}; check MLFLOW_TRACKING_URI") from error

    def runs(self, query: str) -> Iterator[Run]:
        """All trainings that match an MLflow filter, page by page."""
        return (run for run in self._search(query) if "fingerprint" in run.data.tags)

    def _search(self, query: str) -> Iterator[Run]:
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

    def group(self, table: str, scale: str) -> str:
        """The id of the run that stands for a table at a scale; it is made where there is none, and is never under way.

        Everything that it tells is written by ``describe``.
        """
        if (table, scale) not in self._groups:
            quoted = table.replace("'", "")  # which no table's name has
            query = f"tags.{GROUP_TAG} = '{quoted}' AND tags.scale = '{scale}'"
            with locked(self._lock):
                found = next(self._search(query), None)
                if found is None:
                    tags = {GROUP_TAG: table, "stage": "table", "scale": scale, "mlflow.runName": f"{table} ({scale})"}
                    found = patient(lambda: self.client.create_run(self.experiment, tags=tags))
                    patient(lambda: self.client.set_terminated(found.info.run_id))
            self._groups[table, scale] = found.info.run_id
        return self._groups[table, scale]

    def describe(
        self, table: str, scale: str, tags: Mapping[str, str], metrics: Mapping[str, float], files: Iterable[Path] = ()
    ) -> None:
        """Let the run of a table tell what the table is and what it came to; ``files`` are shown as its artifacts."""
        from mlflow.entities import Metric, RunTag

        run, now = self.group(table, scale), int(time.time() * 1000)
        numbers = [Metric(key, float(value), now, 0) for key, value in metrics.items()]
        words = [RunTag(key, value) for key, value in tags.items()]
        patient(lambda: self.client.log_batch(run, metrics=numbers, tags=words))
        for path in files:
            self.client.log_artifact(run, str(path))

    def place(self, run: Run, cells: Mapping[str, str]) -> None:
        """Tag a finished run with the tables it serves (``{table: row}``); it lies under the first, or where it did."""
        tags = run.data.tags
        for table, row in cells.items():
            if tags.get(table_tag(table)) != row:
                self._tag(run, table_tag(table), row)
        shown = run.data.metrics.get(f"{tags['stage']}/top1")
        if shown is not None and ACCURACY not in run.data.metrics:  # an earlier version made it
            patient(lambda: self.client.log_metric(run.info.run_id, ACCURACY, shown))
        if PARENT not in tags and cells:
            self._tag(run, PARENT, self.group(next(iter(cells)), tags["scale"]))

    def displace(self, run: Run, now: Mapping[tuple[str, str, int, str, str], str]) -> None:
        """Take a run out of cells whose spec has changed since.

        ``now`` holds the fingerprint of each cell, by (table, row, seed, stage, scale).
        """
        tags = run.data.tags
        for table, row in tables_of(tags).items():
            cell = (table, row, int(tags["seed"]), tags["stage"], tags["scale"])
            if now.get(cell, tags["fingerprint"]) != tags["fingerprint"]:
                patient(lambda t=table: self.client.delete_tag(run.info.run_id, table_tag(t)))  # type: ignore[misc]
                if PARENT in tags and tags[PARENT] == self.group(table, tags["scale"]):
                    patient(lambda: self.client.delete_tag(run.info.run_id, PARENT))

    def _tag(self, run: Run, key: str, value: str) -> None:
        patient(lambda: self.client.set_tag(run.info.run_id, key, value))

    def open(
        self, name: str, tags: Mapping[str, str], parameters: Mapping[str, Any], used: DataUsed | None = None
    ) -> Record:
        """Start the run of a fingerprint, or take up the one that an earlier attempt left."""
        earlier = list(self.runs(f"tags.fingerprint = '{tags['fingerprint']}'"))
        if tables := tables_of(tags):
            tags = {**tags, PARENT: self.group(next(iter(tables)), tags["scale"])}
        if earlier:
            run = earlier[0]
            patient(lambda: self.client.set_terminated(run.info.run_id, "RUNNING"))
        else:
            all_tags = {**tags, "mlflow.runName": name}
            run = patient(lambda: self.client.create_run(self.experiment, tags=all_tags))
        record = Record(self, run.info.run_id)
        if earlier:
            record.tags(tags)  # it may serve more tables by now
        else:
            record.parameters(parameters)
            if used is not None:
                record.data(used)
        return record


@dataclass
class Record:
    """One run while it is being made. Curve points are buffered and written in batches."""

    tracker: Tracker
    run_id: str
    _buffer: list[Metric] = field(default_factory=list)
    _last_step: int | None = None
    _sketched: set[int] | None = None
    _flushed: float = field(default_factory=time.monotonic)

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Short, immutable facts; long values are in the resolved config."""
        from mlflow.entities import Param

        found = [Param(key, str(value)[:500]) for key, value in values.items()]
        for start in range(0, len(found), 100):
            patient(lambda s=start: self.tracker.client.log_batch(self.run_id, params=found[s : s + 100]))  # type: ignore[misc]

    def tags(self, values: Mapping[str, Any]) -> None:
        from mlflow.entities import RunTag

        found = [RunTag(key, str(value)) for key, value in values.items()]
        patient(lambda: self.tracker.client.log_batch(self.run_id, tags=found))

    def data(self, used: DataUsed) -> None:
        """The data that it trains on."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        texts = [json.dumps(dict(part), sort_keys=True) for part in (used.source, used.profile)]
        found = Dataset(used.name, used.digest, "code", texts[0], profile=texts[1])
        given = DatasetInput(found, [InputTag("mlflow.data.context", used.use)])
        patient(lambda: self.tracker.client.log_inputs(self.run_id, [given]))

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
            patient(lambda p=part: self.tracker.client.log_batch(self.run_id, metrics=p))  # type: ignore[misc]
        self._buffer, self._flushed = [], time.monotonic()

    def config(self, spec: Mapping[str, Any]) -> None:
        self.tracker.client.log_dict(self.run_id, dict(spec), "spec.yaml")

    def picture(self, path: Path) -> None:
        self.tracker.client.log_artifact(self.run_id, str(path), "reconstructions")

    def sketch(self, step: int, sheet: Image) -> None:
        """A picture of what it can do after ``step``. A resumed run passes over those that its earlier attempt left."""
        client = self.tracker.client
        if self._sketched is None:
            names = [file.path for file in client.list_artifacts(self.run_id, "images")]
            self._sketched = {int(name.split("+")[2]) for name in names}
        if step not in self._sketched:
            self._sketched.add(step)
            patient(lambda: client.log_image(self.run_id, sheet, key="reconstructions", step=step))

    def kept(self, path: Path) -> None:
        """Log a file that a training leaves besides its results."""
        self.tracker.client.log_artifact(self.run_id, str(path), "kept")

    def finish(self, results: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Write the results (``<stage>/<name>``) and close the run: from here on it counts as finished."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        numbers = [*results.items(), *((ACCURACY, n) for key, n in results.items() if key.partition("/")[2] == "top1")]
        self._buffer += [Metric(key, float(value), now, 0) for key, value in numbers]
        self.flush()
        self.tags(tags)
        patient(lambda: self.tracker.client.set_terminated(self.run_id, "FINISHED"))

    def fail(self, reason: str) -> None:
        """Close the run as failed, with the reason; what was logged stays."""
        self.flush()
        self.tags({"error": reason[:4000]})
        patient(lambda: self.tracker.client.set_terminated(self.run_id, "FAILED"))


def measurements(uri: str, ablations: Iterable[str] | None = None) -> pd.DataFrame:
    """Results of finished runs, one line for each table cell they serve; empty when there is no database.

    Columns: ``ablation, variant, row, seed, scale, metric, value, fingerprint, run_id``.
    """
    import pandas as pd

    path = database_of(uri)
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


@dataclass(frozen=True)
class Behind:
    """What stands behind a training: facts of it by name, and the points of its loss as (step, loss)."""

    facts: Mapping[str, str]
    curve: Sequence[tuple[int, float]]


def behind(uri: str, run_ids: Sequence[str]) -> dict[str, Behind]:
    """What stands behind the trainings with these runs, by run; those that the store does not know are left out."""
    if not run_ids or not stored(uri):
        return {}
    path = database_of(uri)
    tracker = Tracker(uri, path.parent if path else Path(gettempdir()) / "mae-tables")
    found = {}
    for start in range(0, len(run_ids), 100):
        names = ", ".join(f"'{run_id}'" for run_id in run_ids[start : start + 100] if run_id.isalnum())
        for run in tracker.runs(f"attributes.run_id IN ({names})") if names else ():
            tags, used = run.data.tags, run.inputs.dataset_inputs if run.inputs else []
            facts = {key: tags[tag] for key, tag in _BEHIND.items() if tags.get(tag)}
            if used:
                facts["data"] = ", ".join(f"{one.dataset.name} {one.dataset.digest}" for one in used)
            history = tracker.client.get_metric_history(run.info.run_id, "loss")
            curve = sorted({point.step: point.value for point in history}.items())
            found[run.info.run_id] = Behind(facts, curve)
    return found


#: What is told of a training, and the tag that holds it.
_BEHIND = {
    "commit": "mlflow.source.git.commit",
    "changed since": "mlflow.source.git.dirty",
    "torch": "torch",
    "timm": "timm",
    "Python": "python",
    "device": "device_name",
    "precision": "precision",
}


def results_of(run: Run) -> dict[str, float]:
    """The results of a finished run: ``<stage>/<name>`` to value."""
    stage = run.data.tags["stage"]
    return {key: value for key, value in run.data.metrics.items() if key.startswith(f"{stage}/")}
