"""What can be found out without training is found by ``plan_only=true``: one sentence, exit status 2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import run as command
from tests.data.clips.clip_writer import numbered, write

PICTURES = ("ablation=decoder_depth", "row=1", "scale=smoke", "data=image_folder", "data.decoded=[24,24]",
            "data.input_size=[24,24]", "data.classes=2", "data.samples={pretrain: 20, train: 20, test: 8}")  # fmt: skip
CLIPS = ("ablation=video_masking", "row=tube 90", "scale=smoke", "data=clip_folder", "data.classes=2",
         "data.source.train=16", "data.source.test=2", "evaluate_data=same")  # fmt: skip
BUILTIN = ("ablation=decoder_depth", "row=1", "scale=smoke")
METHODS = ("ablation=ssl_comparison", "scale=smoke")
FILMS = ("ablation=video_masking", "row=tube 90", "scale=smoke")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures for training and eight for testing, of two classes, and a list without labels."""
    root = tmp_path_factory.mktemp("pictures")
    chance = np.random.default_rng(0)
    names = []
    for index in range(28):
        side, label = "train" if index < 20 else "test", "cat" if index % 2 else "dog"
        place = root / "folder" / side / label / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(place)
        names.append(f"{place.relative_to(root)},{side}")
    (root / "list.csv").write_text("path,split\n" + "\n".join(names) + "\n")
    return root


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen clips for training and two for testing, of two classes."""
    root = tmp_path_factory.mktemp("clips")
    content = write(root / "clip.mp4", numbered(24, 32, 32)).read_bytes()
    for index in range(18):
        place = (
            root / "folder" / ("train" if index < 16 else "test") / ("run" if index % 2 else "swim") / f"{index}.mp4"
        )
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return root


def plan_only(out: Path, *words: str) -> int:
    return command.main([*words, "plan_only=true", "device=cpu", f"out={out}", f"report_dir={out / 'report'}"])


def refused(out: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The sentence that refuses ``words``."""
    assert plan_only(out, *words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_what_fits_is_planned(out: Path, pictures: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan_only(out, *PICTURES, f"data.source.root={pictures / 'folder'}") == 0
    assert plan_only(out, *CLIPS, f"data.source.root={clips / 'folder'}") == 0
    assert "3 of 3 are still to run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["data.source.root=/nowhere/at/all"], "/nowhere/at/all does not exist"),
        (["data.source.root={root}/folder", "data.source.white=0"], "data.source.white=0 is no white of 16-bit pixels"),
        (["data.source.root={root}/folder", "data.source.white=x"], "data.source.white=x is no white of 16-bit pixels"),
        (["data.source.root={root}/folder", "data.classes=3"], "has 2 classes, the spec says 3: set data.classes=2"),
        (["data.source.root={root}/folder", "data.samples.test=9"], "choose data.samples.test from 1 to 8"),
        (["data.source.root={root}/folder", "data.channels=1"], "give one number for each channel"),
        (["data.source.root={root}/folder", "data.channels=1", "data.mean=[0.5]", "data.std=[0.5]",
          "augment=color_jitter"], "Colour jitter needs 3 channels (RGB), the pictures have 1"),
        (["data.source.root={root}/folder", "pretrain.batch_size=21"], "batch_size=21 is more than the 20 samples"),
        (["data.source.root={root}/folder/train/cat"], "has no labels, which finetune trains on"),
        (["data.source.root={root}/folder/train"], "has no files for testing under test/<class>/*"),
        (["data.source.root={root}/list.csv"], "has no labels, which finetune trains on"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_pictures_that_do_not_fit_are_refused(
    out: Path, pictures: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert sentence in refused(out, capsys, *PICTURES, *(word.format(root=pictures) for word in words))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["data.source.root={root}/none"], "is no folder"),
        (["data.source.root={root}/folder", "data.classes=5"], "has 2 classes, the spec says 5: set data.classes=2"),
        (["data.source.root={root}/folder", "data.source.train=17"], "has 16 clips for train, the spec says 17"),
        (["data.source.root={root}/folder", "data.source.test=1"], "has 2 clips for test, the spec says 1"),
        (["data.source.root={root}/folder", "data.channels=1"], "give one number for each channel"),
        (["data.source.root={root}/folder", "data.channels=1", "data.mean=[0.5]", "data.std=[0.5]",
          "augment=color_jitter"], "Colour jitter needs 3 channels (RGB), the pictures have 1"),
        (["data.source.root={root}/folder", "data.channels=2", "data.mean=[0.5,0.5]", "data.std=[0.5,0.5]"],
         "channels=2: clips are decoded to 3 channels, or to 1"),
        (["data.source.root={root}/folder", "data.input_size=[30,30]"], "is not a multiple of its patch size"),
        (["data.source.root={root}/folder", "data=clip_folder_streamed", "method=moco_v3_desk", "augment=contrastive"],
         "MoCoV3 wants 2 views of a sample, and files that are decoded for every batch give one"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_clips_that_do_not_fit_are_refused(
    out: Path, clips: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert sentence in refused(out, capsys, *CLIPS, *(word.format(root=clips) for word in words))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([*BUILTIN, "origin.path=/some/file.pth"], "origin.path=/some/file.pth has no effect on decoder_depth"),
        ([*BUILTIN, "origin=file", "origin.path=/nowhere.pth"], "origin.path=/nowhere.pth is no file"),
        ([*BUILTIN, "evaluate.knn.protocol.k=5"], "what is evaluated is finetune, linear"),
        ([*BUILTIN, "tokenizer.codebook=8"], "nothing that is trained there reads it"),
        ([*BUILTIN, "target=tokens", "objective=mse"], "cross_entropy"),
        ([*BUILTIN, "precision=fp16"], "precision=fp16 is not possible; choose auto, fp32, bf16"),
        ([*BUILTIN, "precision=half"], "precision=half is not possible"),
        ([*BUILTIN, "pretrain.batch_size=129"], "pretrain.batch_size=129 is more than the 128 samples"),
        ([*BUILTIN, "evaluate.linear.protocol.recipe.batch_size=1"], "gives BatchNorm nothing to normalise by"),
        ([*BUILTIN, "data.classes=7"], "digits_on_photos has 10 classes, the spec says 7"),
        ([*BUILTIN, "data.channels=1", "data.mean=[0.5]", "data.std=[0.5]"], "has 3 channels, the spec says 1"),
        ([*BUILTIN, "evaluate_data.samples.train=8"], "follows data.samples.train: set data.samples.train"),
        (["ablation=labels", "scale=paper"], "labels has no rows at scale=paper: choose smoke or desk or study"),
        ([*BUILTIN, "budget=2h"], "budget=2h is for seeds=auto"),
        ([*BUILTIN, "model.positions=leraned"], "unknown model.positions 'leraned'"),
        ([*BUILTIN, "augment.size=[4,4]"], "augment.size=[4, 4] is not what the model sees"),
        ([*BUILTIN, "data.input_size=[24]"], "are not 2 whole numbers"),
        ([*BUILTIN, "data.channels=-1"], "-1 is no whole number of at least 1"),
        ([*BUILTIN, "pretrain.betas=[0.9]"], "give numbers from 0 to below 1, two betas"),
        ([*BUILTIN, "model.encoder.depth=1000000"], "is deeper than 1000 blocks"),
        ([*BUILTIN, "pretrain.base_lr=nan"], "pretrain.base_lr=nan: give finite numbers"),
        ([*METHODS, "row=MoCo v3", "pretrain.batch_size=1"], "MoCoV3 compares the samples of a batch"),
        ([*METHODS, "row=BEiT", "model.mask_tokens=true"], "choose model.mask_tokens=false"),
        ([*BUILTIN, "method=cross_mae", "method.predicted_share=0"], "predicts 0; choose a share above 0"),
        ([*FILMS, "data.classes=7"], "classes, the spec says"),
        ([*FILMS, "data.source.frames=8", "data.frames=16"], "has 8 frames, 16 are asked for"),
        ([*FILMS, "data=clip_folder", "data.source.root=/tmp"], "add evaluate_data=same"),
    ],
    ids=lambda value: " ".join(value[3:]) if isinstance(value, list) else "",
)
def test_settings_that_do_nothing_or_cannot_be_are_refused(
    out: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert sentence in refused(out, capsys, *words)


def test_a_setting_that_states_what_holds_anyway_is_fine(out: Path) -> None:
    assert plan_only(out, *BUILTIN, "mask.ratio=0.75", "target=pixels", "evaluate/knn=default", "precision=fp32") == 0


def test_a_link_that_leads_to_itself_is_refused(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loop = tmp_path / "folder" / "train" / "cat" / "0.png"
    loop.parent.mkdir(parents=True)
    loop.symlink_to(loop)
    assert f"{loop} cannot be looked at" in refused(out, capsys, *PICTURES, f"data.source.root={tmp_path / 'folder'}")


@pytest.mark.parametrize("key", ["out", "report_dir"])
def test_a_folder_that_cannot_be_written_is_refused(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    words = {"out": out, "report_dir": out / "report", key: tmp_path / "file" / "below"}
    assert command.main([*BUILTIN, "plan_only=true", *(f"{name}={place}" for name, place in words.items())]) == 2
    assert f"{key}={tmp_path / 'file' / 'below'} cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["who?", "a%20b"])
def test_an_out_that_no_database_can_be_named_in_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert plan_only(tmp_path / name, *BUILTIN) == 2
    assert "choose another out=PATH" in capsys.readouterr().err
    assert not (tmp_path / name).exists()
