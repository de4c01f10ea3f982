"""The notebooks run from start to end, with and without runs, and are committed without outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from experiments.tracking import Tracker

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(autouse=True)
def _quiet_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn to nowhere, the kernel's files go to a folder of its own, and it finds no runs."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'none.db'}")


def execute(name: str) -> str:
    """Run a notebook from the root of the repository; return what its cells print, warnings left out."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "".join(output["text"] for output in outputs if output.get("name") == "stdout")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_has_no_outputs(path: Path) -> None:
    notebook: Any = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)


def test_masks_and_targets_runs() -> None:
    assert "4 pictures, 64 patches of 48 values each" in execute("masks_and_targets")


def test_read_the_tables_runs_where_nothing_was_run() -> None:
    assert execute("read_the_tables").startswith("0 measurements of this machine")


def test_read_the_tables_shows_runs_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    tracker = Tracker(uri, tmp_path)
    for row, top1 in (("1", 40.0), ("8", 45.25)):
        placed = {"stage": "finetune", "seed": "0", "scale": "smoke", "fingerprint": f"f{row}"}
        record = tracker.open(row, {**placed, "table.decoder_depth": row}, {})
        record.finish({"finetune/top1": top1}, {})
    printed = execute("read_the_tables")
    assert printed.startswith("2 measurements of this machine")
    assert "smoke 45.25" in printed


def test_one_training_runs() -> None:
    assert "8 steps, a loss of" in execute("one_training")


def test_own_data_runs() -> None:
    printed = execute("own_data")
    assert printed.count("exit status 0") == 2
    assert "random 75" in printed


def test_search_a_ratio_runs() -> None:
    printed = execute("search_a_ratio")
    assert "exit status 0" in printed
    assert "2 trials" in printed


def test_weights_to_features_runs() -> None:
    assert "files, 32 features each" in execute("weights_to_features")
