"""Every command that README and docs show is executed by a test, or says what it needs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from experiments import run
from tests.data.clips.clip_writer import numbered, write
from tests.docs.commands import ROOT, commands, shown
from tests.experiments.fresh import files_are_there
from tests.experiments.test_own_tables import RECIPES
from tests.weights.test_convert import drawn, model_of, saved

LISTED = yaml.safe_load((ROOT / "tests" / "docs" / "commands.yaml").read_text(encoding="utf-8"))
YAML = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)


def listed() -> list[str]:
    groups = [LISTED["planned"], *LISTED["executed"].values(), *LISTED["needs"].values()]
    return [command for group in groups for command in group]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the documents speak of: pictures and clips in folders of classes, and the tables that they show."""
    root = tmp_path_factory.mktemp("place")
    for split, many in (("train", 240), ("test", 60)):
        for index in range(many):
            path = root / "pictures" / split / "abc"[index % 3] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((9, 8, 3), index, np.uint8)).save(path)
            without_label(path, split)
    film = write(root / "film.mp4", numbered(40, 48, 64)).read_bytes()
    for split, many in (("train", 32), ("test", 8)):
        for index in range(many):
            path = root / "clips" / split / "ab"[index % 2] / f"{index}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(film + b"\0\0\0\x08free" * index)
            without_label(path, split)
    for page, folder in (("own_table", "table"), ("own_method", "my_parts")):
        [text] = YAML.findall((ROOT / "docs" / "how_to" / f"{page}.md").read_text(encoding="utf-8"))
        (root / folder / "method").mkdir(parents=True)
        (root / folder / "my_table.yaml").write_text(text)
    for name in ("my_methods.py", "method/denoising.yaml"):
        (root / "my_parts" / name).write_text(RECIPES[name])
    return root


def without_label(path: Path, split: str) -> None:
    """Put the files of training into a flat folder, too."""
    flat = path.parents[2].with_name(f"flat {path.parents[2].name}")
    flat.mkdir(exist_ok=True)
    if split == "train":
        (flat / path.name).hardlink_to(path)


@pytest.fixture
def importable(place: Path) -> Iterator[None]:
    """Modules of one's own are forgotten again."""
    known, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - known:
        if str(place) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_every_command_shown_is_listed_once_and_every_one_listed_is_shown() -> None:
    there = shown()
    assert {command: document for command, document in there.items() if command not in listed()} == {}
    assert set(listed()) - there.keys() == set()
    assert len(set(listed())) == len(listed())


def test_every_test_that_is_named_exists() -> None:
    for name in LISTED["executed"]:
        path, _, function = name.partition("::")
        assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), name


@pytest.mark.parametrize("command", LISTED["planned"])
def test_a_command_of_the_documents_can_be_planned(
    command: str, place: Path, importable: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    data = place / f"{'flat ' if 'pretraining ' in command else ''}{'clips' if 'clip' in command else 'pictures'}"
    told = command.replace("=my_parts", f"={place / 'my_parts'}").replace("=PATH/", f"={place / 'table'}/")
    words = shlex.split(told.replace("=PATH", f"='{data}'"))[2:]
    here = [f"out={tmp_path}", f"report_dir={tmp_path}", "plan_only=true"]
    if "scale=gpu" in words or "evaluate_data=ava" in words:
        with files_are_there():
            assert run.main([*words, *here]) == 0
    else:
        assert run.main([*words, *here]) == 0


def test_help_is_shown() -> None:
    script = [sys.executable, "experiments/run.py", "--help"]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "ablation=NAME" in done.stdout
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [line.split()[0] for line in done.stdout.splitlines()] == targets


def test_the_lines_of_the_library_run(place: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "how_to" / "library.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {
        "WEIGHTS": saved(drawn(model_of(False, 16, 2, 2, 8, 16)), tmp_path / "run"),
        "PATH": place / "pictures",
    }
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        exec(block, names)
    assert names["loss"].isfinite()
    assert names["table"].values.shape == (300, 16)


def test_commands_are_found_in_blocks_and_in_the_text() -> None:
    text = "Type `python a.py\nb=c` or `b=c`.\n```yaml\npython: no\n```\n```\npython d.py \\\n    e=f\noutput\n```\n"
    assert list(commands(text)) == ["python d.py e=f", "python a.py b=c"]
