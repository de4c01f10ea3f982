"""Look at every picture (``--clips``: every clip) of a data set before a run does: ``python -m mae.data.check PATH``.

Each file is read and decoded to its last pixel. Found are unreadable files, identical files (within a class,
under two classes, in training and in testing), empty classes and test classes that training lacks. For clips see
``mae.data.check.verify_clips``.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from mae.data.check.findings import Seen, Shares, VerifyReport, refusal, report_of
from mae.data.check.verify_clips import listed_clips, verify_clips
from mae.data.files.folders import Catalogue, Entry
from mae.data.files.listing import Listing, printable
from mae.data.files.workers import default_workers, in_processes
from mae.data.pictures.decode import MAX_PIXELS, Decoding, channels_of, read_picture, reason
from mae.data.pictures.depth import check_white, white_of
from mae.data.pictures.lists import catalogue

CHUNK = 256


def verify(
    source: Path | str | Catalogue | Listing,
    *,
    workers: int | None = None,
    progress: bool = False,
    shares: Shares = Shares(),  # noqa: B008, it is immutable
    max_pixels: int = MAX_PIXELS,
    white: int | None = None,
) -> VerifyReport:
    """Read every picture of a folder, of a list file, or of what was read from one, as a run reads it.

    ``shares``, ``max_pixels`` and ``white`` are those that the run is given. Raises DataError when ``source`` is
    neither a folder nor a list, RuntimeError when a process is killed.
    """
    found = _as_catalogue(source)
    root = found.folder
    names = sorted({entry.name for entry in found.entries})
    if workers is None:
        workers = default_workers() if len(names) >= 2 * CHUNK else 0
    chunks = [names[first : first + CHUNK] for first in range(0, len(names), CHUNK)]
    seen: dict[str, Seen] = {}
    refused = () if isinstance(source, Listing) else refusal(found, shares)
    if white is None:
        white = white_of(Listing(root, tuple(names), (), ()))
    decoding = Decoding(3, white, max_pixels)
    with tqdm(total=len(names), unit="file", desc="verifying", disable=not progress) as bar:
        for chunk, results in zip(chunks, in_processes(_look, (root, decoding), chunks, workers), strict=True):
            seen.update(zip(chunk, results, strict=True))
            bar.update(len(chunk))
    return replace(report_of(found, seen), refused=refused)


def _as_catalogue(source: Path | str | Catalogue | Listing) -> Catalogue:
    if isinstance(source, Catalogue):
        return source
    if not isinstance(source, Listing):
        return catalogue(source)
    labels = [source.classes[label] if label >= 0 else "" for label in source.labels]
    entries = tuple(Entry("", label, name) for label, name in zip(labels, source.names, strict=True))
    return Catalogue(source.root, entries, {"": source.classes})


def _look(context: tuple[Path, Decoding], names: list[str]) -> list[Seen]:
    """Read, hash and decode each file once."""
    root, decoding = context
    results = []
    for name in names:
        path, digest = root / name, ""
        try:
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            picture = read_picture(io.BytesIO(content), decoding.max_pixels)
            decoding.converted(picture)  # which refuses what has no 8-bit form
            results.append(Seen(digest, channels_of(picture), f"{picture.width}x{picture.height}", ""))
        except Exception as error:  # Pillow raises a dozen types on damaged files; each means: unreadable
            results.append(Seen(digest, 0, "", reason(error, path)))
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 for a clean set, 1 for problems, 2 for bad usage."""
    parser = argparse.ArgumentParser(
        prog="python -m mae.data.check",
        description="Decode every picture or clip of a data set; find damaged, identical, mislabelled, missing ones.",
        epilog="Exit code: 0 clean, 1 problems, 2 bad usage.",
    )
    parser.add_argument("path", metavar="PATH", type=Path, help="train/<class>/* and test|val/<class>/*, or <class>/*")
    parser.add_argument(
        "--list",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="CSV with header path,label[,split], paths from PATH; of clips, any list of paths and labels, or "
        "Something-Something's JSON: the first is for training, a second for testing",
    )
    parser.add_argument("--clips", action="store_true", help="look at clips")
    parser.add_argument("--frames", metavar="N", type=int, default=2, help="frames that a model sees (default 2)")
    parser.add_argument(
        "--sampling",
        choices=["uniform", "dense"],
        default="uniform",
        help="one frame of each of N segments, for which a clip must have N; or N at a stride, past the end the last",
    )
    parser.add_argument("--val-share", metavar="X", type=float, default=0.0, help="data.source.val_share of the run")
    parser.add_argument("--test-share", metavar="X", type=float, default=0.0, help="data.source.test_share of the run")
    parser.add_argument("--max-pixels", metavar="N", type=int, default=MAX_PIXELS, help="data.source.max_pixels")
    parser.add_argument("--white", metavar="N", type=int, default=None, help="data.source.white of the run")
    parser.add_argument("--labels", metavar="FILE", type=Path, help="Something-Something's labels, for JSON lists")
    parser.add_argument("--report", metavar="FILE.json", type=Path, help="write all findings here")
    parser.add_argument("--workers", metavar="N", type=int, default=None, help="processes, 0 for none")
    options = parser.parse_args(arguments)
    try:
        if options.workers is not None and options.workers < 0:
            raise ValueError(f"--workers {options.workers} is negative; give 0 or more.")
        report = _clips(options) if options.clips else _pictures(options)
        if options.report:
            report.save(options.report)
    except (ValueError, OSError, RuntimeError) as error:
        print(printable(f"verify: {error}"), file=sys.stderr)
        return 2
    print(report.text())
    return 0 if report.clean else 1


def _pictures(options: argparse.Namespace) -> VerifyReport:
    if len(options.list) > 1:
        raise ValueError(f"--list is given {len(options.list)} times; pictures take one, with a column split.")
    if options.white is not None:
        check_white(options.white, "--white")
    found = _listed(options.list[0], options.path) if options.list else catalogue(options.path)
    shares = Shares(options.val_share, options.test_share)
    return verify(
        found,
        workers=options.workers,
        progress=sys.stderr.isatty(),
        shares=shares,
        max_pixels=options.max_pixels,
        white=options.white,
    )


def _clips(options: argparse.Namespace) -> VerifyReport:
    found = listed_clips(options.list, options.path, options.labels) if options.list else options.path
    return verify_clips(
        found,
        least=options.frames if options.sampling == "uniform" else min(2, options.frames),
        workers=options.workers,
        progress=sys.stderr.isatty(),
        shares=Shares(options.val_share, options.test_share),
    )


def _listed(file: Path, root: Path) -> Catalogue:
    """The entries of a list file with names relative to ``root``."""
    if not root.is_dir():
        raise ValueError(f"{root} is no folder; give the one that the paths of {file} start from.")
    if not file.is_file():
        raise ValueError(f"{file} is no file; give a CSV list with the header path,label.")
    listed = catalogue(file)
    return Catalogue(root, listed.entries, listed.classes)
