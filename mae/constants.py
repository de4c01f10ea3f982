"""Numbers that a step needs on the device: they are copied there once, not in every step."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import Tensor


def constant(values: Iterable[object], device: torch.device) -> Tensor:
    """Give ``values``, numbers or rows of numbers, as a float32 tensor on ``device``; it must not be written to.

    A list that becomes a tensor on the device is copied there while the host waits. So it is done once for each list
    and device.
    """
    return _held(_frozen(values), device)


def _frozen(values: Iterable[object]) -> tuple[object, ...]:
    return tuple(_frozen(value) if isinstance(value, Iterable) else value for value in values)


@lru_cache(maxsize=1024)
def _held(values: tuple[object, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32, device=device)
