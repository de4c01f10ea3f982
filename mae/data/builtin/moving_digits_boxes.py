"""Built-in films with boxes: two or three digits that move each in its own way, laid down as AVA lays down its files.

Films are made as those of ``moving_digits`` are. A keyframe lies in the middle of each; the box of a digit holds its
ink there. A digit does several things at once: it moves or rests, it grows or shrinks or keeps its size, it nears or
leaves the others, and it is one of ten. Detections, on which a test relies, are the true boxes, a little displaced,
some of them missed and a few of nothing at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from mae.data.builtin import material
from mae.data.builtin.digits_on_photos import picked
from mae.data.builtin.material import CLASSES, Bytes, divide_digits, regions
from mae.data.builtin.motions import PAN, ZOOM, Floats, directed, hurried, trembling
from mae.data.builtin.moving_digits import (
    FILMED,
    FRAMES_PER_SECOND,
    LENGTHS,
    SIDE,
    SIZES,
    Studio,
    backdrop,
    filmed,
    inked,
    levels,
    seen_by,
    window_of,
)
from mae.data.clips.cache import decoded_clips
from mae.data.keyframes.sets import Layout, decoded_keyframes
from mae.data.keyframes.source import Timing
from mae.data.source import DataSet, Holding, Splits, Use
from mae.disk import write_text
from mae.errors import DataError

#: Directions in which digits move, as angles; 0 points right and a quarter turn down.
MOVES = {"rest": None, "move left": np.pi, "move right": 0.0, "move up": -np.pi / 2, "move down": np.pi / 2}
SIZING = {"keep": 0.0, "grow": 1.0, "shrink": -1.0}
ACTIONS = (*MOVES, "grow", "shrink", "near another", "leave another", *(f"be a {digit}" for digit in CLASSES))

# Lengths are shares of the picture's side; pairs are the ends of a uniform distribution.
RADIUS, ASIDE = (0.24, 0.3), 0.02  # where digits are at the keyframe, around the centre
TRAVEL = (0.25, 0.4)  # how far a digit moves in a film
GROWTH = (0.25, 0.4)  # of the logarithm of its size, from the first frame to the last
APPROACH = 0.1  # by how much the distance to the nearest other changes, from the first quarter to the last
INK = 0.25  # of full ink, from which on a pixel belongs to a digit's box
#: The standard deviation of a detection's sides in shares of the box; how many are missed, and how many keyframes have
#: one of nothing; below which score tests leave detections out.
DISPLACED, MISSED, FALSE, LEAST = 0.06, 0.05, 0.3, 0.8


@dataclass(frozen=True, kw_only=True)
class MovingDigitsBoxes(DataSet):
    """Films of ``frames`` frames with boxes and actions at their middle, as many as ``train`` and ``test`` say.

    They are made on first use in AVA's own layout and decoded to ``size`` a side; training and testing share neither
    digits nor photographed regions. Pre-training has the films of training. Raises DataError as ``MovingDigits`` does.
    """

    train: int = 2000
    test: int = 1000
    size: int = 32
    frames: int = 32
    seed: int = 0
    version: ClassVar[int] = 1
    boxed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("train", "test"):
            if getattr(self, name) < 1:
                raise DataError(f"moving_digits_boxes: {name}={getattr(self, name)} films; ask for at least 1.")
        for name, (least, most) in (("size", SIZES), ("frames", LENGTHS)):
            if not least <= getattr(self, name) <= most:
                raise DataError(
                    f"moving_digits_boxes: {name}={getattr(self, name)} is not possible; choose {least} to {most}."
                )
        if not 0 <= self.seed < 2**32:
            raise DataError(f"moving_digits_boxes: seed={self.seed} is not usable; choose one from 0 to 4294967295.")

    def reads(self, use: Use) -> dict[str, object]:
        found = picked(self, "evaluate", "size", "frames", "seed")
        return found if use == "evaluate" else {name: value for name, value in found.items() if name != "test"}

    def holds(self) -> Holding:
        sizes = {"pretrain": self.train, "train": self.train, "test": self.test}
        return Holding("moving_digits_boxes", sizes, len(ACTIONS), 3, self.frames)

    def __call__(self, cache: Path) -> Splits:
        studios = self._studios(Path(cache))
        sides = [
            decoded_clips(listing, Path(cache), size=(self.size, self.size), max_failed=0.0)
            for listing in filmed(studios)
        ]
        layout = Layout()
        for studio, side in zip(studios, ("train", "test"), strict=True):
            _annotate(studio, layout, side)
        timing = Timing(FRAMES_PER_SECOND)
        train, test = (
            decoded_keyframes(layout, studio.folder, side, clips, len(ACTIONS), timing, LEAST)
            for studio, side, clips in zip(studios, ("train", "test"), sides, strict=True)
        )
        return Splits(sides[0], train, test)  # type: ignore[arg-type]

    def _studios(self, cache: Path) -> tuple[_Scenes, _Scenes]:
        photos, (glyphs, classes) = material.photographs(), material.handwritten_digits()
        divided = divide_digits(classes, self.seed)

        def studio(name: str, count: int, stream: int) -> _Scenes:
            made = f"{name}-{count}-{FILMED}px-{self.frames}-seed{self.seed}-{material.digest()}"
            return _Scenes(
                folder=cache / f"moving_digits_boxes-v{self.version}-{made}",
                glyphs=glyphs[divided[name]],
                labels=classes[divided[name]],
                regions=tuple(regions(photos, name, window_of(FILMED))),
                count=count,
                size=FILMED,
                frames=self.frames,
                seed=(self.seed, stream),
            )

        return studio("train", self.train, 11), studio("test", self.test, 12)


class Actor(NamedTuple):
    """A digit, its ``side`` in pixels, where it is and how large, ``(F, 2)`` and ``(F, 1)``, and what it does."""

    digit: int
    side: int
    centre: Floats
    scale: Floats
    actions: tuple[str, ...]


class Scene(NamedTuple):
    """What a film shows, and where the camera looks: ``seen`` is that of ``seen_by``."""

    actors: tuple[Actor, ...]
    seen: Floats


@dataclass(frozen=True)
class _Scenes(Studio):
    """Films of two or three digits."""

    def scene(self, chance: np.random.RandomState) -> Scene:
        many, turn = chance.randint(2, 4), chance.uniform(0, 2 * np.pi)
        moves = [list(MOVES)[place] for place in chance.randint(len(MOVES), size=many)]
        sizing = [list(SIZING)[place] for place in chance.randint(len(SIZING), size=many)]
        digits = chance.choice(len(self.labels), many, replace=False)
        centres, scales, sides = [], [], []
        for place, (move, change) in enumerate(zip(moves, sizing, strict=True)):
            start = chance.uniform(*RADIUS) * directed(turn + 2 * np.pi * place / many) + chance.uniform(
                -ASIDE, ASIDE, 2
            )
            travel, growth, time = chance.uniform(*TRAVEL), chance.uniform(*GROWTH), hurried(self.frames, chance)
            passed = (time - time[self.frames // 2])[:, None]
            angle = MOVES[move]
            way = np.zeros((self.frames, 2)) if angle is None else travel * passed * directed(angle)
            centres.append(start + way + trembling(self.frames, chance))
            scales.append(np.exp(SIZING[change] * growth * passed))
            sides.append(chance.randint(round(SIDE[0] * self.size), round(SIDE[1] * self.size) + 1))
        pan = PAN * chance.uniform() * directed(chance.uniform(0, 2 * np.pi))
        time = hurried(self.frames, chance)
        camera = (time - time[self.frames // 2])[:, None] * pan + trembling(self.frames, chance)
        zoom = np.exp(chance.uniform(-ZOOM, ZOOM) + chance.uniform(-ZOOM, ZOOM) * (time - 0.5))
        meetings = [_meeting(centres, place) for place in range(many)]
        actors = tuple(
            Actor(
                int(digit),
                side,
                centre,
                scale,
                tuple(name for name in (move, change, meeting, f"be a {self.labels[digit]}") if name in ACTIONS),
            )
            for digit, side, centre, scale, move, change, meeting in zip(
                digits, sides, centres, scales, moves, sizing, meetings, strict=True
            )
        )
        return Scene(actors, seen_by(camera, zoom, self.size))

    def film(self, index: int) -> Bytes:
        chance = np.random.RandomState([*self.seed, index])
        actors, seen = self.scene(chance)
        clip = backdrop(self.regions, seen, chance)
        for actor in actors:
            clip += (255 - clip) * self.ink(actor, seen)[..., None]
        return levels(clip)

    def ink(self, actor: Actor, seen: Floats) -> Floats:
        """How much of each pixel an actor covers, ``(F, size, size)``."""
        return inked(self.glyphs[actor.digit], actor.side, actor.centre, seen, actor.scale)

    def boxes(self, index: int) -> list[tuple[Floats, tuple[str, ...]]]:
        """The boxes of film ``index`` at its keyframe, in shares of the picture, with the actions in each."""
        actors, seen = self.scene(np.random.RandomState([*self.seed, index]))
        found = []
        for actor in actors:
            middle = slice(self.frames // 2, self.frames // 2 + 1)
            still = actor._replace(centre=actor.centre[middle], scale=actor.scale[middle])
            ink = self.ink(still, seen[middle])[0] > INK
            rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
            if len(rows):
                box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / self.size
                found.append((box, actor.actions))
        return found


def _meeting(centres: Sequence[Floats], place: int) -> str:
    """Whether a digit nears the nearest other, leaves it, or neither, from the film's first quarter to its last."""
    others = [centre for other, centre in enumerate(centres) if other != place]
    distance = np.min([np.linalg.norm(centres[place] - other, axis=1) for other in others], axis=0)
    quarter = max(1, len(distance) // 4)
    change = distance[-quarter:].mean() - distance[:quarter].mean()
    return "near another" if change < -APPROACH else "leave another" if change > APPROACH else "neither"


def _annotate(studio: _Scenes, layout: Layout, side: str) -> None:
    """Write the files of a side beside its films, the label map last; they are functions of the studio alone."""
    if (studio.folder / layout.label_map).exists():
        return
    second = f"{studio.frames // 2 / FRAMES_PER_SECOND:g}"
    lines, detections = [], []
    for index in range(studio.count):
        film, shown = studio.path(index).stem, studio.boxes(index)
        for person, (box, actions) in enumerate(shown):
            sides = ",".join(f"{length:.4f}" for length in box)
            lines += [f"{film},{second},{sides},{ACTIONS.index(action) + 1},{person}" for action in actions]
        chance = np.random.RandomState([*studio.seed, index, 1])
        for box, score in _detections([box for box, _ in shown], chance):
            sides = ",".join(f"{length:.4f}" for length in box)
            detections.append(f"{film},{second},{sides},,{score:.4f}")
    write_text(studio.folder / layout.boxes(side), "\n".join(lines) + "\n")
    write_text(studio.folder / layout.detections, "\n".join(detections) + "\n")
    write_text(studio.folder / layout.excluded(side), "")
    items = (f'item {{\n  name: "{name}"\n  id: {place}\n}}\n' for place, name in enumerate(ACTIONS, 1))
    write_text(studio.folder / layout.label_map, "".join(items))


def _detections(true: Sequence[Floats], chance: np.random.RandomState) -> list[tuple[Floats, float]]:
    """What a detector might find: boxes and scores. The first true box is always found."""
    found = []
    for place, box in enumerate(true):
        lengths = np.tile(box[2:] - box[:2], 2)
        near = (box + DISPLACED * lengths * chance.standard_normal(4)).clip(0, 1)
        missed, score, doubt = chance.uniform() < MISSED, chance.uniform(LEAST, 1), chance.uniform(0, LEAST)
        found.append((near, doubt if missed and place else score))
    if chance.uniform() < FALSE:
        corner, lengths = chance.uniform(0, 0.7, 2), chance.uniform(0.15, 0.3, 2)
        found.append((np.concatenate([corner, corner + lengths]), chance.uniform(0.5, 0.95)))
    return found
