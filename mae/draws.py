"""Draws for some rows of a batch: they are made for all rows and then cut, so that a part draws what the whole does.

A step may be done in parts, on one device or on several (``mae.train.parts``). Whatever draws for each row of a batch
does so by ``uniform``, ``normal`` or ``integers``, or is ``DropPath`` or ``Dropout``; what is drawn once for a batch is
drawn from ``of_batch``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm import layers
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from mae.errors import NotDivisible
from mae.world import ALONE, World


@dataclass(frozen=True)
class Rows:
    """The rows ``places: (n,)`` int64, ascending and on the CPU, of a batch that has ``batch`` of them."""

    batch: int
    places: Tensor

    @classmethod
    def all(cls, batch: int) -> Rows:
        """Every row."""
        return cls(batch, torch.arange(batch))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, here: slice) -> Rows:
        return Rows(self.batch, self.places[here])

    def between(self, start: int, stop: int) -> slice:
        """Say which of these rows have a place from ``start`` to ``stop - 1``."""
        first, last = torch.searchsorted(self.places, torch.tensor([start, stop])).tolist()
        return slice(first, last)

    @property
    def gapless(self) -> bool:
        """Whether they follow one another."""
        return not len(self) or int(self.places[-1] - self.places[0]) + 1 == len(self)

    @property
    def first(self) -> int:
        """The place of the first of them."""
        return int(self.places[0]) if len(self) else 0

    def ids(self, device: torch.device) -> Tensor:
        """Return their places on ``device``."""
        if self.gapless:  # nothing crosses to the device
            return torch.arange(self.first, self.first + len(self), device=device)
        return self.places.to(device)

    def of(self, drawn: Tensor, axis: int = 0) -> Tensor:
        """Cut what was drawn for the whole batch, whose rows lie along ``axis``."""
        if len(self) == self.batch:
            return drawn
        if self.gapless:
            return drawn.narrow(axis, self.first, len(self))
        return drawn.index_select(axis, self.ids(drawn.device))


class Draws(Generator):
    """A generator that knows for which ``rows`` of which batch it draws; it is a plain one where they are None.

    For rows the functions of this module draw from another one, ``whole``, and nobody draws from the generator itself,
    which ``check`` tells.
    """

    rows: Rows | None

    def __init__(self, device: torch.device) -> None:
        # torch's own constructor has taken the device
        self.rows, self.whole = None, Generator(device)
        self._untouched = self.get_state()

    def begin(self, seed: int, rows: Rows | None = None) -> Draws:
        """Start the draws of a step, for ``rows`` or for the whole batch."""
        self.rows = rows
        self.manual_seed(seed)
        if rows is not None:
            self.whole.manual_seed(seed)
            self._untouched = self.get_state()
        return self

    def go_on(self, state: Tensor, rows: Rows) -> Draws:
        """Draw next, for ``rows``, what was next when ``whole`` was in ``state``."""
        self.rows = rows
        self.whole.set_state(state)
        return self

    def check(self) -> None:
        """Raise NotDivisible if something drew from the generator itself although it draws for rows."""
        if self.rows is not None and not torch.equal(self.get_state(), self._untouched):
            raise NotDivisible(
                "a batch cannot be done in parts where an augmentation, a mask or a method draws from the generator "
                "itself: let it draw by mae.draws (uniform, normal, integers), or leave out micro_batch and devices"
            )


def of_batch(generator: Generator) -> Generator:
    """Return what to draw from when one draw serves the whole batch: it is the same for all parts."""
    return generator.whole if isinstance(generator, Draws) and generator.rows is not None else generator


def rows_of(generator: Generator, count: int) -> Rows:
    """Say which rows of which batch the ``count`` items at hand are."""
    if isinstance(generator, Draws) and generator.rows is not None:
        if len(generator.rows) != count:
            raise ValueError(f"{count} items, and draws are for {len(generator.rows)}")
        return generator.rows
    return Rows.all(count)


def uniform(generator: Generator, *shape: int, axis: int = 0) -> Tensor:
    """Draw from [0, 1) for rows along ``axis`` of ``shape``, on the generator's device."""
    return _drawn(torch.rand, generator, shape, axis)


def normal(generator: Generator, *shape: int, axis: int = 0, dtype: torch.dtype | None = None) -> Tensor:
    """Draw from the standard normal distribution for rows along ``axis`` of ``shape``, on the generator's device."""
    return _drawn(partial(torch.randn, dtype=dtype), generator, shape, axis)


def integers(generator: Generator, below: int, *shape: int, axis: int = 0) -> Tensor:
    """Draw from 0 to ``below - 1``, int64, for rows along ``axis`` of ``shape``, on the generator's device."""
    return _drawn(partial(torch.randint, below), generator, shape, axis)


def _drawn(draw: Callable[..., Any], generator: Generator, shape: tuple[int, ...], axis: int) -> Tensor:
    rows, whole = rows_of(generator, shape[axis]), list(shape)
    whole[axis] = rows.batch
    drawn: Tensor = draw(whole, generator=of_batch(generator), device=generator.device)
    return rows.of(drawn, axis)


class RowAware(nn.Module):
    """A module that is told which ``rows`` of a batch are at hand, None for all; ``world`` has the others."""

    rows: Rows | None = None
    world: World = ALONE


class DropPath(layers.DropPath, RowAware):  # type: ignore[misc]
    """timm's stochastic depth, for some rows as for all: a row is dropped, and the others are scaled up for it."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        rows = self.rows or Rows.all(len(x))
        ones = x.new_ones(rows.batch, *(1,) * (x.ndim - 1))
        factors: Tensor = layers.drop_path(ones, self.drop_prob, True, self.scale_by_keep)
        return x * rows.of(factors)


class Dropout(nn.Dropout, RowAware):
    """torch's dropout, for some rows as for all: a value is zeroed, and the others are scaled up for it."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rows is None:
            return super().forward(x)
        return x * self.rows.of(F.dropout(x.new_ones(self.rows.batch, *x.shape[1:]), self.p))
