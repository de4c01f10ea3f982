"""No data set of the environment; a fresh output folder for each test, with a tracking database made once."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.ablation import CONF
from experiments.tracking import Tracker, tracking_uri
from tests.experiments.fresh import files_are_there, forget


@pytest.fixture(autouse=True, scope="module")
def surroundings() -> Iterator[None]:
    """Data sets and files of weights that the environment names would be read: none is named."""
    named = {name for path in CONF.rglob("*.yaml") for name in re.findall(r"oc\.env:(\w+)", path.read_text())}
    assert "IMAGENET" in named
    with pytest.MonkeyPatch.context() as patch:
        for name in named:
            patch.delenv(name, raising=False)
        forget()  # specs hold what the environment named when they were composed
        yield
    forget()


@pytest.fixture
def no_files() -> Iterator[None]:
    """Rows at the papers' scale can be planned without their data: see ``files_are_there``."""
    with files_are_there():
        yield


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
