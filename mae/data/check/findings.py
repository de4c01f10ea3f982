"""What the check of a data set found, of pictures or of clips."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from mae.data.files.folders import Catalogue, Entry, check_tested, sides_of
from mae.data.files.listing import printable
from mae.disk import write_text
from mae.errors import DataError

SHOWN = 10  # findings of a kind on the terminal; the JSON report has all
TITLES = {
    "refused": "reasons why a run refuses the set",
    "unreadable": "unreadable files",
    "short": "clips with too few frames",
    "damaged": "clips with damaged frames, which a run reads as they are",
    "leakage": "identical files in training and testing (leakage)",
    "mislabelled": "identical files under two classes",
    "duplicates": "identical files within a class",
    "repeated": "files listed more than once",
    "empty_classes": "classes without files",
    "missing_classes": "test classes that training lacks",
    "not_read": "folders and links that stand where files should",
    "empty_sets": "sets without files",
}


@dataclass(frozen=True)
class VerifyReport:
    """What was found: every tuple up to ``empty_sets`` is a problem, the rest describes the set.

    ``leakage``, ``mislabelled`` and ``duplicates`` hold groups of names with the same bytes; a group stands
    in the first of the three that applies. ``sizes``: (width, height) with counts, ``channels`` likewise;
    ``counts``: files by split and class; ``other_files``: files of another kind, by suffix. Of clips ``frames`` counts
    those of each length, ``readers`` those that each reader reads, ``short`` names those that are too short,
    ``damaged`` those with damaged frames. ``refused`` are the words in which a run refuses the set as a whole.
    """

    root: str
    files: int
    unreadable: tuple[tuple[str, str], ...]
    leakage: tuple[tuple[str, ...], ...]
    mislabelled: tuple[tuple[str, ...], ...]
    duplicates: tuple[tuple[str, ...], ...]
    repeated: tuple[str, ...]
    empty_classes: tuple[str, ...]
    missing_classes: tuple[str, ...]
    not_read: tuple[str, ...]
    empty_sets: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    channels: dict[int, int]
    sizes: dict[str, int]
    other_files: dict[str, int]
    short: tuple[tuple[str, str], ...] = ()
    damaged: tuple[tuple[str, str], ...] = ()
    frames: dict[int, int] = field(default_factory=dict)
    readers: dict[str, int] = field(default_factory=dict)
    refused: tuple[str, ...] = ()

    @property
    def problems(self) -> dict[str, Sequence[tuple[str, ...] | str]]:
        """The kinds of problem that occur, with their findings."""
        return {kind: getattr(self, kind) for kind in TITLES if getattr(self, kind)}

    @property
    def clean(self) -> bool:
        return not self.problems

    def save(self, path: Path) -> None:
        """Write everything as JSON, atomically."""
        write_text(path, json.dumps({"clean": self.clean, **asdict(self)}, indent=1) + "\n")

    def text(self) -> str:
        """The report for a terminal: what the set is, then each problem with its first findings."""
        lines = [f"{self.root}: {self.files} files"]
        for split, counts in self.counts.items():
            values = list(counts.values()) or [0]
            span = f"{len(counts)} classes of {min(values)} to {max(values)}"
            lines.append(f"  {split or 'all'}: {sum(values)} {'clips' if self.frames else 'pictures'}, {span}")
        if self.frames:
            lines.append(f"  frames: {min(self.frames)} to {max(self.frames)}; {_summary(self.frames)}")
            lines.append(f"  read by: {_summary(self.readers)}")
        else:
            lines.append("  channels: " + _summary(self.channels))
        widths, heights = ([int(size.split("x")[axis]) for size in self.sizes] for axis in (0, 1))
        if self.sizes:
            span = f"widths {min(widths)} to {max(widths)}, heights {min(heights)} to {max(heights)}"
            lines.append(f"  width x height: {_summary(self.sizes)}; {span}")
        if self.other_files:
            lines.append("  of another kind by their suffix: " + _summary(self.other_files))
        for kind, found in self.problems.items():
            lines.append(f"PROBLEM {len(found)} {TITLES[kind]}")
            for item in found[:SHOWN]:
                shown = (
                    item
                    if isinstance(item, str)
                    else (": " if kind in ("unreadable", "short", "damaged") else " = ").join(item)
                )
                lines.append(f"  {shown}")
            if len(found) > SHOWN:
                lines.append(f"  ... and {len(found) - SHOWN} more (all are in the JSON report)")
        lines.append("clean" if self.clean else f"{sum(map(len, self.problems.values()))} problems")
        return printable("\n".join(lines))


class Seen(NamedTuple):
    """Of one file: digest of its bytes ("" if unreadable), channels, "WxH", why it is unreadable; of clips more."""

    digest: str
    channels: int
    size: str
    failure: str
    frames: int = 1
    reader: str = ""
    damage: str = ""


class Shares(NamedTuple):
    """The shares of training that a run is told to keep apart."""

    val: float = 0.0
    test: float = 0.0


def refusal(found: Catalogue, shares: Shares) -> tuple[str, ...]:
    """Why a run refuses a set as a whole, in its own words; missing classes and sides are found besides."""
    try:
        sides = sides_of(found, val_share=shares.val, test_share=shares.test)
        if not sides.train.classes:
            words = "which every evaluation trains on; add them, or pre-train alone: ablation=pretraining"
            return (f"{found.root} has no labels, {words}",)
        check_tested(len(sides.test), found.root)
    except DataError as error:
        return (str(error),)
    return ()


def report_of(found: Catalogue, seen: dict[str, Seen]) -> VerifyReport:
    """The findings about ``found``, of which each file was ``seen``."""
    root = found.folder
    names = sorted(seen)
    leakage, mislabelled, duplicates = _identical(found.entries, seen)
    counts = {
        split: {label: 0 for label in found.classes[split]} | dict(_count(found.entries, split))
        for split in found.classes
    }
    trained = set(counts.get("train", ()))
    readable = [result for result in seen.values() if not result.failure]
    return VerifyReport(
        root=str(found.root),
        files=len(names),
        unreadable=tuple((name, seen[name].failure) for name in names if seen[name].failure),
        leakage=leakage,
        mislabelled=mislabelled,
        duplicates=duplicates,
        repeated=tuple(sorted(name for name, n in Counter(e.name for e in found.entries).items() if n > 1)),
        empty_classes=tuple(f"{split}/{c}".lstrip("/") for split in counts for c, n in counts[split].items() if not n),
        missing_classes=tuple(
            f"{split}/{c}" for split in counts if split and trained for c in counts[split] if c not in trained
        ),
        not_read=tuple(name for name in found.ignored if (root / name).is_dir() or not (root / name).exists()),
        empty_sets=tuple(split or "all" for split in counts if not sum(counts[split].values())),
        counts=counts,
        channels=dict(sorted(Counter(result.channels for result in readable).items())),
        sizes=dict(Counter(result.size for result in readable).most_common()),
        other_files=dict(
            Counter(Path(name).suffix.lower() or "(none)" for name in found.ignored if (root / name).is_file())
        ),
    )


def _identical(
    entries: Iterable[Entry], seen: dict[str, Seen]
) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]]:
    """Groups of readable files with the same bytes: across splits, across classes, within a class."""
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if not seen[entry.name].failure:
            groups[seen[entry.name].digest].append(entry)
    kinds: tuple[list[tuple[str, ...]], ...] = ([], [], [])
    for group in groups.values():
        splits, labels = {entry.split for entry in group}, {entry.label for entry in group}
        names = tuple(sorted({entry.name for entry in group}))
        if "train" in splits and len(splits) > 1:
            kinds[0].append(names)
        elif len(labels) > 1:
            kinds[1].append(names)
        elif len(names) > 1:
            kinds[2].append(names)
    leakage, mislabelled, duplicates = (tuple(sorted(kind)) for kind in kinds)
    return leakage, mislabelled, duplicates


def _count(entries: Iterable[Entry], split: str) -> Counter[str]:
    return Counter(entry.label for entry in entries if entry.split == split)


def _summary(counts: Mapping[str, int] | Mapping[int, int]) -> str:
    """The five most frequent, and how many others there are."""
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    text = ", ".join(f"{name} ({count})" for name, count in ranked[:5])
    return text + (f" and {len(ranked) - 5} others" if len(ranked) > 5 else "")
