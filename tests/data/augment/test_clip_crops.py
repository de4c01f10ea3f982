"""Augmentation of clips: every frame is treated as a picture would be with the same draws; the crops of VideoMAE."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Generator, Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from mae.data.augment.clip_crops import MultiScaleCrop, SideCrop, crops
from mae.data.augment.color import ColorJitter, Normalise
from mae.data.augment.compose import Compose
from mae.data.augment.crops import CenterCrop, FixedSizeCrop, RandomResizedCrop
from mae.data.augment.rand_augment import RandAugment, rand_augmented_crop
from mae.data.source import Augment
from mae.errors import DataError
from mae.train.regularise import Mix, RandomErasing

AUGMENTS: tuple[Augment, ...] = (
    CenterCrop(24),
    CenterCrop(40),
    FixedSizeCrop(24),
    FixedSizeCrop(32, padding=4),
    RandomResizedCrop(24, interpolation="bilinear"),
    RandomResizedCrop((20, 28)),
    MultiScaleCrop(24, flip=True),
    SideCrop(24, 2, 3),
    ColorJitter(),
    RandAugment(),
    Normalise((0.4, 0.5, 0.6), (0.1, 0.2, 0.3)),
    Compose((rand_augmented_crop(24), Normalise((0.5,) * 3, (0.25,) * 3))),
)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def clips(batch: int = 5, frames: int = 3, rows: int = 32, columns: int = 44) -> Tensor:
    return torch.randint(0, 256, (batch, 3, frames, rows, columns), dtype=torch.uint8, generator=seeded(9))


@pytest.mark.parametrize("augment", AUGMENTS, ids=lambda augment: repr(augment)[:60])
def test_a_frame_of_a_clip_becomes_what_the_picture_would(augment: Augment) -> None:
    whole = augment(clips(), seeded())
    assert whole.dtype == torch.float32
    for t in range(3):
        torch.testing.assert_close(whole[:, :, t], augment(clips()[:, :, t], seeded()), atol=1e-6, rtol=0)


@pytest.mark.parametrize("augment", AUGMENTS, ids=lambda augment: repr(augment)[:60])
def test_an_empty_batch_stays_empty(augment: Augment) -> None:
    assert len(augment(clips()[:0], seeded())) == 0


def test_each_clip_gets_colours_of_its_own() -> None:
    same = clips(1).expand(6, -1, -1, -1, -1)
    for augment in (ColorJitter(), RandAugment(probability=1.0)):
        assert len(torch.unique(augment(same, seeded()).flatten(1), dim=0)) == 6


def test_a_box_is_erased_through_all_frames_with_noise_of_their_own() -> None:
    plain = torch.zeros(16, 3, 4, 12, 10)
    erased = RandomErasing(0.5)(plain, seeded())
    where = (erased != 0).any(1)
    assert torch.equal(where, where[:, :1].expand_as(where))
    hit = where.flatten(1).any(1)
    assert 0 < hit.sum() < 16
    for item in erased[hit]:
        assert all(not torch.equal(one, other) for one, other in pairwise(item.unbind(1)))


@pytest.mark.parametrize("mix", [Mix(0.8, 0.0), Mix(0.0, 1.0)], ids=repr)
def test_all_frames_of_a_clip_are_mixed_alike(mix: Mix) -> None:
    floats, labels = clips().float(), torch.arange(5)
    mixed, targets = mix(floats, labels, 5, seeded(3))
    for t in range(3):
        frame, same = mix(floats[:, :, t], labels, 5, seeded(3))
        torch.testing.assert_close(mixed[:, :, t], frame)
        assert torch.equal(targets, same)


def test_multi_scale_crops_are_those_of_the_temporal_segment_networks() -> None:
    """Sides and places written out for a frame of 32 x 44 and scales of 32, 28, 24 and 21 pixels."""
    crop, images = MultiScaleCrop(16), torch.zeros(4000, 1, 32, 44)
    boxes = crop.boxes(images, torch.rand(4000, 2, generator=seeded()))
    sides = (32, 28, 24, 21)
    expected_sides = {(h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1}
    found_sides = set(zip(boxes.height.tolist(), boxes.width.tolist(), strict=True))
    assert found_sides == expected_sides
    quarters = {(0, 0), (0, 2), (0, 4), (2, 0), (2, 2), (2, 4), (4, 0), (4, 2), (4, 4), (1, 1), (1, 3), (3, 1), (3, 3)}
    chosen = (boxes.height == 24) & (boxes.width == 28)
    found = set(zip(boxes.top[chosen].tolist(), boxes.left[chosen].tolist(), strict=True))
    assert found == {(2 * down, 4 * right) for down, right in quarters}
    assert (boxes.top + boxes.height <= 32).all()
    assert (boxes.left + boxes.width <= 44).all()


def test_a_multi_scale_crop_is_torchvisions_resized_box() -> None:
    crop = MultiScaleCrop(24)
    whole = crop(clips(), seeded(1))
    boxes = crop.boxes(clips(), torch.rand(5, 3, generator=seeded(1))[:, :2])
    for clip, found, *box in zip(clips(), whole, *(side.int().tolist() for side in boxes), strict=True):
        theirs = tv.resized_crop(
            clip.transpose(0, 1).float() / 255, *box, [24, 24], interpolation=InterpolationMode.BILINEAR, antialias=True
        )
        torch.testing.assert_close(found, theirs.transpose(0, 1), atol=1e-4, rtol=0)


def test_a_side_near_the_size_is_cut_and_not_resized() -> None:
    crop = MultiScaleCrop(30, scales=(1.0,))
    frames = clips()
    boxes = crop.boxes(frames, torch.rand(5, 2, generator=seeded()))
    assert boxes.height.unique().tolist() == boxes.width.unique().tolist() == [30.0]
    assert MultiScaleCrop(34, scales=(1.0,)).boxes(frames, torch.zeros(5, 2)).height.unique().tolist() == [32.0]


def test_labels_of_motion_are_safe_from_mirrors() -> None:
    ramp = torch.arange(44.0).div(44).expand(32, 1, 2, 32, 44)
    unmirrored = MultiScaleCrop(16)(ramp, seeded()).diff(dim=-1).mean((1, 2, 3, 4)) > 0
    mirrored = MultiScaleCrop(16, flip=True)(ramp, seeded()).diff(dim=-1).mean((1, 2, 3, 4)) > 0
    assert unmirrored.all()
    assert 4 < mirrored.sum() < 28


@pytest.mark.parametrize(("rows", "columns"), [(32, 50), (50, 32)])
def test_three_crops_lie_at_both_ends_and_in_the_middle_of_the_long_side(rows: int, columns: int) -> None:
    frames = clips(2, rows=rows, columns=columns)
    found = [crop(frames, seeded()) for crop in crops(CenterCrop(32), 3)]
    floats = frames.float() / 255
    for start, crop in zip((0, 9, 18), found, strict=True):
        expected = floats[..., :32, start : start + 32] if columns > rows else floats[..., start : start + 32, :32]
        torch.testing.assert_close(crop, expected)


def test_one_crop_is_the_centre() -> None:
    assert crops(CenterCrop(32), 1) == (CenterCrop(32),)


def test_bad_crops_are_refused_with_a_sentence() -> None:
    for refused, message in (
        (lambda: crops(CenterCrop(32), 0), "crops=0: test on at least one crop"),
        (lambda: SideCrop(32, 3, 3), "an index below it"),
        (lambda: MultiScaleCrop(32, scales=(1.5,)), "must be shares of the short side"),
        (lambda: MultiScaleCrop(32, interpolation="nearest"), "is none of bilinear, bicubic"),
        (lambda: MultiScaleCrop(0)(clips(), seeded()), "size=0 has no pixels"),
    ):
        with pytest.raises(DataError, match=message):
            refused()  # type: ignore[no-untyped-call]
