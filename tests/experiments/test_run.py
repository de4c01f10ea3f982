"""The command, as a user meets it: results, skipping, resuming, refusals."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from experiments import run as command
from experiments.ablation import load_ablation
from experiments.plan import plan, variant
from experiments.preflight import offer_of
from experiments.record import Records, measurements
from experiments.spec import spec_of
from experiments.tracking import Tracker, tracking_uri
from tests.experiments.fresh import files_are_there

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ["ablation=decoder_depth", "scale=smoke", "row=1"]


def main(out: Path, *words: str) -> int:
    return command.main([*words, "workers=1", f"out={out}", f"report_dir={out / 'report'}"])


def results(out: Path) -> pd.DataFrame:
    frame = measurements(Records(out))
    accuracies = frame[frame["metric"].str.endswith(("top1", "/loss"))]
    return accuracies.set_index(["row", "seed", "metric"])["value"].sort_index()


def test_a_table_is_run_once_and_printed_with_paper_beside_measured(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(out, *SMOKE) == 0
    first = capsys.readouterr().out
    assert "1 rows need 1 pre-trainings and 2 evaluations" in first
    assert "84.8" in first
    assert "reproduced" not in first
    before = results(out)
    assert len(before) == 3  # ft, lin, and the pre-training's loss

    table = pd.read_csv(out / "report" / "tables" / "decoder_depth.csv", dtype={"row": str})
    assert {"row", "metric", "paper", "mean", "std", "n", "ci_low", "ci_high", "scale", "verdict"} <= {*table.columns}
    line = table[(table["row"] == "1") & (table["metric"] == "ft") & (table["scale"] == "smoke")]
    assert line["mean"].item() == pytest.approx(before[("1", 0, "finetune/top1")])

    assert main(out, *SMOKE) == 0
    assert "0 of 3 are still to run" not in capsys.readouterr().out  # nothing to plan, nothing to say
    assert results(out).equals(before)


def test_what_a_run_leaves_in_mlflow(out: Path) -> None:
    assert main(out, *SMOKE) == 0
    tracker = Tracker(tracking_uri(out), out)
    runs = {run.data.tags["stage"]: run for run in tracker.runs("attributes.status = 'FINISHED'")}
    assert set(runs) == {"pretrain", "finetune", "linear"}
    for stage, run in runs.items():
        tags = run.data.tags
        assert tags["ablation"] == "decoder_depth"
        assert (tags["row"], tags["seed"], tags["scale"], tags["stage"]) == ("1", "0", "smoke", stage)
        assert tags["paper"] == "arXiv 2111.06377v2, Table 1a"
        assert tags["torch"]
        assert tags["mlflow.source.git.commit"] or not (ROOT / ".git").exists()
        assert float(run.data.params["effective_lr"]) > 0
        assert run.data.metrics[f"{stage}/peak_memory_gb"] > 0
        assert "spec.yaml" in {file.path for file in tracker.client.list_artifacts(run.info.run_id)}
    pretraining = runs["pretrain"]
    assert pretraining.data.metrics["pretrain/samples_per_second"] > 0
    for stage, run in runs.items():
        assert 0 <= run.data.metrics["data_share"] <= 1
        # the steps of a probe of cached features leave the encoder alone: there is nothing to count
        assert ("utilisation" in run.data.metrics) == (stage != "linear")
    assert 0 < pretraining.data.metrics["utilisation"] < 1
    assert tracker.client.list_artifacts(pretraining.info.run_id, "reconstructions")
    steps = [point.step for point in tracker.client.get_metric_history(pretraining.info.run_id, "loss")]
    assert steps == sorted(set(steps))
    assert steps[-1] == int(pretraining.data.params["steps"])


@pytest.mark.parametrize("moment", ["pretrain", "finetune", "between"])
def test_a_killed_command_finishes_to_the_numbers_of_an_undisturbed_one(
    out: Path, tmp_path: Path, template: Path, moment: str
) -> None:
    other = tmp_path / "undisturbed"
    other.mkdir()
    (other / "mlflow.db").write_bytes(template.read_bytes())
    words = [*SMOKE, "row=2"]
    assert main(other, *words) == 0
    kill_at(out, words, moment)
    assert main(out, *words) == 0
    expected, found = results(other), results(out)
    assert len(found) == 6
    assert found.equals(expected)


def kill_at(out: Path, words: list[str], moment: str) -> None:
    """Run the command in a process of its own and kill it without warning in the middle of a stage."""
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
import torch; torch.set_num_threads(1)
from dataclasses import replace
from experiments import execute, record, run, work
original = work.run_job
count = 0
def run_job(job, records, place, stop, held, others=None):
    global count
    count += 1
    place = replace(place, checkpoint_every=0.0)
    if {moment!r} == "between" and count == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    if job.stage == {moment!r}:
        keep = record.Journal.point
        def point(self, step, share, values):
            keep(self, step, share, values)
            if step >= 3:
                os.kill(os.getpid(), signal.SIGKILL)
        record.Journal.point = point
    return original(job, records, place, stop, held, others)
execute.run_job = run_job
sys.exit(run.main(sys.argv[1:]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "workers=1", f"out={out}", f"report_dir={out / 'report'}"],
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]


def test_two_processes_at_once_share_the_work_and_agree(out: Path) -> None:
    arguments = [sys.executable, "experiments/run.py", *SMOKE, f"out={out}", f"report_dir={out / 'report'}"]
    both = [subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()[-2000:]
    launches = Counter(record.launch for record in Records(out).finished().values())
    assert sum(launches.values()) == 3
    assert len(list(Tracker(tracking_uri(out), out).runs(""))) == 3  # no training was done twice


def test_two_workers_give_the_numbers_of_one(out: Path, tmp_path: Path, template: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "mlflow.db").write_bytes(template.read_bytes())
    words = [*SMOKE, "row=2"]
    assert main(out, *words) == 0
    arguments = [*words, "workers=2", f"out={other}", f"report_dir={other / 'report'}"]
    subprocess.run([sys.executable, "experiments/run.py", *arguments], cwd=ROOT, check=True, capture_output=True)
    assert results(out).equals(results(other))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["ablation=decoder_dept"], "unknown ablation 'decoder_dept': did you mean decoder_depth"),
        (["ablation=decoder_depth", "scale=dsk"], "unknown scale 'dsk': did you mean desk"),
        (["ablation=decoder_depth", "row=9"], "unknown row '9'"),
        (["ablation=decoder_depth", "seeds=0"], "seeds=0: give a whole number of at least 1"),
        (["ablation=decoder_depth", "seeds=two"], "seeds=two: give a whole number"),
        (["ablation=decoder_depth", "mask.ratoi=0.5"], "unknown key 'mask.ratoi': did you mean mask.ratio"),
        (["ablation=decoder_depth", "mask=rendom"], "unknown mask 'rendom': did you mean random"),
        (["ablation=decoder_depth", "model.encoder.depth=four"], "expected a whole number"),
        (["ablation=decoder_depth", "mask.ratio=1.5"], "masking ratio 1.5 is outside (0, 1)"),
        (["ablation=decoder_depth", "mask.ratio=0"], "masking ratio 0 is outside (0, 1)"),
        (["ablation=decoder_depth", "model.patch=[1,5,5]"], "height 24 is not a multiple of its patch size 5"),
        (["ablation=decoder_depth", "model.encoder.heads=5"], "cannot have 5 heads"),
        (["ablation=decoder_depth", "pretrain.optimizer=adam"], "unknown optimizer 'adam'"),
        (["ablation=decoder_depth", "device=cuda:9"], "device=cuda:9 cannot be used here"),
        (["ablation=decoder_depth", "plan_only=yes"], "give true or false"),
        (["ablation=decoder_depth", "nonsense"], "cannot read 'nonsense': write KEY=VALUE"),
        (["scale=desk"], "ablation=NAME"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_sentence_and_exit_status_two(
    out: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(out, *words) == 2
    errors = capsys.readouterr().err.strip()
    assert sentence in errors
    assert len(errors.splitlines()) == 1
    assert not (out / "runs").exists()


def test_an_output_folder_that_cannot_be_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(tmp_path / "file", *SMOKE) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["garbage", "truncated", "half created"])
def test_a_damaged_database_is_refused_and_left_alone(
    out: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    database = out / "mlflow.db"
    if damage == "garbage":
        database.write_bytes(b"this is no database" * 100)
    elif damage == "truncated":
        database.write_bytes(database.read_bytes()[: 64 * 1024])
    else:
        database.unlink()
        with sqlite3.connect(database) as connection:
            connection.execute("CREATE TABLE experiments (id INTEGER)")
    before = database.read_bytes()
    assert main(out, *SMOKE) == 2
    assert "tracking database" in capsys.readouterr().err
    assert database.read_bytes() == before


def test_a_full_disk_is_refused_before_training(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr("experiments.preflight.shutil.disk_usage", lambda path: usage)
    assert main(out, *SMOKE) == 2
    assert "has 1 MB free and these runs need" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_refused_before_anything_is_trained(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = plan([load_ablation("decoder_depth")], "smoke", 1, rows=["2"], precision=offer_of("auto").precision)[0]
    folder = out / "checkpoints" / job.fingerprint
    folder.mkdir(parents=True)
    (folder / "checkpoint.json").write_text("{")
    assert main(out, *SMOKE, "row=2") == 2
    assert "damaged checkpoint" in capsys.readouterr().err
    assert not (out / "runs").exists()


def test_plan_only_runs_nothing(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(out, *SMOKE, "plan_only=true") == 0
    assert "3 of 3 are still to run" in capsys.readouterr().out
    assert not (out / "runs").exists()


def test_the_default_row_is_planned_once_for_all_its_tables() -> None:
    ablations = [load_ablation("decoder_depth"), load_ablation("masking_ratio")]
    with files_are_there():
        jobs = plan(ablations, "paper", 1)
    shared = [job for job in jobs if {cell.table for cell in job.cells} == {"decoder_depth", "masking_ratio"}]
    assert {job.stage for job in shared} == {"pretrain", "finetune", "linear"}
    assert {(cell.table, cell.row) for cell in shared[0].cells} == {("decoder_depth", "8"), ("masking_ratio", "75")}


def test_a_changed_spec_takes_the_old_run_out_of_the_table(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(out, *SMOKE) == 0
    old = set(measurements(Records(out))["fingerprint"])
    monkeypatch.setattr("experiments.stages.stage.NUMERICS", 999)
    for plans in (out / "cache").glob("plans-*.json"):
        plans.unlink()  # they hold for the files of the project as they stand
    assert main(out, *SMOKE) == 0
    new = set(measurements(Records(out))["fingerprint"])
    assert len(new) == len(old) == 3
    assert not old & new


def test_overrides_of_the_user_make_a_table_of_their_own(out: Path) -> None:
    assert main(out, *SMOKE, "mask.ratio=0.5") == 0
    assert variant(["mask.ratio=0.5"]) == "mask.ratio=0.5"
    assert (out / "report" / "tables" / "decoder_depth--mask.ratio=0.5.csv").exists()
    assert set(measurements(Records(out))["variant"]) == {"mask.ratio=0.5"}


def test_a_row_means_the_same_at_every_scale() -> None:
    ablation = load_ablation("decoder_depth")
    for scale in ("smoke", "desk", "paper"):
        assert spec_of(ablation, ablation.rows["12"], scale, 0).model.decoder["depth"] == 12


@pytest.mark.parametrize("name", [signal.SIGINT, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)])
def test_a_signal_stops_the_command_with_a_checkpoint_and_leaves_it_resumable(out: Path, name: signal.Signals) -> None:
    words = [*SMOKE, f"out={out}", f"report_dir={out / 'report'}", "pretrain.epochs=500"]
    process = subprocess.Popen(
        [sys.executable, "experiments/run.py", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while not list(out.glob("runs/*/curves.jsonl")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.5)
    os.kill(process.pid, name)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from here" in errors
    assert "Traceback" not in errors
    assert list(out.glob("checkpoints/*/checkpoint.json"))
    assert [run.info.status for run in Tracker(tracking_uri(out), out).runs("")] == ["KILLED"]
