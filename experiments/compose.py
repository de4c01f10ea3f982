"""Composing: a scale, the choices of a row and the user's own values become plain values, as Hydra makes them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from experiments.ablation import CONF, Loader, SpecError, expanded, nearest, read_yaml
from experiments.references import Literal, Tree, resolved

#: Keys whose values are places on this machine: read as they stand, with ``~`` and environment variables expanded.
PATHS = ("root", "path")

#: Keys of names below a root, which are read as they stand, too.
NAMES = ("train_list", "test_list", "lists", "videos", "labels", "name")


class _Loader(Loader):
    """It reads 1e-3 as the number that it is, as Hydra does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d[\d_]*(\.[\d_]*)?[eE][-+]?\d+"), list("-+0123456789")
)


@lru_cache
def groups(own: Path | None = None) -> Mapping[str, Sequence[str]]:
    """Config groups and their options as files stand on disk; those in the folder ``own`` add to the project's.

    A user may add an evaluation (``evaluate/mine/default.yaml``), but no other group.
    """
    found: dict[str, set[str]] = {}
    for path in CONF.rglob("*.yaml"):
        group = path.parent.relative_to(CONF).as_posix()
        if group not in (".", "ablation", "search", "launch"):
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
    defaults = read_yaml(CONF / "config.yaml")["defaults"]
    listed = [group for entry in defaults if isinstance(entry, Mapping) for group in entry if group != "scale"]
    others = [group for group in groups(own) if group.startswith("evaluate/") and group not in listed]
    return (*listed, *others, "scale")


def compose(
    scale: str, overrides: Sequence[str], own: Path | None = None, stages: Collection[str] | None = None
) -> Tree:
    """The resolved tree of ``conf/config.yaml`` at ``scale``, a file of ``conf/scale``, under ``overrides``.

    The result is what ``hydra.compose`` gives, for a hundredth of its time. Of evaluations, those of ``stages`` alone
    are composed, None for all. ``own`` is a folder with further options. SpecError on an override that does not fit.
    """
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
    chosen = {**_choices(scale, own)}
    for group, option in given.items():
        chosen.update(_brought(group, option, own))
    chosen.update(given)
    tree: Tree = dict(_root())
    for group in order(own):
        tree = _merged(tree, _content("scale", scale, own) if group == "scale" else _section(group, chosen[group], own))
    if stages is not None:
        named = {key.split(".")[1] for key, _ in values if key.startswith("evaluate.")}
        tree["evaluate"] = _needed(tree["evaluate"], named | set(stages))
    for key, value in values:
        names = key.split(".")
        try:
            tree = _with(tree, key, names, _value(key, value))
        except KeyError as error:
            if names[-1] not in (optional := _unstated(tree, names[:-1])):
                raise SpecError(f"unknown key {key!r}: {nearest(key, [*flatten(tree), *optional.values()])}") from error
            tree = _with(tree, key, names, _value(key, value), new=True)
    return resolved(tree)


def _unstated(tree: Tree, place: Sequence[str]) -> Mapping[str, str]:
    """What the class of the section at ``place`` takes and the section does not state: name, and whole key."""
    from inspect import signature

    from hydra.utils import get_object

    section: Any = tree
    for name in place:
        section = section.get(name) if isinstance(section, dict) else None
    if not isinstance(section, dict) or "_target_" not in section:
        return {}
    try:
        names = signature(get_object(section["_target_"])).parameters
    except Exception:  # whatever the module that holds the class raises is told where its object is made
        return {}
    return {name: ".".join([*place, name]) for name in names if name not in section}


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
    return {key: value for key, value in read_yaml(CONF / "config.yaml").items() if key != "defaults"}


def _section(group: str, option: str | None, own: Path | None) -> Tree:
    """What an option adds to the root of a spec; a mapping in braces stands for itself, null for nothing."""
    if option is None or option == "null":
        return _nested(group, None)
    if option.startswith("{"):
        return _nested(group, _value(group, option))
    found = _content(group, option, own)
    return found if _option(group, option, own).everywhere else _nested(group, found)


@dataclass(frozen=True)
class _Option:
    """The file of an option: the ``values`` that it states, and the options, by group and name, that it builds on.

    They lie over one another in the order of ``layers``, where None stands for the values. It ``brings`` options of
    other groups with it. What is stated ``everywhere`` lies at the root of a spec, and not in the option's group.
    """

    values: Tree
    layers: Sequence[tuple[str, str] | None]
    brings: Mapping[str, str]
    everywhere: bool


@lru_cache(maxsize=1024)
def _option(group: str, option: str, own: Path | None) -> _Option:
    """Read the file of an option; a user's own comes before the project's. SpecError on what cannot be read."""
    if option not in groups(own)[group]:
        raise SpecError(f"unknown {group} {option!r}: {nearest(option, groups(own)[group])}")
    places = [place / group / f"{option}.yaml" for place in (own, CONF) if place is not None]
    path = next(path for path in places if path.exists())
    values = read_yaml(path, _Loader) or {}
    layers: list[tuple[str, str] | None] = []
    brings: dict[str, str] = {}
    for entry in values.pop("defaults", ()):
        [(key, name)] = entry.items() if isinstance(entry, Mapping) else [(str(entry), None)]
        other = re.fullmatch(r"(override )?/([\w/]+)(@[\w.]+)?", key)
        if name is None and other is None:
            layers.append(None if key == "_self_" else (group, key))
        elif other is None or (other[1] and name is None) or (not other[1] and other[3] != "@_here_"):
            raise SpecError(
                f"{path}: among defaults, write NAME, /GROUP/NAME@_here_ or override /GROUP: NAME, not {key!r}"
            )
        elif other[1]:
            brings[other[2]] = str(name)
        else:
            place, _, last = other[2].rpartition("/")
            layers.append((place, last) if name is None else (other[2], str(name)))
    if None not in layers:
        layers.append(None)
    return _Option(values, layers, brings, "# @package _global_" in path.read_text(encoding="utf-8"))


@lru_cache(maxsize=1024)
def _content(group: str, option: str, own: Path | None) -> Tree:
    """What an option states, over what it builds on."""
    found: Tree = {}
    file = _option(group, option, own)
    for layer in file.layers:
        found = _merged(found, file.values if layer is None else _content(*layer, own))
    return found


@lru_cache(maxsize=1024)
def _brought(group: str, option: str | None, own: Path | None) -> Mapping[str, str | None]:
    """What an option and what it builds on choose of other groups (``override /objective: l1`` among its defaults)."""
    if option is None or option == "null" or option.startswith("{"):
        return {}
    found: dict[str, str | None] = {}
    file = _option(group, option, own)
    for layer in file.layers:
        found.update(_brought(*layer, own) if layer is not None else {})
    return {**found, **file.brings}


def _nested(group: str, value: Any) -> Tree:
    """``value`` at the place of ``group``: evaluate/linear is evaluate.linear."""
    for part in reversed(group.split("/")):
        value = {part: value}
    return cast(Tree, value)


@lru_cache
def _choices(scale: str, own: Path | None) -> Mapping[str, str | None]:
    """The option of every group that a file of ``conf/scale`` chooses, or else ``conf/config.yaml``."""
    listed = [entry for entry in read_yaml(CONF / "config.yaml")["defaults"] if isinstance(entry, Mapping)]
    found = {group: option for entry in listed for group, option in entry.items()}
    found.update(_brought("scale", scale, own))
    return {group: found.get(group, "default") for group in order(own)}


def _with(tree: Tree, key: str, names: Sequence[str], value: Any, new: bool = False) -> Tree:
    """``tree`` with ``value`` at ``names``, the rest of ``key``.

    KeyError where nothing is there, unless the value is ``new`` to its section. SpecError where it lies in a section
    that follows another, to be set in its place.
    """
    first, *rest = names
    if first not in tree and (rest or not new):
        raise KeyError(first)
    below = tree.get(first)
    if rest and isinstance(below, str) and below.startswith("${"):
        followed = ".".join([below[2:-1], *rest])
        raise SpecError(f"{key} follows {followed}: set {followed}, or choose another {key.split('.')[0]}")
    if rest:
        below = _with(below if isinstance(below, dict) else {}, key, rest, value, new)
    elif isinstance(below, dict) and isinstance(value, Mapping):
        for name, item in value.items():
            below = _with(below, f"{key}.{name}", [name], item)
    else:
        below = value
    return {**tree, first: below}


@lru_cache(maxsize=1024)
def _value(key: str, text: str) -> Any:
    """The value of an override: a path as it stands, anything else by Hydra's grammar."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    last = key.rpartition(".")[2]
    if last in (*PATHS, *NAMES):
        if text in ("null", ""):
            return None
        # what is not expanded is a part of the name, and no reference to another key
        return Literal(expanded(text) if last in PATHS else text)
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


_checked: set[tuple[str, tuple[str, ...], tuple[str, ...], Path | None]] = set()


def check_overrides(scale: str, overrides: Sequence[str], own: Path | None = None, row: Sequence[str] = ()) -> None:
    """Refuse unknown keys and values of another type than the ones they replace. SpecError names the nearest keys.

    ``scale`` is the file of ``conf/scale`` that the overrides are for; ``row`` is what a row sets below them.
    """
    under = tuple(override for override in row if override.partition("=")[0] in order(own))
    seen = (scale, under, tuple(overrides), own)
    if not overrides or seen in _checked:
        return
    for override in overrides:
        if "=" not in override:
            raise SpecError(f"cannot read {override!r}: write KEY=VALUE")
    chosen = [override for override in overrides if override.partition("=")[0] in order(own)]
    composed = compose(scale, [*under, *chosen], own)
    base = flatten(composed)
    sections = {key.rsplit(".", depth)[0] for key in base for depth in range(1, key.count(".") + 1)}
    for override in overrides:
        key, _, value = override.partition("=")
        if key in order(own):
            continue
        place, _, last = key.rpartition(".")
        if key not in base and key not in sections:
            optional = _unstated(composed, place.split("."))
            if last not in optional:
                raise SpecError(f"unknown key {key!r}: {nearest(key, [*base, *optional.values()])}")
        given = _value(key, value)
        if key in sections and not isinstance(given, dict):
            raise SpecError(f"{key} is a group of keys, not a value: set one of {nearest(key, base)}")
        # epochs may be fractions, although most are written as whole numbers
        fraction = key.endswith("epochs") and isinstance(given, float)
        if key in base and not fraction and not _same_type(base[key], given):
            raise SpecError(
                f"{key}={value} has the wrong type: expected {_type_name(base[key])} (as in {key}={base[key]})"
            )
    _checked.add(seen)


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
