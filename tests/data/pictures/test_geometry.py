"""Crops of one encoded picture."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from mae.data.pictures.decode import to_array
from mae.data.pictures.geometry import RandomView


def test_random_boxes_lie_inside_and_have_the_areas_and_ratios_asked_for() -> None:
    view = RandomView((8, 8), scale=(0.3, 0.6))
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([view.box(200, 150, generator) for _ in range(500)], dtype=torch.float64)
    left, top, width, height = boxes.unbind(1)
    assert (boxes >= 0).all()
    assert (left + width <= 200).all()
    assert (top + height <= 150).all()
    area, ratio = width * height / 30000, width / height
    assert 0.29 < area.min() < 0.32
    assert 0.58 < area.max() < 0.61
    assert abs(area.mean() - 0.45) < 0.02
    assert abs(ratio.log().mean()) < 0.03
    assert ratio.min() > 0.73
    assert ratio.max() < 1.36


def test_a_picture_that_no_box_fits_gets_the_largest_centred_one() -> None:
    generator = torch.Generator().manual_seed(0)
    assert RandomView(scale=(0.9, 1.0)).box(300, 30, generator) == (130, 0, 40, 30)
    assert RandomView(scale=(0.9, 1.0)).box(30, 300, generator) == (0, 130, 30, 40)


def test_half_of_the_random_views_are_mirrored() -> None:
    picture = Image.linear_gradient("L").rotate(90)
    view = RandomView((4, 4), scale=(1.0, 1.0), ratio=(1.0, 1.0))
    generator = torch.Generator().manual_seed(0)
    rising = [bool(np.diff(to_array(view(picture, generator))[0, 0].astype(int)).sum() > 0) for _ in range(200)]
    assert 75 < sum(rising) < 125
