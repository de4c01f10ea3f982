"""Boxes and masks move as the pixels do, by the same draws, and pixels alone are what they were."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Generator, Tensor

from mae.data.augment.clip_crops import MultiScaleCrop, SideCrop
from mae.data.augment.color import ColorJitter, Normalise
from mae.data.augment.compose import Compose
from mae.data.augment.crops import CenterCrop, CentreOfResized, FixedSizeCrop, RandomResizedCrop
from mae.data.augment.places import augmented, inverse, moved
from mae.data.augment.rand_augment import OPERATIONS, RandAugment, operate, origins
from mae.data.source import Augment, Batch, Places
from mae.errors import DataError

B, HEIGHT, WIDTH = 24, 40, 52
LEFT, TOP, RIGHT, BOTTOM = 12, 14, 40, 30  # of a white rectangle on black


def white_rectangles() -> Batch:
    """Pictures of a white rectangle, its box, and a mask that is 1 there."""
    images = torch.zeros(B, 3, HEIGHT, WIDTH, dtype=torch.uint8)
    images[:, :, TOP:BOTTOM, LEFT:RIGHT] = 255
    boxes = torch.tensor([[LEFT, TOP, RIGHT, BOTTOM]]).float().expand(B, 4)
    places = Places(boxes, torch.arange(B), (images[:, :1] > 0).long())
    return Batch(images, torch.zeros(B), torch.arange(B), places)


def around(white: Tensor) -> list[float]:
    """Left, top, right, bottom of what is white of ``(H, W)``."""
    rows, columns = white.any(1).nonzero(), white.any(0).nonzero()
    return [float(columns.min()), float(rows.min()), float(columns.max()) + 1, float(rows.max()) + 1]


CROPS = [
    CenterCrop((32, 32)),
    CenterCrop((60, 20)),
    CentreOfResized((24, 24), (30, 30)),
    FixedSizeCrop((36, 48), padding=2),
    FixedSizeCrop((32, 44)),
    RandomResizedCrop((48, 40)),
    MultiScaleCrop((32, 32), flip=True),
    SideCrop((32, 32), 2, 3),
    Compose((RandomResizedCrop((64, 64), scale=(0.5, 1)), ColorJitter(0.1, 0.1, 0.1, 0), FixedSizeCrop(48, padding=0))),
]


@pytest.mark.parametrize("crop", CROPS, ids=lambda crop: type(crop).__name__)
def test_boxes_and_masks_stay_on_what_they_mark(crop: Augment) -> None:
    batch = augmented(white_rectangles(), crop, Generator().manual_seed(1))
    assert batch.places is not None
    assert batch.places.masks is not None
    shown = [image.mean(0) > 0.5 for image in batch.images]
    for white, box, mask in zip(shown, batch.places.boxes, batch.places.masks[:, 0], strict=True):
        assert (white != mask.bool()).float().mean() < 0.05
        if white.any():
            assert box.tolist() == pytest.approx(around(white), abs=1.01)
    assert sum(bool(white.any()) for white in shown) > B / 2


@pytest.mark.parametrize("augment", [*CROPS, RandAugment()], ids=lambda crop: type(crop).__name__)
def test_pixels_are_the_same_with_and_without_places(augment: Augment) -> None:
    batch = white_rectangles()
    plain = augment(batch.images, Generator().manual_seed(2))
    assert torch.equal(augmented(batch, augment, Generator().manual_seed(2)).images, plain)
    without = augmented(batch._replace(places=None), augment, Generator().manual_seed(2))
    assert torch.equal(without.images, plain)
    assert without.places is None


def test_a_mirrored_box_is_mirrored() -> None:
    batch = augmented(white_rectangles(), FixedSizeCrop((HEIGHT, WIDTH), padding=0), Generator().manual_seed(0))
    assert batch.places is not None
    found = {tuple(box) for box in batch.places.boxes.tolist()}
    assert found == {(LEFT, TOP, RIGHT, BOTTOM), (WIDTH - RIGHT, TOP, WIDTH - LEFT, BOTTOM)}


@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY", "Invert"])
def test_the_affine_operations_of_rand_augment_take_places_along(name: str) -> None:
    batch = white_rectangles()
    assert batch.places is not None
    operation, strength, sign = torch.full((B,), OPERATIONS.index(name)), torch.linspace(0, 6, B), torch.ones(B)
    levels = operate(batch.images.float(), operation, strength, sign, (0, 0, 0))
    places = moved(batch.places, inverse(origins(operation, strength / 10, HEIGHT, WIDTH)), (HEIGHT, WIDTH))
    assert places.masks is not None
    for image, box, mask in zip(levels, places.boxes, places.masks[:, 0], strict=True):
        if name != "Invert":  # which moves nothing
            assert ((image[0] > 127) != mask.bool()).float().mean() < 0.02
            assert box.tolist() == pytest.approx(around(image[0] > 127), abs=1.5)
        else:
            assert box.tolist() == [LEFT, TOP, RIGHT, BOTTOM]


def test_boxes_by_frame_and_boxes_outside() -> None:
    batch = white_rectangles()
    boxes = torch.tensor([[[0.0, 0, 4, 4], [20, 12, 30, 20]]])  # one thing in two frames, of item 3
    crop = CenterCrop((HEIGHT // 2, WIDTH // 2))
    seen = augmented(batch._replace(places=Places(boxes, torch.tensor([3]))), Compose((crop,)), Generator())
    assert seen.places is not None
    assert seen.places.boxes.shape == (1, 2, 4)
    assert seen.places.boxes[0, 0].tolist() == [0, 0, 2, 2]  # the picture was halved
    away = RandomResizedCrop(8, scale=(0.02, 0.03))
    gone = augmented(white_rectangles(), away, Generator().manual_seed(0)).places
    assert gone is not None
    area = (gone.boxes[:, 2] - gone.boxes[:, 0]) * (gone.boxes[:, 3] - gone.boxes[:, 1])
    assert area.min() == 0
    assert len(gone.boxes) == B


def test_what_moves_nothing_leaves_places_alone() -> None:
    batch = white_rectangles()
    seen = augmented(batch, Compose((ColorJitter(), Normalise([0.5] * 3, [0.5] * 3))), Generator())
    assert seen.places is batch.places


@dataclass(frozen=True)
class Own:
    """A user's augmentation that does not tell where it moves points to."""

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        return images.float().flip(-1)


def test_an_augmentation_that_does_not_tell_is_refused_only_where_there_are_places() -> None:
    batch = white_rectangles()
    assert augmented(batch._replace(places=None), Own(), Generator()).images.shape == batch.images.shape
    with pytest.raises(DataError, match="does not tell where it moves boxes and masks"):
        augmented(batch, Own(), Generator())
