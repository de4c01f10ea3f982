"""A file that holds no weights is called what it is, and nothing but tensors is loaded of one that does."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mae.grid import Grid
from mae.model import Encoder, Transformer
from mae.weights import read

STATE = Encoder(Grid.of(1, (8, 8), (1, 4, 4)), Transformer(8, 1, 2)).state_dict()


class Trap:
    """Unpickled by a careless reader, it would raise."""

    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise AssertionError('a pickle was executed')",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.safetensors", None, "a.safetensors cannot be read as weights: it is not there"),
        ("a.pth", None, "a.pth cannot be read as weights: it is not there"),
        ("a.safetensors", b"", "a.safetensors cannot be read as weights: it is empty"),
        ("a.pth", b"", "a.pth cannot be read as weights: it is empty"),
        ("a.pth", b"no weights at all", "a.pth cannot be read as weights: it is a text"),
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a pointer of Git LFS"),
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "fetch that with `git lfs pull`"),
        ("a.pth", b"\n<!DOCTYPE html><html>404</html>", "it is a web page"),
        ("a.pth", "Überschrift".encode() * 60, "it is a text"),
        ("a.pth", b"\x1f\x8b\x08\x00\x00", "it is a compressed archive: unpack it first"),
        ("a.pth", bytes(4096), "it is no file of torch.save, or was cut short"),
        ("a.safetensors", b'\x10\0\0\0\0\0\0\0{"a', "it is no safetensors file, or was cut short"),
        ("a.pth", pickle.dumps(Trap(), protocol=2), "it holds something that is not read safely"),
        ("a.pth", [1, 2], "a.pth holds no tensors by name"),
        ("a.pth", {"model": {"epoch": 1}}, "a.pth holds no tensors by name"),
        ("a.pth", {"conv1.weight": torch.ones(1)}, "a.pth holds no patch embedding under a name known here"),
    ],
    ids=[
        "missing",
        "missing pth",
        "empty",
        "empty pth",
        "text",
        "pointer",
        "another pointer",
        "page",
        "umlauts",
        "gzip",
        "zeros",
        "cut header",
        "code",
        "list",
        "numbers",
        "another model",
    ],
)
def test_a_file_that_holds_no_encoder_is_named(name: str, content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message) as refused:
        read(path)
    assert "weights_only" not in str(refused.value)


def test_a_zip_that_is_no_checkpoint_and_a_cut_one_are_told_apart(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        archive.writestr("readme.txt", "text")
    with pytest.raises(ValueError, match="a zip archive without a checkpoint: unpack it first"):
        read(tmp_path / "code.zip")
    torch.save(STATE, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:-2000])
    with pytest.raises(
        ValueError, match=r"cut\.pth cannot be read as weights: it is no file of torch\.save, or was cut"
    ):
        read(tmp_path / "cut.pth")


class Executed(BaseException):
    """Raised when a file made the reader run something of its own."""


class Bomb:
    """An object beside tensors: whoever imports and calls it is told."""

    def __reduce__(self) -> tuple[object, ...]:
        return explode, (1,)


def explode(_: int) -> None:
    raise Executed


@pytest.mark.parametrize(
    "beside",
    [
        {"args": argparse.Namespace(output_dir=Path("x"), lr=1.0)},
        {"hyper_parameters": {"root": Path("x"), "kind": Bomb()}},
        {"best_model_score": np.float64(0.5), "curve": np.arange(3)},
        {"callbacks": {"early": Bomb()}, "pytorch-lightning_version": "2.2"},
        {"dtype": torch.float16, "device": torch.device("cpu"), "size": torch.Size([1])},
    ],
    ids=["paths", "own classes", "numpy", "lightning", "torch's own"],
)
def test_what_stands_beside_tensors_is_neither_refused_nor_run(beside: dict[str, Any], tmp_path: Path) -> None:
    torch.save({"state_dict": STATE, **beside}, tmp_path / "a.ckpt")
    assert read(tmp_path / "a.ckpt").tensors.keys() == STATE.keys()


def test_a_whole_pickled_model_is_refused_in_words(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="holds a whole pickled object; save the state_dict of its model"):
        read(tmp_path / "model.pt")


def test_safetensors_are_known_by_their_bytes_and_torch_files_by_theirs(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.bin")
    torch.save(STATE, tmp_path / "b.safetensors")
    assert all(read(tmp_path / name).tensors.keys() == STATE.keys() for name in ("a.bin", "b.safetensors"))


def test_a_folder_gives_its_weights_whole_or_in_shards(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"without checkpoint\.json, model\.safetensors or pytorch_model\.bin"):
        read(tmp_path)
    names = sorted(STATE)
    for number, part in enumerate((names[:3], names[3:])):
        save_file({name: STATE[name] for name in part}, tmp_path / f"part-{number}.safetensors")
    places = {name: f"part-{int(name not in names[:3])}.safetensors" for name in names}
    (tmp_path / "model.safetensors.index.json").write_text(str({"weight_map": places}).replace("'", '"'))
    assert read(tmp_path).tensors.keys() == STATE.keys()
    save_file(STATE, tmp_path / "model.safetensors")
    assert read(tmp_path).tensors.keys() == STATE.keys()
