"""The notebooks run from start to end, with and without runs, and are committed without outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from experiments.record import Record, Records

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(autouse=True)
def _quiet_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn to nowhere, the kernel's files go to a folder of its own, and it finds no runs."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))


def execute(name: str, out: Path | None = None) -> str:
    """Run a notebook from the root of the repository, on the runs of ``out``; return what its cells print."""
    text = (ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
    if out is not None:
        text = text.replace('EVIDENCE.parents[1] / \\"outputs\\"', f'EVIDENCE.parents[1] / \\"{out}\\"')
        assert str(out) in text
    notebook = nbformat.reads(text, as_version=4)
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


def test_read_the_tables_runs_where_nothing_was_run(tmp_path: Path) -> None:
    assert execute("read_the_tables", tmp_path / "nowhere").startswith("0 measurements of this machine")


def test_read_the_tables_shows_runs_of_this_machine(tmp_path: Path) -> None:
    for row, top1 in (("1", 40.0), ("8", 45.25)):
        facts = (f"f{row}", row, "finetune", "smoke", 0, {"decoder_depth": row})
        results = {"finetune/top1": top1}
        Records(tmp_path).write(Record(*facts, tags={}, parameters={}, spec={}, ended=1.0, results=results))
    printed = execute("read_the_tables", tmp_path)
    assert printed.startswith("2 measurements of this machine")
    assert "smoke 45.25" in printed


def test_one_training_runs() -> None:
    assert "8 steps, a loss of" in execute("one_training")


@pytest.mark.slow
def test_own_data_runs() -> None:
    printed = execute("own_data")
    assert printed.count("exit status 0") == 2
    assert "random 75" in printed


@pytest.mark.slow
def test_search_a_ratio_runs() -> None:
    printed = execute("search_a_ratio")
    assert "exit status 0" in printed
    assert "2 trials" in printed


def test_weights_to_features_runs() -> None:
    assert "files, 32 features each" in execute("weights_to_features")
