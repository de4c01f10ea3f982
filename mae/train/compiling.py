"""How the blocks of transformers run: as they are, compiled, or compiled and replayed as CUDA graphs.

Which way is the fastest depends on the card, the shapes and the parts, so the first steps of a training are timed in
each way in turn, and the rest run in the fastest. These are steps like any other: no way changes what is computed but
by rounding, and nothing is done twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from timm.models.vision_transformer import Block
from torch import nn

from mae.errors import CannotCompile, UserError

log = logging.getLogger(__name__)

T = TypeVar("T")

#: ``torch.compile`` of each block, in each way that is not plain.
WAYS: dict[str, dict[str, Any] | None] = {"off": None, "blocks": {}, "graphs": {"mode": "reduce-overhead"}}
AUTO = "auto"
CHOICES = (AUTO, *WAYS)

#: Steps that a way has to compile and to settle, and those after them of which each is timed.
SETTLING, TIMED = 3, 6

#: A way other than the plain one must take less than this share of its time.
WORTH = 0.97


class Compiling:
    """It chooses the way of the blocks of ``model`` step by step; ``way`` is the present one.

    ``choice`` is one of ``CHOICES``. ``auto`` tries all ways on CUDA where ``steps`` are left for ten trials, and is
    plain elsewhere: on a CPU compiling took longer than it gave back. Where a step waits for its data all ways take as
    long, and the plain one stays. ``clock`` tells seconds.
    """

    def __init__(
        self,
        model: nn.Module,
        choice: str,
        device: torch.device,
        steps: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.blocks = [module for module in model.modules() if isinstance(module, Block)]
        self.device, self.clock, self.begun = device, clock, 0.0
        trial = len(WAYS) * (SETTLING + TIMED)
        tried = choice == AUTO and device.type == "cuda" and steps >= 10 * trial and self.blocks
        self.asked = choice if choice != AUTO else None
        self.untried: list[str] = list(WAYS) if tried else []
        self.times: dict[str, float] = {}
        self.way, self.done = "off", 0
        self._turn_to(self.untried[0] if self.untried else self.asked or "off")

    def run(self, step: Callable[[], T]) -> T:
        """Do ``step``, again in the plain way if the present one fails while it settles.

        Raises CannotCompile if the way that was asked for does. A step starts from its beginning when it is repeated.
        """
        try:
            if self.way == "graphs":
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            return step()
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if self.way == "off" or self.done >= SETTLING:
                raise
            reason = str(error).strip().partition("\n")[0]
            if self.asked is not None:
                raise CannotCompile(f"compile={self.way} fails here ({reason}): choose compile=off") from error
            log.warning("compile=%s fails here (%s), and is left out", self.way, reason)
            self.untried.remove(self.way)
            self._turn_to(self.untried[0] if self.untried else self._fastest())
            return self.run(step)

    def end(self) -> None:
        """Say that the optimiser has made a step."""
        self.done += 1
        if not self.untried:
            return
        if self.done == SETTLING:
            self.begun = self._now()
        elif self.done == SETTLING + TIMED:
            self.times[self.untried.pop(0)] = (self._now() - self.begun) / TIMED
            self._turn_to(self.untried[0] if self.untried else self._fastest())
            if not self.untried:
                told = ", ".join(f"{way} {1000 * seconds:.1f} ms" for way, seconds in self.times.items())
                log.info("compile=%s from here on: a step took %s", self.way, told)

    def finish(self) -> None:
        """Leave the blocks as they were: what tests them has other shapes."""
        self._turn_to("off")

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.clock()

    def _fastest(self) -> str:
        worth = {way: seconds * (1 if way == "off" else 1 / WORTH) for way, seconds in self.times.items()}
        return min(worth, key=worth.__getitem__, default="off")

    def _turn_to(self, way: str) -> None:
        options = WAYS[way]
        for block in self.blocks:
            block._compiled_call_impl = None  # as nn.Module.compile leaves a module that it has not compiled
            if options is not None:
                block.compile(**options)
        self.way, self.done = way, 0
