"""The commands that README and docs show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
PROGRAMS = (
    r"(?:source |export |python3? |(?:\.venv/bin/)?pip |pytest\b|pre-commit |bash |make |mlflow |torchrun |sbatch |"
    r"srun |optuna-dashboard |mae-(?:run|search|report)\b|[A-Z]+=\S+ make|experiments/benchmark )"
)
_BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`]+)`")


def commands(text: str) -> Iterator[str]:
    """Yield what a document shows to be typed: lines of its blocks without a language, and its code in the text."""
    for language, body in _BLOCK.findall(text):
        if language in ("", "bash", "sh"):
            lines = re.sub(r"\s*\\\n\s*", " ", body).splitlines()
            yield from (line for line in lines if re.match(PROGRAMS, line))
    for span in _SPAN.findall(_BLOCK.sub("", text)):
        words = " ".join(span.split())
        if re.match(PROGRAMS, words):
            yield words


def shown() -> dict[str, str]:
    """Return every command, with the document that shows it first."""
    found: dict[str, str] = {}
    for path in DOCUMENTS:
        for command in commands(path.read_text(encoding="utf-8")):
            found.setdefault(command, path.relative_to(ROOT).as_posix())
    return found
