"""Two devices train as one does, whichever way they share the model, and go on where the other way was stopped."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import pytest

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
        "linear probe",
        "linear probe, normalised in 4 groups",
        "linear probe on cached features",
        "nearest neighbours",
    ],
)
def test_two_devices_give_the_losses_gradients_and_accuracies_of_one(two: Pair, name: str) -> None:
    found = two.see(name, micro_batch=None if "8 groups" in name else 4)
    assert furthest(alone(name), found) < FP32
    assert found.measures == alone(name).measures


@pytest.mark.parametrize("name", ["MAE", "VideoMAE", "fine-tuning", "linear probe"])
def test_a_sharded_model_gives_the_losses_gradients_and_accuracies_of_a_whole_one(two: Pair, name: str) -> None:
    found = two.see(name, sharding="fsdp", micro_batch=4, recompute=name == "MAE")
    assert furthest(alone(name), found) < FP32
    assert found.measures == alone(name).measures
