"""What names a training: what it computes, in words that stay the same when code is moved."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from experiments.ablation import CONF, SpecError
from experiments.compose import PATHS

#: Fields that classes were given later, by stable name, with the value that computes what was computed without them:
#: that one is no part of an identity, so that what was trained before keeps its name.
LATER: Mapping[str, Mapping[str, Any]] = {
    "head/fine_tuning": {"mix_draws": 1},
    "head/linear_probe": {"norm_groups": 1},
    "method/dino": {"centre_momentum": 0.9},
}


@lru_cache
def names(own: Path | None = None) -> Mapping[str, str]:
    """Stable names by import path: those of ``conf/names.yaml``, and of ``names.yaml`` in the folder ``own``.

    SpecError on a name, or an import path, that is registered twice.
    """
    found: dict[str, str] = {}
    for path in [place / "names.yaml" for place in (CONF, own) if place is not None]:
        if not path.exists():
            continue
        node = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
        for name, target in [(key.value, value.value) for key, value in node.value] if node is not None else []:
            if name in found.values():
                raise SpecError(f"{path}: the name {name!r} is registered twice; choose another for {target}")
            if target in found:
                raise SpecError(
                    f"{path}: {target} is registered twice, as {found[target]!r} and {name!r}; keep the first"
                )
            found[target] = name
    return found


def named(value: Any, own: Path | None = None) -> Any:
    """``value`` with stable names in the place of import paths, and digests in the place of paths of files.

    A class that is not registered is named by its import path.
    """
    if isinstance(value, Mapping):
        later = LATER.get(names(own).get(value.get("_target_", ""), ""), {})
        kept = {key: item for key, item in value.items() if key not in later or item != later[key]}
        return {key: _named(key, item, own) for key, item in kept.items()}
    if isinstance(value, list | tuple):
        return [named(item, own) for item in value]
    return value


def _named(key: str, value: Any, own: Path | None) -> Any:
    if key == "_target_":
        return names(own).get(value, value)
    return file_digest(value) if key in PATHS and value else named(value, own)


@lru_cache
def file_digest(path: str) -> str:
    """A digest of a file's bytes, or of all files in a folder and their names.

    It is the name of one that is not there, which is refused when it is asked for.
    """
    place = Path(path)
    if not place.exists():
        return path
    digest = hashlib.blake2b(digest_size=8)
    for file in [place] if place.is_file() else sorted(place.iterdir()):
        if file.is_dir():
            continue
        if file != place:
            digest.update(f"{file.name}/{file.stat().st_size}/".encode(errors="surrogateescape"))
        with open(file, "rb") as content:
            while part := content.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()
