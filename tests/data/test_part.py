"""A part of a source: fewer of the same items, numbered anew."""

from __future__ import annotations

import itertools

import pytest
import torch

from mae.data.files.tally import DecodeReport
from mae.data.part import Part, part_of
from mae.data.pictures.cache import DecodedImages
from mae.data.source import Images, Source
from mae.errors import DataError

CPU = torch.device("cpu")
KEY = "data.samples.train"
WHOLE = Images(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), torch.arange(10), tuple("abcdefghij"))
UNEVEN = Images(torch.zeros(16, 1, 1, 1, dtype=torch.uint8), torch.tensor([1] * 7 + [0] * 2 + [2] * 7), tuple("abc"))


def ids_of(source: Source) -> list[int]:
    assert isinstance(source, Part)
    return source.ids.tolist()


def test_all_of_a_source_is_the_source() -> None:
    assert part_of(WHOLE, 10, KEY) is WHOLE
    assert part_of(WHOLE, 10, KEY, balanced=True) is WHOLE


def test_a_part_has_distinct_items_and_the_classes_of_the_whole() -> None:
    part = part_of(WHOLE, 4, KEY)
    (batch,) = part.batches([torch.arange(4)], CPU)
    assert len(part) == len(set(batch.labels.tolist())) == 4
    assert batch.images.flatten().tolist() == batch.labels.tolist() == sorted(batch.labels.tolist())
    assert part.classes == WHOLE.classes


def test_a_part_is_the_same_for_every_caller() -> None:
    first, second = (next(iter(part_of(WHOLE, 4, KEY).batches([torch.arange(4)], CPU))) for _ in range(2))
    assert torch.equal(first.labels, second.labels)


def test_rows_are_numbers_within_the_part() -> None:
    order = [torch.tensor([3, 1]), torch.tensor([0, 2])]
    assert [batch.rows.tolist() for batch in part_of(WHOLE, 4, KEY).batches(order, CPU)] == [[3, 1], [0, 2]]


@pytest.mark.parametrize(("count", "counts"), [(3, [1, 1, 1]), (6, [2, 2, 2]), (8, [2, 3, 3]), (15, [2, 6, 7])])
def test_a_balanced_part_has_as_many_of_each_class_as_there_are(count: int, counts: list[int]) -> None:
    ids = ids_of(part_of(UNEVEN, count, KEY, balanced=True))
    assert ids == sorted(set(ids))
    found = UNEVEN.labels[ids].bincount().tolist()
    assert found[0] == counts[0]
    assert sorted(found) == counts


@pytest.mark.parametrize("balanced", [False, True])
def test_a_larger_part_holds_a_smaller_one(balanced: bool) -> None:
    parts = [set(ids_of(part_of(UNEVEN, count, KEY, balanced))) for count in range(1, 16)]
    assert all(small < large for small, large in itertools.pairwise(parts))


def test_items_that_decoding_left_out_count_among_all_and_are_in_no_part() -> None:
    report = DecodeReport(10, (("broken.png", "an empty file"), ("cut.png", "truncated")))
    decoded = DecodedImages(WHOLE.pixels, WHOLE.labels, WHOLE.classes, report)
    assert part_of(decoded, 12, KEY) is part_of(decoded, 11, KEY) is decoded
    assert max(ids_of(part_of(decoded, 9, KEY))) < 10
    with pytest.raises(DataError, match="the data has 12 samples"):
        part_of(decoded, 13, KEY)


@pytest.mark.parametrize("count", [11, 0, -1])
def test_more_than_there_is_and_none_are_refused(count: int) -> None:
    with pytest.raises(DataError, match=rf"{KEY}={count}, and the data has 10 samples; choose from 1 to 10"):
        part_of(WHOLE, count, KEY)
