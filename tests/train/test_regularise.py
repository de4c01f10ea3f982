"""Random erasing, mixup and CutMix: what they do to pixels and targets, and from where they draw."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from mae.train.regularise import Mix, RandomErasing

CLASSES = 4
LABELS = torch.tensor([0, 1, 2, 3, 1])


def images(batch: int = 5, size: int = 12) -> Tensor:
    """Pictures whose every value is their own number, so that a pixel tells where it comes from."""
    return torch.arange(1.0, batch + 1).view(-1, 1, 1, 1).expand(-1, 3, size, size).clone()


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def share_of(targets: Tensor) -> float:
    """Share of the own picture, read off the first row (class 0, mixed with class 1)."""
    return targets[0, 0].item()


@pytest.mark.parametrize("seed", range(20))
def test_mixup_adds_the_reversed_batch_in_the_share_of_the_targets(seed: int) -> None:
    mixed, targets = Mix(0.8, 0.0)(images(), LABELS, CLASSES, seeded(seed))
    share = share_of(targets)
    torch.testing.assert_close(mixed, share * images() + (1 - share) * images().flip(0))
    one_hot = torch.eye(CLASSES)[LABELS]
    torch.testing.assert_close(targets, share * one_hot + (1 - share) * one_hot.flip(0))


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_pastes_one_box_whose_area_is_the_other_share(seed: int) -> None:
    mixed, targets = Mix(0.0, 1.0)(images(), LABELS, CLASSES, seeded(seed))
    pasted = mixed == images().flip(0)
    assert torch.equal(mixed, torch.where(pasted, images().flip(0), images()))
    box = pasted[0, 0]
    assert torch.equal(box, box.any(1, keepdim=True) & box.any(0, keepdim=True))
    assert share_of(targets) == pytest.approx(1 - box.float().mean().item())
    assert torch.equal(pasted[4], pasted[0])


def test_half_of_the_batches_are_cut_when_both_are_on() -> None:
    mix = Mix(0.8, 1.0)
    cut = [
        set(mix(images(), LABELS, CLASSES, seeded(seed))[0][0].unique().tolist()) <= {1.0, 5.0} for seed in range(400)
    ]
    assert 160 < sum(cut) < 240


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0])
def test_shares_have_the_moments_of_a_beta_distribution(alpha: float) -> None:
    generator = seeded(0)
    shares = torch.tensor([share_of(Mix(alpha, 0)(images(2, 1), LABELS[:2], 4, generator)[1]) for _ in range(2000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.04)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.12)


@pytest.mark.parametrize("step", [Mix(0.8, 1.0), Mix(0.8, 0.0), Mix(0.0, 1.0)])
def test_mixing_draws_from_the_generator_alone(step: Mix) -> None:
    first, again, other = (step(images(), LABELS, CLASSES, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


def test_erasing_fills_one_box_of_the_drawn_share_with_noise() -> None:
    pictures = torch.full((400, 3, 24, 24), 9.0)
    erased = RandomErasing(0.25)(pictures, seeded(0))
    changed = (erased != 9.0).all(1)
    touched = changed.flatten(1).any(1)
    assert 70 < touched.sum() < 130
    for box in changed[touched]:
        rows, columns = box.any(1), box.any(0)
        assert torch.equal(box, rows[:, None] & columns)
        height, width = int(rows.sum()), int(columns.sum())
        assert 0.02 * 576 * 0.7 < height * width < 576 / 3 * 1.2
        assert 0.2 < height / width < 5
    noise = erased[changed[:, None].expand_as(erased)]
    assert noise.mean().abs() < 0.05
    assert noise.std() == pytest.approx(1, abs=0.05)
    areas = changed[touched].flatten(1).float().mean(1)
    assert areas.mean() == pytest.approx((0.02 + 1 / 3) / 2, rel=0.15)


def test_erasing_is_off_at_zero_and_repeats_from_its_generator() -> None:
    pictures = images(8)
    assert torch.equal(RandomErasing(0.0)(pictures, seeded(0)), pictures)
    first, again, other = (RandomErasing(1.0)(pictures, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first != pictures).flatten(1).any(1).all()
