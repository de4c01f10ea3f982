"""Two devices train as one does, whichever way they share the model, and go on where the other way was stopped."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from mae.train.checkpoint import Checkpoints
from mae.train.distributed import SHARDS_ON_CPU
from tests.train.pair import Pair, pair
from tests.train.trainings import Seen, furthest, see

FP32 = 1e-5


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair(tmp_path_factory.mktemp("pair") / "store") as running:
        yield running


@lru_cache
def alone(name: str) -> Seen:
    return see(name)


@pytest.mark.parametrize(
    "name",
    [
        "MAE",
        "VideoMAE",
        "fine-tuning",
        "fine-tuning, mixed in 8 groups",
        "fine-tuning on clips used twice",
        "linear probe",
        "linear probe, normalised in 4 groups",
        "linear probe on cached features",
        "nearest neighbours",
        "action detection",
    ],
)
def test_two_devices_give_the_losses_gradients_and_accuracies_of_one(two: Pair, name: str) -> None:
    found = two.see(name, micro_batch=None if "8 groups" in name else 4)
    assert furthest(alone(name), found) < FP32
    assert found.measures == alone(name).measures


needs_shards = pytest.mark.skipif(not SHARDS_ON_CPU, reason="this torch shards no model on a CPU")


@needs_shards
@pytest.mark.parametrize("name", ["MAE", "VideoMAE", "fine-tuning", "linear probe"])
def test_a_sharded_model_gives_the_losses_gradients_and_accuracies_of_a_whole_one(two: Pair, name: str) -> None:
    found = two.see(name, sharding="fsdp", micro_batch=4, recompute=name == "MAE")
    assert furthest(alone(name), found) < FP32
    assert found.measures == alone(name).measures


WAYS = ("one", "ddp", "fsdp")
FEW = [
    ("fine-tuning with averaged weights", "ddp", "one"),
    pytest.param("fine-tuning", "fsdp", "one", marks=needs_shards),
    pytest.param("MAE", "ddp", "fsdp", marks=needs_shards),
    ("linear probe", "one", "ddp"),
]
MANY = [(name, *ways) for name in ("fine-tuning", "linear probe", "VideoMAE") for ways in product(WAYS, WAYS)]


@pytest.mark.parametrize(
    ("name", "first", "then"), [*FEW, *(pytest.param(*case, marks=pytest.mark.slow) for case in MANY)]
)
def test_a_training_goes_on_on_other_devices_to_the_same_numbers(
    two: Pair, tmp_path: Path, name: str, first: str, then: str
) -> None:
    def run(how: str, **more: Any) -> Seen:
        if how == "one":
            return see(name, checkpoints=Checkpoints(tmp_path, every=0.0), **more)
        return two.see(name, folder=str(tmp_path), sharding=how, **more)

    run(first, stop=True)
    assert Checkpoints(tmp_path).load(torch.device("cpu")) is not None
    undisturbed, resumed = alone(name), run(then)
    rest = Seen()
    rest.losses, rest.gradients = undisturbed.losses[1:], undisturbed.gradients[1:]
    assert furthest(rest, resumed) < FP32
    assert resumed.measures == undisturbed.measures


def test_averaged_weights_are_not_sharded(two: Pair) -> None:
    with pytest.raises(RuntimeError, match=r"averaged weights \(ema\) are kept whole: choose sharding=ddp"):
        two.see("fine-tuning with averaged weights", sharding="fsdp")


@needs_shards
def test_memory_that_runs_out_on_a_device_that_shares_a_model_is_told_with_the_size_that_fits(two: Pair) -> None:
    with pytest.raises(RuntimeError, match=r"TooLarge: parts of 8 .* set micro_batch=4 and run the same command again"):
        two.see("MAE", sharding="fsdp", short_of_memory=True)


def test_one_of_two_devices_that_runs_out_of_memory_repeats_its_own_parts(two: Pair) -> None:
    assert furthest(alone("MAE"), two.see("MAE", short_of_memory=True)) < FP32
