"""Places as people name them: in the command line, in names of files and keys, moved, without git, without UTF-8."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import run as command
from experiments import verify
from experiments.ablation import load_ablation, short_name
from experiments.browse import source_tags
from experiments.command import answer, home
from experiments.compose import compose
from experiments.plan import variant
from experiments.record import Records, measurements
from experiments.tracking import EXPERIMENT, Tracker, tracking_uri
from experiments.view import View

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ("ablation=decoder_depth", "scale=smoke", "row=1", "workers=1", "device=cpu")
#: A folder as people call theirs.
USUAL = "photos (2), 'Été' = 100% & more; #1 ~ 写真 $x [a] {b}"


def folder_of_pictures(root: Path) -> Path:
    chance = np.random.default_rng(0)
    for index in range(24):
        place = root / ("train" if index < 16 else "test") / ("cat" if index % 2 else "dog") / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(place)
    return root


def own_data(root: Path | str) -> list[str]:
    return ["data=image_folder", "data.decoded=[24,24]", "data.input_size=[24,24]", "data.classes=2",
            f"data.source.root={root}", "data.samples={pretrain: 16, train: 16, test: 8}"]  # fmt: skip


@pytest.mark.parametrize("key", ["data.source.root", "origin.path"])
@pytest.mark.parametrize("name", [USUAL, "a,b", "it's", '"q"', "${x}", "\\${x}", "a\\b", "[1,2]", "true", "3", " x "])
def test_a_path_is_read_as_it_stands(key: str, name: str) -> None:
    tree = compose("smoke", ["data=image_folder", f"{key}=/data/{name}"])
    section, _, last = key.rpartition(".")
    for part in section.split("."):
        tree = tree[part]
    assert tree[last] == f"/data/{name}"


def test_home_and_the_environment_are_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SETS", "/sets (1)")
    for text, place in (("~/pets", tmp_path / "pets"), ("$SETS/pets", "/sets (1)/pets"), ("${SETS}/a", "/sets (1)/a")):
        assert compose("smoke", ["data=image_folder", f"data.source.root={text}"])["data"]["source"]["root"] == str(
            place
        )
    (tmp_path / "mine.yaml").write_bytes((load_ablation("decoder_depth").file).read_bytes())
    assert load_ablation("$HOME/mine.yaml").name == load_ablation("~/mine.yaml").name == "mine"


def test_a_table_runs_on_data_and_in_folders_of_usual_names_and_the_next_one_too(
    tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = folder_of_pictures(tmp_path / USUAL / ("長い名前の写真" * 8) / ("フォルダ" * 12))
    out = tmp_path / USUAL / "out"
    out.mkdir()
    shutil.copy(template, out / "mlflow.db")
    places = (f"out={out}", f"report_dir={out / 'report'}")
    table = tmp_path / USUAL / "my table (2), 写真.yaml"
    table.write_bytes(load_ablation("decoder_depth").file.read_bytes())
    words = [f"ablation={table}", *SMOKE[1:], *places]
    assert command.main([*words, *own_data(root)]) == 0, capsys.readouterr().err
    assert command.main(words) == 0, capsys.readouterr().err
    found = measurements(Records(out))
    assert found["variant"].nunique() == 2
    assert set(found["ablation"]) == {short_name(table.stem)}
    assert all(len(path.name.encode()) < 200 for path in (out / "report").rglob("*"))
    assert verify.main([f"ablation={table}", "scale=smoke", "row=1", *own_data(root)]) in (0, 1)
    assert "16 pictures" in capsys.readouterr().out


def test_names_of_variants_are_short_ascii_and_differ_with_what_they_stand_for() -> None:
    paths = ["/写真/a", "/写真/b", "/" + "長" * 300, "/a (2)", "/a_(2)", "/a_2_"]
    names = {variant([f"data.source.root={path}"]) for path in paths}
    assert len(names) == len(paths)
    assert all(name.isascii() and len(name) <= 80 and not set(name) & set("/: ()") for name in names)
    assert variant(["init=random"]) == "init=random"
    assert variant(["evaluate/ssv2=scratch"]) == "evaluate-ssv2=scratch"


def test_artifacts_follow_an_out_that_was_moved(out: Path, tmp_path: Path) -> None:
    tracker = Tracker(tracking_uri(out), out)
    run = tracker.client.create_run(tracker.experiment)
    tracker.client.log_dict(run.info.run_id, {"a": 1}, "spec.yaml")
    moved = tmp_path / "moved (1) #2"
    out.rename(moved)
    again = Tracker(tracking_uri(moved), moved)
    assert [item.path for item in again.client.list_artifacts(run.info.run_id)] == ["spec.yaml"]
    assert again.client.get_run(run.info.run_id).info.artifact_uri.startswith((moved / "artifacts").as_uri())
    new = again.client.create_run(again.experiment)
    again.client.log_dict(new.info.run_id, {"a": 3}, "spec.yaml")
    assert len(list((moved / "artifacts").rglob("*.yaml"))) == 2
    assert not out.exists()


def test_an_experiment_that_was_deleted_is_brought_back(out: Path) -> None:
    tracker = Tracker(tracking_uri(out), out)
    tracker.client.delete_experiment(tracker.experiment)
    again = Tracker(tracking_uri(out), out)
    assert again.client.get_experiment_by_name(EXPERIMENT).lifecycle_stage == "active"
    assert again.client.create_run(again.experiment)


def test_reading_a_server_leaves_nothing_in_the_working_directory(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = tracking_uri(out)
    monkeypatch.setattr("experiments.tracking.database_of", lambda uri: None)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert View(Records(out), uri).take_in() == 0
    assert list(Path.cwd().iterdir()) == []


def test_a_run_without_git_is_recorded_without_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    source_tags.cache_clear()
    assert "mlflow.source.git.commit" not in source_tags()
    source_tags.cache_clear()


def test_an_ascii_terminal_shows_everything(out: Path, tmp_path: Path) -> None:
    table = tmp_path / "写真.yaml"
    text = load_ablation("decoder_depth").file.read_text(encoding="utf-8")
    table.write_text(text.replace("title: Decoder depth", "title: Tiefe — 写真 ±"), encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0",
                   "PYTHONCOERCECLOCALE": "0"}  # fmt: skip
    words = [f"ablation={table}", *SMOKE[1:], f"out={out}", f"report_dir={out / 'report'}"]
    for extra, status in (([], 0), (["mask.ratio=写真"], 2)):
        done = subprocess.run(
            [sys.executable, "experiments/run.py", *words, *extra], cwd=ROOT, env=environment, capture_output=True
        )
        assert done.returncode == status, done.stderr.decode()[-2000:]
        assert b"Traceback" not in done.stderr
        assert done.stdout.isascii()


def test_windows_is_told_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert answer(lambda: 0) == 2
    assert "Linux and macOS" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["experiments.run", "experiments.search", "reports.build"])
def test_a_command_can_say_so_without_what_windows_lacks(module: str) -> None:
    code = f"import sys; sys.modules.update(resource=None, fcntl=None); import {module}; sys.platform = 'win32'; "
    done = subprocess.run(
        [sys.executable, "-c", f"{code}sys.exit({module}.main(['ablation=all']))"], cwd=ROOT, capture_output=True
    )
    assert done.returncode == 2, done.stderr.decode()[-2000:]
    assert b"Linux and macOS" in done.stderr


def test_where_it_is_installed_commands_write_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert home() == ROOT
    monkeypatch.setattr("experiments.command.CONF", tmp_path / "site-packages" / "experiments" / "conf")
    monkeypatch.chdir(tmp_path)
    assert home() == tmp_path
