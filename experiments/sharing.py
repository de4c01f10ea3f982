"""How devices share a training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sharing:
    """How ``devices`` share each training; see ``mae.train.loop.Runtime``. Nothing that is computed depends on it."""

    devices: int = 1
    micro_batch: int | None = None
    sharding: str = "ddp"
    recompute: bool = False
    compile: str = "auto"
