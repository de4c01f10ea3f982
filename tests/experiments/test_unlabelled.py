"""Pre-training alone on files without labels: pictures or clips in one flat folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from experiments import run as command
from experiments import verify
from experiments.plan import plan
from tests.data.clips.clip_writer import numbered, write

PICTURES = ("ablation=pretraining", "data=image_folder", "data.decoded=[24,24]", "data.input_size=[24,24]")
CLIPS = ("ablation=video_pretraining", "data=clip_folder", "data.source.train=16")
COUNTED = "data.samples.pretrain=20"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    chance = np.random.default_rng(0)
    for index in range(20):
        Image.fromarray(chance.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(root / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    content = write(root / "0.mp4", numbered(24, 32, 32)).read_bytes()
    for index in range(1, 16):
        (root / f"{index}.mp4").write_bytes(content + b"\0\0\0\x08free" * index)  # all differ, and play alike
    return root


def asked(out: Path, *words: str) -> list[str]:
    return [*words, "scale=smoke", "device=cpu", "workers=1", f"out={out}", f"report_dir={out / 'report'}"]


def test_a_flat_folder_of_pictures_is_pretrained_on_and_leaves_weights(out: Path, pictures: Path) -> None:
    words = asked(out, *PICTURES, f"data.source.root={pictures}", COUNTED)
    assert command.main(words) == 0
    (weights,) = (out / "weights").rglob("*.safetensors")
    assert all(tensor.isfinite().all() for tensor in load_file(weights).values() if tensor.is_floating_point())
    assert command.main([*words, "plan_only=true"]) == 0


@pytest.mark.parametrize("stored", ["decoded", "streamed, grey"])
def test_a_flat_folder_of_clips_is_pretrained_on(out: Path, clips: Path, stored: str) -> None:
    streamed = ("data=clip_folder_streamed", "data.source.short_side=32", "data.input_size=[32,32]")
    grey = ("data.channels=1", "data.mean=[0.5]", "data.std=[0.5]")
    words = asked(out, *CLIPS, *((*streamed, *grey) if "grey" in stored else ()), f"data.source.root={clips}")
    assert command.main(words) == 0
    assert list((out / "weights").rglob("*.safetensors"))


def test_the_check_finds_nothing_wrong_with_what_is_only_pretrained_on(pictures: Path, clips: Path) -> None:
    for words in ([*PICTURES, f"data.source.root={pictures}", COUNTED], [*CLIPS, f"data.source.root={clips}"]):
        assert verify.main([*words, "scale=smoke", "workers=0"]) == 0


def test_labels_and_files_for_testing_rename_no_pretraining(out: Path, pictures: Path, tmp_path: Path) -> None:
    told = []
    for places in ("{}", "train/{}", "a/{}", "train/a/{}"):
        root = tmp_path / f"set{len(told)}"
        for file in sorted(pictures.iterdir()):
            place = root / places.format(file.name)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
        options = command.parse(asked(out, *PICTURES, COUNTED, "data.classes=1", f"data.source.root={root}"))
        told.append([job.fingerprint for job in plan(command.chosen(options), "smoke", 1, options.overrides)])
    assert len(told[0]) == 1
    assert told == [told[0]] * 4


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((*PICTURES, "data.source.root={pictures}"), "choose data.samples.pretrain from 1 to 20"),
        (
            (*PICTURES, COUNTED, "data.source.root={pictures}", "data.samples.test=3"),
            "data.samples.test=3 has no effect",
        ),
        ((*PICTURES, COUNTED, "data.source.root={pictures}", "data.classes=3"), "data.classes=3 has no effect"),
        ((*CLIPS, "data.source.root={clips}", "data.source.train=9"), "set data.source.train=16"),
        (
            ("ablation=decoder_depth", *PICTURES[1:], COUNTED, "data.source.root={pictures}"),
            "has no labels, which finetune trains on: add them, in a list as a column, or pre-train alone",
        ),
        (
            ("ablation=video_masking", "evaluate_data=same", *CLIPS[1:], "data.source.root={clips}"),
            "has no labels, which ssv2 trains on",
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    out: Path, pictures: Path, clips: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], sentence: str
) -> None:
    given = [word.format(pictures=pictures, clips=clips) for word in words]
    assert command.main([*asked(out, *given), "plan_only=true"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert sentence in line
