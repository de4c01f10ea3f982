"""How two digits move about one another: the classes of motion in the built-in clips, and their paths.

A class is a relation between the two, under a camera that moves independently of it. Directions are uniform, starts
and speeds random. Classes come near to sharing what one frame shows: approach and part, and the two orbits, are each
other's reversal in time, so the same frames in another order; all classes draw distances from one range. They range
from easy (rest) to hard (orbits), so that weak and strong models both have something to tell apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOTIONS = (
    "rest", "pass", "chase", "approach", "part", "meet and part", "orbit clockwise", "orbit counterclockwise",
)  # fmt: skip

# Lengths are shares of the picture's side, angles are in radians; pairs are the ends of a uniform distribution.
NEAREST, SPAN, FARTHEST = 0.1, (0.35, 0.45), 0.6  # distance of the digits, and how much of it a clip covers
SWEEP, SWAY = (2.2, 3.6), 0.2  # how far an orbit turns, and any other pair
CHASE, DRIFT, ASTRAY = (0.4, 0.6), 0.05, 0.3  # how far a chase and any other pair drift; how straight a chase is
TURN = (0.4, 0.6)  # when a pair that meets parts again
SHARE = (0.3, 0.7)  # the first digit's part in the movement of the two
PAN, ZOOM = 0.1, 0.03  # at most, of the camera
TREMBLE = 0.008  # standard deviation of each of a path's irregular waves
WAVES = 3
HASTE = 0.15  # time is warped by a power between exp(-HASTE) and exp(HASTE)


class Paths(NamedTuple):
    """``digits: (2, F, 2)`` and ``camera: (F, 2)``: (row, column) per frame, in sides of the picture; ``zoom: (F,)``.

    All are places on the photograph, relative to one point of it; the picture's centre shows ``camera``.
    """

    digits: Floats
    camera: Floats
    zoom: Floats


def paths(motion: str, frames: int, chance: np.random.RandomState) -> Paths:
    """One clip's paths; ``motion`` is one of MOTIONS. Each class draws the same numbers in the same order."""
    time = hurried(frames, chance)
    span = chance.uniform(*SPAN)
    nearest = chance.uniform(NEAREST, FARTHEST - span)
    turn, level = chance.uniform(*TURN), chance.uniform()
    closeness = {
        "approach": time,
        "part": 1 - time,
        "meet and part": np.interp(time, [0, turn, 1], [0, 1, 0]),
    }.get(motion, np.full(frames, level))
    distance = nearest + span * (1 - closeness)

    start, sweep, sway = chance.uniform(0, 2 * np.pi), chance.uniform(*SWEEP), chance.uniform(-SWAY, SWAY)
    # rows count downwards, so a growing angle turns clockwise
    turned = {"orbit clockwise": sweep, "orbit counterclockwise": -sweep}.get(motion, sway)
    apart = distance[:, None] * directed(start + turned * (time - 0.5))

    free, astray = chance.uniform(0, 2 * np.pi), chance.uniform(-ASTRAY, ASTRAY)
    half, chased, drifted = np.pi * chance.randint(2), chance.uniform(*CHASE), chance.uniform(0, DRIFT)
    heading, travel = (start + half + astray, chased) if motion == "chase" else (free, drifted)
    drift = travel * (time - 0.5)[:, None] * directed(heading)
    share = chance.uniform(*SHARE)
    digits = np.stack([drift - share * apart, drift + (1 - share) * apart])
    if motion == "pass":
        digits[chance.randint(2)] += chased * (time - 0.5)[:, None] * directed(free)
    digits += np.stack([trembling(frames, chance) for _ in range(2)])

    pan = PAN * chance.uniform() * directed(chance.uniform(0, 2 * np.pi))
    camera = (hurried(frames, chance) - 0.5)[:, None] * pan + trembling(frames, chance)
    zoom = np.exp(chance.uniform(-ZOOM, ZOOM) + chance.uniform(-ZOOM, ZOOM) * (hurried(frames, chance) - 0.5))
    return Paths(digits, camera, zoom)


def hurried(frames: int, chance: np.random.RandomState) -> Floats:
    """From 0 to 1, hurrying or tarrying; as often backwards as forwards, so that reversal leaves it alike."""
    power = np.exp(chance.uniform(-HASTE, HASTE))
    even: Floats = np.linspace(0, 1, frames)
    return even**power if chance.randint(2) else 1 - (1 - even) ** power


def directed(angle: Floats | float) -> Floats:
    """Unit vectors ``(..., 2)`` (row, column); 0 points right."""
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1)


def trembling(frames: int, chance: np.random.RandomState) -> Floats:
    """Irregular waves ``(F, 2)`` of one to ``WAVES`` periods per clip."""
    even = np.linspace(0, 1, frames)[:, None]
    waves = np.zeros((frames, 2))
    for k in range(1, WAVES + 1):
        phase = 2 * np.pi * chance.uniform(size=2)
        waves += TREMBLE * chance.standard_normal(2) / k * np.sin(2 * np.pi * k * even + phase)
    return waves
