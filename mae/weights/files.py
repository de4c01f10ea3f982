"""The tensors of a file of weights by their names in it, and nothing else of it; what a file is that has none."""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

#: Where a file keeps its tensors, when not at the top; the first of these that is there.
CONTAINERS = (
    "model", "module", "state_dict", "model_state_dict", "model_state", "teacher", "target_encoder", "encoder",
    "model_ema", "student", "net",
)  # fmt: skip

#: What a folder of a run or of transformers calls its weights, the first that is there; an index names files beside it.
IN_FOLDERS = (
    "checkpoint.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

GIVE = "give a .safetensors or .pth file, or a folder of a run or of transformers"


class Aside:
    """It stands for every object in a file that is no tensor: it takes whatever it is given, and keeps nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        pass

    def extend(self, items: object) -> None:
        pass


def files_of(path: Path) -> list[Path]:
    """The files that hold the weights at ``path``: itself, or those of a folder; ValueError when there are none."""
    if not path.is_dir():
        return [path]
    found = next((path / name for name in IN_FOLDERS if (path / name).is_file()), None)
    if found is None:
        raise ValueError(f"{path} is a folder without {', '.join(IN_FOLDERS[:2])} or {IN_FOLDERS[3]}; {GIVE}")
    if found.suffix != ".json":
        return [found]
    try:
        index = json.loads(found.read_text(encoding="utf-8"))
        names = [index["file"]] if found.name == IN_FOLDERS[0] else sorted(set(index["weight_map"].values()))
        return [path / name for name in names]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{found} is no index of weights; {GIVE}") from error


def tensors_at(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, or of a folder's files; ValueError that says what the file is, when it holds none."""
    return {name: tensor for file in files_of(path) for name, tensor in _tensors(file).items()}


def _tensors(path: Path) -> dict[str, Tensor]:
    wrong = kind_of(path)
    if wrong:
        raise ValueError(f"{path} cannot be read as weights: it is {wrong}; {GIVE}")
    try:
        if _is_safetensors(path):
            return load_file(path)
        with _nothing_but_tensors(path), open(path, "rb") as file:
            found: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        raise ValueError(f"{path} cannot be read as weights: {_why(path, error)}; {GIVE}") from error
    return _named(found, path)


def kind_of(path: Path) -> str:
    """What a file is that holds no weights, "" for one that may."""
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        return "not there"
    except OSError as error:
        return f"not readable ({error.strerror})"
    start = head.lstrip().lower()
    if not head:
        return "empty"
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS and not the file itself: fetch that with `git lfs pull`"
    if start.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        return "a web page: the download got a page in the place of the file"
    if zipfile.is_zipfile(path):
        return "" if _record(path) else "a zip archive without a checkpoint: unpack it first"
    if head.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"\xfd7zXZ", b"BZh", b"Rar!")):
        return "a compressed archive: unpack it first"
    if _is_text(head):
        return "a text"
    return ""


def _is_safetensors(path: Path) -> bool:
    """By its first bytes, whatever it is called: the length of a header in JSON, and that."""
    with open(path, "rb") as file:
        head = file.read(10)
    return head[8:] == b'{"' or (path.suffix == ".safetensors" and not _record(path))


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        text = head[: error.start].decode("utf-8") if error.start > len(head) - 4 else "\0"
    return all(sign.isprintable() or sign.isspace() for sign in text)


def _record(path: Path) -> str:
    """The name of the pickle in a file of ``torch.save``, "" in another archive."""
    with contextlib.suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(path) as archive:
        return next((name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"), "")
    return ""


def _why(path: Path, error: Exception) -> str:
    if isinstance(error, SafetensorError):
        return "it is no safetensors file, or was cut short"
    if isinstance(error, UnpicklingError):  # torch's own words advise to load it unsafely
        return "it holds something that is not read safely, or is no file of torch.save; save its state_dict alone"
    if zipfile.is_zipfile(path):
        return "it was damaged"
    return "it is no file of torch.save, or was cut short"


@contextlib.contextmanager
def _nothing_but_tensors(path: Path) -> Iterator[None]:
    """What else a checkpoint holds (options of its run, paths, numbers of NumPy) is put aside, and nothing imported."""
    others: list[str] = torch.serialization.get_unsafe_globals_in_checkpoint(path) if _record(path) else []
    names = {*others, "argparse.Namespace"}  # of the format before archives, which cannot be looked through
    with torch.serialization.safe_globals([(Aside, name) for name in sorted(names)]):
        yield


def _named(found: object, path: Path) -> dict[str, Tensor]:
    """The tensors of what was loaded, at the top or in a container."""
    if isinstance(found, Aside):
        raise ValueError(f"{path} holds a whole pickled object; save the state_dict of its model, and give that")
    for _ in range(3):  # a container may hold another
        inside = found if isinstance(found, Mapping) else {}
        if any(isinstance(value, Tensor) and "." in str(name) for name, value in inside.items()):
            break
        found = next((inside[name] for name in CONTAINERS if isinstance(inside.get(name), Mapping)), inside)
    tensors = {str(name): value for name, value in dict(found).items() if isinstance(value, Tensor)}  # type: ignore[call-overload]
    if not tensors:
        raise ValueError(f"{path} holds no tensors by name; give a file with the state of a model")
    return tensors
