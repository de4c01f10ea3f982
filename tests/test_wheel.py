"""A wheel, installed into a fresh environment and used from another folder, is the whole project."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.slow

#: The five lines of a library's user.
FIVE_LINES = """
import torch
from mae import Random, autoencoder
model = autoencoder(weights=WEIGHTS)
mask = Random(0.75)(2, model.encoder.grid, torch.Generator().manual_seed(0))
print("loss", float(model(torch.randn(2, 3, *SIZE), mask)))
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a fresh environment that holds the wheel; what it needs is lent by the one that runs the tests."""
    folder = tmp_path_factory.mktemp("elsewhere")
    source = folder / "source"
    for name in ("mae", "experiments", "reports"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "tables", "figures"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*build, str(source)], check=True)
    shutil.rmtree(source)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    (wheel,) = folder.glob("*.whl")
    python = folder / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel], check=True)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (folder / "work").mkdir()
    return folder


def run(folder: Path, command: str, *words: str) -> str:
    """What a command prints that the wheel brings, run in a folder of its own."""
    found = subprocess.run(
        [folder / "venv" / "bin" / command, *words], cwd=folder / "work", check=False, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_the_wheel_is_what_runs(elsewhere: Path) -> None:
    where = run(elsewhere, "python", "-c", "import experiments, mae, reports; print(mae.__file__)")
    assert Path(where.strip()).is_relative_to(elsewhere / "venv")


def test_a_table_a_search_a_report_and_the_library_run_from_any_folder(elsewhere: Path) -> None:
    work = elsewhere / "work"
    assert "decoder_depth" in run(elsewhere, "mae-run", "ablation=decoder_depth", "scale=smoke", "row=1", "device=cpu")
    (weights,) = (work / "outputs" / "weights").iterdir()
    assert (work / "reports" / "tables" / "decoder_depth.csv").is_file()
    run(elsewhere, "mae-search", "search=masking_ratio", "scale=smoke", "trials=1", "device=cpu")
    assert list((work / "reports" / "tables").glob("search_masking_ratio*.csv"))
    assert "1 ablations" in run(elsewhere, "mae-report", "ablation=decoder_depth")
    lines = FIVE_LINES.replace("WEIGHTS", repr(str(weights))).replace("SIZE", "(24, 24)")
    assert run(elsewhere, "python", "-c", lines).startswith("loss ")
    run(elsewhere, "python", "-m", "mae.weights", "convert", str(weights), "converted", "format=timm")
    assert (work / "converted" / "model.safetensors").is_file()
