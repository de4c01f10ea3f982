"""Pages that the site has beside those of this folder, made when it is built: mkdocs.yml names this file as a hook.

README, CONTRIBUTING and CHANGELOG become pages. The reference is read from the code without importing it: commands
from their docstrings, options from their YAML files and the classes these name, the API from all docstrings.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "experiments" / "conf"

#: Documents outside of this folder, and the pages they become.
PUBLISHED = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}

#: What one types, and the file whose docstring says how.
COMMANDS = {
    "python experiments/run.py": "experiments/run.py",
    "python experiments/verify.py": "experiments/verify.py",
    "python experiments/search.py": "experiments/search.py",
    "python experiments/sync.py": "experiments/sync.py",
    "python reports/build.py": "reports/build.py",
    "python reports/compare.py": "reports/compare.py",
    "python -m mae.weights": "mae/weights/__main__.py",
    "python -m mae.visualise": "mae/visualise/__main__.py",
    "python -m mae.features": "mae/features.py",
    "python -m mae.data.check": "mae/data/check/verify.py",
    "python experiments/benchmark": "experiments/benchmark/__main__.py",
    "python experiments/paper_scale.py": "experiments/paper_scale.py",
    "python -m reports.simulation": "reports/simulation/__main__.py",
}

#: What each group of options chooses, in the order of a spec.
GROUPS = {
    "scale": "How large everything is: the one place where your compute differs from the papers'.",
    "model": "The encoder and the decoder: the keys of [`Model`][experiments.spec.Model].",
    "data": "What is pre-trained on, and evaluated on as well unless `evaluate_data` says otherwise: the keys of "
    "[`Data`][experiments.spec.Data].",
    "evaluate_data": "What evaluations train and test on, which makes a table one of transfer: the keys of "
    "[`Data`][experiments.spec.Data].",
    "sampling": "How evaluations take frames from a clip.",
    "mask": "Which patches the encoder sees.",
    "target": "What is predicted for the patches that the encoder does not see.",
    "target_frames": "Which frames of a clip are predicted from which.",
    "tokenizer": "Whose codes `target=tokens` predicts.",
    "objective": "The loss between a prediction and its target.",
    "method": "The objective of pre-training as a whole. It is made of mask, target, frames and loss.",
    "augment": "What is done to a sample before pre-training sees it.",
    "pretrain": "The recipe of pre-training: optimiser, rate, batch, length.",
    "evaluate": "How a representation is judged. Each folder is an evaluation, and `evaluate/linear=desk` chooses a "
    "recipe for one: the keys of [`Protocol`][experiments.spec.Protocol].",
    "origin": "Whose weights evaluations start from: the keys of [`Origin`][experiments.spec.Origin].",
    "launch": "Who trains: this command, workers of this machine, or an array of Slurm. `experiments/run.py` reads it; "
    "it is no part of a spec, and names no training.",
    "search": "What `python experiments/search.py search=NAME` looks for.",
}

_LINK = re.compile(r"(?<=\]\()(?P<path>[^)#\s:]+)(?P<anchor>#[^)\s]*)?(?=\))")


def pages() -> dict[str, str]:
    """Return the Markdown of every page that is made, by its place in the site."""
    found = {page: (ROOT / name).read_text(encoding="utf-8") for name, page in PUBLISHED.items()}
    found["reference/commands.md"] = commands()
    found["reference/tables.md"] = tables()
    found |= {f"reference/options/{name}.md": group(name, says) for name, says in GROUPS.items()}
    found |= {f"reference/api/{name}.md": api(name) for name in packages()}
    return found


def commands() -> str:
    """Return the page of commands: the text that each shows for help."""
    parts = ["# Commands", "Each shows this text by `--help`."]
    for typed, file in COMMANDS.items():
        parts += [f"## `{typed}`", f"```text\n{ast.get_docstring(_parsed(ROOT / file))}\n```"]
    return _joined(parts)


def tables() -> str:
    """Return the page of tables: what each asks, and where it was published."""
    rows = ["| `ablation=` | what it asks | published | rows | claims |", "|---|---|---|---|---|"]
    for path in sorted((CONF / "ablation").glob("*.yaml")):
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
        paper = read.get("paper") or {}
        where = f"{paper['arxiv'].partition('v')[0]}, {paper['where']}" if paper else "not published"
        counts = f"{len(read['rows'])} | {len(read.get('claims') or ())}"
        rows.append(f"| `{path.stem}` | {read['question']} | {where} | {counts} |")
    begin = (
        "Each table is one file of `experiments/conf/ablation/`. `python experiments/run.py ablation=NAME` runs it. "
        "Names that begin with `video_` are those of tables of clips."
    )
    return _joined(["# Tables", begin, "\n".join(rows)])


def group(name: str, says: str) -> str:
    """Return the page of one group: every option with the comment of its file, its class, and its values."""
    parts = [f"# {name}", says]
    for folder in sorted({path.parent for path in (CONF / name).rglob("*.yaml")}):
        key = folder.relative_to(CONF).as_posix()
        for path in sorted(folder.glob("*.yaml")):
            comment, values = _comment_and_values(path.read_text(encoding="utf-8"))
            parts += [f"## `{key}={path.stem}`", comment, *_built(values), f"```yaml\n{values}\n```"]
    return _joined(parts)


def api(package: str) -> str:
    """Return the page of one package: its own docstring, then every module in it that is no command."""
    folder = Path(*package.split("."))
    files = [path for path in sorted((ROOT / folder).glob("[!_]*.py")) if path.is_file()]
    modules = [path.stem for path in files if (folder / path.name).as_posix() not in COMMANDS.values()]
    own = f"::: {package}\n    options: {{members: false}}"
    return _joined([f"# {package}", own, *(f"::: {package}.{module}" for module in modules)])


def packages() -> list[str]:
    """Return the packages of the project by name."""
    found = [
        path.parent for name in ("mae", "experiments", "reports") for path in sorted((ROOT / name).rglob("__init__.py"))
    ]
    return [".".join(path.relative_to(ROOT).parts) for path in found]


def relinked(text: str, source: str, page: str) -> str:
    """Return ``text`` with links between documents of the repository as links between pages.

    ``source`` is the document's place in the repository, ``page`` that in the site.
    """

    def link(match: re.Match[str]) -> str:
        target = os.path.normpath(PurePosixPath(source).parent / match["path"])
        there = PUBLISHED.get(target, target.removeprefix("docs/"))
        return os.path.relpath(there, PurePosixPath(page).parent) + (match["anchor"] or "")

    return _LINK.sub(link, text)


def on_config(config: Any) -> Any:
    """Put the pages that are made below a folder into the navigation, for MkDocs."""
    config.nav = list(_navigation(config.nav, pages()))
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made, for MkDocs."""
    from mkdocs.structure.files import File

    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links between documents into links between pages, for MkDocs."""
    name = page.file.src_uri
    source = next((document for document, made in PUBLISHED.items() if made == name), f"docs/{name}")
    return relinked(markdown, source, name)


def _navigation(entries: list[Any], made: dict[str, str]) -> Iterator[Any]:
    for entry in entries:
        [(title, below)] = entry.items()
        if isinstance(below, list):
            yield {title: list(_navigation(below, made))}
        elif below.endswith("/"):
            yield {title: [{PurePosixPath(name).stem: name} for name in made if name.startswith(below)]}
        else:
            yield entry


def _built(values: str) -> Iterator[str]:
    """What the values of a file build: a link to the class or function, and its first sentence."""
    for name in dict.fromkeys(re.findall(r"^(?:  )?(?:\w+: *)?{?_target_: ([\w.]+)", values, re.MULTILINE)):
        module, _, wanted = name.rpartition(".")
        tree = _parsed(ROOT / f"{module.replace('.', '/')}.py")
        kinds = (ast.ClassDef, ast.FunctionDef)
        [found] = (node for node in tree.body if isinstance(node, kinds) and node.name == wanted)
        yield f"[`{name}`][{name}]: {(ast.get_docstring(found) or '').partition(chr(10) * 2)[0]}"


def _comment_and_values(text: str) -> tuple[str, str]:
    """The comment that a file begins with, as prose, and the rest."""
    lines = text.strip().splitlines()
    head = next((place for place, line in enumerate(lines) if not line.startswith("#")), len(lines))
    words = " ".join(line.lstrip("# ") for line in lines[:head] if not line.startswith("# @package"))
    return words, "\n".join(lines[head:])


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _joined(parts: list[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
