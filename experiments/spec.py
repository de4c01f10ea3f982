"""Specs: one YAML file is one published table; one row of it, composed at a scale, is one resolved spec."""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import yaml

CONF = Path(__file__).resolve().parent / "conf"

#: A resolved spec: nested plain dicts, lists and scalars.
Spec = dict[str, Any]

SCALES = ("smoke", "desk", "gpu", "paper")
#: What stands before the name of a scale in ``conf/scale``, by method: each has pictures or clips of its own.
METHODS = {"mae": "", "videomae": "clips_"}


class SpecError(ValueError):
    """What was asked for cannot be composed; the message names it and the nearest valid names."""


#: Overrides for each scale; those under ``all`` come first, at every scale.
Overrides = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Column:
    """A column of a table: ``metric`` is ``stage/name``, ``set`` what its stage changes in the spec of every row.

    ``relative_to`` names the row whose value divides every other (``invert``: is divided by it).
    """

    metric: str
    label: str
    unit: str = "%"
    better: str = "higher"
    relative_to: str | None = None
    invert: bool = False
    set: Overrides = field(default_factory=dict)

    @property
    def stage(self) -> str:
        return self.metric.split("/")[0]


@dataclass(frozen=True)
class Row:
    """A row: the overrides that make it, and the published value of each column (None where there is none)."""

    label: str
    set: Overrides
    paper: Mapping[str, float | None]


@dataclass(frozen=True)
class Figure:
    """``lines`` draws columns over the row labels as numbers, ``bars`` groups them by row."""

    kind: str = "bars"
    xlabel: str = ""
    log: bool = False


@dataclass(frozen=True)
class Ablation:
    """One published table or figure, as its YAML file states it."""

    name: str
    title: str
    question: str
    paper: Mapping[str, str]
    columns: Mapping[str, Column]
    rows: Mapping[str, Row]
    method: str = "mae"
    default: str | None = None
    base: Overrides = field(default_factory=dict)
    claims: tuple[str, ...] = ()
    figure: Figure = field(default_factory=Figure)
    notes: tuple[str, ...] = ()


def nearest(name: str, valid: Iterable[str]) -> str:
    """``did you mean A or B?`` or, when nothing is near, the valid names."""
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"valid: {', '.join(valid[:12])}{f' and {len(valid) - 12} more' if len(valid) > 12 else ''}"


def ablation_names() -> list[str]:
    """The tables that can be asked for, by file name."""
    return sorted(path.stem for path in (CONF / "ablation").glob("*.yaml"))


def load_ablation(name: str) -> Ablation:
    """Read ``conf/ablation/<name>.yaml``; SpecError on an unknown name or a file that is not an ablation."""
    path = CONF / "ablation" / f"{name}.yaml"
    if name not in ablation_names():
        raise SpecError(f"unknown ablation {name!r}: {nearest(name, ablation_names())}")
    try:
        raw = yaml.safe_load(path.read_text())
        ablation = _ablation(name, raw)
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise SpecError(
            f"{path.name} is not a valid ablation: {error!r}; see CONTRIBUTING.md, 'An ablation'"
        ) from error
    if ablation.default is not None and ablation.default not in ablation.rows:
        raise SpecError(
            f"{path.name}: default {ablation.default!r} is not a row: {nearest(ablation.default, ablation.rows)}"
        )
    if ablation.method not in METHODS:
        raise SpecError(f"{path.name}: unknown method {ablation.method!r}: {nearest(ablation.method, METHODS)}")
    for row in ablation.rows.values():
        if unknown := set(row.paper) - set(ablation.columns):
            raise SpecError(f"{path.name}, row {row.label!r}: no column {sorted(unknown)[0]!r}")
    return ablation


def _ablation(name: str, raw: Mapping[str, Any]) -> Ablation:
    known = set(Ablation.__dataclass_fields__) - {"name"}
    if unknown := set(raw) - known:
        key = sorted(unknown)[0]
        raise SpecError(f"{name}.yaml: unknown key {key!r}: {nearest(key, known)}")
    rows = {
        str(label): Row(str(label), _overrides(row.get("set")), dict(row.get("paper") or {}))
        for label, row in raw["rows"].items()
    }
    figure = raw.get("figure", "bars")
    return Ablation(
        name=name,
        title=raw["title"],
        question=raw["question"],
        paper=dict(raw["paper"]),
        columns={
            key: Column(**{**value, "set": _overrides(value.get("set"))}) for key, value in raw["columns"].items()
        },
        rows=rows,
        method=raw.get("method", "mae"),
        default=None if raw.get("default") is None else str(raw["default"]),
        base=_overrides(raw.get("base")),
        claims=tuple(raw.get("claims") or ()),
        figure=Figure(kind=figure) if isinstance(figure, str) else Figure(**figure),
        notes=tuple(raw.get("notes") or ()),
    )


def _overrides(raw: Any) -> Overrides:
    """A list holds at every scale; a mapping names scales, and ``all``."""
    if isinstance(raw, Mapping):
        return {str(scale): tuple(overrides) for scale, overrides in raw.items()}
    return {"all": tuple(raw or ())}


def at_scale(overrides: Overrides, scale: str) -> list[str]:
    """What ``overrides`` hold at ``scale``."""
    return [*overrides.get("all", ()), *overrides.get(scale, ())]


@lru_cache
def groups() -> dict[str, list[str]]:
    """Config groups and their options, as folders and files stand on disk."""
    found: dict[str, list[str]] = {}
    for path in sorted(CONF.rglob("*.yaml")):
        group = path.parent.relative_to(CONF).as_posix()
        if group not in (".", "ablation", "search"):
            found.setdefault(group, []).append(path.stem)
    return found


def compose(overrides: Sequence[str]) -> Spec:
    """Compose and resolve ``conf/config.yaml`` under ``overrides``, each ``key=value``; SpecError on a misfit."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    logging.getLogger("hydra").setLevel(logging.ERROR)
    for override in overrides:
        _check_names(override)
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            config = hydra.compose("config", list(overrides))
        return cast(Spec, OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SpecError(f"cannot compose {' '.join(overrides)}: {reason}") from error


def _check_names(override: str) -> None:
    """Refuse ``key=value`` whose key or group option does not exist, with the nearest ones that do."""
    key, _, value = override.partition("=")
    options = groups()
    if not _ or not key:
        raise SpecError(f"cannot read {override!r}: write KEY=VALUE")
    if key in options and value not in options[key]:
        raise SpecError(f"unknown {key} {value!r}: {nearest(value, options[key])}")


def scale_option(method: str, scale: str) -> str:
    """The file of ``conf/scale`` that composes ``method`` at ``scale``."""
    return f"{METHODS[method]}{scale}"


def spec_of(
    ablation: Ablation, row: Row, scale: str, seed: int, overrides: Sequence[str] = (), changes: Sequence[str] = ()
) -> Spec:
    """The resolved spec of one row: scale, the table's base, the row, the ``changes`` of a column, then the user's.

    The seed comes last.
    """
    if any(override.partition("=")[0] == "seed" for override in overrides):
        raise SpecError("seed is set by the plan: seeds=N runs seeds 0 to N - 1")
    option = scale_option(ablation.method, scale)
    own = [*at_scale(ablation.base, scale), *at_scale(row.set, scale), *changes]
    check_overrides(option, overrides)
    # composing takes most of the time of a plan, and nothing in a spec refers to the seed
    layers = tuple(_last_group_wins([f"scale={option}", *own, *overrides]))
    return {**copy.deepcopy(_composed(layers)), "seed": seed}


def origin_of(spec: Spec) -> Spec | None:
    """The spec whose training ``spec`` starts from where that is not its own: composed at its scale, for its seed."""
    origin = spec["origin"]
    if origin["set"] is None:
        return None
    option = scale_option(origin["method"], spec["scale"])
    found = copy.deepcopy(_composed(tuple(_last_group_wins([f"scale={option}", *origin["set"]]))))
    return {**found, **{key: spec[key] for key in ("seed", "precision")}}


@lru_cache(maxsize=1024)
def _composed(overrides: tuple[str, ...]) -> Spec:
    key = " ".join(overrides)
    if key not in _kept:
        _kept[key] = compose(overrides)
    return _kept[key]


_kept: dict[str, Spec] = {}


@contextmanager
def kept_specs(folder: Path) -> Iterator[None]:
    """Compose within only what no earlier command did that keeps its specs in ``folder``.

    They hold as long as the files of ``conf``, what these read from the environment, and Hydra stay the same.
    """
    path = folder / f"specs-{_conf_digest()}.json"
    try:
        _kept.update(json.loads(path.read_text()))
    except (OSError, ValueError):
        _kept.clear()
    before = len(_kept)
    try:
        yield
        if len(_kept) > before:
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob("specs-*.json"):
                old.unlink(missing_ok=True)
            part = path.with_suffix(f".{os.getpid()}.part")
            part.write_text(json.dumps(_kept))
            part.replace(path)
    finally:
        _kept.clear()


def _conf_digest() -> str:
    """Names and content of all files of ``conf``, the environment that they name, and the version of Hydra."""
    files = {path.relative_to(CONF).as_posix(): path.read_text() for path in sorted(CONF.rglob("*.yaml"))}
    named = sorted(set(re.findall(r"oc\.env:(\w+)", "".join(files.values()))))
    return fingerprint(
        {"files": files, "environment": [os.environ.get(n) for n in named], "hydra": version("hydra-core")}
    )


def _last_group_wins(overrides: Sequence[str]) -> list[str]:
    """Drop all but the last choice of each key: a later layer replaces an earlier one."""
    return list({override.partition("=")[0]: override for override in overrides}.values())


_checked: set[tuple[str, tuple[str, ...]]] = set()


def check_overrides(option: str, overrides: Sequence[str]) -> None:
    """Refuse unknown keys and values of another type than the ones they replace. SpecError names the nearest keys.

    ``option`` is the file of ``conf/scale`` that the overrides are for.
    """
    if not overrides or (option, tuple(overrides)) in _checked:
        return
    chosen = [o for o in overrides if o.partition("=")[0].lstrip("+~") in groups()]
    base = flatten(compose([f"scale={option}", *chosen]))
    sections = {key.rsplit(".", depth)[0] for key in base for depth in range(1, key.count(".") + 1)}
    for override in overrides:
        key, _, value = override.partition("=")
        if key in groups():
            continue
        if key not in base and key not in sections:
            raise SpecError(f"unknown key {key!r}: {nearest(key, base)}")
        given = yaml.safe_load(value) if value else None
        if key in sections and not isinstance(given, dict):
            raise SpecError(f"{key} is a group of keys, not a value: set one of {nearest(key, base)}")
        # epochs may be fractions, although most are written as whole numbers
        fraction = key.endswith("epochs") and isinstance(given, float)
        if key in base and not fraction and not _same_type(base[key], given):
            raise SpecError(
                f"{key}={value} has the wrong type: expected {_type_name(base[key])} (as in {key}={base[key]})"
            )
    _checked.add((option, tuple(overrides)))


def _same_type(old: Any, new: Any) -> bool:
    if old is None:
        return True
    if isinstance(old, bool) or isinstance(new, bool):
        return isinstance(old, bool) and isinstance(new, bool)
    if isinstance(old, float):
        return isinstance(new, int | float) or _is_number(new)
    return isinstance(new, type(old))


def _is_number(text: Any) -> bool:
    """YAML 1.1 reads 1e-3 as text; Hydra does not."""
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True


def _type_name(value: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a name", list: "a list"}
    return names.get(type(value), type(value).__name__)


def flatten(spec: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` to ``{"a.b": 1}``; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in spec.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that name ``identity``, the same on every machine."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
