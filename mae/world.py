"""The processes of one training: who they are, and what they tell one another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of one training: this one is ``rank`` of ``size``. They talk over torch's default process group."""

    rank: int = 0
    size: int = 1

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum ``tensor`` over all processes, in place; every process gets the same bits."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def most(self, number: int) -> int:
        """Return the largest of the processes' numbers."""
        return max(self.gathered(number))

    def says_first(self, flag: bool) -> bool:
        """Return what the first process says."""
        return self.gathered(flag)[0]

    def gathered(self, value: Any) -> list[Any]:
        """Return what each process gives, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def share(self, items: Iterable[T]) -> Iterator[T]:
        """Deal out ``items`` in turn, and return those of this process."""
        return islice(iter(items), self.rank, None, self.size)

    def dealt(self, mine: list[Tensor]) -> list[Tensor]:
        """Return, in the order of what ``share`` dealt out, what every process made of its own."""
        if self.size == 1:
            return mine
        here = mine[0].device if mine else None
        hands = self.gathered([tensor.cpu() for tensor in mine])
        turns = zip_longest(*hands)
        return [tensor.to(here) if here else tensor for turn in turns for tensor in turn if tensor is not None]

    def equal(self, model: nn.Module) -> None:
        """Give every process the first one's parameters and buffers."""
        if self.size > 1:
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor.detach(), 0)


ALONE = World()
