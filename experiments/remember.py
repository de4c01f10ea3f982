"""What commands remember of one another: composed specs and facts of plans, while nothing that they hang on changes."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from experiments.ablation import CONF
from mae.disk import write_text

_memory: dict[str, Any] = {}


def kept(key: str, make: Callable[[], Any], keep: bool = True) -> Any:
    """``make()``, or what an earlier command kept of it under ``key``."""
    if not keep:
        return make()
    if key not in _memory:
        _memory[key] = make()
    return _memory[key]


@contextmanager
def remembered(folder: Path) -> Iterator[None]:
    """Compose and count within only what no earlier command did that remembers its plans in ``folder``.

    They hold as long as the project's files, what ``conf`` reads from the environment, Hydra and torch stay the same.
    """
    path = folder / f"plans-{_project_digest()}.json"
    try:
        _memory.update(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        _memory.clear()
    before = len(_memory)
    try:
        yield
        if len(_memory) > before:
            for old in folder.glob("plans-*.json"):
                old.unlink(missing_ok=True)
            write_text(path, json.dumps(_memory))
    finally:
        _memory.clear()


def _project_digest() -> str:
    """Names and content of the files that a plan depends on, the environment that ``conf`` names, and versions."""
    root = CONF.parent.parent
    paths = [
        path
        for folder in ("mae", "experiments")
        for path in (root / folder).rglob("*")
        if path.suffix in (".py", ".yaml")
    ]
    files = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)}
    named = sorted(set(re.findall(r"oc\.env:(\w+)", "".join(files.values()))))
    versions = [version(package) for package in ("hydra-core", "torch")]
    return fingerprint({"files": files, "environment": [os.environ.get(name) for name in named], "versions": versions})


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that name ``identity``, the same on every machine."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
