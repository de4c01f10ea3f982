"""The paths of two digits: each class is what its name says, by the movement alone."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.stats import ks_2samp

from mae.data.builtin.motions import MOTIONS, TREMBLE, Paths, paths

FRAMES = 32


@cache
def drawn(motion: str, count: int = 100, seed: int = 7) -> list[Paths]:
    return [paths(motion, FRAMES, np.random.RandomState([seed, index])) for index in range(count)]


def apart(way: Paths) -> np.ndarray:
    """(row, column) from the first digit to the second, ``(F, 2)``."""
    return way.digits[1] - way.digits[0]


def distances(way: Paths) -> np.ndarray:
    return np.linalg.norm(apart(way), axis=1)


def turned(way: Paths) -> float:
    """Radians that the line between the digits turns, clockwise as seen on the screen."""
    row, column = apart(way).T
    return float(np.diff(np.unwrap(np.arctan2(row, column))).sum())


def test_digits_that_approach_end_nearer_and_digits_that_part_farther() -> None:
    assert all(distances(way)[-1] < distances(way)[0] - 0.1 for way in drawn("approach"))
    assert all(distances(way)[-1] > distances(way)[0] + 0.1 for way in drawn("part"))


def test_digits_that_meet_and_part_are_nearest_in_between() -> None:
    for way in drawn("meet and part"):
        d = distances(way)
        assert FRAMES // 5 < d.argmin() < FRAMES - FRAMES // 5
        assert d.min() < min(d[0], d[-1]) - 0.1


def test_orbits_turn_the_way_they_are_called_and_chasing_or_resting_digits_hardly_turn() -> None:
    assert all(turned(way) > 1 for way in drawn("orbit clockwise"))
    assert all(turned(way) < -1 for way in drawn("orbit counterclockwise"))
    assert all(abs(turned(way)) < 1 for motion in ("rest", "chase") for way in drawn(motion))


def test_chasing_digits_cross_the_photograph_together_along_the_line_between_them() -> None:
    for way in drawn("chase"):
        first, second = way.digits[:, -1] - way.digits[:, 0]
        assert np.linalg.norm(first) > 0.25
        assert np.linalg.norm(first - second) < 0.2
        line = apart(way)[FRAMES // 2]
        assert abs(first @ line) > 0.8 * np.linalg.norm(first) * np.linalg.norm(line)


def test_resting_digits_stay_where_they_are_and_one_of_a_passing_pair_does() -> None:
    def movements(motion: str) -> np.ndarray:
        return np.array([np.sort(np.linalg.norm(w.digits[:, -1] - w.digits[:, 0], axis=1)) for w in drawn(motion)])

    assert movements("rest").max() < 0.2
    assert movements("pass")[:, 0].max() < 0.2
    assert movements("pass")[:, 1].min() > 0.25


def test_approach_backwards_is_part_and_one_orbit_backwards_is_the_other() -> None:
    def ends(motion: str, backwards: bool) -> np.ndarray:
        ways = [apart(way)[:: -1 if backwards else 1] for way in drawn(motion, 300)]
        return np.array([[*way[0], *way[-1], *way[FRAMES // 3]] for way in ways])

    for motion, reverse in (("approach", "part"), ("orbit clockwise", "orbit counterclockwise")):
        for one, other in zip(ends(motion, True).T, ends(reverse, False).T, strict=True):
            assert ks_2samp(one, other, method="asymp").pvalue > 1e-4


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_direction_of_one_digit_is_uniform_in_every_class(motion: str) -> None:
    steps = np.array([way.digits[0, -1] - way.digits[0, 0] for way in drawn(motion, 300)])
    angles = np.arctan2(*steps.T)
    assert abs(np.exp(1j * angles).mean()) < 0.15


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_camera_moves_alike_in_every_class(motion: str) -> None:
    ways, others = drawn(motion, 300), drawn("rest", 300, seed=8)
    for value in (lambda w: w.camera[-1, 0] - w.camera[0, 0], lambda w: w.zoom[-1] / w.zoom[0]):
        assert ks_2samp([value(w) for w in ways], [value(w) for w in others]).pvalue > 1e-4


def test_paths_tremble_but_do_not_jump() -> None:
    for motion in MOTIONS:
        for way in drawn(motion, 50):
            assert np.abs(np.diff(way.digits, axis=1)).max() < 0.06 + 4 * TREMBLE
