"""Clips that are kept as folders of pictures, one for each frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mae.data.check.verify_clips import verify_clips
from mae.data.clips.cache import decoded_clips
from mae.data.clips.lists import clips_in_list
from mae.data.clips.readers.frame_folder import FRAME_SUFFIXES
from mae.data.clips.sampling import Dense
from mae.data.clips.stream import ClipFiles
from mae.data.clips.video import SUFFIXES, Video, num_frames, read_frames
from mae.data.files.content import content_of
from mae.data.files.folders import catalogue
from mae.data.files.listing import Listing
from mae.errors import DataError
from tests.data.clips.clip_writer import numbered, numbers, write


def save_frames(folder: Path, count: int, seed: int = 0, name: str = "img_{}.png") -> Path:
    """``count`` pictures in the grey that says their number, counted from 1; ``seed`` shifts them all."""
    folder.mkdir(parents=True)
    for number, pixels in enumerate(numbered(count + seed, 24, 32)[seed:], 1):
        Image.fromarray(pixels).save(folder / name.format(number))
    return folder


@pytest.mark.parametrize("name", ["img_{}.png", "{:05d}.jpg", "v_run_g01_c02_{:04d}.jpg", "frame {}a.bmp"])
def test_frames_come_in_the_order_of_their_numbers(name: str, tmp_path: Path) -> None:
    folder = save_frames(tmp_path / "clip", 12, name=name)
    clip = Video(folder)
    assert (clip.frames, clip.reader) == (12, "pictures")
    assert numbers(clip.read([0, 1, 1, 9, 11])) == [0, 1, 1, 9, 11]
    assert numbers(Video(folder, in_order=True).read(range(12))) == list(range(12))
    assert read_frames(folder, [3], short_side=12).shape == (1, 3, 12, 16)


def test_other_files_and_hidden_ones_beside_the_frames_are_passed_over(tmp_path: Path) -> None:
    folder = save_frames(tmp_path / "clip", 3)
    (folder / "notes.txt").write_text("no frame")
    (folder / "._img_4.png").write_bytes(b"a resource fork")
    assert num_frames(folder) == 3


def test_grey_palette_and_transparent_frames_become_three_channels(tmp_path: Path) -> None:
    for mode in ("L", "P", "RGBA", "1"):
        folder = tmp_path / mode
        folder.mkdir()
        Image.new(mode, (8, 6)).save(folder / "1.png")
        assert read_frames(folder, [0]).shape == (1, 3, 6, 8)


def test_folders_that_are_no_clips_are_refused_in_words(tmp_path: Path) -> None:
    gap = save_frames(tmp_path / "gap", 5)
    (gap / "img_3.png").unlink()
    kinds = save_frames(tmp_path / "kinds", 2)
    (kinds / "img_1.png").rename(kinds / "flow_x_1.png")
    twice = save_frames(tmp_path / "twice", 2)
    (twice / "img_1.png").rename(twice / "img_02.png")
    damaged = save_frames(tmp_path / "damaged", 3)
    (damaged / "img_2.png").write_bytes(b"no picture")
    sizes = save_frames(tmp_path / "sizes", 3)
    Image.fromarray(np.zeros((9, 7, 3), np.uint8)).save(sizes / "img_2.png")
    (tmp_path / "empty").mkdir()
    told = {}
    for folder in (gap, kinds, twice, damaged, sizes, tmp_path / "empty"):
        with pytest.raises(DataError) as caught:
            read_frames(folder, range(num_frames(folder)))
        told[folder.name] = str(caught.value)
    assert told == {
        "gap": "its frames are not evenly numbered: img_4.png follows img_2.png",
        "kinds": "a folder with two kinds of pictures, flow_x_1.png and img_2.png; keep the frames alone",
        "twice": "its frames are not evenly numbered: img_2.png follows img_02.png",
        "damaged": "img_2.png: not a picture in any known format",
        "sizes": "its frames change from 32x24 to 7x9",
        "empty": "a folder without pictures, not a clip",
    }


def test_a_frame_past_the_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only 3 frames are there, frame 3"):
        read_frames(save_frames(tmp_path / "clip", 3), [1, 3])


def test_folders_of_frames_are_clips_of_their_class_beside_films(tmp_path: Path) -> None:
    for name in ("train/run/clip_a", "train/run/deep/clip_b", "train/swim/clip_c", "test/run/clip_d"):
        save_frames(tmp_path / name, 3)
    write(tmp_path / "train/swim/film.mp4", numbered(3, 48, 64))
    (tmp_path / "train/swim/film.jpg").write_bytes(b"a preview of the film, which is no clip")
    found = catalogue(tmp_path, SUFFIXES, FRAME_SUFFIXES)
    assert [entry.name for entry in found.entries] == [
        "train/run/clip_a", "train/run/deep/clip_b", "train/swim/clip_c", "train/swim/film.mp4", "test/run/clip_d"
    ]  # fmt: skip
    assert found.ignored == ("train/swim/film.jpg",)
    assert verify_clips(tmp_path, least=3, workers=1).readers == {"pictures": 4, "decord": 1}


def test_a_list_names_folders_of_frames(tmp_path: Path) -> None:
    for name in ("clip a", "clip_b"):
        save_frames(tmp_path / name, 3)
    for text in ("clip a 0\nclip_b 1\n", "clip a,0\nclip_b,1\n"):
        (tmp_path / "list.txt").write_text(text)
        listing = clips_in_list(tmp_path / "list.txt")
        assert (listing.names, listing.labels) == (("clip a", "clip_b"), (0, 1))


def test_another_frame_in_a_folder_is_another_content(tmp_path: Path) -> None:
    folder = save_frames(tmp_path / "clip", 3)
    before = content_of(tmp_path, ["clip"])
    Image.fromarray(numbered(9, 24, 32)[8]).save(folder / "img_2.png")
    changed = content_of(tmp_path, ["clip"])
    (folder / "img_3.png").unlink()
    assert len({before, changed, content_of(tmp_path, ["clip"]), content_of(tmp_path, ["none"])}) == 4


def test_folders_of_frames_are_decoded_once_and_streamed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_frames(tmp_path / name, 5)
    listing = Listing(tmp_path, ("a", "b"), (0, 1), ("x", "y"))
    kept = decoded_clips(listing, tmp_path / "cache", size=(24, 32), workers=1)
    assert numbers(kept.frames.numpy()) == 2 * list(range(5))
    streamed = ClipFiles(listing, short_side=24, workers=0).taking(Dense(frames=2, stride=2), view=0)
    (batch,) = streamed.batches([torch.tensor([1, 0])], torch.device("cpu"))
    assert batch.rows.tolist() == [1, 0]
    assert batch.images.shape == (2, 3, 2, 24, 24)
