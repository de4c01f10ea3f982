"""Some of the items of a source: less data, taken from the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Generator, Tensor

from mae.data.pictures import DecodeReport
from mae.data.source import Batch, DataError, Source


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
        found: DecodeReport = getattr(self.source, "report", DecodeReport(len(self)))
        return found

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self, order: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        for batch in self.source.batches((self.ids[index] for index in order), device):
            yield batch._replace(rows=torch.searchsorted(self.ids, batch.rows))


def part_of(source: Source, count: int) -> Source:
    """``count`` items of ``source``, the same for every caller: all of them, or a random part, order kept.

    DataError if there are fewer.
    """
    if count > len(source):
        raise DataError(f"{count} samples are asked for, and the data has {len(source)}; lower data.samples.")
    if count == len(source):
        return source
    ids = torch.randperm(len(source), generator=Generator().manual_seed(0))[:count]
    return Part(source, ids.sort().values)
