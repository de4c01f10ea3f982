"""The errors whose message is a sentence for the user: what is wrong, where, and what to do.

Everything else that is raised is a defect and keeps its traceback. Nothing here imports torch.
"""

from __future__ import annotations

from typing import ClassVar


class UserError(Exception):
    """What a user can mend; ``status`` is the exit status: 2 refused before compute was spent, 1 failed after it."""

    status: ClassVar[int] = 1


class SpecError(UserError, ValueError):
    """What was asked for is unknown, or cannot be composed; the message names it and the nearest valid names."""

    status = 2


class DataError(UserError, ValueError):
    """The data cannot be used as asked."""

    status = 2


class CheckpointError(UserError, RuntimeError):
    """A checkpoint cannot be read or written."""


class NotFinite(UserError, ArithmeticError):
    """A loss is not a finite number; the message names the step, the batch and the last good checkpoint."""


class NotDivisible(UserError, ValueError):
    """A batch cannot be shared out as asked: between devices, or into parts."""

    status = 2


class CannotCompile(UserError, RuntimeError):
    """Blocks cannot be compiled on this machine."""


class TooLarge(UserError, MemoryError):
    """A step does not fit into the memory of a device, however small its parts are."""


class RankLost(UserError, RuntimeError):
    """A process of a training on several devices is gone, or does not answer."""
