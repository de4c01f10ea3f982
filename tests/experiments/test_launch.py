"""Workers: where they run, what becomes of a training that fails, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from experiments import execute
from experiments.ablation import SpecError
from experiments.failures import describe_failures, failures_of
from experiments.hardware import side_by_side
from experiments.launch import LOCAL, Array, launch_of
from experiments.plan import Cell, Facts, Job
from experiments.record import Journal, Record, Records
from experiments.run import main, parse
from experiments.work import Workplace
from mae.train.stop import Stop


def job(name: str, needs: str | None = None, flops: float = 1.0) -> Job:
    spec: Any = SimpleNamespace(seed=0, scale="smoke")  # nobody trains it here
    facts = Facts(name, needs, flops, 0.0, 1, 0)
    return Job(spec, "finetune", facts, cells=[Cell("decoder_depth", name, 0)])


def record(name: str, launch: str = "") -> Record:
    return Record(name, f"training {name}", "finetune", "smoke", 0, {}, {}, {}, {}, launch=launch)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """Trainings end at once; those whose name begins with ``bad`` fail."""

    def run_job(job: Job, records: Records, place: Workplace, *_: object) -> Record | None:
        journal = Journal(records.of(job.fingerprint), record(job.fingerprint, place.launch))
        if job.fingerprint.startswith("bad"):
            records.fail(job.fingerprint, "NotFinite", "the loss is nan", "the loss is nan")
            return None
        return journal.finish({"finetune/top1": 1.0}, {})

    monkeypatch.setattr(execute, "run_job", run_job)
    return Workplace(tmp_path, torch.device("cpu"))


def test_a_training_that_fails_stops_only_those_that_start_from_it(place: Workplace) -> None:
    jobs = [job("good"), job("bad"), job("after bad", "bad"), job("last after bad", "after bad"), job("last")]
    execute.work_through(jobs, place, Stop())
    records = Records(place.out)
    assert records.finished().keys() == {"good", "last"}
    found = failures_of(jobs, records, [place.launch])
    assert [failure.fingerprint for failure in found] == ["bad", "after bad", "last after bad"]
    said = describe_failures(found, jobs, lambda job: f"python run.py row={job.fingerprint}")
    assert "3 of 5 trainings are missing" in said
    assert "training bad: the loss is nan\n    log: " in said
    assert "it starts from training bad, which failed" in said
    assert "missing in: decoder_depth [bad]\n    repeat: python run.py row=bad" in said


def test_another_command_tries_again_what_failed(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    execute.work_through([job("bad")], place, Stop())
    begun = []
    again = Workplace(place.out, place.device)
    execute.work_through([job("bad")], again, Stop(), begin=begun.append)
    assert [found.fingerprint for found in begun if found] == ["bad"]


def test_a_command_that_comes_when_all_is_done_begins_nothing(place: Workplace) -> None:
    execute.work_through([job("good")], place, Stop())
    begun: list[Job | None] = []
    execute.work_through([job("good")], Workplace(place.out, place.device), Stop(), begin=begun.append)
    assert not begun


def test_workers_of_a_cpu_are_as_many_as_its_cores_and_not_more_than_there_is_to_do(place: Workplace) -> None:
    one = Workplace(place.out, place.device, threads=1)
    assert len(execute.places_of(one, "cpu", 4, [job(str(n)) for n in range(9)])) == 4
    assert len(execute.places_of(one, "cpu", 4, [job("a"), job("b")])) == 2
    assert len(execute.places_of(place, "cpu", 4, [job("a"), job("b")])) == 1  # each takes all cores
    assert len(execute.places_of(one, "cpu", 4, [job("a")], workers=3)) == 3


def test_a_card_takes_as_many_trainings_as_its_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = {"a": SimpleNamespace(bytes=4e9, parts=1, checkpointing=False),
            "b": SimpleNamespace(bytes=9e9, parts=1, checkpointing=False),
            "parts": SimpleNamespace(bytes=4e9, parts=2, checkpointing=False)}  # fmt: skip
    monkeypatch.setattr("experiments.hardware.fit_of", lambda job, memory, devices: fits.get(job.fingerprint))
    jobs = [job("a"), job("b"), *[job("a") for _ in range(8)]]
    assert side_by_side(jobs, 40e9) == 4
    assert side_by_side(jobs[:2], 40e9) == 2
    assert side_by_side([job("a"), job("parts")], 40e9) == 1
    assert side_by_side([job("a"), job("does not fit")], 40e9) == 1


def test_an_array_lives_as_long_as_one_of_its_processes() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        array = Array("x", LOCAL, [str(process.pid)], [])
        assert array.alive()
        process.kill()
        process.wait()
        assert not array.alive()


def test_what_an_array_asks_for_is_changed_by_keys() -> None:
    launch = launch_of("slurm", ["launch.minutes=10", "launch.partition=long", "launch.more.constraint=a100"])
    assert (launch.minutes, launch.partition, launch.more) == (10, "long", {"constraint": "a100"})
    assert launch_of("slurm").more == {}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["launch=slrum"], "unknown launch 'slrum': did you mean slurm"),
        (["launch=slurm", "launch.minuts=3"], "unknown key 'launch.minuts': did you mean minutes"),
        (["launch=slurm", "launch.workers=0"], "launch.workers=0: give a whole number of at least 1"),
        (["cluster=pbs"], "unknown cluster 'pbs'"),
        (["locks=lock"], "unknown locks 'lock'"),
    ],
)
def test_a_launch_that_cannot_be_is_refused(words: list[str], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        parse(["ablation=decoder_depth", *words])


def test_slurm_is_refused_where_there_is_none(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    words = ["ablation=decoder_depth", "scale=smoke", "row=1", "launch=slurm_cpu", f"out={out}"]
    assert main([*words, f"report_dir={out / 'report'}"]) == 2
    error = capsys.readouterr().err
    assert "no sbatch" in error or "pip install -e '.[slurm]'" in error
    assert not (out / "runs").exists()
