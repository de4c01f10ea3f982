"""Numbers that documents quote: written between two marks from the committed evidence, and checked against it.

    <!-- generated: table decoder_depth desk -->      a table as the terminal shows it
    <!-- generated: cell video_masking desk 'tube 90' ssv2 -->   mean, spread and number of seeds of one cell
    <!-- generated: claims target study -->           the claims of a table, with verdict and evidence
    <!-- generated: verdicts -->                      how many claims hold, are contradicted, are undecided
    <!-- generated: figure masking_ratio -->          the picture that the text up to the end shows

Each ends with `<!-- end -->`. A variant is named as in file names: `decoder_depth--init=random`.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.ablation import load_ablation
from reports.collect import variant_of
from reports.files import write_atomically
from reports.findings import count_verdicts
from reports.render.markup import markdown_claims
from reports.render.phrases import measured_text
from reports.render.text import grid
from reports.tables import ReportError, all_scales, claims_table, table

_MARK = re.compile(r"(<!-- generated: (?P<what>.*?) -->)(?P<body>.*?)(?P<end><!-- end -->)", re.DOTALL)
_PICTURE = re.compile(r"!\[[^\]]*\]\((?P<path>[^)]+)\)")


def documents(root: Path) -> list[Path]:
    """Return the documents that may quote numbers: README and those of docs."""
    return [path for path in (root / "README.md", *sorted((root / "docs").rglob("*.md"))) if path.exists()]


def requoted(text: str, frame: pd.DataFrame, path: Path) -> str:
    """Return the `text` of a document with all that stands between marks as the measurements of `frame` give it.

    ReportError names a mark that cannot be read.
    """

    def filled(match: re.Match[str]) -> str:
        return f"{match[1]}{_body(match['what'], match['body'], frame, path)}{match['end']}"

    if text.count("<!-- generated:") != len(_MARK.findall(text)):
        raise ReportError(f"{path} has a mark <!-- generated: --> without its <!-- end -->; add that")
    return _MARK.sub(filled, text)


def stale(root: Path, frame: pd.DataFrame) -> list[str]:
    """Say in a sentence for each document, and each picture in one, that it is not what the evidence gives."""
    found = []
    for path in documents(root):
        text = path.read_text(encoding="utf-8")
        fresh = requoted(text, frame, path)
        pairs = zip(text.splitlines(), fresh.splitlines(), strict=False)
        if fresh != text:
            number, line = next(
                ((n, new) for n, (old, new) in enumerate(pairs, 1) if old != new), (1, "another length")
            )
            found.append(f"{path}, line {number}, is not what the evidence gives: {line.strip()}")
        found += [
            f"{picture} was not drawn from the evidence at hand"
            for name, picture in _pictures(text, path)
            if _digest_in(picture) != digest(name, frame)
        ]
    return found


def rewrite(root: Path, frame: pd.DataFrame) -> list[Path]:
    """Write what documents quote, and the pictures they show, from `frame`; return what was written."""
    from reports.render.figures import draw_png

    written = []
    for path in documents(root):
        text = path.read_text(encoding="utf-8")
        if (fresh := requoted(text, frame, path)) != text:
            written.append(write_atomically(path, fresh))
        for name, picture in _pictures(text, path):
            if _digest_in(picture) != digest(name, frame):
                ablation, variant = load_ablation(name.partition("--")[0]), variant_of(name)
                written.append(write_atomically(picture, draw_png(ablation, frame, variant, digest(name, frame))))
    return written


def digest(name: str, frame: pd.DataFrame) -> str:
    """Name what a figure is drawn from: its pixels depend on the machine's fonts, this does not."""
    values, _ = all_scales(load_ablation(name.partition("--")[0]), frame, variant_of(name))
    drawn = values[["row", "metric", "scale", "paper", "seeds"]]
    return hashlib.sha256(drawn.to_csv(index=False, float_format="%.6g").encode()).hexdigest()[:16]


def _digest_in(picture: Path) -> str:
    from PIL import Image

    if not picture.exists():
        return ""
    with Image.open(picture) as opened:
        return str(opened.info.get("Source", ""))


def _pictures(text: str, path: Path) -> list[tuple[str, Path]]:
    """The figures that a document shows between marks: name of the table, file."""
    found = []
    for match in _MARK.finditer(text):
        kind, *names = shlex.split(match["what"])
        shown = _PICTURE.search(match["body"])
        if kind == "figure":
            if shown is None:
                raise ReportError(f"{path}: the mark {match['what']!r} holds no picture: write ![words](file.png)")
            found.append((names[0], path.parent / shown["path"]))
    return found


def _body(what: str, body: str, frame: pd.DataFrame, path: Path) -> str:
    kind, *names = _words(what, path)
    if kind == "figure":
        return body
    if kind == "verdicts":
        return _block(count_verdicts(frame))
    ablation, variant = load_ablation(names[0].partition("--")[0]), variant_of(names[0])
    if kind == "claims":
        return _block(markdown_claims(ablation, claims_table(ablation, frame, names[1], variant), names[1]))
    values = table(ablation, frame, names[1], variant)
    if kind == "table":
        return "\n```\n" + "\n".join(line.rstrip() for line in grid(ablation, values, names[1])) + "\n```\n"
    here = values[(values["row"] == names[2]) & (values["metric"] == names[3])]
    if here.empty:
        raise ReportError(f"{path}: {names[0]} has no cell {names[3]}[{names[2]}]; mend the mark {what!r}")
    line = here.iloc[0]
    return measured_text(line["mean"], line["std"], line["n"])


def _block(lines: Sequence[str]) -> str:
    """Lines of Markdown that stand apart from the marks around them."""
    return "\n\n" + "\n".join(lines) + "\n\n"


def _words(what: str, path: Path) -> Sequence[str]:
    """The words of a mark, as many as its kind takes."""
    words = shlex.split(what)
    if not words or {"table": 3, "cell": 5, "claims": 3, "verdicts": 1, "figure": 2}.get(words[0]) != len(words):
        raise ReportError(
            f"{path}: cannot read the mark {what!r}; write table NAME SCALE, cell NAME SCALE ROW COLUMN, claims NAME "
            "SCALE, verdicts, or figure NAME"
        )
    return words
