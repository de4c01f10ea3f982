"""Batched RandAugment against timm's operations on PIL pictures, and its own draws."""

from __future__ import annotations

import numpy as np
import pytest
import timm.data.auto_augment as timm_augment
import torch
from PIL import Image
from skimage.data import astronaut
from torch import Generator, Tensor

from mae.data.augment.crops import RandomResizedCrop
from mae.data.augment.rand_augment import OPERATIONS, RandAugment, operate, rand_augmented_crop
from mae.errors import DataError

FILL = (0.2, 0.4, 0.6)
TIMM_NAMES = {
    **{name: f"{name}Increasing" for name in ("Posterize", "Solarize", "Contrast", "Brightness", "Color", "Sharpness")},
    "TranslateX": "TranslateXRel",
    "TranslateY": "TranslateYRel",
}
AFFINE = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")


def photo(top: int = 30, rows: int = 48, columns: int = 64) -> np.ndarray:
    """A part of a photograph, not square, with neither black nor white in it."""
    part = astronaut()[top : top + 4 * rows : 4, 150 : 150 + 4 * columns : 4]
    return (part * 0.8 + 20).astype(np.uint8)


def tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None]


def timm_operation(name: str, magnitude: float, sign: float, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    monkeypatch.setattr(timm_augment, "_randomly_negate", lambda value: sign * value)
    hparams = {"img_mean": tuple(round(255 * c) for c in FILL), "interpolation": Image.Resampling.BICUBIC}
    operation = timm_augment.AugmentOp(TIMM_NAMES.get(name, name), prob=1.0, magnitude=magnitude, hparams=hparams)
    return np.asarray(operation(Image.fromarray(photo()))).astype(float)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("magnitude", [3.0, 9.0, 9.7])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_does_what_timm_does(
    name: str, magnitude: float, sign: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = tensor(photo()).float()
    index = torch.tensor([OPERATIONS.index(name)])
    ours = operate(levels, index, torch.tensor([magnitude]), torch.tensor([sign]), FILL)[0].permute(1, 2, 0).numpy()
    theirs = timm_operation(name, magnitude, sign, monkeypatch)
    assert np.abs(theirs - photo()).mean() > 0.4, "the comparison must have something to compare"
    difference = np.abs(ours - theirs)
    if name in AFFINE:  # Pillow's bicubic kernel is sharper than torch's, and rounds places to 1/65536
        assert difference.mean() < 1.5
        assert (difference.max(axis=2) > 30).mean() < 0.01
    else:
        assert difference.max() <= 1
        assert difference.mean() < 0.3


def test_every_operation_is_one_of_timms_increasing_policy() -> None:
    ours = {TIMM_NAMES.get(name, name) for name in OPERATIONS}
    assert ours == set(timm_augment.rand_augment_choices("", increasing=True))


def test_nothing_happens_to_pictures_that_are_not_drawn() -> None:
    levels = tensor(photo()).float().repeat(4, 1, 1, 1)
    operation = torch.tensor([-1, OPERATIONS.index("Rotate"), -1, OPERATIONS.index("Invert")])
    result = operate(levels, operation, torch.full((4,), 9.0), torch.ones(4), FILL)
    assert torch.equal(result[::2], levels[::2])
    assert not torch.equal(result[1], levels[1])
    assert torch.equal(result[3], 255 - levels[3])


def test_each_picture_has_draws_of_its_own_from_the_generator() -> None:
    pictures = tensor(photo()).repeat(32, 1, 1, 1)
    augment = RandAugment()
    first, again, other = (augment(pictures, Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(torch.unique(first.flatten(1), dim=0)) > 16
    assert first.dtype == torch.float32
    assert first.min() >= 0
    assert first.max() <= 1


def test_layers_probability_and_magnitude_are_honoured() -> None:
    pictures = tensor(photo(rows=16, columns=16)).repeat(200, 1, 1, 1)
    original = pictures / 255

    def run(augment: RandAugment) -> Tensor:
        return (augment(pictures, Generator().manual_seed(0)) - original).abs().flatten(1).mean(1)

    assert run(RandAugment(probability=0.0)).max() == 0
    untouched = [(run(RandAugment(layers=n)) == 0).float().mean().item() for n in (1, 2, 4)]
    assert untouched == pytest.approx([0.5, 0.25, 0.0625], abs=0.1)
    weak, strong = (run(RandAugment(magnitude=m, std=0.0)).mean() for m in (2.0, 9.0))
    assert weak < strong
    assert not torch.equal(run(RandAugment(std=0.0)), run(RandAugment(std=0.5)))


def test_bf16_autocast_changes_nothing() -> None:
    pictures = tensor(photo()).repeat(16, 1, 1, 1)
    plain = RandAugment()(pictures, Generator().manual_seed(3))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(RandAugment()(pictures, Generator().manual_seed(3)), plain)


def test_the_notation_of_timm_is_read() -> None:
    assert RandAugment.of("rand-m9-mstd0.5-inc1", FILL) == RandAugment(9.0, 0.5, 2, 0.5, FILL)
    assert RandAugment.of("rand-m7-n4-mstd0.5-inc1", FILL) == RandAugment(7.0, 0.5, 4, 0.5, FILL)
    assert RandAugment.of("rand-m5-p0.3-inc1", FILL) == RandAugment(5.0, 0.0, 2, 0.3, FILL)


@pytest.mark.parametrize("policy", ["rand-m9", "augmix-m3-inc1", "rand-m9-x3-inc1", "rand-inc1", "rand-m99-inc1", ""])
def test_a_policy_that_is_not_known_is_refused(policy: str) -> None:
    with pytest.raises(DataError, match=r"rand-m|magnitude and std"):
        rand_augmented_crop(16, rand_augment=policy)


def test_the_crop_comes_first_and_the_policy_changes_it() -> None:
    pictures = tensor(photo()).repeat(16, 1, 1, 1)
    cropped = RandomResizedCrop(16)(pictures, Generator().manual_seed(5))
    unchanged = rand_augmented_crop(16, rand_augment="rand-m9-p0-inc1")(pictures, Generator().manual_seed(5))
    torch.testing.assert_close(unchanged, cropped, atol=0.5 / 255 + 1e-6, rtol=0)
    changed = rand_augmented_crop(16)(pictures, Generator().manual_seed(5))
    assert (changed - cropped).abs().max() > 0.1


def test_the_crop_is_a_step_of_its_own_that_decoding_can_take_over() -> None:
    crop, policy = rand_augmented_crop(16, (0.08, 1.0), flip=False, fill=FILL).steps
    assert crop == RandomResizedCrop(16, (0.08, 1.0), flip=False)
    assert policy == RandAugment(9.0, 0.5, fill=FILL)


def test_grey_pictures_are_refused() -> None:
    with pytest.raises(DataError, match="RandAugment needs 3 channels"):
        RandAugment()(torch.zeros(2, 1, 8, 8), Generator())
