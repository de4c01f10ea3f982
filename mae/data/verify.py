"""Look at every picture of a data set before a run does: ``python -m mae.data.verify PATH``.

Each file is read and decoded to its last pixel. Found are unreadable files, identical files (within a class,
under two classes, in training and in testing), empty classes and test classes that training lacks.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from mae.data.decode import channels_of, default_workers, in_processes, printable, read_picture, reason
from mae.data.listing import Catalogue, Entry, Listing, catalogue

CHUNK = 256
SHOWN = 10  # findings of a kind on the terminal; the JSON report has all
TITLES = {
    "unreadable": "unreadable files",
    "leakage": "identical files in training and testing (leakage)",
    "mislabelled": "identical files under two classes",
    "duplicates": "identical files within a class",
    "repeated": "files listed more than once",
    "empty_classes": "classes without pictures",
    "missing_classes": "test classes that training lacks",
    "not_read": "folders and links that stand where pictures should",
    "empty_sets": "sets without pictures",
}


@dataclass(frozen=True)
class VerifyReport:
    """What was found: every tuple up to ``empty_sets`` is a problem, the rest describes the set.

    ``leakage``, ``mislabelled`` and ``duplicates`` hold groups of names with the same bytes; a group stands
    in the first of the three that applies. ``sizes``: (width, height) with counts, ``channels`` likewise;
    ``counts``: pictures by split and class; ``other_files``: files without a picture's suffix, by suffix.
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

    @property
    def problems(self) -> dict[str, Sequence[tuple[str, ...] | str]]:
        """The kinds of problem that occur, with their findings."""
        return {kind: getattr(self, kind) for kind in TITLES if getattr(self, kind)}

    @property
    def clean(self) -> bool:
        return not self.problems

    def save(self, path: Path) -> None:
        """Write everything as JSON, atomically."""
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(json.dumps({"clean": self.clean, **asdict(self)}, indent=1) + "\n", encoding="utf-8")
        draft.replace(path)

    def text(self) -> str:
        """The report for a terminal: what the set is, then each problem with its first findings."""
        lines = [f"{self.root}: {self.files} files"]
        for split, counts in self.counts.items():
            values = list(counts.values()) or [0]
            span = f"{len(counts)} classes of {min(values)} to {max(values)}"
            lines.append(f"  {split or 'all'}: {sum(values)} pictures, {span}")
        lines.append("  channels: " + _summary({f"{count}": n for count, n in self.channels.items()}))
        widths, heights = ([int(size.split("x")[axis]) for size in self.sizes] for axis in (0, 1))
        if self.sizes:
            span = f"widths {min(widths)} to {max(widths)}, heights {min(heights)} to {max(heights)}"
            lines.append(f"  width x height: {_summary(self.sizes)}; {span}")
        if self.other_files:
            lines.append("  not pictures by their suffix: " + _summary(self.other_files))
        for kind, found in self.problems.items():
            lines.append(f"PROBLEM {len(found)} {TITLES[kind]}")
            for item in found[:SHOWN]:
                shown = item if isinstance(item, str) else (": " if kind == "unreadable" else " = ").join(item)
                lines.append(f"  {shown}")
            if len(found) > SHOWN:
                lines.append(f"  ... and {len(found) - SHOWN} more (all are in the JSON report)")
        lines.append("clean" if self.clean else f"{sum(map(len, self.problems.values()))} problems")
        return printable("\n".join(lines))


class _Seen(NamedTuple):
    """Of one file: digest of its bytes ("" if none can be read), channels, "WxH", why it is unreadable."""

    digest: str
    channels: int
    size: str
    failure: str


def verify(
    source: Path | str | Catalogue | Listing, *, workers: int | None = None, progress: bool = False
) -> VerifyReport:
    """Read and decode every picture of a folder, of a list file, or of what was read from one.

    Raises DataError when ``source`` is neither a folder nor a list, RuntimeError when a process is killed.
    """
    found = _as_catalogue(source)
    root = found.root if found.root.is_dir() else found.root.parent
    names = sorted({entry.name for entry in found.entries})
    if workers is None:
        workers = default_workers() if len(names) >= 2 * CHUNK else 0
    chunks = [names[first : first + CHUNK] for first in range(0, len(names), CHUNK)]
    seen: dict[str, _Seen] = {}
    with tqdm(total=len(names), unit="file", desc="verifying", disable=not progress) as bar:
        for chunk, results in zip(chunks, in_processes(_look, root, chunks, workers), strict=True):
            seen.update(zip(chunk, results, strict=True))
            bar.update(len(chunk))
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


def _as_catalogue(source: Path | str | Catalogue | Listing) -> Catalogue:
    if isinstance(source, Catalogue):
        return source
    if not isinstance(source, Listing):
        return catalogue(source)
    labels = [source.classes[label] if label >= 0 else "" for label in source.labels]
    entries = tuple(Entry("", label, name) for label, name in zip(labels, source.names, strict=True))
    return Catalogue(source.root, entries, {"": source.classes})


def _look(root: Path, names: list[str]) -> list[_Seen]:
    """Read, hash and decode each file once."""
    results = []
    for name in names:
        path, digest = root / name, ""
        try:
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            picture = read_picture(io.BytesIO(content))
            results.append(_Seen(digest, channels_of(picture), f"{picture.width}x{picture.height}", ""))
        except Exception as error:  # Pillow raises a dozen types on damaged files; each means: unreadable
            results.append(_Seen(digest, 0, "", reason(error, path)))
    return results


def _identical(
    entries: Iterable[Entry], seen: dict[str, _Seen]
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


def _summary(counts: dict[str, int]) -> str:
    """The five most frequent, and how many others there are."""
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    text = ", ".join(f"{name} ({count})" for name, count in ranked[:5])
    return text + (f" and {len(ranked) - 5} others" if len(ranked) > 5 else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 for a clean set, 1 for problems, 2 for bad usage."""
    parser = argparse.ArgumentParser(
        prog="python -m mae.data.verify",
        description="Decode every picture of a data set; find damaged, identical, mislabelled and missing ones.",
        epilog="Exit code: 0 clean, 1 problems, 2 bad usage.",
    )
    parser.add_argument("path", metavar="PATH", type=Path, help="train/<class>/* and test|val/<class>/*, or <class>/*")
    parser.add_argument("--list", metavar="FILE", type=Path, help="CSV with header path,label[,split], paths from PATH")
    parser.add_argument("--report", metavar="FILE.json", type=Path, help="write all findings here")
    parser.add_argument("--workers", metavar="N", type=int, default=None, help="processes, 0 for none")
    options = parser.parse_args(arguments)
    try:
        found = catalogue(options.path) if options.list is None else _listed(options.list, options.path)
        if options.workers is not None and options.workers < 0:
            raise ValueError(f"--workers {options.workers} is negative; give 0 or more.")
        report = verify(found, workers=options.workers, progress=sys.stderr.isatty())
        if options.report:
            report.save(options.report)
    except (ValueError, OSError, RuntimeError) as error:
        print(printable(f"verify: {error}"), file=sys.stderr)
        return 2
    print(report.text())
    return 0 if report.clean else 1


def _listed(file: Path, root: Path) -> Catalogue:
    """The entries of a list file with names relative to ``root``."""
    if not root.is_dir():
        raise ValueError(f"{root} is no folder; give the one that the paths of {file} start from.")
    if not file.is_file():
        raise ValueError(f"{file} is no file; give a CSV list with the header path,label.")
    listed = catalogue(file)
    return Catalogue(root, listed.entries, listed.classes)


if __name__ == "__main__":
    sys.exit(main())
