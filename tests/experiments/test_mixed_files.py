"""Folders as people have them go from nothing to a table with a recommendation by one command each.

The commands are those of README's 'Using it', with models and trainings as small as at scale=smoke.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import run as command
from tests.mixed_files import clips, pictures

pytestmark = pytest.mark.slow

PICTURES = (
    "ablation=mask_sampling", "row=random 75", "row=block 75",
    "data=image_folder", "data.classes=3", "data.source.test_share=0.2",
    "data.samples.pretrain=240", "data.samples.train=240", "data.samples.test=60",
    "data.decoded=[32,32]", "data.input_size=[24,24]",
    "model=smoke", "pretrain=smoke", "evaluate/finetune=smoke", "evaluate/linear=smoke",
)  # fmt: skip
CLIPS = (
    "ablation=video_masking", "row=tube 90", "row=random 90",
    "data=clip_folder", "evaluate_data=same", "data.classes=2", "data.source.test_share=0.2",
    "data.source.train=32", "data.source.test=8",
    "model=clips_smoke", "pretrain=clips_smoke", "evaluate/ssv2=clips_smoke", "evaluate/k400=clips_smoke",
)  # fmt: skip


def asked(out: Path, *words: str) -> list[str]:
    return [*words, "scale=desk", "seeds=2", "device=cpu", "workers=1", f"out={out}", f"report_dir={out / 'report'}"]


def test_three_hundred_pictures_of_seven_modes_with_a_broken_one_give_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = pictures(tmp_path / "pictures")
    assert len([path for path in root.rglob("*") if path.is_file()]) == 300
    assert command.main(asked(tmp_path / "out", *PICTURES, f"data.source.root={root}")) == 0
    printed = capsys.readouterr().out
    assert "random 75" in printed
    assert "block 75" in printed
    assert "default" in printed


def test_forty_clips_in_four_codecs_give_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = clips(tmp_path / "clips")
    assert len({path.suffix for path in root.rglob("*.*")}) == 4
    assert command.main(asked(tmp_path / "out", *CLIPS, f"data.source.root={root}")) == 0
    printed = capsys.readouterr().out
    assert "tube 90" in printed
    assert "default" in printed
