"""Corruptions against their formulas and other libraries, and what all of them keep."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d, gaussian_filter
from skimage.color import rgb2hsv
from skimage.data import astronaut
from torch import Generator, Tensor

from mae.data.robustness.corruptions import (
    Brightness,
    Contrast,
    Edges,
    GaussianBlur,
    GaussianNoise,
    ImpulseNoise,
    Negative,
    Pixelate,
    Posterise,
)
from mae.data.source import Augment
from mae.errors import DataError

WEAK_AND_STRONG: list[tuple[Augment, Augment]] = [
    (GaussianNoise(0.05), GaussianNoise(0.2)),
    (ImpulseNoise(0.02), ImpulseNoise(0.2)),
    (GaussianBlur(0.6), GaussianBlur(2.0)),
    (Brightness(0.1), Brightness(0.4)),
    (Contrast(0.6), Contrast(0.1)),
    (Pixelate(0.7), Pixelate(0.2)),
    (Posterise(8), Posterise(2)),
]
ALL: list[Augment] = [corruption for pair in WEAK_AND_STRONG for corruption in pair] + [Edges(), Negative()]


def photos(count: int = 2, rows: int = 24, columns: int = 32) -> Tensor:
    """Different parts of a photograph, not square, uint8."""
    parts = [astronaut()[60 * i : 60 * i + 4 * rows : 4, 150 : 150 + 4 * columns : 4] for i in range(count)]
    return torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2).contiguous()


def corrupted(corruption: Augment, images: Tensor, seed: int = 0) -> Tensor:
    return corruption(images, Generator().manual_seed(seed))


@pytest.mark.parametrize("corruption", ALL, ids=str)
def test_shape_and_range_are_kept_and_the_input_is_left_alone(corruption: Augment) -> None:
    images = photos()
    before, floats = images.clone(), images / 255
    found = corrupted(corruption, images)
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    assert 0 <= float(found.min()) < float(found.max()) <= 1
    assert torch.equal(corrupted(corruption, floats), found)
    assert torch.equal(images, before)
    assert torch.equal(floats, before / 255)


@pytest.mark.parametrize("corruption", ALL, ids=str)
def test_the_generator_decides_and_nothing_else(corruption: Augment) -> None:
    first = corrupted(corruption, photos())
    torch.rand(3)
    assert torch.equal(corrupted(corruption, photos()), first)
    draws = isinstance(corruption, GaussianNoise | ImpulseNoise)
    assert torch.equal(corrupted(corruption, photos(), seed=1), first) is not draws


@pytest.mark.parametrize("corruption", [c for c in ALL if not isinstance(c, GaussianNoise | ImpulseNoise)], ids=str)
def test_a_picture_is_changed_alike_in_every_batch(corruption: Augment) -> None:
    images = photos(3)
    torch.testing.assert_close(corrupted(corruption, images)[1:2], corrupted(corruption, images[1:2]))


@pytest.mark.parametrize(("weak", "strong"), WEAK_AND_STRONG, ids=str)
def test_a_greater_strength_leads_further_away(weak: Augment, strong: Augment) -> None:
    images = photos()
    near, far = ((corrupted(c, images) - images / 255).abs().mean() for c in (weak, strong))
    assert 0 < near < 0.7 * far


def test_noise_has_the_stated_spread_and_is_independent() -> None:
    grey = torch.full((4, 3, 32, 32), 0.5)
    noise = corrupted(GaussianNoise(0.1), grey) - 0.5
    assert float(noise.std()) == pytest.approx(0.1, rel=0.03)
    assert abs(float(noise.mean())) < 0.003
    assert abs(float(torch.corrcoef(torch.stack([noise[0].flatten(), noise[1].flatten()]))[0, 1])) < 0.06


def test_impulses_are_salt_and_pepper_in_equal_parts_of_the_stated_share() -> None:
    found = corrupted(ImpulseNoise(0.2), torch.full((4, 3, 32, 32), 0.5))
    shares = [float((found == value).double().mean()) for value in (0, 0.5, 1)]
    assert shares == pytest.approx([0.1, 0.8, 0.1], abs=0.02)


def test_blur_is_that_of_scipy() -> None:
    images = photos()
    theirs = gaussian_filter(images.numpy() / 255, (0, 0, 1.2, 1.2), mode="nearest", radius=(0, 0, 4, 4))
    np.testing.assert_allclose(corrupted(GaussianBlur(1.2), images), theirs, atol=1e-5)


@pytest.mark.parametrize("shift", [0.2, -0.2])
def test_brightness_moves_the_value_and_neither_hue_nor_saturation(shift: float) -> None:
    both = (photos() / 255, corrupted(Brightness(shift), photos()))
    before, after = (rgb2hsv(images.permute(0, 2, 3, 1).double().numpy()) for images in both)
    inside = (before[..., 2] > 0.25) & (before[..., 2] < 0.78)
    assert inside.mean() > 0.2
    np.testing.assert_allclose(after[..., 2], np.clip(before[..., 2] + shift, 0, 1), atol=1e-5)
    np.testing.assert_allclose(after[inside][:, :2], before[inside][:, :2], atol=1e-4)


def test_brightened_black_is_grey() -> None:
    assert torch.equal(corrupted(Brightness(0.25), torch.zeros(1, 3, 2, 2)), torch.full((1, 3, 2, 2), 0.25))


def test_contrast_keeps_the_mean_of_each_channel_and_scales_its_spread() -> None:
    images = photos() / 255
    found = corrupted(Contrast(0.3), images)
    torch.testing.assert_close(found.mean((-2, -1)), images.mean((-2, -1)))
    torch.testing.assert_close(found.std((-2, -1)), 0.3 * images.std((-2, -1)))


def test_pixelated_blocks_hold_the_mean_of_what_they_cover() -> None:
    images = photos(rows=24, columns=32)
    found = corrupted(Pixelate(0.25), images)
    means = (images / 255).unflatten(3, (8, 4)).unflatten(2, (6, 4)).mean((3, 5))
    torch.testing.assert_close(found, means.repeat_interleave(4, 2).repeat_interleave(4, 3))


def test_edges_are_those_of_sobel_as_dark_lines_on_white() -> None:
    images = photos(1)
    grey = images[0].double().mean(0).numpy() / 255
    ways = [
        correlate1d(correlate1d(grey, [-1, 0, 1], a, mode="nearest"), [0.25, 0.5, 0.25], 1 - a, mode="nearest")
        for a in (0, 1)
    ]
    steepness = np.hypot(*ways)
    found = corrupted(Edges(), images)[0].numpy()
    np.testing.assert_allclose(found, np.broadcast_to(1 - steepness / steepness.max(), found.shape), atol=1e-5)


def test_edges_of_a_flat_picture_are_an_empty_sheet() -> None:
    assert torch.equal(corrupted(Edges(), torch.full((1, 3, 8, 8), 0.3)), torch.ones(1, 3, 8, 8))


def test_posterised_pictures_have_the_stated_levels() -> None:
    assert corrupted(Posterise(3), photos()).unique().tolist() == [0, 0.5, 1]


def test_the_negative_of_the_negative_is_the_picture() -> None:
    images = photos()
    torch.testing.assert_close(corrupted(Negative(), corrupted(Negative(), images)), images / 255)
    assert not torch.allclose(corrupted(Negative(), images), images / 255, atol=0.2)


@pytest.mark.parametrize(
    ("kind", "value", "word"),
    [
        (GaussianNoise, 0.0, "std"),
        (ImpulseNoise, 1.5, "share"),
        (GaussianBlur, -1.0, "sigma"),
        (Brightness, 0.0, "shift"),
        (Contrast, 1.0, "factor"),
        (Pixelate, 0.0, "share"),
        (Posterise, 1, "levels"),
    ],
)
def test_a_strength_that_means_nothing_is_refused_by_name(kind: type, value: float, word: str) -> None:
    with pytest.raises(DataError, match=f"{kind.__name__}.*{word} must"):
        kind(value)
