"""A step in parts is the step as a whole: what is drawn, the loss and every gradient, until memory suffices."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from mae.data.source import Images
from mae.draws import Dropout, DropPath, Rows, normal
from mae.errors import DataError, NotDivisible, TooLarge
from mae.heads.batch_norm import BatchNorm
from mae.train import parts as module
from mae.train.loop import Runtime, fit
from mae.train.optim import Recipe
from mae.train.parts import Objective, Parts, check_shares
from mae.train.regularise import Mix
from tests.train.trainings import RECIPE, TRAININGS, Seen, furthest, see

#: Of losses, and of gradients in the size of the largest; 1e-6 was seen. bf16 has 8 bits: 1e-2 was seen.
FP32, BF16 = 1e-5, 5e-2


@lru_cache
def whole(name: str, precision: str = "fp32") -> Seen:
    return see(name, precision=precision)


@pytest.mark.parametrize(("size", "prepared"), [(8, module.PREPARED), (1, 0)])
@pytest.mark.parametrize("name", TRAININGS)
def test_losses_and_all_gradients_are_those_of_the_whole_batch(
    monkeypatch: pytest.MonkeyPatch, name: str, size: int, prepared: int
) -> None:
    monkeypatch.setattr(module, "PREPARED", prepared)  # all views at once, or as few as parts and groups allow
    parts = see(name, micro_batch=size)
    assert furthest(whole(name), parts) < FP32
    assert parts.measures == whole(name).measures


@pytest.mark.slow
@pytest.mark.parametrize("size", [4, 2])
@pytest.mark.parametrize("name", TRAININGS)
def test_so_they_are_in_four_and_in_eight_parts(name: str, size: int) -> None:
    assert furthest(whole(name), see(name, micro_batch=size)) < FP32


@pytest.mark.parametrize("name", ["MAE", "VideoMAE", "fine-tuning", "linear probe"])
def test_in_half_precision_they_are_so_to_its_rounding(name: str) -> None:
    first, other = whole(name, "bf16"), see(name, precision="bf16", micro_batch=4)
    first_step = Seen(), Seen()
    for seen, step in zip((first, other), first_step, strict=True):
        step.losses, step.gradients = seen.losses[:1], seen.gradients[:1]
    assert furthest(*first_step) < BF16


@pytest.mark.parametrize("name", ["MAE", "fine-tuning"])
def test_blocks_that_are_computed_again_give_the_same_bits(name: str) -> None:
    assert furthest(whole(name), see(name, recompute=True)) == 0.0


def fails(monkeypatch: pytest.MonkeyPatch, above: int) -> list[int]:
    """Let memory run out in the backward pass of parts of more than ``above`` samples; tell the sizes of all parts."""
    tried: list[int] = []
    part = Parts._part

    def limited(self: Parts, prepared: Any, step: Any, here: slice, draws: Any) -> Tensor:
        tried.append(here.stop - here.start)
        loss = part(self, prepared, step, here, draws)
        if here.stop - here.start > above:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nAnd more.")
        return loss

    monkeypatch.setattr(module.Parts, "_part", limited)
    return tried


@pytest.mark.parametrize("name", ["MAE", "fine-tuning"])
def test_a_step_that_ran_out_of_memory_is_done_again_in_halves(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    undisturbed = whole(name)
    tried = fails(monkeypatch, above=4)
    assert furthest(undisturbed, see(name)) < FP32
    assert tried == [16, 8, *[4] * 4 * 2]


def test_a_step_that_never_fits_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch, above=0)
    with pytest.raises(TooLarge, match=r"with 1 of its samples at a time \(CUDA out of memory\. Tried to allocate 2"):
        see("MAE")


def test_what_cannot_be_read_counts_for_nothing_in_parts_either() -> None:
    class Holes(Images):
        """Item 3 of every four cannot be read."""

        report = None

        def batches(self, order: Any, device: torch.device) -> Any:
            yield from super().batches((rows[rows % 4 != 3] for rows in order), device)

    def train(size: int | None) -> Seen:
        torch.manual_seed(0)
        seen, model = Seen(), nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
        source = Holes(torch.arange(64 * 12).view(64, 3, 2, 2).to(torch.uint8), torch.arange(64) % 4, tuple("abcd"))
        runtime = Runtime(
            0, log_every=1, micro_batch=size, observe=lambda step, values: seen.losses.append(values["loss"])
        )
        mix = Mix(0.8, 1.0, draws=4)

        def prepare(batch: Any, generator: Generator) -> tuple[Tensor, Tensor]:
            return mix(batch.images / 255 + normal(generator, *batch.images.shape), batch.labels, 4, generator)

        objective = Objective(prepare, lambda model, seen, _: F.cross_entropy(model(seen[0]), seen[1]), groups=4)
        fit(model, RECIPE.build(model), objective, source, RECIPE, runtime)
        return seen

    assert train(None).losses == pytest.approx(train(4).losses, rel=1e-5)


def test_each_group_of_a_batch_is_mixed_with_itself_by_a_draw_of_its_own() -> None:
    images = torch.arange(12.0).view(12, 1, 1, 1).expand(12, 3, 8, 8)
    mixed, targets = Mix(0.8, 0.0, draws=3)(images, torch.arange(12), 12, Generator().manual_seed(0))
    shares = []
    for group in range(3):
        own = torch.arange(group * 4, group * 4 + 4)
        share = targets[own[0], own[0]]
        assert torch.allclose(targets[own, own], share)
        assert torch.allclose(targets[own, own.flip(0)], 1 - share)
        assert torch.allclose(mixed[own, 0, 0, 0], share * own + (1 - share) * own.flip(0), atol=1e-5)
        shares.append(float(share))
    assert len(set(shares)) == 3


def test_each_group_is_normalised_as_torch_normalises_it() -> None:
    features = torch.randn(12, 5, generator=Generator().manual_seed(0))
    own, torchs = BatchNorm(5, 1e-6, groups=3), [nn.BatchNorm1d(5, eps=1e-6, affine=False) for _ in range(3)]
    expected = torch.cat([norm(part) for norm, part in zip(torchs, features.split(4), strict=True)])
    torch.testing.assert_close(own(features), expected)
    torch.testing.assert_close(own.running_mean, torchs[0].running_mean)  # those of the first device are kept
    torch.testing.assert_close(own.running_var, torchs[0].running_var)
    torch.testing.assert_close(own.eval()(features), torchs[0].eval()(features))


@pytest.mark.parametrize("kind", [DropPath, Dropout])
def test_some_rows_are_dropped_as_they_are_among_all(kind: Any) -> None:
    layer, x = kind(0.5), torch.randn(8, 5, 3)
    torch.manual_seed(0)
    expected = layer(x)
    layer.rows = Rows(8, torch.tensor([1, 2, 6]))
    torch.manual_seed(0)
    assert torch.equal(layer(x[[1, 2, 6]]), expected[[1, 2, 6]])


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ((64, 3), r"batch_size=64 cannot be shared equally by devices=3: choose 1 or 2 or 4"),
        ((64, 1, 48), r"micro_batch=48 does not divide the 64 samples .* choose 16 or 32 or 64"),
        ((64, 2, 64), r"micro_batch=64 does not divide the 32 samples that each of 2 devices .* choose 8 or 16 or 32"),
        ((64, 1, None, 6), r"batch_size=64 has no 6 equal groups .* choose 4 or 8"),
    ],
)
def test_what_does_not_divide_is_refused_with_what_does(shares: Any, words: str) -> None:
    with pytest.raises(NotDivisible, match=words):
        check_shares(*shares)


def test_a_batch_larger_than_the_data_is_refused() -> None:
    source = Images(torch.zeros(8, 3, 4, 4, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64), ("a",))
    model = nn.Linear(1, 1)
    with pytest.raises(DataError, match="batch_size=16 is more than the 8 samples"):
        fit(model, RECIPE.build(model), Objective.of(lambda b, g: model.weight.sum(), ""), source, RECIPE, Runtime(0))


def refused(model: nn.Module, prepare: Any, **more: Any) -> None:
    source = Images(torch.zeros(16, 3, 2, 2, dtype=torch.uint8), torch.zeros(16, dtype=torch.int64), ("a",))
    recipe = Recipe("sgd", 0.1, 16, 1, 0, 0.0)
    objective = Objective(prepare, lambda model, seen, _: model(seen[0].flatten(1)).mean(), **more)
    fit(model, recipe.build(model), objective, source, recipe, Runtime(0, micro_batch=4))


def test_what_would_draw_or_count_by_the_part_is_refused() -> None:
    def plain(batch: Any, generator: Generator) -> list[Tensor]:
        return [batch.images / 255]

    def unaware(batch: Any, generator: Generator) -> list[Tensor]:
        return [batch.images / 255 + torch.rand(batch.images.shape, generator=generator)]

    with pytest.raises(NotDivisible, match=r"because Dropout goes by the rows that it sees: take that of mae\.draws"):
        refused(nn.Sequential(nn.Linear(12, 4), nn.Dropout(0.5)), plain)
    with pytest.raises(NotDivisible, match="because BatchNorm1d goes by the rows that it sees"):
        refused(nn.Sequential(nn.Linear(12, 4), nn.BatchNorm1d(4)), plain)
    with pytest.raises(NotDivisible, match=r"draws from the generator itself: let it draw by mae\.draws"):
        refused(nn.Linear(12, 4), unaware)
    with pytest.raises(NotDivisible, match="because samples are told from one another: leave out micro_batch"):
        refused(nn.Linear(12, 4), plain, indivisible="samples are told from one another")
