"""Some of the items of a source: less data, taken from the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from mae.data.files.tally import DecodeReport
from mae.data.source import Batch, ReadsSome, SomeOf, Source
from mae.errors import DataError


class Part:
    """The items ``ids: (n,)`` int64, ascending, of ``source``, numbered from 0. Its ``rows`` are numbered so, too."""

    def __init__(self, source: Source, ids: Tensor) -> None:
        self.source, self.ids = source, ids

    @property
    def classes(self) -> tuple[str, ...]:
        return self.source.classes

    @property
    def report(self) -> DecodeReport:
        """That of the whole source, where it gives one."""
        return _report(self.source)

    def __len__(self) -> int:
        return len(self.ids)

    def reading(self, places: slice) -> Part:
        """The same items, of each of whose batches only ``places`` are read."""
        return Part(
            self.source.reading(places) if isinstance(self.source, ReadsSome) else SomeOf(self.source, places), self.ids
        )

    def batches(self, order: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        for batch in self.source.batches((self.ids[index] for index in order), device):
            yield batch._replace(rows=torch.searchsorted(self.ids, batch.rows))


@runtime_checkable
class Divisible(Protocol):
    """A source whose part is a source of the same kind."""

    def part(self, ids: Tensor) -> Source:
        """The items ``ids: (n,)`` int64, ascending, numbered from 0."""
        ...


def part_of(source: Source, count: int, key: str, balanced: bool = False) -> Source:
    """``count`` items of ``source``, the same for every caller: all of them, or a random part, order kept.

    Parts follow one random order, so that a larger one holds a smaller one. A ``balanced`` one takes of every class as
    many as of any other, as long as the class has more, where the source knows its ``labels: (n,)``. What decoding left
    out is counted among all of the items, and is in no part. DataError, which names the ``key`` that ``count`` stands
    under, if there are fewer or none is asked for.
    """
    report = _report(source)
    found = max(len(source), report.read + len(report.failed))
    if not 1 <= count <= found:
        raise DataError(f"{key}={count}, and the data has {found} samples; choose from 1 to {found}.")
    if count >= len(source):
        return source
    order = torch.randperm(len(source), generator=Generator().manual_seed(0))
    labels: Tensor | None = getattr(source, "labels", None)
    if balanced and labels is not None:
        order = order[_rounds(labels[order]).argsort(stable=True)]
    ids = order[:count].sort().values
    return source.part(ids) if isinstance(source, Divisible) else Part(source, ids)


def _report(source: Source) -> DecodeReport:
    found: DecodeReport = getattr(source, "report", DecodeReport(len(source)))
    return found


def _rounds(labels: Tensor) -> Tensor:
    """How many of the same label come before each of ``labels``; both ``(n,)`` int64."""
    seen: Counter[int] = Counter()
    rounds = []
    for label in labels.tolist():
        rounds.append(seen[label])
        seen[label] += 1
    return torch.tensor(rounds)
