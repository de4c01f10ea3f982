"""A part of a source: fewer of the same items, numbered anew."""

from __future__ import annotations

import pytest
import torch

from mae.data.part import part_of
from mae.data.source import DataError, Images

CPU = torch.device("cpu")
WHOLE = Images(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), torch.arange(10), tuple("abcdefghij"))


def test_all_of_a_source_is_the_source() -> None:
    assert part_of(WHOLE, 10) is WHOLE


def test_a_part_has_distinct_items_and_the_classes_of_the_whole() -> None:
    part = part_of(WHOLE, 4)
    (batch,) = part.batches([torch.arange(4)], CPU)
    assert len(part) == len(set(batch.labels.tolist())) == 4
    assert batch.images.flatten().tolist() == batch.labels.tolist() == sorted(batch.labels.tolist())
    assert part.classes == WHOLE.classes


def test_a_part_is_the_same_for_every_caller() -> None:
    first, second = (next(iter(part_of(WHOLE, 4).batches([torch.arange(4)], CPU))) for _ in range(2))
    assert torch.equal(first.labels, second.labels)


def test_rows_are_numbers_within_the_part() -> None:
    order = [torch.tensor([3, 1]), torch.tensor([0, 2])]
    assert [batch.rows.tolist() for batch in part_of(WHOLE, 4).batches(order, CPU)] == [[3, 1], [0, 2]]


def test_more_than_there_is_is_refused() -> None:
    with pytest.raises(DataError, match=r"11 samples are asked for, and the data has 10; lower data\.samples"):
        part_of(WHOLE, 11)
