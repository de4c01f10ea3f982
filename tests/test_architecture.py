"""Imports follow the way of the data, and heavy libraries stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def imports(path: Path) -> Iterator[str]:
    """What a file imports, with its module, wherever in the file (type-checking blocks left out)."""
    tree = ast.parse(path.read_text())
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


def users_of(module: str) -> set[str]:
    """Files of the project that import ``module`` or something in it."""
    return {
        path.relative_to(ROOT).as_posix()
        for package in ("mae", "experiments", "reports")
        for path in files(package)
        if any(name == module or name.startswith(f"{module}.") for name in imports(path))
    }


def modules(*packages: str) -> dict[str, set[str]]:
    """Every module of the packages by name, with those of them that it imports, in whatever scope."""
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in packages
        for path in files(package)
    }

    def module(imported: str) -> str:
        """The module that ``imported`` is, or is a name in."""
        return imported if imported in paths else imported.rpartition(".")[0]

    return {name: {module(i) for i in imports(path)} & paths.keys() - {name} for name, path in paths.items()}


def test_no_module_imports_itself_through_others() -> None:
    left = modules("mae", "experiments", "reports")
    assert {name.partition(".")[0] for name in left} == {"mae", "experiments", "reports"}
    while free := {name for name, needed in left.items() if not needed & left.keys()}:
        left = {name: needed for name, needed in left.items() if name not in free}
    assert not left, f"a circle is among {sorted(left)}"


def test_a_folder_of_the_data_holds_ten_names_at_most() -> None:
    folders = [ROOT / "mae" / "data", *(path for path in (ROOT / "mae" / "data").rglob("*") if path.is_dir())]
    held = {
        folder.relative_to(ROOT).as_posix(): {path.name for path in folder.iterdir()} - {"__init__.py", "__pycache__"}
        for folder in folders
        if folder.name != "__pycache__"
    }
    assert len(held) > 5
    assert {folder: names for folder, names in held.items() if len(names) > 10} == {}


@pytest.mark.parametrize("module", ["hydra", "omegaconf", "mlflow", "optuna", "pandas", "experiments", "reports"])
def test_the_core_does_not_know_where_it_is_run(module: str) -> None:
    assert not {path for path in users_of(module) if path.startswith("mae/")}


@pytest.mark.parametrize("module", ["torch", "mae", "timm"])
def test_reports_need_neither_torch_nor_the_core(module: str) -> None:
    assert not {path for path in users_of(module) if path.startswith("reports/")}


@pytest.mark.parametrize(("module", "limit"), [("mlflow", 1), ("optuna", 1), ("submitit", 1)])
def test_one_file_at_most_imports_each_service(module: str, limit: int) -> None:
    assert len(users_of(module)) <= limit


def test_only_the_commands_of_experiments_reach_for_reports() -> None:
    assert {path for path in users_of("reports") if path.startswith("experiments/")} <= {
        "experiments/deciding.py",
        "experiments/run.py",
        "experiments/search.py",
    }


@pytest.mark.parametrize("heavy", ["torch", "mlflow", "pandas"])
def test_help_loads_nothing_heavy(heavy: str) -> None:
    code = f"import sys, experiments.run as r; r.main(['--help']); assert {heavy!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
