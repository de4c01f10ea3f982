"""The documentation as a site: it leaves out nothing, builds without a warning, and asks nothing of a network."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from docs import generated

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "experiments" / "conf"
#: What a browser fetches by itself: not links, which a reader may follow.
FETCHED = re.compile(
    r"""<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//|url\(["']?https?:"""
)


def test_the_reference_names_every_command_group_option_table_and_module() -> None:
    pages = generated.pages()
    usage = re.compile(r"^Usage: python", re.MULTILINE)
    scripts = {
        path.relative_to(ROOT).as_posix()
        for package in ("mae", "experiments", "reports")
        for path in (ROOT / package).rglob("*.py")
        if usage.search(path.read_text(encoding="utf-8"))
    }
    assert scripts <= set(generated.COMMANDS.values())
    groups = {path.name for path in CONF.iterdir() if path.is_dir()} - {"ablation"}
    assert groups == set(generated.GROUPS)
    for path in sorted(CONF.glob("*/**/*.yaml")):
        group, name = path.parent.relative_to(CONF), path.stem
        if group.parts[0] == "ablation":
            assert f"| `{name}` |" in pages["reference/tables.md"]
        else:
            assert f"## `{group.as_posix()}={name}`" in pages[f"reference/options/{group.parts[0]}.md"]
    assert "::: mae.methods.simmim\n" in pages["reference/api/mae.methods.md"]


def test_links_between_documents_become_links_between_pages() -> None:
    assert generated.relinked("[a](docs/speed.md#b)", "README.md", "index.md") == "[a](speed.md#b)"
    text = generated.relinked("[a](../../CONTRIBUTING.md#b) ![c](../d.png)", "docs/how_to/x.md", "how_to/x.md")
    assert text == "[a](../contributing.md#b) ![c](../d.png)"
    assert generated.relinked("[a](https://b.org/c)", "README.md", "index.md") == "[a](https://b.org/c)"


def test_every_document_is_in_the_navigation() -> None:
    """Where MkDocs is not installed, too: it warns of those that are not."""
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    named = set(re.findall(r"'([\w/]+\.md)'", str(nav)))
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert there <= named, "add these to nav in mkdocs.yml"
    assert named - there <= generated.pages().keys(), "nav in mkdocs.yml names pages that are not there"


@pytest.mark.skipif(not importlib.util.find_spec("mkdocs"), reason="the site was NOT built: pip install -e '.[docs]'")
def test_the_site_builds_without_a_warning_and_asks_nothing_of_a_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    built = [path for suffix in ("html", "css") for path in tmp_path.rglob(f"*.{suffix}")]
    assert len(built) > 40
    assert {path.name: found for path in built if (found := FETCHED.findall(path.read_text(encoding="utf-8")))} == {}
