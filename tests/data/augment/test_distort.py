"""What contrastive methods do to views, beside torchvision; it follows the draws of each item alone."""

from __future__ import annotations

import pytest
import torch
import torchvision.transforms.v2.functional as oracle
from torch import Generator, Tensor

from mae.data.augment.color import ColorJitter
from mae.data.augment.crops import CenterCrop
from mae.data.augment.distort import Blur, Greyscale, Solarise, Sometimes
from mae.errors import DataError


def pictures(count: int = 6, side: int = 32) -> Tensor:
    return torch.rand(count, 3, side, side, generator=Generator().manual_seed(0))


def test_grey_and_solarised_pictures_are_those_of_torchvision() -> None:
    seen = pictures()
    torch.testing.assert_close(Greyscale()(seen, Generator()), oracle.rgb_to_grayscale(seen, 3))
    torch.testing.assert_close(Solarise()(seen, Generator()), oracle.solarize(seen, 0.5))


@pytest.mark.parametrize("side", [224, 112])
def test_a_blur_is_that_of_torchvision_for_the_same_share_of_the_side(side: int) -> None:
    seen = pictures(1, side)
    sigma = side / 224
    reach = round(2 * sigma)
    wanted = torch.nn.functional.pad(seen, (reach,) * 4, mode="replicate")
    wanted = oracle.gaussian_blur(wanted, [2 * reach + 1] * 2, [sigma, sigma])[..., reach:-reach, reach:-reach]
    found = Blur((1.0, 1.0))(seen, Generator())
    torch.testing.assert_close(found[..., reach:-reach, reach:-reach], wanted[..., reach:-reach, reach:-reach])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_every_item_is_blurred_by_its_own_draw_and_all_frames_of_a_clip_alike() -> None:
    frame = pictures(1, 64)
    clips = frame[:, :, None].expand(4, -1, 3, -1, -1)
    found = Blur((0.5, 8.0))(clips, Generator().manual_seed(0))
    assert found.shape == clips.shape
    torch.testing.assert_close(found[:, :, 0], found[:, :, 2])
    variances = found[:, :, 0].var((1, 2, 3))
    assert len(set(variances.tolist())) == 4
    assert (variances < frame.var()).all()


def test_a_step_is_done_to_the_share_of_items_that_is_asked_for() -> None:
    seen = pictures(2000, 2)
    found = Sometimes(Solarise(0.0), 0.3)(seen, Generator().manual_seed(0))
    changed = (found != seen).flatten(1).any(1)
    assert changed.float().mean() == pytest.approx(0.3, abs=0.03)
    torch.testing.assert_close(found[changed], 1 - seen[changed])
    for share, same in ((0.0, seen), (1.0, 1 - seen)):
        assert torch.equal(Sometimes(Solarise(0.0), share)(seen, Generator()), same)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(DataError, match="within"):
        Sometimes(Solarise(), 1.5)
    with pytest.raises(DataError, match="cannot be left out now and then"):
        Sometimes(CenterCrop(8), 0.5)
    with pytest.raises(DataError, match="range of positive numbers"):
        Blur((2.0, 1.0))
    for step in (Greyscale(), ColorJitter()):
        with pytest.raises(DataError, match="3 channels"):
            step(torch.rand(2, 1, 8, 8), Generator())
