"""Which frames are seen: properties of every draw, and the published test views."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from mae.data.clips.sampling import Dense, Sampling, Still, Uniform
from mae.errors import DataError


def draws(sampling: Sampling, length: int, count: int = 200) -> Tensor:
    generator = Generator().manual_seed(0)
    return torch.stack([sampling.train(length, generator) for _ in range(count)])


@pytest.mark.parametrize("sampling", [Dense(4, 3), Dense(16, 2), Dense(5), Uniform(8), Uniform(16)], ids=str)
@pytest.mark.parametrize("length", [16, 17, 31, 32, 100])
def test_frames_exist_and_ascend_in_training_and_testing(sampling: Sampling, length: int) -> None:
    views = [sampling.test(length, view, 3) for view in range(3)] + [sampling.test(length, 0, 1)]
    for ids in [*draws(sampling, length, 50), *views]:
        assert ids.shape == (sampling.frames,)
        assert ids.dtype == torch.int64
        assert (ids.diff() >= 0).all()
        assert ids.min() >= 0
        assert ids.max() < length


def test_dense_draws_every_start_and_no_other() -> None:
    ids = draws(Dense(4, 3), 15)
    assert set(ids[:, 0].tolist()) == {0, 1, 2, 3, 4, 5}
    assert (ids.diff() == 3).all()


def test_dense_repeats_the_last_frame_where_the_clip_ends() -> None:
    assert Dense(4, 3).test(5, 0, 1).tolist() == [0, 3, 4, 4]
    assert (draws(Dense(4, 3), 5) == torch.tensor([0, 3, 4, 4])).all()


def test_dense_views_spread_from_the_first_to_the_last_strided_frame() -> None:
    views = [Dense(16, 4).test(300, view, 5) for view in range(5)]
    starts = [int(ids[0]) for ids in views]
    # as published: the video at stride 4 has 75 frames, of which the starts lie int(view * (75 - 16) / 4) apart
    assert starts == [4 * int(view * 59 / 4) for view in range(5)]
    assert views[-1][-1] == 296
    assert Dense(16, 4).test(300, 0, 1)[0] == 4 * (59 // 2)


def test_uniform_takes_one_frame_of_each_segment() -> None:
    ids = draws(Uniform(4), 12)
    assert (ids // 3 == torch.arange(4)).all()
    assert set(ids[:, 1].tolist()) == {3, 4, 5}


@pytest.mark.parametrize("length", [16, 23, 47, 64, 100])
def test_two_uniform_views_are_the_even_and_odd_ones_of_starts_and_middles(length: int) -> None:
    tick = length / 16
    both = np.sort([int(tick * n) for n in range(16)] + [int(tick / 2 + tick * n) for n in range(16)])
    assert Uniform(16).test(length, 0, 2).tolist() == both[0::2].tolist()
    assert Uniform(16).test(length, 1, 2).tolist() == both[1::2].tolist()
    assert Uniform(16).test(length, 0, 1).tolist() == both[1::2].tolist()


@pytest.mark.parametrize(
    ("sampling", "length", "least"),
    [(Dense(16, 2), 1, 2), (Uniform(16), 15, 16), (Uniform(16), 1, 16), (Dense(2), 0, 2)],
)
def test_a_clip_that_is_too_short_is_refused_with_both_numbers(sampling: Sampling, length: int, least: int) -> None:
    with pytest.raises(DataError, match=f"has {length} frames, {least} are asked for"):
        sampling.train(length, Generator())
    with pytest.raises(DataError, match=f"has {length} frames, {least} are asked for"):
        sampling.test(length, 0, 1)


def test_a_still_repeats_one_frame_any_in_training_the_middle_in_testing() -> None:
    drawn = draws(Still(4), 10)
    assert (drawn == drawn[:, :1]).all()
    assert set(drawn[:, 0].tolist()) == set(range(10))
    assert Still(4).test(10, 0, 1).tolist() == [5] * 4
    assert [Still(2).test(8, view, 2).tolist() for view in (0, 1)] == [[2, 2], [6, 6]]


def test_a_single_frame_needs_no_second_one() -> None:
    assert Dense(1).test(1, 0, 1).tolist() == [0]


def test_impossible_samplings_and_views_are_refused() -> None:
    for make in (lambda: Dense(0), lambda: Dense(4, 0), lambda: Uniform(0)):
        with pytest.raises(DataError, match="at least one frame"):
            make()
    with pytest.raises(DataError, match="view=2 of views=2"):
        Dense(4).test(10, 2, 2)
