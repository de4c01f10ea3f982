"""A frame asked for by its number is the one that reading in order gives, whatever the film is made of."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from mae.data.clips.readers.films import AvReader
from mae.data.clips.readers.index import index_of
from mae.data.clips.readers.starts import begins, is_hidden
from mae.data.clips.video import num_frames, read_frames
from mae.data.clips.video_process import opened
from mae.errors import DataError
from tests.data.clips.films import COUNT, FILMS, TURNS, Film, pictures, shown, turn


def asked(seed: int, frames: int) -> list[list[int]]:
    """Frames as runs ask for them: single ones, stretches with a stride, any."""
    draw = random.Random(seed)
    first = draw.randrange(frames - 9)
    return [[draw.randrange(frames)], list(range(first, first + 9, 3)), sorted(draw.choices(range(frames), k=6)), [0]]


def check(path: Path, film: Film, count: int = COUNT) -> None:
    in_order = opened(str(path), in_order=True)
    whole = list(in_order.read(range(in_order.frames)))
    assert [shown(pixels) for pixels in whole] == list(range(count))
    reader = opened(str(path))
    for seed in range(4):
        for ids in asked(seed, count):
            read = list(reader.read(ids))
            assert len(read) == len(ids)
            assert all(np.array_equal(pixels, whole[number]) for pixels, number in zip(read, ids, strict=True)), ids
    assert all(np.array_equal(a, b) for a, b in zip(opened(str(path)).read(range(count)), whole, strict=True))
    assert reader.frames == count
    assert reader.name == film.reader


@pytest.mark.parametrize("name", FILMS)
def test_frames_by_number_are_those_in_order(name: str, tmp_path: Path) -> None:
    film = FILMS[name]
    if film.codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no encoder {film.codec}")
    check(film.write(tmp_path / f"film{film.suffix}"), film)


@pytest.mark.parametrize("size", [(48, 64), (48, 32), (96, 128)])
@pytest.mark.parametrize("kind", TURNS)
def test_a_display_matrix_turns_the_picture_at_every_size_and_through_every_reader(
    kind: str, size: tuple[int, int], tmp_path: Path
) -> None:
    film = Film(".mp4", options={"g": "12", "bf": "2"}, size=size)
    film.write(tmp_path / "film.mp4")
    plain = [*opened(str(tmp_path / "film.mp4")).read([3, 20])]
    path = str(turn(tmp_path / "film.mp4", kind))
    for reader in (opened(path), opened(path, in_order=True), AvReader(path, index_of(path))):
        for pixels, flat in zip(reader.read([3, 20]), plain, strict=True):
            assert np.array_equal(pixels, TURNS[kind][1](flat))


def test_a_turned_film_is_upright_after_scaling(tmp_path: Path) -> None:
    film = Film(".mp4", size=(48, 96))
    path = turn(film.write(tmp_path / "turned.mp4"), "quarter right")
    assert read_frames(path, [5], short_side=24).shape == (1, 3, 48, 24)
    assert read_frames(path, [5], size=(32, 32)).shape == (1, 3, 32, 32)


def test_frames_that_an_edit_list_cuts_off_are_not_counted(tmp_path: Path) -> None:
    path = Film(".mp4", options={"g": "12", "bf": "3"}).write(tmp_path / "film.mp4")
    content = bytearray(path.read_bytes())
    place = content.index(b"elst") + 16
    (start,) = struct.unpack_from(">i", content, place)
    struct.pack_into(">i", content, place, start + 10 * 512)  # ten frames later
    path.write_bytes(content)
    reader = opened(str(path))
    assert reader.frames == COUNT - 10
    assert [shown(pixels) for pixels in reader.read(range(COUNT - 10))] == list(range(10, COUNT))
    assert [shown(pixels) for pixels in reader.read([17])] == [27]


@pytest.mark.parametrize("name", ["h264 ts", "h264 open ts", "mpeg2 ts", "hevc ts", "mpeg2 mpg"])
def test_a_recording_that_begins_in_the_middle_is_read_from_its_first_whole_frame(name: str, tmp_path: Path) -> None:
    film = FILMS[name]
    path = film.write(tmp_path / f"film{film.suffix}")
    path.write_bytes(path.read_bytes()[4096 if film.suffix == ".mpg" else 188 * 40 :])
    whole = [*opened(str(path), in_order=True).read(range(opened(str(path)).frames))]
    numbers = [shown(pixels) for pixels in whole]
    assert 0 < numbers[0] < 30
    assert numbers == list(range(numbers[0], COUNT))
    for ids in asked(0, len(whole)):
        for pixels, number in zip(opened(str(path)).read(ids), ids, strict=True):
            assert np.array_equal(pixels, whole[number])


@pytest.mark.parametrize("name", ["mpeg2 mpg", "mpeg2 ts"])
def test_films_that_were_joined_and_repeat_their_times_are_read_in_order(name: str, tmp_path: Path) -> None:
    film = FILMS[name]
    path = film.write(tmp_path / f"film{film.suffix}")
    path.write_bytes(2 * path.read_bytes())
    reader = opened(str(path))
    assert reader.name == "PyAV in order"
    assert reader.frames == 2 * COUNT
    assert [shown(pixels) for pixels in reader.read([3, COUNT - 1, COUNT + 5])] == [3, COUNT - 1, 5]


def test_a_film_whose_size_changes_is_refused_in_words_or_scaled(tmp_path: Path) -> None:
    small, large = (Film(".ts", "mpeg2video", options={"g": "12"}, size=size) for size in ((48, 64), (96, 128)))
    path = tmp_path / "film.ts"
    path.write_bytes(small.write(tmp_path / "a.ts").read_bytes() + large.write(tmp_path / "b.ts").read_bytes())
    frames = num_frames(path)
    with pytest.raises(DataError, match="its frames change from 64x48 to 128x96"):
        read_frames(path, range(frames))
    assert read_frames(path, range(frames), size=(24, 32)).shape == (frames, 3, 24, 32)


def test_a_jump_that_leads_elsewhere_is_noticed_and_all_is_read_in_order(tmp_path: Path) -> None:
    path = str(FILMS["mpeg4 avi"].write(tmp_path / "film.avi"))
    index = index_of(path)
    no_key = replace(index, starts=np.array([0, 17]))  # packet 17 holds a frame that needs others
    other_sizes = replace(index, packets=index.packets + np.array([0, 0, 1]))
    for wrong in (no_key, other_sizes):
        reader = AvReader(path, wrong)
        assert reader.name == "PyAV"
        assert [shown(pixels) for pixels in reader.read([2, 20, 30])] == [2, 20, 30]
        assert reader.name == "PyAV in order"


def test_a_frame_that_is_listed_and_never_shown_is_refused(tmp_path: Path) -> None:
    path = str(FILMS["mpeg4 avi"].write(tmp_path / "film.avi"))
    index = index_of(path)
    times = np.insert(index.times[:-1], 9, index.times[8])
    reader = AvReader(path, replace(index, times=np.where(times == index.times[9], -5, times)))
    with pytest.raises(ValueError, match="of the 40 that it lists cannot be decoded"):
        [*reader.read([9])]


def test_hidden_frames_are_no_frames() -> None:
    assert is_hidden(memoryview(b"\x01\0\0"))
    assert not is_hidden(memoryview(b"\x10\0\0"))


def test_decoding_starts_at_a_recovery_point_only_if_all_is_exact_at_once() -> None:
    slice_of_intra = b"\0\0\1\x41\x88"
    exact, later, broken = (b"\0\0\1\x06\x06\x01" + bytes([bits]) + b"\x80" for bits in (0xC0, 0x40, 0x80))
    assert begins("h264", memoryview(exact + slice_of_intra), b"")
    assert not begins("h264", memoryview(later + slice_of_intra), b"")
    assert not begins("h264", memoryview(broken + slice_of_intra), b"")
    assert not begins("h264", memoryview(slice_of_intra), b"")
    assert begins("h264", memoryview(b"\0\0\1\x65\x88"), b"")


def test_an_index_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    path = Film(".mp4").write(tmp_path / "film.mp4")
    first = index_of(str(path))
    assert index_of(str(path)) is first
    Film(".mp4").write(path, count=9)
    assert index_of(str(path)).frames == 9


def test_the_film_is_read_and_not_a_cover_picture_before_it(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        for pixels in pictures(9, 48, 64):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    assert [shown(pixels) for pixels in opened(str(path)).read([0, 7])] == [0, 7]
