"""Tables and the page as HTML, from the templates beside this file: every word escaped, nothing asked of a network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from reports.collect import scale_rank
from reports.render.part import Part
from reports.render.phrases import METHOD
from reports.render.view import SIGNS, PartView
from reports.trainings import FOLDER
from reports.verdicts.judge import VERDICTS

if TYPE_CHECKING:
    from jinja2 import Environment

TITLE = "Ablations of MAE and VideoMAE: published beside measured"
#: More bytes of pictures than this are not put into the page: reconstructions then lie beside it.
MOST = 4_500_000
TEMPLATES = Path(__file__).resolve().parent / "templates"


def page(parts: Sequence[Part]) -> str:
    """Return the whole report as one file: an overview of `parts`, then a section for each.

    Where its pictures are large it shows reconstructions from the folder `reports.trainings.FOLDER` beside it.
    """
    views = [PartView(part) for part in parts]
    scales = sorted({scale for part in parts for scale in part.scales}, key=scale_rank)
    papers = list(dict.fromkeys(part.paper for part in parts))
    beside = _bytes(views) > MOST
    return _filled("page.html", title=TITLE, method=METHOD, views=views, scales=scales, papers=papers, beside=beside)


def table_page(part: Part) -> str:
    """Return one table with its claims as a page of its own."""
    return _filled("table.html", title=part.title(), views=[PartView(part)])


def _bytes(views: Sequence[PartView]) -> int:
    """What the pictures of the page take in it."""
    figures = sum(len(view.part.svg or b"") for view in views)
    strips = [one.strip for view in views for scale in view.scales for one in scale.evidence.strips]
    return (figures + sum(len(one.data) for strip in strips for one in (strip.png, strip.webp) if one)) * 4 // 3


def _filled(template: str, **values: object) -> str:
    return _environment().get_template(template).render(values)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    found.globals |= {"signs": SIGNS, "verdicts": VERDICTS, "folder": FOLDER}
    found.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    return found
