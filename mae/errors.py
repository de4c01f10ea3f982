"""The errors whose message is a sentence for the user: what is wrong, where, and what to do.

Everything else that is raised is a defect and keeps its traceback. Nothing here imports torch.
"""

from __future__ import annotations

from typing import ClassVar


class UserError(Exception):
    """What a user can mend; ``status`` is the exit status: 2 refused before compute was spent, 1 failed after it."""

    status: ClassVar[int] = 1


class DataError(UserError, ValueError):
    """The data cannot be used as asked."""

    status = 2


class CheckpointError(UserError, RuntimeError):
    """A checkpoint cannot be read or written."""


class NotFinite(UserError, ArithmeticError):
    """A loss is not a finite number; the message names the step, the batch and the last good checkpoint."""
