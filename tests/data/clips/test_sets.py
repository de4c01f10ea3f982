"""Clips of one's own as the data of a study, cached and streamed, from every layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mae.data.augment.crops import CenterCrop
from mae.data.clips.sampling import Dense
from mae.data.clips.sets import HMDB51, UCF101, ClipFolder, ClipList, SomethingSomething
from mae.data.source import Splits
from mae.errors import DataError
from tests.data.clips.clip_writer import H264, numbered, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "clips"
    clip = write(tmp_path / "a.mp4", numbered(6, 16, 24))
    for split, names in {"train": "abc", "test": "d"}.items():
        for name in names:
            target = root / split / ("run" if name in "ad" else "swim") / f"{name}.mp4"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, target)
    return root


def check(splits: Splits) -> None:
    assert (len(splits.train), len(splits.test)) == (3, 1)
    assert splits.pretrain is splits.train
    assert len(splits.train.classes) == 2
    for side, labels in ((splits.train, [0, 1, 1]), (splits.test, [0])):
        taken = side.taking(Dense(4), view=0)  # type: ignore[attr-defined]
        (batch,) = taken.batches([torch.arange(len(side))], torch.device("cpu"))
        assert batch.images.shape == (len(side), 3, 4, 16, 16)
        assert batch.labels.tolist() == labels


@pytest.mark.parametrize("how", [{"size": [16, 16]}, {"short_side": 16}], ids=["decoded", "streamed"])
def test_a_folder_is_decoded_once_or_streamed(how: dict[str, object], root: Path, tmp_path: Path) -> None:
    check(ClipFolder(root=str(root), train=3, test=1, **how)(tmp_path / "cache"))  # type: ignore[arg-type]


@pytest.mark.parametrize("pix_fmt", ["gray", "yuv420p"])
def test_grey_clips_are_those_of_colour_weighed_as_pillow_does(pix_fmt: str, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    frames = np.kron(chance.integers(0, 256, (6, 4, 6, 3), dtype=np.uint8), np.ones((1, 4, 4, 1), np.uint8))
    for split in ("train", "test"):
        write(tmp_path / "set" / split / "a" / "a.mkv", frames, codec="ffv1" if pix_fmt == "gray" else H264,
              pix_fmt=pix_fmt)  # fmt: skip
    seen = {}
    for channels in (3, 1):
        for name, how in (("decoded", {"size": [16, 24]}), ("streamed", {"short_side": 16})):
            folder = ClipFolder(root=str(tmp_path / "set"), train=1, test=1, channels=channels, **how)  # type: ignore[arg-type]
            taken = folder(tmp_path / "cache").test.taking(Dense(4), view=0)  # type: ignore[attr-defined]
            if name == "streamed":
                taken = taken.through(CenterCrop((16, 24)))
            (batch,) = taken.batches([torch.tensor([0])], torch.device("cpu"))
            seen[name, channels] = batch.images
            assert batch.images.shape == (1, channels, 4, 16, 24)
    for name in ("decoded", "streamed"):
        colours = seen[name, 3][0].permute(1, 2, 3, 0).numpy()
        grey = np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in colours])
        assert np.array_equal(seen[name, 1][0, 0].numpy(), grey)
        assert pix_fmt != "gray" or (colours == grey[..., None]).all()


def test_channels_rename_clips_only_where_they_are_not_three(root: Path) -> None:
    given = {"root": str(root), "train": 3, "test": 1, "size": [16, 16]}
    plain, three, one = (
        ClipFolder(**given, **more).identity("evaluate")  # type: ignore[arg-type]
        for more in ({}, {"channels": 3}, {"channels": 1})
    )
    assert plain == three != one
    assert "channels" not in plain
    with pytest.raises(DataError, match="channels=2: clips are decoded to 3 channels, or to 1"):
        ClipFolder(**given, channels=2)  # type: ignore[arg-type]


def test_lists_name_the_clips(root: Path, tmp_path: Path) -> None:
    (root / "train.csv").write_text("train/run/a.mp4 0\ntrain/swim/b.mp4 1\ntrain/swim/c.mp4 1\n")
    (root / "test.csv").write_text("test/run/d.mp4 0\n")
    given = {"root": str(root), "train_list": "train.csv", "test_list": "test.csv", "train": 3, "test": 1}
    check(ClipList(classes=2, size=(16, 16), **given)(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="has 2 classes, the spec says 1"):
        ClipList(classes=1, size=(16, 16), **given)(tmp_path)  # type: ignore[arg-type]
    (root / "test.csv").write_text("test/run/d.mp4 2\n")
    with pytest.raises(DataError, match=r"test\.csv, line 1: the label '2'"):
        ClipList(classes=2, size=(16, 16), **given)(tmp_path)  # type: ignore[arg-type]


def test_something_something_is_read_from_its_files(root: Path, tmp_path: Path) -> None:
    for path in [*root.rglob("*.mp4")]:
        shutil.move(path, root / path.name)
    (root / "labels.json").write_text(json.dumps({"Pushing something": "0", "Moving something": "1"}))
    entries = [{"id": n, "template": f"{'Pushing' if n in 'ad' else 'Moving'} [something]"} for n in "abcd"]
    (root / "train.json").write_text(json.dumps(entries[:3]))
    (root / "val.json").write_text(json.dumps(entries[3:]))
    names = {"train_list": "train.json", "test_list": "val.json", "labels": "labels.json", "videos": "."}
    check(SomethingSomething(root=str(root), **names, train=3, test=1, size=(16, 16))(tmp_path))


def test_ucf101_and_hmdb51_are_read_from_their_files(root: Path, tmp_path: Path) -> None:
    for path in [*root.rglob("*.mp4")]:
        target = root / path.parent.name
        target.mkdir(exist_ok=True)
        shutil.move(path, target / path.name)
    (root / "classInd.txt").write_text("1 run\n2 swim\n")
    (root / "trainlist01.txt").write_text("run/a.mp4 1\nswim/b.mp4 2\nswim/c.mp4 2\n")
    (root / "testlist01.txt").write_text("run/d.mp4\n")
    (root / "run_test_split1.txt").write_text("a.mp4 1 \nd.mp4 2 \n")
    (root / "swim_test_split1.txt").write_text("b.mp4 1 \nc.mp4 1 \n")
    for kind in (UCF101, HMDB51):
        check(kind(root=str(root), lists=".", videos=".", train=3, test=1, size=(16, 16))(tmp_path))


def test_a_wrong_count_no_root_and_both_ways_at_once_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"3 clips for train, the spec says 4; set data\.source\.train"):
        ClipFolder(root=str(root), train=4, test=1, short_side=16)(tmp_path)
    with pytest.raises(DataError, match=r"add data\.source\.root=PATH"):
        ClipFolder(root=None, train=3, test=1, short_side=16)(tmp_path)
    with pytest.raises(DataError, match="give one of the two"):
        ClipFolder(root=str(root), train=3, test=1, short_side=16, size=(16, 16))(tmp_path)
