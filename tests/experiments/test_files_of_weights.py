"""Weights from files are looked at when a table is planned: they fit and are told once, or are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from experiments.ablation import SpecError, load_ablation
from experiments.assemble import encoder_of
from experiments.identity import file_digest
from experiments.plan import Job, plan
from experiments.stages.sketch import check_weights


def jobs(path: Path | str, *overrides: str) -> list[Job]:
    given = ["origin=file", f"origin.path={path}", *overrides]
    return plan([load_ablation("mask_sampling")], "smoke", 1, given, ["random 75"])


@pytest.fixture
def state(tmp_path: Path) -> dict[str, torch.Tensor]:
    save_file({"embed.weight": torch.zeros(1)}, tmp_path / "any.safetensors")
    spec = plan([load_ablation("mask_sampling")], "smoke", 1, [], ["random 75"])[0].spec
    return {f"backbone.{name}": tensor for name, tensor in encoder_of(spec).state_dict().items()}


def test_what_of_a_file_is_used_is_told_once(
    state: dict[str, torch.Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check_weights.cache_clear()
    torch.save({"state_dict": state | {"head.weight": torch.zeros(1)}}, tmp_path / "epoch.ckpt")
    found = jobs(tmp_path / "epoch.ckpt")
    assert [job.stage for job in found] == ["finetune", "linear"]
    told = [record.getMessage() for record in caplog.records if "epoch.ckpt" in record.getMessage()]
    assert told == [f"{tmp_path}/epoch.ckpt: {len(state)} tensors are used; 1 are left aside (head.weight)"]


def test_weights_that_do_not_fit_are_refused_with_their_file(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({name: tensor for name, tensor in state.items() if "norm1.bias" not in name}, tmp_path / "part.pth")
    with pytest.raises(SpecError, match=r"part\.pth: the weights have no blocks\.0\.norm1\.bias"):
        jobs(tmp_path / "part.pth")
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(SpecError, match="it is a pointer of Git LFS"):
        jobs(tmp_path / "pointer.pth")


def test_a_folder_is_named_by_what_it_holds(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    save_file(state, tmp_path / "hub" / "model.safetensors")
    before = [job.fingerprint for job in jobs(tmp_path / "hub")]
    file_digest.cache_clear()
    save_file({name: tensor + 1 for name, tensor in state.items()}, tmp_path / "hub" / "model.safetensors")
    assert not set(before) & {job.fingerprint for job in jobs(tmp_path / "hub")}
