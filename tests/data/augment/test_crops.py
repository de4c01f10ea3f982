"""Batched augmentation: torchvision's geometry and colours, and the four rows of Table 1e."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from mae.data.augment.color import ColorJitter, Normalise, adjust_color
from mae.data.augment.compose import Compose
from mae.data.augment.crops import CenterCrop, FixedSizeCrop, RandomResizedCrop
from mae.data.augment.resample import Boxes, resample, unit
from mae.data.source import Augment
from mae.errors import DataError

ROWS: dict[str, Augment] = {
    "none": CenterCrop(32),
    "crop, fixed size": FixedSizeCrop(32),
    "crop, rand size": RandomResizedCrop(32),
    "crop + color jit": Compose((RandomResizedCrop(32), ColorJitter())),
}


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def noise(b: int = 4, c: int = 3, h: int = 40, w: int = 52) -> Tensor:
    return torch.randint(0, 256, (b, c, h, w), dtype=torch.uint8, generator=seeded(99))


def smooth(b: int = 4, h: int = 32, w: int = 32) -> Tensor:
    coarse = torch.rand(b, 3, 5, 5, generator=seeded(7))
    return torch.nn.functional.interpolate(coarse, size=(h, w), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(32, 32), (9, 20), (70, 64)])
def test_resampling_a_box_agrees_with_torchvision(interpolation: str, size: tuple[int, int]) -> None:
    images = noise()
    boxes = [(0, 0, 40, 52), (3, 5, 20, 31), (11, 40, 29, 12), (39, 51, 1, 1)]
    ours = resample(unit(images), Boxes(*torch.tensor(boxes).float().T), size, interpolation=interpolation)
    for picture, image, box in zip(ours, images, boxes, strict=True):
        mode = InterpolationMode(interpolation)
        theirs = tv.resized_crop(image.float() / 255, *box, list(size), interpolation=mode, antialias=True)
        torch.testing.assert_close(picture, theirs.clamp(0, 1), atol=1e-4, rtol=0)


def test_a_flipped_box_is_the_mirror_image_of_the_box() -> None:
    images, boxes = unit(noise(2)), Boxes(*torch.tensor([[2, 3, 17, 25], [0, 9, 40, 30]]).float().T)
    plain = resample(images, boxes, (24, 16))
    mixed = resample(images, boxes, (24, 16), flip=torch.tensor([True, False]))
    torch.testing.assert_close(mixed[0], plain[0].flip(-1), atol=1e-6, rtol=0)
    assert torch.equal(mixed[1], plain[1])


def test_random_boxes_lie_inside_and_have_the_area_and_aspect_asked_for() -> None:
    crop = RandomResizedCrop(32, scale=(0.2, 1.0))
    top, left, height, width = crop.boxes(torch.empty(4000, 1, 224, 224), seeded())
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (height >= 1).all()
    assert (width >= 1).all()
    assert (top + height <= 224).all()
    assert (left + width <= 224).all()
    area, aspect = height * width / 224**2, width / height
    assert area.min() > 0.195
    assert area.max() <= 1
    assert aspect.min() > 0.73
    assert aspect.max() < 1.36
    assert aspect.log().mean().abs() < 0.02  # wide and high boxes are equally likely
    assert 0.19 < (area < 0.36).float().mean() < 0.27  # uniform below the areas that often fail to fit
    assert top.min() == 0
    assert (top + height).max() == 224


@pytest.mark.parametrize(("shape", "expected"), [((20, 200), (0, 86, 20, 27)), ((200, 20), (86, 0, 27, 20))])
def test_the_central_box_is_taken_when_no_draw_fits(
    shape: tuple[int, int], expected: tuple[int, int, int, int]
) -> None:
    boxes = RandomResizedCrop(8, scale=(1.0, 1.0)).boxes(torch.empty(3, 1, *shape), seeded())
    assert torch.stack(boxes, 1).tolist() == [list(map(float, expected))] * 3


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_table_1e_is_a_function_of_the_generator(row: str) -> None:
    images, augment = noise(8), ROWS[row]
    first = augment(images, seeded(1))
    assert first.shape == (8, 3, 32, 32)
    assert first.dtype == torch.float32
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, augment(images, seeded(1)))
    assert torch.equal(first, augment(images, seeded(2))) == (row == "none")


def test_the_four_rows_of_table_1e_compute_different_things() -> None:
    results = [augment(noise(8), seeded()) for augment in ROWS.values()]
    for i, first in enumerate(results):
        for second in results[:i]:
            assert (first - second).abs().mean() > 0.01


@pytest.mark.parametrize("crop", [FixedSizeCrop(32, padding=0), RandomResizedCrop(32, (1.0, 1.0), (1.0, 1.0))])
def test_half_of_the_pictures_are_mirrored_and_the_others_untouched(crop: Augment) -> None:
    images = noise(1, h=32, w=32).expand(400, -1, -1, -1)
    target = images[0] / 255
    same, mirrored = (((crop(images, seeded()) - x).abs().amax((1, 2, 3)) < 1e-5) for x in (target, target.flip(-1)))
    assert torch.equal(same, ~mirrored)
    assert 150 < mirrored.sum() < 250


def test_without_flip_nothing_is_mirrored() -> None:
    images = noise(50, h=32, w=32)
    torch.testing.assert_close(FixedSizeCrop(32, padding=0, flip=False)(images, seeded()), images / 255)
    torch.testing.assert_close(
        RandomResizedCrop(32, (1.0, 1.0), (1.0, 1.0), flip=False)(images, seeded()),
        images / 255,
        atol=1e-5,
        rtol=0,
    )


def test_a_shift_shows_every_place_of_the_reflected_picture_and_no_other_pixels() -> None:
    image = noise(1, h=8, w=8)
    padded = torch.nn.functional.pad(image / 255, (2, 2, 2, 2), mode="reflect")[0]
    places = {(i, j): padded[:, i : i + 8, j : j + 8] for i in range(5) for j in range(5)}
    seen = set()
    for picture in FixedSizeCrop(8, padding=2, flip=False)(image.expand(400, -1, -1, -1), seeded()):
        near = [place for place, window in places.items() if torch.allclose(picture, window, atol=1e-6)]
        assert len(near) == 1
        seen.add(near[0])
    assert seen == set(places)


def test_the_fixed_size_crop_keeps_one_scale() -> None:
    ramp = torch.linspace(0, 1, 64).expand(50, 1, 64, 64)
    steps = FixedSizeCrop(28, flip=False)(ramp, seeded()).diff(dim=-1)[..., 4:-4]
    assert steps.mean().item() == pytest.approx(2 / 63, rel=0.02)  # 64 pixels become 32 before the crop of 28
    assert steps.std() < 0.05 * steps.mean()


@pytest.mark.parametrize("shape", [(40, 52), (52, 40), (32, 90), (20, 24)])
def test_the_centre_crop_agrees_with_torchvision(shape: tuple[int, int]) -> None:
    image = noise(2, h=shape[0], w=shape[1]).float() / 255
    theirs = tv.center_crop(tv.resize(image, [32], interpolation=InterpolationMode.BICUBIC, antialias=True), [32, 32])
    torch.testing.assert_close(CenterCrop(32)(image, seeded()), theirs.clamp(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("crop", [CenterCrop, FixedSizeCrop, RandomResizedCrop])
@pytest.mark.parametrize("channels", [1, 4, 48])
def test_crops_take_any_channels_and_sizes_that_are_not_square(crop: type, channels: int) -> None:
    images = noise(2, channels, 30, 44)
    assert crop((16, 24))(images, seeded()).shape == (2, channels, 16, 24)
    assert crop((24, 16))(images, seeded()).shape == (2, channels, 24, 16)


def test_all_channels_are_cropped_alike() -> None:
    images = noise(6, 1).expand(-1, 5, -1, -1)
    result = RandomResizedCrop(16)(images, seeded())
    torch.testing.assert_close(result, result[:, :1].expand(-1, 5, -1, -1))


@pytest.mark.parametrize(
    ("factors", "function", "argument"),
    [
        ((0.7, 1.0, 1.0, 0.0), tv.adjust_brightness, 0.7),
        ((1.3, 1.0, 1.0, 0.0), tv.adjust_brightness, 1.3),
        ((1.0, 1.4, 1.0, 0.0), tv.adjust_contrast, 1.4),
        ((1.0, 1.0, 0.3, 0.0), tv.adjust_saturation, 0.3),
        ((1.0, 1.0, 1.0, 0.1), tv.adjust_hue, 0.1),
        ((1.0, 1.0, 1.0, -0.4), tv.adjust_hue, -0.4),
    ],
)
def test_each_colour_adjustment_agrees_with_torchvision(
    factors: tuple[float, ...], function: Callable[[Tensor, float], Tensor], argument: float
) -> None:
    images = torch.cat([smooth(2), noise(1, h=32, w=32) / 255, torch.full((1, 3, 32, 32), 0.5)])
    ours = adjust_color(images, *(torch.full((4,), x) for x in factors))
    torch.testing.assert_close(ours, function(images, argument), atol=2e-4, rtol=0)


def test_every_picture_gets_a_jitter_of_its_own() -> None:
    images = smooth(1).expand(6, -1, -1, -1)
    result = ColorJitter()(images, seeded())
    assert all((result[i] - result[j]).abs().mean() > 1e-3 for i in range(6) for j in range(i))
    assert result.min() >= 0
    assert result.max() <= 1


def test_a_jitter_of_no_strength_changes_nothing() -> None:
    images = smooth()
    torch.testing.assert_close(ColorJitter(0, 0, 0, 0)(images, seeded()), images, atol=1e-5, rtol=0)


def test_normalising_uses_each_channels_own_mean_and_deviation() -> None:
    images = noise()
    result = Normalise((0.1, 0.2, 0.3), (0.5, 0.25, 2.0))(images, seeded())
    for c, (mean, std) in enumerate(zip((0.1, 0.2, 0.3), (0.5, 0.25, 2.0), strict=True)):
        torch.testing.assert_close(result[:, c], (images[:, c] / 255 - mean) / std)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: ColorJitter()(noise(c=1), g), "3 channels"),
        (lambda g: Normalise((0.5,), (0.5,))(noise(), g), "3 channels"),
        (lambda g: Normalise((0.5,), (0.0,)), "positive"),
        (lambda g: CenterCrop(0)(noise(), g), "no pixels"),
        (lambda g: CenterCrop(8)(noise()[0], g), "must be"),
        (lambda g: RandomResizedCrop(8)(noise().long(), g), "uint8"),
        (lambda g: RandomResizedCrop(8, scale=(0.5, 0.2)), "scale"),
        (lambda g: RandomResizedCrop(8, ratio=(0, 1)), "ratio"),
        (lambda g: RandomResizedCrop(8, interpolation="nearest"), "bicubic"),
        (lambda g: FixedSizeCrop(8, padding=-1), "negative"),
        (lambda g: FixedSizeCrop(8, padding=8)(noise(h=8, w=8), g), "reflected"),
        (lambda g: ColorJitter(hue=0.6), "hue"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(call: Callable[[Generator], object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        call(seeded())
