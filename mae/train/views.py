"""The run's own training views, for a method that fits something to them before the training starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import Generator, Tensor

from mae.data.source import Augment, Source
from mae.train.checkpoint import Checkpoints
from mae.train.loop import Runtime, order, seed_of

#: Most pictures that are augmented at once.
VIEWS_AT_ONCE = 256


@dataclass(frozen=True)
class Views:
    """They are what a training on ``source`` sees: ``views(pictures, stream)`` draws views as its steps will.

    A draw is a function of the run's seed and the name of the ``stream``, so that a resumed run fits the same.
    """

    source: Source
    augment: Augment
    runtime: Runtime

    def __call__(self, pictures: int, stream: str) -> Iterator[Tensor]:
        """Draw at least ``pictures`` normalised views in batches ``(B, C, [T,] H, W)``, on the device."""
        device, seed = self.runtime.device, seed_of(self.runtime.seed, stream, 0)
        size = min(VIEWS_AT_ONCE, len(self.source))
        ids = order(len(self.source), size, seed, 0, -(-pictures // size))
        generator = Generator(device)
        for step, batch in enumerate(self.source.batches(ids, device)):
            yield self.augment(batch.images, generator.manual_seed(seed_of(seed, "view", step)))

    def of(self, part: Callable[[Tensor], Tensor]) -> Views:
        """Return the same views, of each of which only ``part(view)`` is seen."""
        augment = self.augment
        return replace(self, augment=lambda images, generator: part(augment(images, generator)))

    @property
    def checkpoints(self) -> Checkpoints | None:
        """Say where a training of what is fitted keeps its checkpoints: beside those of the run, if it has any."""
        run = self.runtime.checkpoints
        return Checkpoints(run.folder / "target", run.every) if run else None
