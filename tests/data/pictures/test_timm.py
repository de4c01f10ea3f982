"""Data sets that timm opens."""

from __future__ import annotations

import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset

from mae.data.pictures.cache import decoded_pictures
from mae.data.pictures.lists import pictures_in
from mae.data.pictures.timm import TimmData, TimmPictures, timm_dataset
from mae.errors import DataError
from tests.data.pictures.picture_writer import damage


def tar_of(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        archive.add(folder, arcname="set")
    return path


def test_a_tar_file_through_timm_has_the_pixels_of_its_folder(folder: Path, tmp_path: Path) -> None:
    archive = tar_of(folder / "train", tmp_path / "pets.tar")
    pictures = timm_dataset("", archive, "train")
    expected = decoded_pictures(pictures_in(folder).train, tmp_path / "cache", size=(8, 8))
    images = decoded_pictures(pictures, tmp_path / "cache", size=(8, 8))
    assert images.classes == ("cat", "dog")
    assert torch.equal(images.labels, expected.labels)
    assert torch.equal(images.pixels, expected.pixels)
    assert [p.name for p in tmp_path.glob("*.p*kl*")] == []


def test_a_damaged_member_of_a_tar_file_is_left_out_not_replaced_by_the_next(folder: Path, tmp_path: Path) -> None:
    damage(folder / "train" / "cat" / "2.png")
    pictures = timm_dataset("", tar_of(folder / "train", tmp_path / "pets.tar"), "train")
    images = decoded_pictures(pictures, tmp_path / "cache", size=(8, 8), max_failed=0.1)
    assert len(images) == 11
    assert [name for name, _ in images.report.failed] == ["set/cat/2.png"]


class Stream(IterableDataset):  # type: ignore[type-arg]
    """Stands for a set that timm can only iterate; it ends one picture early."""

    def __iter__(self) -> Any:
        return iter([(Image.new("RGB", (8, 8), (10 * index, 0, 0)), index % 3) for index in range(9)])

    def __len__(self) -> int:
        return 10


def test_a_set_that_can_only_be_iterated_is_read_in_order(tmp_path: Path) -> None:
    pictures = TimmPictures(Stream(), "tfds/stream|train", None)
    images = decoded_pictures(pictures, tmp_path, size=(8, 8), workers=2, max_failed=0.1)
    assert images.pixels[:, 0, 0, 0].tolist() == [10 * index for index in range(9)]
    assert images.classes == ("0", "1", "2")
    assert images.report.failed == (("tfds/stream|train[9]", "the set ended before this picture"),)


@pytest.mark.parametrize("name", ["torch/cifar10", "torch/nonsense", "hfids/some/set", ""])
def test_a_set_that_is_not_there_is_one_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"download=true|data=image_folder"):
        timm_dataset(name, tmp_path, "train")


def digits(root: Path, classes: int = 3) -> None:
    """MNIST's files with nine pictures for training and six for testing, the label as the level of grey."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 9), ("t10k", 6)):
        labels = np.arange(count) % classes
        pixels = np.repeat(40 * labels.astype(np.uint8), 28 * 28)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, count, 28, 28) + pixels.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2i", 0x801, count) + labels.astype(np.uint8).tobytes()
        )


def test_a_set_by_its_name_is_the_data_of_a_study(tmp_path: Path) -> None:
    digits(tmp_path)
    asked = {"root": str(tmp_path), "size": [16, 16], "channels": 3, "train": 9, "test": 6}
    data = TimmData(name="torch/mnist", classes=10, **asked)  # type: ignore[arg-type]
    splits = data(tmp_path / "cache")
    held = data.holds()
    assert held is not None
    assert held.sizes == {"pretrain": 9, "train": 9, "test": 6}
    (batch,) = splits.test.batches([torch.arange(6)], torch.device("cpu"))
    assert batch.images.shape == (6, 3, 16, 16)
    assert batch.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert (batch.images[:, 0, 8, 8] == 40 * batch.labels).all()
    with pytest.raises(DataError, match=r"10 classes, the spec says 5; set data\.classes"):
        TimmData(name="torch/mnist", classes=5, **asked)(tmp_path / "cache")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"add data\.source\.name="):
        TimmData(name=None, classes=5, **asked)(tmp_path / "cache")  # type: ignore[arg-type]
