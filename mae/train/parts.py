"""One optimiser step in parts: what a step draws and sums up does not depend on how its batch is shared out.

A batch is shared by the devices of a training, and each device's share is done in micro-batches. Views are prepared for
some rows, then each part of them goes forward and backward; a part's loss counts by its share of the batch's samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from timm import layers
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mae.data.source import Batch
from mae.draws import Draws, RowAware, Rows
from mae.errors import NotDivisible, TooLarge
from mae.train.distributed import Replicated, Sharded
from mae.world import World

#: Modules that draw for the rows that they see, whichever those are.
UNAWARE = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, layers.DropPath)


#: Most bytes of float32 pixels that are prepared at a time, where parts and groups leave the choice.
PREPARED = 2 << 30


@dataclass(frozen=True)
class Objective:
    """What a training makes smaller, in two steps, so that its batch can be done in parts.

    ``prepare(batch, generator)`` gives what the loss sees of a batch, tensors with a row for each sample, without
    gradients. ``loss(model, prepared, generator)`` is the mean over the rows that it is given, float32. A batch divides
    into ``groups``, within which rows are prepared together; None if rows are prepared each by itself. ``at_once`` says
    that the loss must see all rows of a device together, ``indivisible`` why a batch is never shared out, if it is not.
    ``encodes`` says that to prepare takes the memory of a model, so that it is done in parts, too.
    """

    prepare: Callable[[Batch, Generator], Sequence[Tensor]]
    loss: Callable[[nn.Module, Sequence[Tensor], Generator], Tensor]
    groups: int | None = None
    at_once: bool = False
    encodes: bool = False
    indivisible: str = ""

    @classmethod
    def of(cls, loss_fn: Callable[[Batch, Generator], Tensor], why: str) -> Objective:
        """Take a loss of whole batches, and ``why`` it has no parts."""
        return cls(
            prepare=lambda batch, generator: (batch.images, batch.labels, batch.rows),
            loss=lambda model, prepared, generator: loss_fn(_batch(prepared), generator),
            indivisible=why,
        )


def check_shares(batch: int, devices: int = 1, micro_batch: int | None = None, groups: int | None = None) -> None:
    """Raise NotDivisible if a batch of ``batch`` items cannot be shared out so."""
    if batch % devices:
        fitting = [count for count in divisors(batch) if count <= 2 * devices]
        raise NotDivisible(
            f"batch_size={batch} cannot be shared equally by devices={devices}: choose {_either(fitting[-4:])}"
        )
    own = batch // devices
    if micro_batch is not None and own % micro_batch:
        each = f"each of {devices} devices has of " if devices > 1 else ""
        near = sorted(divisors(own), key=lambda size: abs(math.log(size / micro_batch)))[:3]
        raise NotDivisible(
            f"micro_batch={micro_batch} does not divide the {own} samples that {each or 'are '}"
            f"{'' if each else 'in '}a step of batch_size={batch}: choose {_either(sorted(near))}"
        )
    if groups is not None and batch % groups:
        near = sorted(divisors(batch), key=lambda count: abs(math.log(count / groups)))[:3]
        raise NotDivisible(
            f"batch_size={batch} has no {groups} equal groups (mix_draws, norm_groups): choose {_either(sorted(near))}"
        )


def divisors(number: int) -> list[int]:
    """List what divides ``number``, ascending."""
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]


def _either(numbers: Sequence[int]) -> str:
    return " or ".join(map(str, numbers))


@dataclass(frozen=True)
class Step:
    """What is here of a batch: ``rows``, each item ``repeats`` times, of ``samples`` that were read on all devices."""

    batch: Batch
    rows: Rows
    repeats: int
    samples: int | Tensor
    seed: int

    def within(self, rows: Rows, items: range) -> slice:
        """Say which of ``rows`` are samples of ``items``."""
        return rows.between(items.start * self.repeats, items.stop * self.repeats)


class Parts:
    """The parts of every step on this device, of ``size`` items each; smaller ones after memory ran out.

    ``batch`` counts the items of a step on all devices; a clip that is used several times is one item. NotDivisible if
    they cannot be shared out so.
    """

    def __init__(
        self,
        objective: Objective,
        trained: Replicated,
        batch: int,
        size: int | None,
        world: World,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        check_shares(batch, world.size, size, objective.groups)
        own = batch // world.size
        self.objective, self.trained, self.batch, self.world, self.autocast = objective, trained, batch, world, autocast
        self.own = range(world.rank * own, (world.rank + 1) * own)
        self.size = size or own
        self.together = 1 if objective.groups is None else batch // objective.groups
        self.aware = [module for module in trained.model.modules() if isinstance(module, RowAware)]
        for module in self.aware:
            module.world = world
        self._check_split()

    @property
    def needed(self) -> range:
        """The items of a batch that this device reads: its own, and those that are prepared together with them."""
        return range(
            self.own.start // self.together * self.together, -(-self.own.stop // self.together) * self.together
        )

    @property
    def split(self) -> bool:
        """Whether a step has more than one part, here or elsewhere."""
        return self.size < self.batch

    def _check_split(self) -> None:
        """NotDivisible if something draws or sums up for a part what it should for the batch."""
        if not self.split:
            return
        words = "a batch cannot be shared out here, because"
        if self.objective.indivisible:
            raise NotDivisible(f"{words} {self.objective.indivisible}: leave out micro_batch and devices")
        for module in self.trained.model.modules():
            drawing = isinstance(module, UNAWARE) and any(getattr(module, name, 0) for name in ("p", "drop_prob"))
            if module.training and (drawing or isinstance(module, _BatchNorm)) and not isinstance(module, RowAware):
                raise NotDivisible(
                    f"{words} {type(module).__name__} goes by the rows that it sees: take that of mae.draws or "
                    f"mae.heads.batch_norm, or leave out micro_batch and devices"
                )

    def backward(self, batch: Batch, asked: Tensor, seed: int, draws: Draws) -> Tensor:
        """Leave the gradients of this device's share of a step, and return its share of the loss, a scalar.

        ``batch`` holds those of the items ``asked: (batch,)`` int64 that are ``needed`` and can be read. After memory
        ran out the step is done again from the same draws, in smaller parts.
        """
        step = self._step(batch, asked, seed)
        while True:
            self.trained.optimizer.zero_grad(set_to_none=True)
            try:
                return self._backward(step, draws)
            except torch.OutOfMemoryError as error:
                self._shrink(str(error))
            if batch.images.is_cuda:
                torch.cuda.empty_cache()

    def _step(self, batch: Batch, asked: Tensor, seed: int) -> Step:
        """Say which samples of a step are here: what cannot be read is missing."""
        items, repeats = torch.arange(self.needed.start, self.needed.stop), 1
        if len(batch.rows):
            repeats = int((batch.rows == batch.rows[0]).sum())
        if len(batch.rows) != repeats * len(items):
            by_id = asked.argsort()
            items = by_id[torch.searchsorted(asked[by_id], batch.rows[::repeats])]
        rows = Rows(len(asked) * repeats, (items[:, None] * repeats + torch.arange(repeats)).flatten())
        own = rows.between(self.own.start * repeats, self.own.stop * repeats)
        samples: int | Tensor = own.stop - own.start
        if self.world.size > 1:
            samples = self.world.sum(torch.full((), float(samples), device=batch.images.device))
        return Step(batch, rows, repeats, samples, seed)

    def _backward(self, step: Step, draws: Draws) -> Tensor:
        """Do all parts of ``step`` once."""
        losses = []
        for rows, prepared in self._prepared(step, draws):
            state = draws.whole.get_state()
            for items in [self.own] if self.objective.at_once else cut(self.own, self.size):
                here = step.within(rows, items)
                if here.start < here.stop:
                    self.trained.expect(last=items.stop == self.own.stop)
                    self._begin(step, rows[here], draws, state)
                    losses.append(self._part([tensor[here] for tensor in prepared], step, here, draws))
        return torch.stack(losses).sum()

    def _prepared(self, step: Step, draws: Draws) -> Iterator[tuple[Rows, list[Tensor]]]:
        """Prepare this device's samples, so many at a time that parts and groups stay whole."""
        found: list[tuple[Rows, list[Tensor]]] = []
        for items in self._chunks(step):
            here = step.within(step.rows, items)
            rows = step.rows[here]
            self._begin(step, rows, draws)
            with torch.no_grad(), self.autocast():
                prepared = self.objective.prepare(step.batch.part(here), draws)
            self._check_draws(draws)
            own = step.within(rows, self.own)
            found.append((rows[own], [tensor[own] for tensor in prepared]))
            if not self.objective.at_once:
                yield found.pop()
        if found:
            rows = Rows(step.rows.batch, torch.cat([rows.places for rows, _ in found]))
            yield rows, [torch.cat(tensors) for tensors in zip(*(prepared for _, prepared in found), strict=True)]

    def _chunks(self, step: Step) -> list[range]:
        """Say which items are prepared at a time: what is drawn for a whole batch is drawn anew for each of these."""
        if len(self.own) % self.together:
            return [self.needed]
        least = math.lcm(self.size, self.together)
        if self.objective.encodes:
            return cut(self.own, least)
        pixels = step.batch.images[:1].numel() * 4 * step.repeats
        fitting = [least * count for count in divisors(len(self.own) // least) if least * count * pixels <= PREPARED]
        return cut(self.own, max(fitting, default=least))

    def _begin(self, step: Step, rows: Rows, draws: Draws, state: Tensor | None = None) -> None:
        """Let the step's draws for ``rows`` come next: from its beginning, or from ``state`` on for the loss."""
        told = rows if self.split or len(rows) < rows.batch else None
        if state is None:
            draws.begin(step.seed, told)
        elif told is not None:
            draws.go_on(state, told)
        if state is None or self.split:
            torch.manual_seed(step.seed)
        for module in self.aware:
            module.rows = told

    def _part(self, prepared: Sequence[Tensor], step: Step, here: slice, draws: Draws) -> Tensor:
        """Go forward and backward, and return what the part adds to the loss of the batch."""
        with self.autocast():
            loss = self.trained.loss(prepared, draws)
        self._check_draws(draws)
        share = (here.stop - here.start) / step.samples
        scaled = loss if share == 1 and isinstance(share, float) else loss * (share * self.trained.scale)
        scaled.backward()  # type: ignore[no-untyped-call]
        return loss.detach() * share

    def _check_draws(self, draws: Draws) -> None:
        if self.split:
            draws.check()

    def _shrink(self, reason: str) -> None:
        """Halve the parts; TooLarge if that cannot be, or if all processes would have to agree on it."""
        smaller = [size for size in divisors(len(self.own)) if size <= self.size // 2]
        if isinstance(self.trained, Sharded) and smaller:
            raise TooLarge(
                f"parts of {self.size} samples do not fit into the memory of a device, and where a model is sharded "
                f"they are not repeated in smaller ones: set micro_batch={smaller[-1]} and run the same command again"
            )
        if not smaller or self.objective.indivisible:
            why = f", and the batch is not split because {self.objective.indivisible}" if smaller else ""
            raise TooLarge(
                f"a step does not fit into the memory of the device with {self.size} of its samples at a time{why} "
                f"({reason.splitlines()[0]}): choose recompute=true, sharding=fsdp on more devices, or a smaller model"
            )
        self.size = smaller[-1]
        self._check_split()


def _batch(tensors: Sequence[Tensor]) -> Batch:
    images, labels, rows = tensors
    return Batch(images, labels, rows)


def cut(items: range, size: int) -> list[range]:
    """Cut ``items`` into ranges of ``size``."""
    return [items[start : start + size] for start in range(0, len(items), size)]
