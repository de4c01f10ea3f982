"""Composing: what Hydra makes of a scale, the choices of a row and the user's own values, as plain values."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import yaml

from experiments.ablation import CONF, SpecError, expanded, nearest
from experiments.remember import kept

#: A resolved spec as it is logged: nested plain dicts, lists and scalars.
Tree = dict[str, Any]

#: Keys whose values are places on this machine: read as they stand, with ``~`` and environment variables expanded.
PATHS = ("root", "path")

#: Keys of names below a root, which are read as they stand, too.
NAMES = ("train_list", "test_list", "lists", "videos", "labels", "name")


@lru_cache
def groups(own: Path | None = None) -> Mapping[str, Sequence[str]]:
    """Config groups and their options as files stand on disk; those in the folder ``own`` add to the project's.

    A user may add an evaluation (``evaluate/mine/default.yaml``), but no other group.
    """
    found: dict[str, set[str]] = {}
    for path in CONF.rglob("*.yaml"):
        group = path.parent.relative_to(CONF).as_posix()
        if group not in (".", "ablation", "search"):
            found.setdefault(group, set()).add(path.stem)
    if own is not None:
        for path in own.rglob("*.yaml"):
            group = path.parent.relative_to(own).as_posix()
            if group in found or group.startswith("evaluate/"):
                found.setdefault(group, set()).add(path.stem)
    return {group: sorted(options) for group, options in sorted(found.items())}


@lru_cache
def order(own: Path | None = None) -> tuple[str, ...]:
    """All groups in the order in which they are merged: as in ``conf/config.yaml``; the scale comes last.

    An evaluation that is not listed there has the option ``default`` unless another is chosen.
    """
    defaults = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    listed = [group for entry in defaults if isinstance(entry, Mapping) for group in entry if group != "scale"]
    others = [group for group in groups(own) if group.startswith("evaluate/") and group not in listed]
    return (*listed, *others, "scale")


def compose(
    scale: str, overrides: Sequence[str], own: Path | None = None, stages: Collection[str] | None = None
) -> Tree:
    """The resolved tree of ``conf/config.yaml`` at ``scale``, a file of ``conf/scale``, under ``overrides``.

    The result is what ``hydra.compose`` gives, for a tenth of its time: Hydra composes each option of each group once,
    and a row merges the options that it chooses. Of evaluations, those of ``stages`` alone are composed, None for all.
    ``own`` is a folder with further options. SpecError on an override that does not fit.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

    given: dict[str, str | None] = {}
    values = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise SpecError(f"cannot read {override!r}: write KEY=VALUE")
        if key in order(own):
            given[key] = value
        else:
            values.append((key, value))
    brought = [_brought(group, option, own) for group, option in given.items()]
    chosen = {
        **_choices(scale, own),
        **{group: option for found in brought for group, option in found.items()},
        **given,
    }
    tree: Tree = {}
    for group in order(own):
        tree = _merged(tree, _scale_values(scale) if group == "scale" else _section(group, chosen[group], own))
    if stages is not None:
        named = {key.split(".")[1] for key, _ in values if key.startswith("evaluate.")}
        tree["evaluate"] = _needed(tree["evaluate"], named | set(stages))
    try:
        config = OmegaConf.create({**_root(), **tree})
        OmegaConf.set_struct(config, True)
        for key, value in values:
            _check_own(config, key)
            try:
                OmegaConf.update(config, key, _value(key, value), merge=True)
            except (ConfigAttributeError, ConfigKeyError) as error:
                known = flatten(cast(Tree, OmegaConf.to_container(config, resolve=False)))
                raise SpecError(f"unknown key {key!r}: {nearest(key, known)}") from error
        return cast(Tree, OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    except (OmegaConfBaseException, ValueError) as error:
        if isinstance(error, SpecError):
            raise
        reason = str(error).strip().splitlines()[0]
        raise SpecError(f"cannot compose scale={scale} {' '.join(overrides)}: {reason}") from error


def _needed(evaluations: Tree, stages: set[str]) -> Tree:
    """The sections of ``evaluations`` that belong to ``stages``, and those that these refer to."""
    found = {stage: evaluations[stage] for stage in stages if stage in evaluations}
    named = {stage for stage in re.findall(r"evaluate\.(\w+)", json.dumps(found)) if stage in evaluations}
    return found if named <= set(found) else _needed(evaluations, named | set(found))


def _merged(under: Tree, over: Mapping[str, Any]) -> Tree:
    """``over`` laid over ``under`` as OmegaConf merges: mappings key by key, anything else replaces."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


@lru_cache
def _root() -> Tree:
    """The values that stand in ``conf/config.yaml`` itself."""
    raw = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in raw.items() if key != "defaults"}


def _section(group: str, option: str | None, own: Path | None) -> Tree:
    """What an option adds to the root of a spec; a mapping in braces stands for itself, null for nothing."""
    if option is None or option == "null":
        return _nested(group, None)
    if option.startswith("{"):
        return _nested(group, _value(group, option))
    _check_option(group, option, own)
    return _composed_option(group, option, own)


def _check_option(group: str, option: str, own: Path | None) -> None:
    if option not in groups(own)[group]:
        raise SpecError(f"unknown {group} {option!r}: {nearest(option, groups(own)[group])}")


@lru_cache
def _brought(group: str, option: str | None, own: Path | None) -> Mapping[str, str]:
    """What an option chooses for other groups (``override /objective: l1`` among its defaults)."""
    if option is None or option == "null" or option.startswith("{") or group == "scale":
        return {}
    _check_option(group, option, own)
    defaults = (yaml.safe_load(_file(group, option, own).read_text(encoding="utf-8")) or {}).get("defaults", ())
    words = [(key.split(), value) for entry in defaults if isinstance(entry, Mapping) for key, value in entry.items()]
    return {key[1].lstrip("/").partition("@")[0]: str(value) for key, value in words if key[0] == "override"}


def _file(group: str, option: str, own: Path | None) -> Path:
    """The file of an option; a user's own comes before the project's."""
    places = [place / group / f"{option}.yaml" for place in (own, CONF) if place is not None]
    return next(path for path in places if path.exists())


def _nested(group: str, value: Any) -> Tree:
    """``value`` at the place of ``group``: evaluate/linear is evaluate.linear."""
    for part in reversed(group.split("/")):
        value = {part: value}
    return cast(Tree, value)


@lru_cache(maxsize=1024)
def _composed_option(group: str, option: str, own: Path | None) -> Tree:
    """What the file of an option adds to a spec. Hydra is asked where the file builds on others: it takes its time."""
    from omegaconf import OmegaConf

    path = _file(group, option, own)
    raw = cast(Tree, OmegaConf.to_container(OmegaConf.load(path), resolve=False)) or {}
    defaults = raw.pop("defaults", None)
    if defaults is None or _brought(group, option, own):
        return raw if "# @package _global_" in path.read_text(encoding="utf-8") else _nested(group, raw)
    return cast(Tree, kept(f"{group}/{option}", lambda: _hydra(f"{group}/{option}", (), own)[0], own is None))


@lru_cache
def _choices(scale: str, own: Path | None) -> Mapping[str, str | None]:
    """The option of every group that a file of ``conf/scale`` chooses."""
    if scale not in groups()["scale"]:
        raise SpecError(f"unknown scale {scale!r}: {nearest(scale, groups()['scale'])}")
    found = kept(f"choices of {scale}", lambda: _hydra("config", (f"scale={scale}",), None)[1])
    return {group: found.get(group, "default") for group in order(own)}


@lru_cache
def _scale_values(scale: str) -> Tree:
    """The values that a file of ``conf/scale`` states itself, over those of the files it builds on."""
    raw = yaml.safe_load((CONF / "scale" / f"{scale}.yaml").read_text(encoding="utf-8"))
    below: Tree = {}
    for entry in raw.get("defaults", ()):
        if isinstance(entry, str) and entry != "_self_":
            below = _merged(below, _scale_values(entry))
    return _merged(below, {key: value for key, value in raw.items() if key != "defaults"})


def _hydra(name: str, overrides: Sequence[str], own: Path | None) -> tuple[Tree, Tree]:
    """What Hydra makes of the config ``name``, unresolved, and the options that it chose."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    logging.getLogger("hydra").setLevel(logging.ERROR)
    if own is not None:
        place = f"file://{own}".replace("\\", "\\\\").replace("'", "\\'")
        overrides = [*overrides, f"hydra.searchpath=['{place}']"]
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            config = hydra.compose(name, list(overrides), return_hydra_config=True)
        choices = dict(config.hydra.runtime.choices)
        OmegaConf.set_struct(config, False)
        del config["hydra"]
        return cast(Tree, OmegaConf.to_container(config, resolve=False)), choices
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SpecError(f"cannot compose {name}: {reason}") from error


def _value(key: str, text: str) -> Any:
    """The value of an override: a path as it stands, anything else by Hydra's grammar."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    last = key.rpartition(".")[2]
    if last in (*PATHS, *NAMES):
        if text in ("null", ""):
            return None
        # what is not expanded is a part of the name, and no reference to another key
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", expanded(text) if last in PATHS else text)
    try:
        value = OverridesParser.create().parse_override(f"{key}={text}").value()
        if not _finite(value):
            raise SpecError(f"{key}={text}: give finite numbers")
        return value
    except HydraException as error:
        raise SpecError(
            f"cannot read {key}={text}: write a number, a word, [a, b] or {{key: value}}, and put quotes around a "
            f"text with signs in it"
        ) from error


def _finite(value: Any) -> bool:
    if isinstance(value, dict | list):
        return all(map(_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def _check_own(config: Any, key: str) -> None:
    """SpecError where ``key`` lies in a section that follows another, which is to be set in its place."""
    from omegaconf import OmegaConf

    node: Any = config
    first, *rest = key.split(".")
    for depth, part in enumerate([first, *rest[:-1]]):
        if not OmegaConf.is_dict(node) or part not in node:
            return
        if rest and OmegaConf.is_interpolation(node, part):
            reference = cast(Tree, OmegaConf.to_container(node, resolve=False))[part]
            followed = ".".join([str(reference).removeprefix("${").removesuffix("}"), *rest[depth:]])
            raise SpecError(f"{key} follows {followed}: set {followed}, or choose another {first}")
        node = node[part]


_checked: set[tuple[str, tuple[str, ...], Path | None]] = set()


def check_overrides(scale: str, overrides: Sequence[str], own: Path | None = None) -> None:
    """Refuse unknown keys and values of another type than the ones they replace. SpecError names the nearest keys.

    ``scale`` is the file of ``conf/scale`` that the overrides are for.
    """
    if not overrides or (scale, tuple(overrides), own) in _checked:
        return
    for override in overrides:
        if "=" not in override:
            raise SpecError(f"cannot read {override!r}: write KEY=VALUE")
    chosen = [override for override in overrides if override.partition("=")[0] in order(own)]
    base = flatten(compose(scale, chosen, own))
    sections = {key.rsplit(".", depth)[0] for key in base for depth in range(1, key.count(".") + 1)}
    for override in overrides:
        key, _, value = override.partition("=")
        if key in order(own):
            continue
        if key not in base and key not in sections:
            raise SpecError(f"unknown key {key!r}: {nearest(key, base)}")
        given = _value(key, value)
        if key in sections and not isinstance(given, dict):
            raise SpecError(f"{key} is a group of keys, not a value: set one of {nearest(key, base)}")
        # epochs may be fractions, although most are written as whole numbers
        fraction = key.endswith("epochs") and isinstance(given, float)
        if key in base and not fraction and not _same_type(base[key], given):
            raise SpecError(
                f"{key}={value} has the wrong type: expected {_type_name(base[key])} (as in {key}={base[key]})"
            )
    _checked.add((scale, tuple(overrides), own))


def _same_type(old: Any, new: Any) -> bool:
    if old is None:
        return True
    if isinstance(old, bool) or isinstance(new, bool):
        return isinstance(old, bool) and isinstance(new, bool)
    if isinstance(old, float):
        return isinstance(new, int | float)
    return isinstance(new, type(old))


def _type_name(value: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a name", list: "a list"}
    return names.get(type(value), type(value).__name__)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` to ``{"a.b": 1}``; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
