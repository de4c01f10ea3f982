"""Shifted test sets: which pictures they hold, under which labels, seen how."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Generator, Tensor

from mae.data.augment.compose import staged
from mae.data.augment.crops import CenterCrop, CentreOfResized
from mae.data.robustness.corruptions import Contrast, Negative
from mae.data.robustness.shifts import Changed, CorruptionFolders, Folder
from mae.data.source import Images, Shifted
from mae.errors import DataError

CLASSES = ("ant", "bee", "cat", "dog")
VIEW = CentreOfResized((8, 8), (12, 12))
TEST = Images(torch.arange(4 * 3 * 12 * 12).remainder(251).view(4, 3, 12, 12).byte(), torch.arange(4), CLASSES)


def folder(root: Path, classes: Sequence[str], size: int = 12) -> Path:
    """Two pictures of each class, with a black border of a sixth; the grey inside tells the class."""
    for name in classes:
        (root / name).mkdir(parents=True)
        for index in range(2):
            picture = Image.new("RGB", (size, size))
            grey = 60 * (CLASSES.index(name) + 1) if name in CLASSES else 9
            picture.paste((grey, grey, grey), (size // 6, size // 6, size - size // 6, size - size // 6))
            picture.save(root / name / f"{index}.png")
    return root


def seen(part: Shifted) -> tuple[Tensor, list[int]]:
    """All pictures as a model gets them, in levels, and their labels."""
    source, augment = staged(part.source, part.augment)
    source.workers = 0  # type: ignore[attr-defined]
    batch = next(iter(source.batches([torch.arange(len(source))], torch.device("cpu"))))
    return augment(batch.images, Generator()) * 255, batch.labels.tolist()


def test_changes_come_after_the_view_and_each_is_a_part() -> None:
    changes = (Negative(), Contrast(0.5))
    parts = Changed(changes)(TEST, VIEW)
    assert [part.among for part in parts] == [None, None]
    for part, change in zip(parts, changes, strict=True):
        assert part.source is TEST
        images = TEST.pixels
        assert torch.equal(part.augment(images, Generator()), change(VIEW(images, Generator()), Generator()))


def test_a_folder_with_some_of_the_classes_is_labelled_as_training_is_and_restricted_to_them(tmp_path: Path) -> None:
    (part,) = Folder(str(folder(tmp_path, ("bee", "dog"))), samples=4, classes=2)(TEST, VIEW)
    images, labels = seen(part)
    assert part.among is not None
    assert part.among.tolist() == [1, 3]
    assert labels == [1, 1, 3, 3]
    assert images[:, 0, 4, 4].round().tolist() == [120, 120, 240, 240]
    assert part.source.classes == CLASSES


def test_a_folder_with_all_classes_restricts_nothing(tmp_path: Path) -> None:
    (part,) = Folder(str(folder(tmp_path, CLASSES)), samples=8, classes=4)(TEST, VIEW)
    assert part.among is None


def test_corruptions_are_seen_at_their_own_size_and_each_severity_is_a_part(tmp_path: Path) -> None:
    for place in ("fog/1", "fog/3", "snow/1", "snow/3"):
        folder(tmp_path / place, CLASSES)
    shift = CorruptionFolders(str(tmp_path), ("fog", "snow"), (1, 3), CenterCrop(12), samples=32, classes=4)
    parts = shift(TEST, VIEW)
    assert len(parts) == 4
    images, labels = seen(parts[0])
    assert images.shape[-2:] == (12, 12)
    assert labels == [0, 0, 1, 1, 2, 2, 3, 3]
    assert float(images[0, 0, 0, 0]) == 0  # the border is there: nothing was enlarged


def test_what_a_folder_lacks_is_said_in_one_sentence(tmp_path: Path) -> None:
    root = str(folder(tmp_path / "some", ("bee", "dog")))
    strange = str(folder(tmp_path / "strange", ("bee", "yak")))
    c = str(folder(tmp_path / "c" / "fog" / "1", CLASSES).parents[1])
    for shift, message in (
        (Folder(None, 4, 2), "none is named; add evaluate_data.shifts.NAME.root=PATH"),
        (Folder(str(tmp_path / "nowhere"), 4, 2), "nowhere does not exist; give a folder"),
        (Folder(root, 5, 2), "has 4 pictures, the spec says 5"),
        (Folder(root, 4, 3), "of 2 classes, the spec says 3"),
        (Folder(strange, 4, 2), "the classes 'yak' \\(1\\) are not among the 4 training classes"),
        (CorruptionFolders(c, ("fog", "snow"), (1,), CenterCrop(12), 8, 4), "no folder snow/1 \\(1 of 2"),
        (CorruptionFolders(c, ("fog",), (1,), CenterCrop(12), 9, 4), "has 8 pictures, the spec says 9"),
    ):
        with pytest.raises(DataError, match=message):
            shift(TEST, VIEW)
    with pytest.raises(DataError, match="no change is named"):
        Changed(())
