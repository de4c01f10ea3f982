"""Data that fit stay on the device."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mae.data.clips.sampling import Uniform
from mae.data.clips.source import DecodedClips
from mae.data.part import part_of
from mae.data.source import Images, Source, Splits, resident

META = torch.device("meta")
TRAIN, TEST = (Images(torch.zeros(n, 3, 4, 4, dtype=torch.uint8), torch.zeros(n), ("a",)) for n in (6, 2))
SPLITS = Splits(TRAIN, TRAIN, TEST)
BYTES = 8 * 48


class Streamed:
    """A source that is read anew for every batch."""

    classes = ("a",)

    def __len__(self) -> int:
        return 6


def test_pixels_that_fit_are_moved_and_a_set_that_serves_twice_is_moved_once() -> None:
    moved = resident(SPLITS, META, BYTES)
    assert moved.train is moved.pretrain
    assert all(source.pixels.device == META for source in (moved.train, moved.test))  # type: ignore[attr-defined]


@pytest.mark.parametrize("splits", [SPLITS, replace(SPLITS, pretrain=Streamed())])
def test_data_that_do_not_fit_or_are_streamed_stay_where_they_are(splits: Splits) -> None:
    room = BYTES - 1 if splits is SPLITS else 2 * BYTES
    assert resident(splits, META, room) is splits


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_of_resident_pictures_clips_and_parts_are_those_of_the_host() -> None:
    device = torch.device("cuda")
    pixels = torch.arange(10 * 48).to(torch.uint8).view(10, 3, 4, 4)
    pictures = Images(pixels, torch.arange(10), tuple("abcdefghij"))
    clips = DecodedClips(pixels, torch.tensor([0, 4, 10]), torch.tensor([1, 0]), ("a", "b"))
    pairs: list[tuple[Source, Source]] = [(pictures, pictures.to(device))]
    pairs.append((part_of(pictures, 4, "k", balanced=True), part_of(pictures.to(device), 4, "k", balanced=True)))
    pairs.append((clips.taking(Uniform(2)), clips.to(device).taking(Uniform(2))))
    for host, moved in pairs:
        (expected,), (found,) = (source.batches([torch.tensor([1, 0])], device) for source in (host, moved))
        for a, b in zip(expected, found, strict=True):
            assert torch.equal(a, b)
