"""The built-in clips: two tasks on the same files, disjoint sets, and a cache that survives being stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mae.data.builtin import moving_digits as module
from mae.data.builtin.material import divide_digits, handwritten_digits, photographs
from mae.data.builtin.motions import MOTIONS
from mae.data.builtin.moving_digits import MovingDigits, write_clip
from mae.data.clips.source import DecodedClips
from mae.data.files.listing import Listing
from mae.data.pictures.decode import cover, to_array
from mae.data.source import Splits
from mae.errors import DataError

av = pytest.importorskip("av")

SMALL = {"pretrain": 8, "train": 16, "test": 10, "frames": 8}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def splits(cache: Path) -> Splits:
    return MovingDigits(labels="motion", **SMALL)(cache)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read in this process and by PyAV alone: starting decoders takes longer than all else here."""

    def read(listing: Listing, cache: Path, *, size: tuple[int, int], max_failed: float) -> DecodedClips:
        frames = []
        for row in range(len(listing)):
            with av.open(str(listing.path(row))) as container:
                frames += [to_array(cover(frame.to_image(), size)) for frame in container.decode(video=0)]
        starts = torch.arange(len(listing) + 1) * (len(frames) // len(listing))
        return DecodedClips(torch.from_numpy(np.stack(frames)), starts, torch.tensor(listing.labels), ())

    monkeypatch.setattr(module, "decoded_clips", read)


def clips(source: object) -> DecodedClips:
    assert isinstance(source, DecodedClips)
    return source


def test_sets_have_the_sizes_lengths_and_classes_asked_for(splits: Splits) -> None:
    for name in ("pretrain", "train", "test"):
        found = clips(getattr(splits, name))
        assert found.frames.shape == (SMALL[name] * 8, 3, 32, 32)
        assert found.frames.dtype == torch.uint8
        assert found.offsets.diff().tolist() == [8] * SMALL[name]
    assert clips(splits.pretrain).labels.eq(-1).all()
    assert splits.train.classes == splits.test.classes == MOTIONS


def test_both_tasks_label_the_same_clips_and_each_is_balanced(splits: Splits, cache: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.mp4")}
    other = MovingDigits(labels="appearance", **SMALL)(cache)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.mp4")} == before
    for name in ("pretrain", "train", "test"):
        assert torch.equal(clips(getattr(other, name)).frames, clips(getattr(splits, name)).frames)
    assert torch.bincount(clips(splits.train).labels).tolist() == [2] * 8
    assert torch.bincount(clips(other.test).labels).tolist() == [1] * 10


def test_a_clip_read_back_by_another_decoder_shows_what_was_filmed(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 32)
    filmed = np.stack([np.roll(np.add.outer(ramp, ramp) / 2, 2 * t, axis=1) for t in range(8)])
    filmed = np.repeat(filmed[..., None], 3, axis=3).astype(np.uint8)
    write_clip(tmp_path / "clip.mp4", filmed)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        read = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert read.shape == filmed.shape
    assert np.abs(read.astype(int) - filmed).mean() < 6
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.usefixtures("at_once")
def test_what_a_clip_shows_depends_on_the_seed_alone(tmp_path: Path) -> None:
    first, again, other = (
        MovingDigits(labels="motion", **SMALL, seed=seed)(tmp_path / folder)
        for folder, seed in (("first", 0), ("again", 0), ("first", 1))
    )
    assert torch.equal(clips(again.train).labels, clips(first.train).labels)
    assert torch.equal(clips(again.test).frames, clips(first.test).frames)
    assert not torch.equal(clips(other.test).frames, clips(first.test).frames)


@pytest.mark.usefixtures("at_once")
def test_more_pretraining_clips_leave_the_labelled_ones_as_they_are(tmp_path: Path) -> None:
    few = MovingDigits(labels="motion", **SMALL)(tmp_path / "few")
    more = MovingDigits(labels="motion", **{**SMALL, "pretrain": 9})(tmp_path / "more")
    assert len(more.pretrain) == 9
    for name in ("train", "test"):
        assert torch.equal(clips(getattr(more, name)).frames, clips(getattr(few, name)).frames)
        assert torch.equal(clips(getattr(more, name)).labels, clips(getattr(few, name)).labels)


def _without_ink_of_test_digits() -> tuple[np.ndarray, np.ndarray]:
    glyphs, labels = handwritten_digits()
    glyphs[divide_digits(labels, 0)["test"]] = 0
    return glyphs, labels


def _with_black_right_quarters() -> list[np.ndarray]:
    photos = photographs()
    for photo in photos:
        photo[:, int(photo.shape[1] * 0.75) :] = 0
    return photos


@pytest.mark.parametrize(
    ("material", "changed"),
    [("handwritten_digits", _without_ink_of_test_digits), ("photographs", _with_black_right_quarters)],
)
@pytest.mark.usefixtures("at_once")
def test_training_clips_show_nothing_of_what_testing_is_made_of(
    material: str, changed: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = MovingDigits(labels="motion", **SMALL)(tmp_path)
    monkeypatch.setattr(module.material, material, changed)
    poor = MovingDigits(labels="motion", **SMALL)(tmp_path / "poor")
    assert torch.equal(clips(poor.pretrain).frames, clips(splits.pretrain).frames)
    assert torch.equal(clips(poor.train).frames, clips(splits.train).frames)
    differs = (clips(poor.test).frames != clips(splits.test).frames).unflatten(0, (SMALL["test"], 8)).flatten(1).any(1)
    assert differs.float().mean() > 0.5  # a piece of night sky was black before


@pytest.mark.usefixtures("at_once")
def test_validation_takes_from_training_and_leaves_testing_as_it_is(tmp_path: Path) -> None:
    plain, validated = (MovingDigits(**SMALL, val=kept)(tmp_path) for kept in (0, 4))
    assert plain.val is None
    assert len(clips(validated.val)) == 4
    assert torch.equal(clips(validated.test).frames, clips(plain.test).frames)
    assert not torch.equal(clips(validated.train).frames, clips(plain.train).frames)


@pytest.mark.usefixtures("at_once")
def test_filming_that_was_stopped_films_only_what_is_missing(tmp_path: Path) -> None:
    first = clips(MovingDigits(labels="motion", **SMALL)(tmp_path).test).frames.clone()
    files = sorted(next(tmp_path.glob("moving_digits-*-test-*/")).glob("*.mp4"))
    times = {path: path.stat().st_mtime_ns for path in files}
    for path in files[3:]:
        path.unlink()
    (files[0].parent / "000003.mp4.1234.part").write_bytes(b"half a cl")
    again = clips(MovingDigits(labels="motion", **SMALL)(tmp_path).test).frames
    assert torch.equal(again, first)
    assert all(path.stat().st_mtime_ns == times[path] for path in files[:3])


def test_a_damaged_file_is_named(splits: Splits, cache: Path) -> None:
    file = sorted(next(cache.glob("moving_digits-*-test-*/")).glob("*.mp4"))[4]
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    with pytest.raises(DataError, match=file.name):
        MovingDigits(labels="motion", **SMALL)(cache)
    file.write_bytes(whole)


@pytest.mark.parametrize(
    "wrong",
    [{"train": 0}, {"size": 20}, {"size": 41}, {"frames": 1}, {"seed": -1}, {"labels": "colour"}],
)
def test_impossible_requests_are_refused_by_name(wrong: dict[str, int | str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=next(iter(wrong))):
        MovingDigits(**{**SMALL, **wrong})(tmp_path)  # type: ignore[arg-type]


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be kept"):
        MovingDigits(**SMALL)(tmp_path / "file")
