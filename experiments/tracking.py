"""A store of MLflow, which shows what records say: the only file that imports it."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from experiments.browse import ACCURACY, NOTE, VIEW_TAG, experiment_note, view_state
from experiments.database import TrackingError, check_database, database_of, move_artifacts, patient
from experiments.record import DataUsed, Record, as_curves
from mae.disk import locked, replacing

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

EXPERIMENT = "masked-autoencoders"

#: Tags that place a run in a table: ``table.<ablation>[--<variant>] = <row>``, one for each table it serves.
TABLE_TAG = "table."

#: Tag of a run that stands for a whole table at a scale; its trainings lie under it by ``PARENT``.
GROUP_TAG, PARENT = "table", "mlflow.parentRunId"

# MLflow's keys hold letters, digits and _ - . : / and space; names of tables also hold these, for the user's overrides
_TO_KEY = str.maketrans("=+,", ":/ ")
_FROM_KEY = str.maketrans(":/ ", "=+,")

#: Tags of a run that say what it is; all others say where it was computed, and with what.
RECORD_TAGS = (
    *("ablation", "row", "seed", "stage", "scale", "fingerprint", "run"),
    *("paper", "pretraining", "study", "trial", "error"),
)


def table_tag(table: str) -> str:
    """The key of the tag that places a run in a table."""
    return TABLE_TAG + table.translate(_TO_KEY)


def tables_of(tags: Mapping[str, str]) -> dict[str, str]:
    """The tables that a run serves, and its row in each."""
    return {
        key.removeprefix(TABLE_TAG).translate(_FROM_KEY): row for key, row in tags.items() if key.startswith(TABLE_TAG)
    }


def tracking_uri(out: Path, own: bool = False) -> str:
    """``MLFLOW_TRACKING_URI`` if it is set, else (or if asked for) ``out``'s ``own`` SQLite database, absolute."""
    given = "" if own else os.environ.get("MLFLOW_TRACKING_URI", "")
    return given or f"sqlite:///{out.resolve() / 'mlflow.db'}"


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
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        for name, value in (("MAX_RETRIES", "1"), ("TIMEOUT", "10")):  # what is not pushed now is pushed later
            os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        out.mkdir(parents=True, exist_ok=True)
        path = database_of(uri)
        kind = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens on runs, not on traces
        location = (out.resolve() / "artifacts").as_uri() if path else None
        try:
            with locked(self._lock):
                if path is not None and not path.exists():  # it takes seconds, in which nothing may be stopped half way
                    with replacing(path) as draft:
                        MlflowClient(f"sqlite:///{draft}").create_experiment(EXPERIMENT, location, kind)
                self.client = MlflowClient(tracking_uri=uri)
                found = self.client.get_experiment_by_name(EXPERIMENT)
                if found is None:
                    self.experiment = self.client.create_experiment(EXPERIMENT, location, kind)
                else:
                    self.experiment = found.experiment_id
                    if found.lifecycle_stage == "deleted":  # its runs are there, and no other may have its name
                        self.client.restore_experiment(self.experiment)
                    if location and found.artifact_location != location:
                        move_artifacts(cast(Path, path), found.artifact_location, location)
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

    def records(self, known: Collection[str] = ()) -> Iterator[Record]:
        """The finished runs of the store as records, but for the fingerprints that are ``known``."""
        for run in self.runs("attributes.status = 'FINISHED'"):
            shown = (key for key in run.data.tags if not key.startswith("mlflow.") or key.startswith("mlflow.source."))
            tags = {key: run.data.tags[key] for key in shown}
            if {"fingerprint", "stage", "seed", "scale"} <= tags.keys() and tags["fingerprint"] not in known:
                yield self._record(run, tags)

    def _record(self, run: Run, tags: Mapping[str, str]) -> Record:
        results = {key for key in run.data.metrics if key.startswith(f"{tags['stage']}/")}
        curves: dict[tuple[int, float], dict[str, float]] = {}
        for key in run.data.metrics.keys() - results:
            for metric in self.client.get_metric_history(run.info.run_id, key):
                curves.setdefault((metric.step, metric.timestamp / 1000), {})[key] = metric.value
        points = [{"step": step, "time": time, **values} for (step, time), values in sorted(curves.items())]
        about = {key: value for key, value in tags.items() if not key.startswith(TABLE_TAG)}
        return Record(
            fingerprint=tags["fingerprint"],
            name=run.info.run_name or tags["fingerprint"],
            stage=tags["stage"],
            scale=tags["scale"],
            seed=int(tags["seed"]),
            tables=tables_of(tags),
            tags={key: value for key, value in about.items() if key in RECORD_TAGS},
            parameters=dict(run.data.params),
            spec=self._spec(run),
            run_id=tags.get("run", run.info.run_id),
            started=(run.info.start_time or 0) / 1000,
            ended=(run.info.end_time or 0) / 1000,
            results={key: run.data.metrics[key] for key in sorted(results)},
            environment={key: value for key, value in about.items() if key not in RECORD_TAGS},
            curves=as_curves(points),
        )

    def _spec(self, run: Run) -> dict[str, Any]:
        """The spec that lies among a run's artifacts; empty where it is gone."""
        import yaml
        from mlflow.exceptions import MlflowException

        try:
            with TemporaryDirectory() as folder:
                path = self.client.download_artifacts(run.info.run_id, "spec.yaml", folder)
                found: dict[str, Any] = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
                return found
        except (MlflowException, OSError):
            return {}

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

    def open(
        self, name: str, tags: Mapping[str, str], parameters: Mapping[str, Any], started: float, used: DataUsed | None
    ) -> Entry:
        """Show the run of a fingerprint as under way: the one that the store has, or a new one.

        It lies under the first of its tables.
        """
        if tables := tables_of(tags):
            tags = {**tags, PARENT: self.group(next(iter(tables)), tags["scale"])}
        earlier = list(self.runs(f"tags.fingerprint = '{tags['fingerprint']}'"))
        if not earlier:
            all_tags = {**tags, "mlflow.runName": name}
            run = patient(lambda: self.client.create_run(self.experiment, int(started * 1000), all_tags))
            entry = Entry(self, run.info.run_id)
            entry.parameters(parameters)
            if used is not None:
                entry.data(used)
            return entry
        run = earlier[0]
        entry = Entry(self, run.info.run_id)
        entry.close("RUNNING")
        entry.tags(tags)
        for key in run.data.tags.keys() - tags.keys():
            if key.startswith(TABLE_TAG) or key == PARENT:  # a table whose row computes something else by now
                patient(lambda key=key: self.client.delete_tag(run.info.run_id, key))  # type: ignore[misc]
        return entry


@dataclass
class Entry:
    """One run in the store, which is made to show what a record says."""

    tracker: Tracker
    run_id: str
    _last_step: int | None = None

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Short, immutable facts; long values are in the resolved config."""
        from mlflow.entities import Param

        found = [Param(key, str(value)[:500]) for key, value in values.items()]
        for start in range(0, len(found), 100):
            patient(lambda s=start: self.tracker.client.log_batch(self.run_id, params=found[s : s + 100]))  # type: ignore[misc]

    def tags(self, values: Mapping[str, Any]) -> None:
        from mlflow.entities import RunTag

        found = [RunTag(key, str(value)[:8000]) for key, value in values.items()]
        patient(lambda: self.tracker.client.log_batch(self.run_id, tags=found))

    def data(self, used: DataUsed) -> None:
        """The data that it trains on."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        texts = [json.dumps(dict(part), sort_keys=True) for part in (used.source, used.profile)]
        found = Dataset(used.name, used.digest, "code", texts[0], profile=texts[1])
        given = DatasetInput(found, [InputTag("mlflow.data.context", used.use)])
        patient(lambda: self.tracker.client.log_inputs(self.run_id, [given]))

    def curves(self, curves: Mapping[str, Sequence[float | None]]) -> None:
        """Points of curves, as a record holds them; those that the store has stay as they are."""
        from mlflow.entities import Metric

        if self._last_step is None:
            history = self.tracker.client.get_metric_history(self.run_id, "loss")
            self._last_step = max((metric.step for metric in history), default=-1)
        steps, times = curves.get("step", ()), curves.get("time", ())
        found = [
            Metric(key, float(value), int(1000 * (time or 0)), int(step or 0))
            for key, values in curves.items()
            if key not in ("step", "time")
            for step, time, value in zip(steps, times, values, strict=True)
            if value is not None and (step or 0) > self._last_step
        ]
        self._metrics(found)
        self._last_step = max([self._last_step, *(int(step or 0) for step in steps)])

    def results(self, values: Mapping[str, float], ended: float) -> None:
        """Results by ``<stage>/<name>``."""
        from mlflow.entities import Metric

        numbers = [*values.items(), *((ACCURACY, n) for key, n in values.items() if key.partition("/")[2] == "top1")]
        self._metrics([Metric(key, value, int(ended * 1000), 0) for key, value in numbers])

    def _metrics(self, found: Sequence[Metric]) -> None:
        for start in range(0, len(found), 1000):
            part = found[start : start + 1000]
            patient(lambda p=part: self.tracker.client.log_batch(self.run_id, metrics=p))  # type: ignore[misc]

    def config(self, spec: Mapping[str, Any]) -> None:
        self.tracker.client.log_dict(self.run_id, dict(spec), "spec.yaml")

    def picture(self, path: Path) -> None:
        self.tracker.client.log_artifact(self.run_id, str(path), "reconstructions")

    def sketches(self, paths: Mapping[int, Path]) -> None:
        """Pictures of what it can do, by step; those that the store has stay as they are."""
        from PIL import Image

        names = [file.path for file in self.tracker.client.list_artifacts(self.run_id, "images")]
        known = {int(name.split("+")[2]) for name in names}
        for step in sorted(paths.keys() - known):
            with Image.open(paths[step]) as sheet:
                self.tracker.client.log_image(self.run_id, sheet.copy(), key="reconstructions", step=step)

    def kept(self, path: Path) -> None:
        """A file that a training leaves besides its results."""
        self.tracker.client.log_artifact(self.run_id, str(path), "kept")

    def close(self, status: str, ended: float | None = None) -> None:
        """Show the run as RUNNING, FINISHED, FAILED or KILLED."""
        when = None if ended is None else int(ended * 1000)
        patient(lambda: self.tracker.client.set_terminated(self.run_id, status, when))
