"""Supervised pre-training: its loss written out, what it reads of the data, and who is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from experiments.ablation import load_ablation
from experiments.run import main
from experiments.spec import Spec, spec_of
from experiments.stages.pretraining import Pretraining
from mae.grid import Grid
from mae.methods.supervised import Supervised
from mae.model import Encoder, Transformer
from mae.train.regularise import Mix

GRID = Grid.of(1, (16, 16), (1, 4, 4))
PLAIN = {"mixup": 0.0, "cutmix": 0.0, "drop_path": 0.0}


def supervised(**values: float) -> Supervised:
    torch.manual_seed(0)
    return Supervised(Encoder(GRID, Transformer(16, 2, 2)), classes=5, **values)


def labelled() -> tuple[Tensor, Tensor]:
    return torch.randn(4, 3, 16, 16, generator=Generator().manual_seed(0)), torch.tensor([0, 1, 4, 1])


def written_out(method: Supervised, pictures: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with ``targets: (B, classes)`` smoothed by a tenth, sample by sample."""
    total = torch.zeros(())
    for picture, target in zip(pictures, targets, strict=True):
        tokens = method.encoder(GRID.patchify(picture[None]))[0, 1:]
        logits = method.head.weight @ tokens.mean(0) + method.head.bias
        logs = logits - logits.exp().sum().log()
        total = total - ((0.9 * target + 0.1 / 5) * logs).sum() / len(pictures)
    return total


@pytest.mark.parametrize("mixes", [False, True])
def test_the_loss_and_its_gradient_are_those_of_smoothed_and_mixed_labels(mixes: bool) -> None:
    method = supervised(**(PLAIN | ({"mixup": 0.8, "cutmix": 1.0} if mixes else {})))
    pictures, labels = labelled()
    seen, targets = pictures, torch.eye(5)[labels]
    if mixes:
        seen, targets = Mix(0.8, 1.0)(pictures, labels, 5, Generator().manual_seed(3))
    written = written_out(method, seen, targets)
    written.backward()
    wanted = {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
    method.zero_grad()
    loss = method.loss([pictures, labels], Generator().manual_seed(3))
    loss.backward()
    torch.testing.assert_close(loss, written)
    for name, parameter in method.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], atol=1e-5, rtol=1e-4)


def test_a_step_costs_what_torch_counts() -> None:
    method, counter = supervised(**PLAIN), FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        method.loss(labelled(), Generator()).backward()
    assert counter.get_total_flops() / 4 == pytest.approx(method.sample_flops(), rel=0.01)


def spec(*words: str) -> Spec:
    table = load_ablation("decoder_depth")
    return spec_of(table, table.rows["8"], "smoke", 0, ["method=supervised", *words])


def test_it_trains_on_the_labelled_part_and_a_name_says_which() -> None:
    stage = Pretraining(spec())
    assert stage.side == "train"
    assert stage.steps() == 64 // 16
    names = [Pretraining(spec(*words)).fingerprint() for words in ((), ("data.samples.train=48",))]
    names += [Pretraining(spec("data.samples.pretrain=64")).fingerprint()]
    assert names[0] == names[2] != names[1]


def test_micro_batches_are_refused_where_pictures_are_mixed_and_only_there() -> None:
    with pytest.raises(ValueError, match="because each picture is mixed with another of the batch"):
        Pretraining(spec()).check_sharing(1, 4, "ddp")
    Pretraining(spec("method.mixup=0", "method.cutmix=0")).check_sharing(1, 4, "ddp")


def test_data_without_labels_and_other_values_are_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    for number in range(20):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / f"{number}.png")
    words = ["scale=smoke", "data=image_folder", f"data.source.root={tmp_path}", "data.samples.pretrain=20"]
    assert main(["ablation=pretraining", "method=supervised", *words, f"out={tmp_path / 'out'}"]) == 2
    said = capsys.readouterr().err.strip()
    assert "has no labels, which pretrain trains on" in said
    assert len(said.splitlines()) == 1
    with torch.device("meta"), pytest.raises(ValueError, match=r"label_smoothing=2\.0 lies within"):
        supervised(label_smoothing=2.0)
