"""Every kind of damage that the check of a set of clips must find."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from mae.data.check import verify_clips as verify_clips_module
from mae.data.check.verify import main
from mae.data.check.verify_clips import _digest, verify_clips
from mae.data.clips.video import Video
from tests.data.clips.clip_writer import damaged_files, numbered, write
from tests.data.clips.films import FILMS
from tests.data.clips.test_frame_folder import save_frames


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "sports"
    for split, lengths in {"train": (8, 9, 10), "test": (11,)}.items():
        for kind in ("run", "swim"):
            for length in lengths:
                write(root / split / kind / f"{length}.mp4", numbered(length, 32, 32 if kind == "run" else 48))
    return root


def test_a_clean_set_is_clean_and_counted(folder: Path) -> None:
    report = verify_clips(folder, least=8, workers=2)
    assert report.clean
    assert report.files == 8
    assert report.frames == {8: 2, 9: 2, 10: 2, 11: 2}
    assert report.sizes == {"32x32": 4, "48x32": 4}
    assert "frames: 8 to 11" in report.text()
    assert "train: 6 clips, 2 classes of 3 to 3" in report.text()


def test_damaged_short_and_repeated_clips_are_found(folder: Path) -> None:
    damaged_files(folder / "train" / "bad")
    shutil.copy(folder / "train" / "run" / "8.mp4", folder / "test" / "run" / "again.mp4")
    report = verify_clips(folder, least=9, workers=2)
    assert {Path(name).name for name, _ in report.unreadable} >= {"empty.mp4", "garbage.mp4", "sound.mp4", "none.avi"}
    assert ("train/run/8.mp4", "has 8 frames, 9 are asked for") in report.short
    assert ("train/bad/still.mp4", "has 1 frames, 9 are asked for") in report.short
    assert report.leakage == (("test/run/again.mp4", "train/run/8.mp4"),)
    assert not report.clean


def test_the_command_writes_the_report_and_its_status_tells(folder: Path, tmp_path: Path) -> None:
    arguments = [str(folder), "--clips", "--workers", "1", "--report", str(tmp_path / "report.json")]
    assert main(arguments) == 0
    assert main([*arguments, "--frames", "9"]) == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert not report["clean"]
    assert report["frames"] == {"8": 2, "9": 2, "10": 2, "11": 2}
    assert len(report["short"]) == 2
    assert main([str(folder / "nowhere"), "--clips"]) == 2


def test_the_command_reads_lists(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "train.csv").write_text("train/run/8.mp4 0\ntrain/swim/8.mp4 1\n")
    (folder / "test.csv").write_text("test/run/11.mp4 0\ntrain/swim/8.mp4 1\n")
    lists = ["--list", str(folder / "train.csv"), "--list", str(folder / "test.csv")]
    assert main([str(folder), "--clips", "--workers", "1", *lists]) == 1
    assert "files listed more than once" in capsys.readouterr().out
    assert main([str(folder), "--clips", "--list", str(folder / "none.csv")]) == 2
    assert "no such list" in capsys.readouterr().err


def test_the_readers_of_a_run_are_named(folder: Path) -> None:
    FILMS["mpeg4 B-frames avi"].write(folder / "train" / "run" / "film.avi")
    FILMS["h264"].write(folder / "train" / "run" / "film.mp4")
    FILMS["gif"].write(folder / "train" / "run" / "film.gif")
    report = verify_clips(folder, least=8, workers=1)
    assert report.clean
    assert report.readers["decord"] >= 1
    assert report.readers["PyAV in order"] >= 1
    assert sum(report.readers.values()) == report.files == 11
    assert "read by: " in report.text()


def test_a_clip_whose_frames_by_number_are_others_than_in_order_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(Video):
        """Gives the frame after the one asked for, of one clip, unless it reads in order."""

        def __init__(self, path: Path, *, in_order: bool = False, limit: float = 60) -> None:
            super().__init__(path, in_order=in_order, limit=limit)
            self.late = path.name == "9.mp4" and not in_order

        def read(self, ids: Iterable[int], **scaling: object) -> NDArray[np.uint8]:
            return super().read([min(number + self.late, self.frames - 1) for number in ids], **scaling)  # type: ignore[arg-type]

    monkeypatch.setattr(verify_clips_module, "Video", Late)
    report = verify_clips(folder, least=8, workers=1)
    assert [name for name, _ in report.unreadable] == ["train/run/9.mp4", "train/swim/9.mp4"]
    assert all("by number is another than in order (" in why for _, why in report.unreadable)


def test_films_with_bits_flipped_are_named_where_the_decoder_meets_the_damage(tmp_path: Path) -> None:
    texture = np.kron(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8), np.ones((8, 8, 1), "u1"))
    frames = np.stack([texture[place : place + 64, place : place + 96] for place in range(40)])
    whole = write(tmp_path / "whole.mp4", frames, options={"g": "10", "bf": "2"}).read_bytes()
    begin = whole.index(b"mdat") + 4
    for seed in range(12):
        flipped = bytearray(whole)
        for place in np.random.default_rng(seed).integers(begin, begin + len(whole) * 3 // 4, 3):
            flipped[place] ^= 1 << seed % 8
        (tmp_path / f"{seed}.mp4").write_bytes(flipped)
    met = set()
    for path in tmp_path.iterdir():
        with contextlib.suppress(av.FFmpegError), av.open(str(path)) as container:
            if any(frame.is_corrupt for frame in container.decode(video=0)):
                met.add(path.name)
    report = verify_clips(tmp_path, least=2, workers=1)
    named = {name for name, _ in report.damaged}
    refused = {name for name, _ in report.unreadable}
    assert "whole.mp4" not in named | refused
    assert met <= named | refused
    assert len(named | refused) >= 8
    assert all(f"of {len(frames)} frames, the first" in why for _, why in report.damaged)
    assert not report.clean


def test_folders_of_frames_are_hashed_by_their_pictures(tmp_path: Path) -> None:
    for kind, seed in (("a", 0), ("b", 0), ("c", 1)):
        save_frames(tmp_path / kind, 3, seed)
    assert _digest(tmp_path / "a") == _digest(tmp_path / "b") != _digest(tmp_path / "c")
