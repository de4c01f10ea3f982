"""What stands under ``claims:`` in the file of a table: an ordering, and whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class ClaimError(ValueError):
    """An entry under ``claims:`` cannot be read; the message says which and why."""


@dataclass(frozen=True)
class ClaimEntry:
    """An ordering or an equivalence ``that`` is tested, such as ``lin[8] > lin[1]``, and where it comes from.

    A claim of the paper has a place (``where``) and either ``says``, the paper's words letter by letter, or ``after``,
    its sense in our words. A claim that only we test is marked ``ours``, and ``why`` gives the reason.
    """

    that: str
    says: str = ""
    after: str = ""
    where: str = ""
    ours: bool = False
    why: str = ""

    def __post_init__(self) -> None:
        if self.ours and (self.says or self.after or self.where or not self.why):
            raise ClaimError(f"claim {self.that!r} is ours: give it why, and neither says, after nor where")
        if not self.ours and (self.why or not self.where or bool(self.says) == bool(self.after)):
            raise ClaimError(
                f"claim {self.that!r} needs where in the paper it stands, and either says (its words) or after (their "
                "sense); a claim that only you test needs ours: true and why"
            )

    @property
    def source(self) -> str:
        """Whose claim it is, as a reader is told."""
        if self.ours:
            return f"ours: {self.why}"
        return f"{self.where}: “{self.says}”" if self.says else f"{self.where}, in our words: {self.after}"


def claim_entries(raw: Any) -> tuple[ClaimEntry, ...]:
    """Read the list under ``claims:``; ClaimError names the entry that is not a mapping of known keys."""
    known = list(ClaimEntry.__dataclass_fields__)
    found = []
    for entry in raw or ():
        if not isinstance(entry, Mapping) or "that" not in entry:
            raise ClaimError(f'claim {entry!r} is no mapping: write {{that: "a[x] > a[y]", ours: true, why: ...}}')
        if unknown := sorted(set(entry) - set(known)):
            raise ClaimError(f"claim {entry['that']!r} has the unknown key {unknown[0]!r}: valid: {', '.join(known)}")
        words = {key: str(value) for key, value in entry.items() if key != "ours"}
        found.append(ClaimEntry(ours=entry.get("ours", False) is True, **words))
    return tuple(found)
