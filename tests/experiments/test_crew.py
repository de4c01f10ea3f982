"""A job on several processes: each does its share, and what fails in one is said once, by the first."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from experiments.ablation import SpecError, load_ablation
from experiments.crew import Place, Sharing, check_sharing, crew
from experiments.plan import plan
from experiments.record import Records
from experiments.run import main, parse
from experiments.work import Workplace, share_job
from mae.errors import DataError, RankLost
from mae.train.distributed import SHARDS_ON_CPU
from mae.train.loop import Runtime

CPU = torch.device("cpu")


class Work:
    """A job, and the stage of it, that does what ``does`` says on the second process, between sums over both."""

    fingerprint, needs = "x", None
    spec, facts = SimpleNamespace(seed=0, precision="fp32"), SimpleNamespace(steps=1)

    def __init__(self, does: str) -> None:
        self.does = does

    def made(self) -> Work:
        return self

    def identity(self) -> dict[str, str]:
        return {"does": self.does}

    def run(self, start: object, cache: Path, runtime: Runtime) -> float:
        world = runtime.world
        assert (runtime.micro_batch, world.size) == (4, 2)
        before = float(world.sum(torch.tensor(float(world.rank + 1))))
        if world.rank == 1 and self.does == "fails":
            raise DataError("the second process found nothing to read.")
        if world.rank == 1 and self.does == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        return before + float(world.sum(torch.tensor(10.0)))


def done(does: list[str], out: Path) -> None:
    """Let two processes do jobs, one after the other, as ``run_job`` does its own share."""
    where = Workplace(out, CPU, threads=1, sharing=Sharing(2, micro_batch=4))
    with crew(2) as others:
        assert others is not None
        for what in does:
            job: Any = Work(what)
            try:
                share_job(job, where, others.begin(job, where))
            except Exception as error:
                raise others.reason(error) from error


@pytest.mark.parametrize(
    ("does", "words"),
    [
        ("fails", "^the second process found nothing to read.$"),
        pytest.param("is killed", r"is gone .* run the same command again", marks=pytest.mark.slow),
    ],
)
def test_what_fails_in_one_process_is_the_sentence_of_all(tmp_path: Path, does: str, words: str) -> None:
    with pytest.raises(RankLost, match=words):
        done(["works", does], tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["devices=2", "workers=2"], "leave one out"),
        (["micro_batch=some"], "micro_batch=some: give a whole number of at least 1, or auto"),
        (["micro_batch=0"], "micro_batch=0: give a whole number of at least 1, or auto"),
        (["devices=0"], "devices=0: give a whole number of at least 1"),
        (["sharding=all"], "unknown sharding 'all'"),
    ],
)
def test_a_wrong_way_of_sharing_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse(["ablation=mask_sampling", *words])


@pytest.mark.parametrize(
    ("device", "sharing", "message"),
    [
        ("cpu", Sharing(3), r"batch_size=\d+ cannot be shared equally by devices=3: choose 1 or 2 or 4"),
        ("cpu", Sharing(2, micro_batch=5), "micro_batch=5 does not divide the 8 samples that each of 2 devices"),
        ("cpu:0", Sharing(2), "device=cpu:0 is one device, and devices=2"),
    ],
)
def test_what_cannot_be_shared_is_refused_before_anything_is_trained(
    device: str, sharing: Sharing, message: str
) -> None:
    jobs = plan([load_ablation("mask_sampling")], "smoke", 1, precision="fp32")
    with pytest.raises(SpecError, match=message):
        check_sharing(jobs, device, sharing)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ablation=mask_sampling", "scale=smoke", "plan_only=true", "device=cuda", f"out={tmp_path}"]
    assert main([*words, f"report_dir={tmp_path}/r"]) == 2
    assert "device=cuda cannot be used here" in capsys.readouterr().err


def test_torchrun_says_which_process_this_is() -> None:
    said = {"TORCHELASTIC_RUN_ID": "x", "RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8"}
    assert Place.by_torchrun(said) == Place(9, 16, 1, alone=False)
    assert Place.by_torchrun({"RANK": "1"}) is None


def test_devices_that_torchrun_did_not_start_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SpecError, match="devices=4, and torchrun started 2 processes"), crew(4):
        pass


def metrics(out: Path) -> dict[str, float]:
    found = {}
    for record in Records(out).finished().values():
        found |= {key: value for key, value in record.results.items() if key.endswith(("top1", "/loss"))}
    return found


@pytest.mark.slow
@pytest.mark.skipif(not SHARDS_ON_CPU, reason="this torch shards no model on a CPU")
def test_a_table_on_two_devices_has_the_numbers_of_one(tmp_path: Path) -> None:
    words = ["ablation=mask_sampling", "scale=smoke", "row=random 75", "device=cpu", "precision=fp32"]
    for name, how in (("one", ["workers=1", "micro_batch=8"]), ("two", ["devices=2"]), ("sharded", ["devices=2"])):
        out = tmp_path / name
        more = ["sharding=fsdp", "recompute=true"] if name == "sharded" else []
        assert main([*words, *how, *more, f"out={out}", f"report_dir={out}/r"]) == 0
    one = metrics(tmp_path / "one")
    assert len(one) == 3
    assert metrics(tmp_path / "two") == pytest.approx(one, rel=1e-5)
    assert metrics(tmp_path / "sharded") == pytest.approx(one, rel=1e-5)
