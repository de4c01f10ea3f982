"""The command line of every command: KEY=VALUE arguments, read into a dataclass by the types of its fields."""

from __future__ import annotations

import dataclasses
import difflib
import io
import math
import os
import sys
import types
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from mae.errors import SpecError

T = TypeVar("T")

#: The field that takes every KEY=VALUE which is no option of the command itself.
OVERRIDES = "overrides"


@dataclass(frozen=True)
class Option:
    """What a value must be besides its type: one of ``choices``, at least ``least``; and the ``key`` to type for it."""

    key: str | None = None
    choices: Collection[str] | None = None
    least: float | None = None


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether a command line asks what the command is for."""
    return any(word in ("-h", "--help", "help") for word in words)


def option(
    default: Any = MISSING,
    *,
    key: str | None = None,
    choices: Collection[str] | None = None,
    least: float | None = None,
) -> Any:
    """A field of a command's options."""
    return dataclasses.field(default=default, metadata={"option": Option(key, choices, least)})


def read(cls: type[T], arguments: Sequence[str], spec_keys: Callable[[], Collection[str]] = tuple) -> T:
    """``arguments`` as an object of the dataclass ``cls``.

    A value is read by the type of its field: text, a whole number, a number, true or false, a path, or several texts,
    each of which may hold some joined by commas unless it is a path to a YAML file. Where ``cls`` has ``overrides``,
    other keys go there; ``spec_keys`` gives those without a dot. SpecError says in one sentence what is wrong, and
    what is near it.
    """
    fields = {_key(field): field for field in dataclasses.fields(cls) if field.name != OVERRIDES}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    open_ended = OVERRIDES in hints
    given: dict[str, Any] = {}
    overrides: list[str] = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise SpecError(f"cannot read {argument!r}: write KEY=VALUE; --help shows the keys")
        if key in fields:
            name = fields[key].name
            found = _value(key, value, hints[name], fields[key].metadata.get("option", Option()))
            given[name] = (*given.get(name, ()), *found) if isinstance(found, tuple) else found
        elif not open_ended:
            raise SpecError(f"unknown key {key!r}: {nearest(key, fields)}")
        elif "." not in key and key not in spec_keys() and (close := difflib.get_close_matches(key, fields)):
            raise SpecError(f"unknown key {key!r}: did you mean {' or '.join(close)}?")
        else:
            overrides.append(argument)
    if open_ended:
        given[OVERRIDES] = tuple(overrides)
    return cls(**given)


def _key(field: dataclasses.Field[Any]) -> str:
    return field.metadata.get("option", Option()).key or field.name


def _value(key: str, text: str, hint: Any, asked: Option) -> Any:
    """``text`` as a value of the type ``hint``."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(kind for kind in get_args(hint) if kind is not type(None))
    if get_origin(hint) is tuple:
        parts = [text] if text.endswith((".yaml", ".yml")) or key == "row" else text.split(",")
        words = tuple(part.strip() for part in parts if part.strip())
        if not words:
            raise SpecError(f"{key}= names nothing; write {key}=NAME")
        for word in words:
            _check_choice(key, word, asked)
        return words
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise SpecError(f"{key}={text}: give true or false")
        return text.lower() == "true"
    if hint is Path:
        if not text:
            raise SpecError(f"{key}= names no place; write {key}=PATH")
        return Path(expanded(text)).resolve()
    if hint in (int, float):
        return _number(key, text, hint, asked.least)
    _check_choice(key, text, asked)
    return text


def _number(key: str, text: str, kind: type, least: float | None) -> Any:
    word = "a whole number" if kind is int else "a number"
    bound = "" if least is None else f" of at least {least:g}"
    try:
        value = kind(text)
    except ValueError:
        raise SpecError(f"{key}={text}: give {word}{bound}") from None
    if not math.isfinite(value) or (least is not None and value < least):
        raise SpecError(f"{key}={text}: give {word}{bound}")
    return value


def _check_choice(key: str, value: str, asked: Option) -> None:
    if asked.choices is not None and value not in asked.choices:
        raise SpecError(f"unknown {key} {value!r}: {nearest(value, asked.choices)}")


def expanded(text: str) -> str:
    """A place as a person writes it: with ``~``, and with names of the environment (``$HOME``)."""
    return os.path.expandvars(Path(text).expanduser())


def nearest(name: str, valid: Iterable[str]) -> str:
    """``did you mean A or B?`` or, when nothing is near, the valid names."""
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"valid: {', '.join(valid[:12])}{f' and {len(valid) - 12} more' if len(valid) > 12 else ''}"


def answer(command: Callable[[], int], stopped: str = "the same command goes on from here") -> int:
    """Exit status of ``command``: its own, or that of an error in words, which is printed. A defect is raised.

    Errors in words carry their ``status``: 2 for what cannot be run, 1 for what failed. What a terminal cannot show is
    shown as escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.platform == "win32":
        print("error: this runs on Linux and macOS; on Windows run it in WSL", file=sys.stderr)
        return 2
    try:
        return command()
    except KeyboardInterrupt:
        print(f"\nstopped; {stopped}", file=sys.stderr)
        return 130
    except Exception as error:
        if (status := status_of(error)) is None:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return status


def status_of(error: Exception) -> int | None:
    """The exit status of an error that has been put into words, None for a defect."""
    status: int | None = getattr(error, "status", 1 if isinstance(error, OSError) else None)
    return status
