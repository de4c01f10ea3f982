"""A way to ask a training from outside to write a checkpoint and leave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Stop:
    """``asked`` is set from outside, a signal handler for one; a training that is ``heeding`` looks after each step.

    It then writes a checkpoint and raises KeyboardInterrupt.
    """

    asked: bool = False
    heeding: bool = False

    def ask(self) -> None:
        """Ask for an end; KeyboardInterrupt at once where no training would look, or where it was asked before."""
        again, self.asked = self.asked, True
        if again or not self.heeding:
            raise KeyboardInterrupt

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """While the block lasts, a training looks."""
        self.heeding = True
        try:
            yield
        finally:
            self.heeding = False
