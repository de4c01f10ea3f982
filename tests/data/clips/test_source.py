"""Sets of clips, decoded once or for every batch: the same frames by the same draws, and bad files counted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

import mae.data.clips.cache as clip_cache
from mae.data.augment.clip_crops import crops
from mae.data.augment.compose import Picked, Stacked
from mae.data.augment.crops import CenterCrop, RandomResizedCrop
from mae.data.clips.cache import decoded_clips
from mae.data.clips.sampling import Dense, Uniform
from mae.data.clips.source import ClipSource, DecodedClips
from mae.data.clips.stream import ClipFiles
from mae.data.clips.video import SUFFIXES, Video, num_frames, read_frames
from mae.data.files.folders import catalogue, sides_of
from mae.data.files.listing import Listing
from mae.data.source import Batch, Source
from mae.errors import DataError
from tests.data.clips.clip_writer import STEP, damaged_files, numbered, write

CPU = torch.device("cpu")
LENGTHS = (12, 20, 9, 28)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "sports"
    for split in ("train", "test"):
        for index, length in enumerate(LENGTHS):
            write(root / split / ("run", "swim")[index % 2] / f"{index}.mp4", numbered(length, 32, 40))
    return root


@pytest.fixture
def listing(folder: Path) -> Listing:
    return sides_of(catalogue(folder, SUFFIXES)).train


def listed(paths: list[Path], root: Path) -> Listing:
    names = tuple(path.relative_to(root).as_posix() for path in paths)
    return Listing(root, names, (0,) * len(names), ("all",))


def collect(source: Source, *order: list[int]) -> list[Batch]:
    return list(source.batches([torch.tensor(rows) for rows in order], CPU))


def seen(batch: Batch) -> Tensor:
    """Numbers of the frames in a batch of numbered clips, ``(B, T)``."""
    return ((batch.images.float().mean((1, 3, 4)) - 8) / STEP).round().long()


def decoded(listing: Listing, tmp_path: Path) -> DecodedClips:
    return decoded_clips(listing, tmp_path / "cache", size=(32, 32), workers=1)


@pytest.fixture(params=["decoded", "files"])
def clips(request: pytest.FixtureRequest, listing: Listing, tmp_path: Path) -> ClipSource:
    return decoded(listing, tmp_path) if request.param == "decoded" else ClipFiles(listing, short_side=32, workers=0)


# Both kinds of set


def test_a_batch_holds_the_frames_asked_for_with_labels_and_rows(clips: ClipSource) -> None:
    (batch,) = collect(clips.taking(Dense(4, 2), view=0), [2, 0, 3])
    assert batch.images.shape == (3, 3, 4, 32, 32)
    assert batch.images.dtype == torch.uint8
    assert batch.rows.tolist() == [2, 0, 3]
    assert batch.labels.tolist() == [1, 0, 1]
    lengths = [20, 12, 28]  # the listing has the class run first: clips 0 and 2, then 1 and 3
    assert seen(batch).tolist() == [Dense(4, 2).test(length, 0, 1).tolist() for length in lengths]


def test_repeats_stand_item_by_item_and_show_the_same_frames(clips: ClipSource) -> None:
    drawn = set()
    for seed in range(8):
        (batch,) = collect(clips.taking(Dense(2, 1), repeats=3, seed=seed), [3, 1])
        assert batch.rows.tolist() == [3] * 3 + [1] * 3
        assert batch.labels.tolist() == [1] * 3 + [0] * 3
        assert (seen(batch)[:3] == seen(batch)[0]).all()
        assert (seen(batch)[3:] == seen(batch)[3]).all()
        drawn.add(tuple(seen(batch)[0].tolist()))
    assert len(drawn) > 1


def test_repeats_are_cropped_each_by_a_draw_of_its_own(listing: Listing) -> None:
    taken = ClipFiles(listing, short_side=32, workers=0).taking(Dense(2, 1), repeats=4)
    (batch,) = collect(taken.through(RandomResizedCrop(16, scale=(0.2, 0.5))), [3])
    assert batch.images.shape == (4, 3, 2, 16, 16)
    assert (seen(batch) == seen(batch)[0]).all()


def test_crops_of_a_test_clip_share_one_reading(listing: Listing, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    read = Video.__init__

    def counted(self: Video, path: Path, **options: Any) -> None:
        opened.append(path)
        read(self, path, **options)

    monkeypatch.setattr(Video, "__init__", counted)
    ends = crops(CenterCrop(32), 3)
    taken = ClipFiles(listing, short_side=32, workers=0).taking(Dense(2, 1), view=0)
    (batch,) = collect(taken.through(Stacked(ends)), [3, 1])
    assert len(opened) == 2
    assert batch.images.shape == (2, 3, 3, 2, 32, 32)
    generator = Generator()
    for index, end in enumerate(ends):
        (alone,) = collect(taken.through(end), [3, 1])
        picked = Picked(index, lambda images, generator: images)
        assert torch.equal(picked(batch.images, generator), alone.images)


def test_draws_follow_seed_indices_and_place_alone(clips: ClipSource) -> None:
    taken = clips.taking(Dense(2, 1), seed=7)
    first, second, again = collect(taken, [0, 1, 2, 3], [3, 2, 1, 0], [0, 1, 2, 3])
    (resumed,) = collect(taken, [3, 2, 1, 0])
    assert torch.equal(first.images, again.images)
    assert torch.equal(second.images, resumed.images)
    assert not torch.equal(seen(first), seen(second).flip(0))
    (other,) = collect(clips.taking(Dense(2, 1), seed=8), [0, 1, 2, 3])
    assert not torch.equal(seen(first), seen(other))


def test_every_view_of_a_test_is_its_own_source(clips: ClipSource) -> None:
    views = [collect(clips.taking(Uniform(4), view=view, views=2), [0])[0] for view in range(2)]
    assert [seen(view)[0].tolist() for view in views] == [[0, 3, 6, 9], [1, 4, 7, 10]]


def test_a_clip_too_short_is_left_out_named_and_counted(clips: ClipSource) -> None:
    clips.tally.max_failed = 0.3  # type: ignore[attr-defined]
    (batch,) = collect(clips.taking(Uniform(12)), [0, 1, 2, 3])
    assert batch.rows.tolist() == [0, 2, 3]
    assert clips.report.read == 3
    assert clips.report.failed == (("train/run/2.mp4", "has 9 frames, 12 are asked for"),)


def test_too_many_short_clips_stop_the_run(clips: ClipSource) -> None:
    with pytest.raises(DataError, match=r"3 of 4 .*has 12 frames, 28 are asked for"):
        collect(clips.taking(Uniform(28)), [0, 1, 2, 3])


def test_impossible_takings_are_refused(clips: ClipSource) -> None:
    with pytest.raises(DataError, match="repeats=0"):
        clips.taking(Dense(4), repeats=0)
    with pytest.raises(DataError, match="view=2 of views=2"):
        clips.taking(Dense(4), view=2, views=2)
    with pytest.raises(DataError, match="`taking` a sampling"):
        clips.batches([torch.tensor([0])], CPU)


def test_decoded_and_streamed_clips_draw_the_same_frames(listing: Listing, tmp_path: Path) -> None:
    both = (decoded(listing, tmp_path), ClipFiles(listing, short_side=32, workers=0))
    for sampling in (Dense(4, 2), Uniform(8)):
        first, second = (collect(clips.taking(sampling, repeats=2, seed=3), [1, 3, 0])[0] for clips in both)
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.rows, second.rows)


# Decoded anew


def test_workers_change_nothing(listing: Listing) -> None:
    order = ([0, 1], [2, 3], [3, 0])
    alone, helped = (
        collect(ClipFiles(listing, short_side=32, workers=workers).taking(Dense(4, 1), seed=1), *order)
        for workers in (0, 2)
    )
    for first, second in zip(alone, helped, strict=True):
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.rows, second.rows)


def test_clips_of_different_shapes_are_cropped_where_they_are_read(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{w}.mp4", numbered(8, 32, w)) for w in (32, 48, 64)]
    taken = ClipFiles(listed(paths, tmp_path), short_side=24, workers=0).taking(Dense(4))
    assert collect(taken, [0, 1, 2])[0].images.shape == (3, 3, 4, 24, 24)
    through = taken.through(CenterCrop((16, 20)))
    assert collect(through, [0, 1, 2])[0].images.shape == (3, 3, 4, 16, 20)
    assert torch.equal(seen(collect(through, [0, 1, 2])[0]), seen(collect(taken, [0, 1, 2])[0]))


def test_a_crop_is_the_same_for_all_frames_and_drawn_anew_for_each_repeat(tmp_path: Path) -> None:
    still = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8), 8, 0)
    path = write(tmp_path / "a.mp4", still, codec="mpeg4", options={"qscale": "1"})
    taken = ClipFiles(listed([path], tmp_path), short_side=32, workers=0).taking(Dense(4), view=0, repeats=2)
    (batch,) = collect(taken.through(RandomResizedCrop(16, scale=(0.2, 0.5), flip=False)), [0])
    first, second = batch.images.float()
    assert (first - first[:, :1]).abs().mean() < 2
    assert (first - second).abs().mean() > 10


def test_every_kind_of_damage_is_counted_beside_healthy_clips(tmp_path: Path) -> None:
    bad = damaged_files(tmp_path)
    os.mkfifo(tmp_path / "endless.mp4")
    bad["endless"] = tmp_path / "endless.mp4"
    healthy = [write(tmp_path / f"good{index}.mp4", numbered(8)) for index in range(4)]
    for path in healthy:
        num_frames(path)
    paths = [*healthy[:2], *bad.values(), *healthy[2:]]
    clips = ClipFiles(listed(paths, tmp_path), short_side=32, workers=1, max_failed=0.9, limit=2)
    batches = collect(clips.taking(Dense(4, 2)), list(range(len(paths))), [0, 1])
    assert batches[0].rows.tolist() == [0, 1, len(paths) - 2, len(paths) - 1]
    assert batches[1].rows.tolist() == [0, 1]
    assert len(bad) >= 12
    assert clips.report.read == 4
    reasons = dict(clips.report.failed)
    assert reasons.keys() == {path.name for path in bad.values()}
    assert reasons["still.mp4"] == "has 1 frames, 2 are asked for"
    assert reasons["endless.mp4"] == "decoding took longer than 2 s and was ended"


# Decoded once


def test_the_cache_holds_every_frame_scaled_and_cropped(listing: Listing, tmp_path: Path) -> None:
    clips = decoded_clips(listing, tmp_path / "cache", size=(24, 20), workers=2)
    assert clips.offsets.tolist() == [0, 12, 21, 41, 69]
    for row in range(len(listing)):
        own = clips.frames[clips.offsets[row] : clips.offsets[row + 1]]
        expected = read_frames(listing.path(row), range(len(own)), size=(24, 20))
        assert torch.equal(own, torch.from_numpy(expected))
    assert clips.report.read == 4


def test_a_second_run_decodes_nothing(listing: Listing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = decoded(listing, tmp_path)
    monkeypatch.setattr(clip_cache, "Video", lambda *_, **__: pytest.fail("decoded again"))
    assert torch.equal(decoded(listing, tmp_path).frames, first.frames)


def test_decoding_that_was_stopped_goes_on(listing: Listing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = decoded(listing, tmp_path / "other").frames
    opened: list[Path] = []

    class Watched(clip_cache.Video):
        def __init__(self, path: Path, *, limit: float) -> None:
            opened.append(path)
            if len(opened) == 3:
                raise KeyboardInterrupt
            super().__init__(path, limit=limit)

    monkeypatch.setattr(clip_cache, "Video", Watched)
    with pytest.raises(KeyboardInterrupt):
        decoded(listing, tmp_path)
    partial = next((tmp_path / "cache").glob("*.partial.bin"))
    with open(partial, "ab") as file:
        file.write(b"half a frame")
    with open(partial.with_suffix(".jsonl"), "a") as file:
        file.write('{"fra')
    opened.clear()
    finished = decoded(listing, tmp_path)
    assert opened == [listing.path(row) for row in (2, 3)]
    assert torch.equal(finished.frames, whole)
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} <= {".bin", ".json", ".lock"}


def test_a_damaged_cache_is_made_again(listing: Listing, tmp_path: Path) -> None:
    first = decoded(listing, tmp_path).frames.clone()
    file = next((tmp_path / "cache").glob("*.bin"))
    file.write_bytes(file.read_bytes()[:1000])
    assert torch.equal(decoded(listing, tmp_path).frames, first)


def test_damaged_clips_are_left_out_of_the_cache_and_reported(tmp_path: Path) -> None:
    healthy = [write(tmp_path / "clips" / f"good{index}.mp4", numbered(8)) for index in range(2)]
    bad = damaged_files(tmp_path / "clips")
    source = listed([healthy[0], *bad.values(), healthy[1]], tmp_path / "clips")
    clips = decoded_clips(source, tmp_path, size=(16, 16), workers=2, max_failed=0.9)
    assert len(clips) == 3  # the clip of one frame is whole; it is refused when more are asked for
    assert clips.report.read == 3
    assert {name for name, _ in clips.report.failed} == {path.name for kind, path in bad.items() if kind != "one frame"}
    (batch,) = collect(clips.taking(Dense(4)), [0, 1, 2])
    assert batch.rows.tolist() == [0, 2]
    assert clips.report.read == 2
    assert len(clips.report.failed) == len(bad)
    with pytest.raises(DataError, match="unreadable, more than the share"):
        decoded_clips(source, tmp_path, size=(16, 16), workers=2)


def test_other_labels_share_the_frames(listing: Listing, tmp_path: Path) -> None:
    clips = decoded(listing, tmp_path)
    other = clips.labelled(torch.tensor([3, 2, 1, 0]), ("a", "b", "c", "d"))
    (batch,) = collect(other.taking(Dense(2), view=0), [0, 3])
    assert batch.labels.tolist() == [3, 0]
    assert other.classes == ("a", "b", "c", "d")
    assert other.frames is clips.frames


def test_offsets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="2 clips need 3 offsets"):
        DecodedClips(torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.tensor([0, 4]), torch.tensor([0, 0]), ())
