"""On CUDA: parts of a batch, and two cards over NCCL, give what one pass on one card gives.

These were written without a card. Their bound is that of float32 with other kernels for other sizes of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import pytest
import torch

from tests.train.pair import Pair, pair
from tests.train.trainings import TRAININGS, Seen, furthest, see

CARDS = torch.cuda.device_count()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(CARDS < 1, reason="there is no CUDA device")]

BOUND = 1e-4


@pytest.fixture(autouse=True, scope="module")
def whole_floats() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    if CARDS < 2:
        pytest.skip("there is one CUDA device, and these need two")
    with pair(tmp_path_factory.mktemp("pair") / "store", "cuda") as running:
        yield running


@lru_cache
def alone(name: str) -> Seen:
    return see(name, device=torch.device("cuda"))


@pytest.mark.parametrize("size", [8, 1])
@pytest.mark.parametrize("name", TRAININGS)
def test_parts_on_a_card_give_what_the_whole_batch_gives(name: str, size: int) -> None:
    assert furthest(alone(name), see(name, device=torch.device("cuda"), micro_batch=size)) < BOUND


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", ["MAE", "VideoMAE", "fine-tuning", "linear probe"])
def test_two_cards_give_what_one_gives(two: Pair, name: str, sharding: str) -> None:
    found = two.see(name, sharding=sharding, micro_batch=4)
    assert furthest(alone(name), found) < BOUND
    assert found.measures == pytest.approx(alone(name).measures, abs=2.0)  # one of 64 pictures
