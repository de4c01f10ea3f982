"""A fresh output folder for each test, with a tracking database copied from one that was made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from experiments.tracking import Tracker, tracking_uri


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's migrations take seconds; this database has been through them."""
    out = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracker = Tracker(tracking_uri(out), out)
        tracker.client.search_experiments()
    return out / "mlflow.db"


@pytest.fixture
def out(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An output folder of the test's own; artifacts of its runs lie beside the template."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "out"
    folder.mkdir()
    shutil.copy(template, folder / "mlflow.db")
    return folder
