"""Clips around keyframes of films: the right frames, and boxes that stay on what they mark."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from mae.data.augment.clip_crops import MultiScaleCrop, SideCrop, crops
from mae.data.augment.compose import Compose, Picked, Stacked
from mae.data.augment.crops import CenterCrop, FixedSizeCrop, RandomResizedCrop
from mae.data.augment.places import augmented
from mae.data.clips.sampling import Around, Dense
from mae.data.files.tally import MAX_FAILED
from mae.data.keyframes.files import KeyframeFiles
from mae.data.source import Augment
from mae.errors import DataError
from tests.data.augment.test_places import around
from tests.data.keyframes.ava_files import FRAMES, HEIGHT, LAYOUT, ava, laid_down, line

CPU = torch.device("cpu")
SAMPLING = Around(4, 2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return laid_down(tmp_path_factory.mktemp("ava"))


def white(clip: Tensor) -> Tensor:
    """Where the rectangle is, in the frame of the keyframe of ``(C, T, H, W)``."""
    return clip[:, SAMPLING.frames // 2].float().mean(0) > 155


CROPS = [
    CenterCrop((HEIGHT, HEIGHT)),
    CenterCrop((32, 32)),
    FixedSizeCrop(40),
    RandomResizedCrop((40, 40), scale=(0.6, 1.0)),
    MultiScaleCrop((32, 32), flip=True),
    SideCrop((40, 40), 0, 3),
    SideCrop((40, 40), 2, 3),
]


@pytest.mark.parametrize("crop", CROPS, ids=repr)
def test_a_painted_rectangle_follows_its_box_through_films_of_any_shape(root: Path, crop: Augment) -> None:
    source = ava(root)(root).train.taking(SAMPLING, seed=3).through(crop)  # type: ignore[attr-defined]
    seen = 0
    for batch in source.batches([torch.tensor([2, 0, 1])] * 3, CPU):
        assert batch.places.items.tolist() == [0, 1, 2]
        for clip, box in zip(batch.images, batch.places.boxes, strict=True):
            shown = white(clip)
            if shown.sum() > 20:
                assert box.tolist() == pytest.approx(around(shown), abs=1.6)
                seen += 1
    assert seen >= 6


def test_several_crops_of_a_clip_are_read_once_and_each_has_its_boxes(root: Path) -> None:
    ends = crops(CenterCrop((HEIGHT, HEIGHT)), 3)
    source = ava(root)(root).test.taking(SAMPLING).through(Stacked(ends))  # type: ignore[attr-defined]
    (batch,) = source.batches([torch.tensor([0, 1])], CPU)
    assert batch.images.shape[:2] == (2, 3)
    assert batch.places.boxes.shape == (2, 3, 4)
    for index, end in enumerate(ends):
        seen = augmented(batch, Picked(index, Compose(())), Generator())
        (alone,) = source.through(end).batches([torch.tensor([0, 1])], CPU)
        assert torch.equal(seen.images, alone.images.float() / 255)
        assert torch.equal(seen.places.boxes, alone.places.boxes)  # type: ignore[union-attr]


def test_frames_lie_around_the_keyframe_and_stay_within_the_film() -> None:
    assert Around(4, 2).around(100, 50).tolist() == [46, 48, 50, 52]
    assert Around(4, 2).around(52, 51).tolist() == [47, 49, 51, 51]
    assert Around(4, 2).around(52, 1).tolist() == [0, 0, 1, 3]
    with pytest.raises(DataError, match="has 51 frames, 52 are asked for"):
        Around(4, 2).around(51, 51)


def test_a_film_that_ends_before_its_last_keyframe_is_counted_with_file_and_line(tmp_path: Path) -> None:
    laid_down(tmp_path)
    file = tmp_path / LAYOUT.train_boxes
    last = 900 + FRAMES // 10
    file.write_text(file.read_text() + line("two", last, (0.1, 0.1, 0.5, 0.5), 1, 0) + "\n")
    whole = ava(tmp_path)(tmp_path).train
    assert isinstance(whole, KeyframeFiles)
    whole.tally.max_failed = 0.5
    source = whole.taking(SAMPLING)
    (batch,) = source.batches([torch.arange(4)], CPU)
    assert batch.rows.tolist() == [0, 1, 2]
    ((name, why),) = source.report.failed
    assert name == f"two at second {last} ({file}, line 7)"
    assert why == f"has {FRAMES} frames, {FRAMES + 1} are asked for"
    assert MAX_FAILED < 0.25


def test_a_part_of_the_keyframes_has_its_own_task(root: Path) -> None:
    test = ava(root)(root).test.taking(SAMPLING)  # type: ignore[attr-defined]
    part = test.part(torch.tensor([1]))
    assert part.task.detected.keys == part.task.truth.keys == test.task.detected.keys[1:]
    (one,), (two,) = (list(source.batches([torch.tensor([row])], CPU)) for source, row in ((part, 0), (test, 1)))
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.places.boxes, two.places.boxes)


def test_other_samplings_are_refused(root: Path) -> None:
    with pytest.raises(DataError, match="clips around keyframes are taken by"):
        ava(root)(root).train.taking(Dense(4))  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="repeats=2"):
        ava(root)(root).train.taking(SAMPLING, repeats=2)  # type: ignore[attr-defined]
