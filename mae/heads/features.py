"""What a frozen encoder gives for whole sets of samples is computed once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from mae.data.source import Augment, Batch, Source, Splits, sent
from mae.heads.classifier import Readout
from mae.train.accuracy import clips_at_once, in_order
from mae.train.loop import Runtime


@dataclass(frozen=True)
class Features:
    """The features ``values: (n, D)`` or ``(n, N, D)`` float32 of a source are a source of their own.

    In a batch they stand where pictures stand.
    """

    values: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.values)

    def batches(self, order: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        for rows in order:
            index = sent(rows, self.values.device)
            yield Batch(sent(self.values[index], device), sent(self.labels[index], device), rows)


@torch.no_grad()
def features(model: Readout, source: Source, augment: Augment, runtime: Runtime) -> Features:
    """Compute the features of all of ``source``, sample by sample in its order."""
    model.eval()
    world = runtime.world
    found: list[Tensor] = []
    labels: list[Tensor] = []
    asked = in_order(len(source), clips_at_once(model.grid))
    for batch in source.batches(world.share(asked), runtime.device):
        with runtime.autocast():
            found.append(model.features(augment(batch.images, Generator(runtime.device))).float())
        labels.append(batch.labels)
    return Features(torch.cat(world.dealt(found)), torch.cat(world.dealt(labels)), source.classes)


def features_of(model: Readout, splits: Splits, runtime: Runtime) -> tuple[Features, Features]:
    """Compute the features of the training and of the test set, both seen as the first view shows the test set."""
    source, (augment, *_) = splits.views[0]
    return features(model, splits.train, augment, runtime), features(model, source, augment, runtime)
