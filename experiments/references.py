"""References of a spec, such as ``${data.flip}``: values that stand in one place and hold in another."""

from __future__ import annotations

import os
import re
from typing import Any, cast

from experiments.ablation import SpecError

#: A spec as it is composed and logged: nested plain dicts, lists and scalars.
Tree = dict[str, Any]


class Literal(str):
    """A text that is taken as it stands, although it may look like a reference."""


#: What a text refers to: a name of the environment, or another key, from the root or from ``.`` (its own section) on.
REFERENCE = re.compile(r"\$\{(?:oc\.env:(?P<env>\w+)(?:,null)?|(?P<dots>\.*)(?P<names>\w[\w.]*))\}")

#: References that lead on to others this many times lead in a circle.
MOST_STEPS = 50


def resolved(tree: Tree) -> Tree:
    """``tree`` with what its references name in their places; SpecError on one that names nothing, or itself."""
    return cast(Tree, _resolved(tree, tree, (), 0))


def _resolved(root: Tree, value: Any, place: tuple[str, ...], steps: int) -> Any:
    """``value``, which stands at ``place``, without references."""
    if isinstance(value, dict):
        return {key: _resolved(root, item, (*place, key), steps) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(root, item, (*place, str(number)), steps) for number, item in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value
    if isinstance(value, Literal):
        return str(value)
    if (match := REFERENCE.fullmatch(value)) is None:
        if REFERENCE.search(value) is None:
            raise SpecError(f"{'.'.join(place)}={value} is no reference; write ${{KEY}}")
        return REFERENCE.sub(lambda part: str(_resolved(root, part[0], place, steps)), value)
    if match["env"]:
        return os.environ.get(match["env"])
    return _resolved(root, *_followed(root, match, place, steps + 1), steps + 1)


def _followed(root: Tree, match: re.Match[str], place: tuple[str, ...], steps: int) -> tuple[Any, tuple[str, ...]]:
    """What the reference at ``place`` names, and where that stands."""
    where, names = ".".join(place), [*place[: len(place) - len(match["dots"])] * bool(match["dots"])]
    names += match["names"].split(".")
    node: Any = root
    found: tuple[str, ...] = ()
    for name in names:
        while isinstance(node, str) and (other := REFERENCE.fullmatch(node)) and steps < MOST_STEPS:
            node, found = _followed(root, other, found, steps := steps + 1)
        if not isinstance(node, dict) or name not in node:
            raise SpecError(f"{where} refers to {match[0]}, which does not exist; name a key that does")
        node, found = node[name], (*found, name)
    if steps >= MOST_STEPS:
        raise SpecError(f"{where} refers to {match[0]}, which leads back to itself; name another key, or a value")
    return node, found
