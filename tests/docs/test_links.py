"""Every link between documents leads to a page, and every anchor to a heading."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest

from docs import generated
from tests.docs.commands import DOCUMENTS, ROOT

_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?://)([^)\s#]*)(?:#([^)\s]+))?\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """What headings are called both on the site and by hosts of repositories."""
    found = set()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        plain = unicodedata.normalize("NFKD", heading.replace("`", "")).encode("ascii", "ignore").decode().lower()
        words = re.sub(r"[^\w\s-]", "", plain).strip()
        if (name := re.sub(r"[-\s]+", "-", words)) == words.replace(" ", "-"):
            found.add(name)
    return found


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return generated.pages()


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "CHANGELOG.md"], ids=lambda path: path.name)
def test_links_lead_to_pages_and_headings(path: Path, made: dict[str, str]) -> None:
    source = path.relative_to(ROOT)
    text = path.read_text(encoding="utf-8")
    for target, anchor in _LINK.findall(_FENCE.sub("", text)):
        there = (ROOT / source.parent / target).resolve() if target else ROOT / source
        page = there.relative_to(ROOT / "docs").as_posix() if there.is_relative_to(ROOT / "docs") else ""
        assert there.is_file() or page in made, f"{source} links to {target}, which is not there"
        if source.name == "README.md":
            assert there.is_file(), f"README links to {target}, which is only on the site"
        if anchor:
            held = there.read_text(encoding="utf-8") if there.is_file() else made[page]
            assert anchor in anchors(held), f"{source} links to #{anchor} of {target}, which has no such heading"


def test_a_broken_anchor_is_told_from_a_heading() -> None:
    assert anchors("# One\n## A `b` c!\n```\n# no\n```\n") == {"one", "a-b-c"}
