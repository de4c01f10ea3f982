"""Reading frames of one file: the right ones in the right order, and no file that hangs or crashes a run."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from mae.data.clips import video
from mae.data.clips.readers.films import AvReader, DecordReader
from mae.data.clips.readers.index import index_of
from mae.data.clips.video import Video, in_threads, num_frames, read_frames
from mae.data.clips.video_process import Scaling, stacked
from mae.errors import DataError
from tests.data.clips.clip_writer import damaged_files, numbered, numbers, write

KINDS = {
    "h264 mp4": ("a.mp4", {}),
    "frames that refer ahead": ("a.mkv", {"options": {"bf": "3", "g": "12"}}),
    "mpeg4 avi": ("a.avi", {"codec": "mpeg4"}),
    "gif": ("a.gif", {"codec": "gif", "pix_fmt": "rgb8"}),
    "variable rate": ("a.mp4", {"times": [3 * n + n % 3 for n in range(28)]}),
    "odd size": ("a.mp4", {"pix_fmt": "yuv444p"}),
    "with sound": ("a.mp4", {"audio": True}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_is_read_in_the_order_of_presentation(kind: str, tmp_path: Path) -> None:
    name, options = KINDS[kind]
    height, width = (33, 47) if kind == "odd size" else (32, 48)
    path = write(tmp_path / name, numbered(28, height, width), **options)
    frames = read_frames(path, range(28))
    assert num_frames(path) == 28
    assert frames.shape == (28, 3, height, width)
    # a GIF of few colours keeps the order of greys, not their values
    assert numbers(frames) == list(range(28)) or (kind == "gif" and (np.diff(frames.mean((1, 2, 3))) >= -1).all())


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_those_that_pyav_decodes_from_start_to_end(kind: str, tmp_path: Path) -> None:
    name, options = KINDS[kind]
    path = write(tmp_path / name, numbered(28, 33 if kind == "odd size" else 32), **options)
    with av.open(str(path)) as container:
        whole = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    ids = [0, 5, 5, 11, 26, 27]
    assert np.array_equal(read_frames(path, ids), whole[ids].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("gif", "odd size")])
def test_both_readers_give_the_same_frames(kind: str, tmp_path: Path) -> None:
    name, options = KINDS[kind]
    path = str(write(tmp_path / name, numbered(28, 32, 64), **options))
    ids = [0, 5, 5, 11, 26, 27]
    by_decord, by_pyav = DecordReader(path, index_of(path)), AvReader(path, index_of(path))
    first, second = (stacked(reader.read(ids), Scaling(None, None)) for reader in (by_decord, by_pyav))
    assert by_decord.name == "decord"
    assert by_decord.frames == by_pyav.frames == 28
    assert np.array_equal(first, second)
    assert numbers(first) == ids


def test_a_width_that_decord_cannot_copy_is_read_all_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", numbered(28, 32, 32))
    assert numbers(read_frames(path, [3, 20])) == [3, 20]


def test_a_name_with_spaces_and_signs_is_opened(tmp_path: Path) -> None:
    assert num_frames(write(tmp_path / "a wéird [name] #1%.mp4", numbered(4))) == 4


def test_scaling_keeps_the_aspect_or_covers_and_crops(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", numbered(3, 48, 64))
    assert read_frames(path, [1], short_side=24).shape == (1, 3, 24, 32)
    assert read_frames(path, [1], size=(20, 20)).shape == (1, 3, 20, 20)
    assert numbers(read_frames(path, [0, 1, 2], size=(20, 20))) == [0, 1, 2]


def test_no_kind_of_damage_yields_frames_and_each_is_named_in_words(tmp_path: Path) -> None:
    healthy = write(tmp_path / "healthy.mp4", numbered(5))
    files = damaged_files(tmp_path / "bad")
    del files["one frame"]
    reasons = {}
    for kind, path in files.items():
        with pytest.raises(DataError) as caught:
            read_frames(path, range(num_frames(path)))
        reasons[kind] = str(caught.value)
        assert num_frames(healthy) == 5
    assert reasons["missing"] == "no such file"
    assert reasons["empty"] == "an empty file"
    assert reasons["a folder"] == "a folder without pictures, not a clip"
    assert "video" in reasons["sound alone"]
    assert reasons["no frames"] == "it has no frames"
    assert all(reasons.values())
    assert not any(str(tmp_path) in reason or len(reason) > 200 for reason in reasons.values())


def test_a_frame_past_the_end_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", numbered(5))
    with pytest.raises(DataError, match="5 frames can be decoded, frame 5"):
        read_frames(path, [4, 5])


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A pipe that nobody writes to: opening it waits for ever inside the kernel."""
    os.mkfifo(tmp_path / "endless.mp4")
    return tmp_path / "endless.mp4"


def test_a_file_that_hangs_is_given_up_and_the_next_is_read(endless: Path, tmp_path: Path) -> None:
    healthy = write(tmp_path / "healthy.mp4", numbered(5))
    with pytest.raises(DataError, match=r"longer than 0\.2 s"):
        num_frames(endless, limit=0.2)
    assert num_frames(healthy) == 5


class Lengths(Dataset[object]):
    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __getitem__(self, index: int) -> object:
        try:
            return num_frames(self.paths[index], limit=0.2 if "endless" in self.paths[index].name else 60)
        except DataError as error:
            return str(error)

    def __len__(self) -> int:
        return len(self.paths)


def test_a_worker_that_meets_a_hanging_file_goes_on(endless: Path, tmp_path: Path) -> None:
    healthy = write(tmp_path / "healthy.mp4", numbered(5))
    num_frames(healthy)  # so that the worker is forked from a process with a decoder
    loader = DataLoader(Lengths([healthy, endless, healthy]), batch_size=None, num_workers=1)
    assert list(loader) == [5, "decoding took longer than 0.2 s and was ended", 5]
    assert num_frames(healthy) == 5


def test_a_crash_of_the_decoder_is_a_failure_of_the_clip_alone(endless: Path, tmp_path: Path) -> None:
    healthy = write(tmp_path / "healthy.mp4", numbered(5))
    num_frames(healthy)
    decoder = video._of_thread.decoder.process
    threading.Timer(0.1, decoder.send_signal, [signal.SIGSEGV]).start()
    with pytest.raises(DataError, match=rf"crashed on it \(exit status -{signal.SIGSEGV.value}\)"):
        num_frames(endless)
    assert num_frames(healthy) == 5


def test_a_decoder_ends_with_the_thread_that_used_it(tmp_path: Path) -> None:
    healthy = write(tmp_path / "healthy.mp4", numbered(5))
    found: list[int] = []

    def use() -> None:
        num_frames(healthy)
        found.append(video._of_thread.decoder.process.pid)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert found
    with pytest.raises(ProcessLookupError):
        os.kill(found[0], 0)


def test_threads_keep_the_order_and_hold_few_results() -> None:
    running: list[int] = []

    def task(item: int) -> int:
        running.append(item)
        time.sleep(0.001 * (3 - item % 3))
        return item * item

    results = in_threads(task, range(40), 2)
    assert next(results) == 0
    assert len(running) < 10
    assert list(results) == [n * n for n in range(1, 40)]


def test_an_open_clip_serves_several_reads(tmp_path: Path) -> None:
    clip = Video(write(tmp_path / "a.mp4", numbered(20)))
    assert numbers(clip.read([1, 2])) == [1, 2]
    assert numbers(clip.read([0, 19])) == [0, 19]
    assert torch.from_numpy(clip.read([3])).dtype == torch.uint8
