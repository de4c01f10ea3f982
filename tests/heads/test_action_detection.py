"""What action detection reads off a map, how it treats boxes, and what it makes smaller."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from mae.data.builtin.moving_digits_boxes import ACTIONS, MovingDigitsBoxes
from mae.data.clips.sampling import Around
from mae.data.keyframes.source import TakenKeyframes
from mae.data.keyframes.table import Key, Keyframes, Task
from mae.grid import Grid
from mae.heads.action_detection import (
    GROWN,
    INWARD,
    MOST,
    OUTWARD,
    ActionDetector,
    by_item,
    grown,
    jittered,
    loss,
)
from mae.heads.average_precision import FrameAP, curves, mean_average_precision
from mae.model import Encoder, Transformer
from mae.train.loop import Runtime
from mae.world import ALONE
from tests.train.trainings import boxed

GRID = Grid.of(4, (32, 48), (2, 4, 8))
CPU = torch.device("cpu")


def detector() -> ActionDetector:
    torch.manual_seed(0)
    shape = Transformer(16, 2, 2)
    return ActionDetector(Encoder(GRID, shape, class_token=False, positions="sincos_1d"), 5, head_std=0.1)


BOXES = torch.tensor([[8.0, 4.0, 40.0, 28.0], [16.0, 8.0, 24.0, 12.0], [0.0, 0.0, 48.0, 32.0]])
ITEMS = torch.tensor([0, 1, 1])


def test_what_is_read_of_a_box_is_the_largest_of_torchvisions_bins() -> None:
    maps = torch.randn(2, 16, GRID.h, GRID.w, generator=Generator().manual_seed(0))
    cells = [BOXES[item == ITEMS] / torch.tensor([8, 4, 8, 4]) for item in range(2)]  # in cells of the map
    bins = roi_align(maps, cells, 7, 1.0, sampling_ratio=-1)
    assert torch.allclose(detector().pooled(maps, BOXES, ITEMS), bins.flatten(2).amax(2), atol=1e-6)


def test_on_a_slope_it_is_the_value_at_the_middle_of_the_last_bin() -> None:
    slope = torch.arange(GRID.w).float().expand(2, 1, GRID.h, GRID.w)
    read = detector().pooled(slope, BOXES[:2], ITEMS[:2])[:, 0]
    expected = [(left + (right - left) * 6.5 / 7) / 8 for left, right in ((8, 40), (16, 24))]
    assert read.tolist() == pytest.approx(expected, abs=1e-5)


def test_the_map_tells_where() -> None:
    """A change of the pixels changes what an encoder without blocks gives there, and nowhere else."""
    model = detector()
    model.encoder.blocks = Transformer(16, 1, 2).blocks()[:0]  # type: ignore[assignment]
    clips = torch.randn(1, 3, 4, 32, 48, generator=Generator().manual_seed(0))
    other = clips.clone()
    other[..., 2:4, 12:16, 40:48] += 1
    with torch.no_grad():
        changed = (model.dense(clips) != model.dense(other)).any(1)[0]
    assert changed.nonzero().tolist() == [[1, 3, 5]]


def test_boxes_are_moved_within_the_released_shares_and_stay_in_the_picture() -> None:
    boxes = torch.tensor([20.0, 10.0, 30.0, 20.0]).expand(200, MOST, 4)
    seen = jittered(boxes, (32, 48), Generator().manual_seed(0))
    moved = ((seen - boxes) / 10 * torch.tensor([-1, -1, 1, 1])).flatten(0, 1)
    for axis in range(2):
        for side in (axis, axis + 2):
            assert moved[:, side].max() == pytest.approx(OUTWARD[axis], abs=1e-3)
            assert moved[:, side].min() == pytest.approx(-INWARD[axis], abs=1e-3)
    edge = jittered(torch.tensor([[[0.0, 0.0, 48.0, 32.0]]]), (32, 48), Generator().manual_seed(0))
    assert edge.min() >= 0
    assert (edge[0, 0] <= torch.tensor([48, 32, 48, 32])).all()


def test_tests_make_boxes_larger_by_the_released_shares() -> None:
    assert (GROWN, OUTWARD, INWARD) == ((0.1, 0.05), (0.2, 0.1), (0.1, 0.05))
    assert grown(torch.tensor([[20.0, 10.0, 30.0, 20.0]]), (32, 48)).tolist() == [[19.5, 9.75, 30.5, 20.25]]
    assert grown(torch.tensor([[0.0, 0.0, 48.0, 32.0]]), (32, 48)).tolist() == [[0.0, 0.0, 48.0, 32.0]]


def test_boxes_are_laid_out_by_clip_and_the_first_hundred_are_kept() -> None:
    items = torch.tensor([0] * 2 + [2] * (MOST + 3))
    values = torch.arange(len(items)).float()[:, None]
    laid, there = by_item(values, items, 4)
    assert there.sum(1).tolist() == [2, 0, MOST, 0]
    assert laid[there][:, 0].tolist() == list(range(MOST + 2))


def test_the_loss_sums_over_the_boxes_of_a_clip_the_mean_over_classes() -> None:
    model = detector()
    clips = torch.randn(3, 3, 4, 32, 48, generator=Generator().manual_seed(0))
    items = torch.tensor([0, 1, 1])
    actions = (torch.rand(3, 5, generator=Generator().manual_seed(1)) < 0.4).float()
    boxes, there = by_item(BOXES, items, 3)
    found = loss(model, [clips, boxes, by_item(actions, items, 3)[0], there], Generator())
    each = F.binary_cross_entropy_with_logits(model(clips, BOXES, items), actions, reduction="none").mean(1)
    assert found.item() == pytest.approx(each.sum().item() / 3, abs=1e-6)
    none = loss(model, [clips[:1], boxes[2:], by_item(actions, items, 3)[0][2:], there[2:]], Generator())
    none.backward()  # a process all of whose clips have lost their boxes takes part with a gradient of 0
    assert none.item() == 0


def truth_as_detected(truth: Keyframes) -> Keyframes:
    return Keyframes(
        truth.keys, truth.offsets, truth.boxes, torch.zeros_like(truth.actions), truth.scores, truth.places
    )


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """What is tested on in a few of the built-in films."""
    data = MovingDigitsBoxes(train=8, test=40, size=24)
    source = data(tmp_path_factory.mktemp("cache")).test.taking(Around(16, 2))  # type: ignore[attr-defined]
    assert isinstance(source, TakenKeyframes)
    assert source.task is not None
    return source.task


def test_an_oracle_that_knows_boxes_and_actions_scores_100(task: Task) -> None:
    found = curves(task._replace(detected=truth_as_detected(task.truth)), task.truth.actions.double())
    assert len(found) == len(ACTIONS)
    assert mean_average_precision(found) == 100.0


def test_detections_of_the_built_in_films_let_an_oracle_score_nearly_as_much(task: Task) -> None:
    """It knows the actions of the true box that a detection overlaps most, and says nothing of false ones."""
    detected, truth, _ = task
    scores = torch.zeros(len(detected.boxes), len(ACTIONS), dtype=torch.float64)
    for row, key in enumerate(detected.keys):
        true = truth.of([truth.keys.index(key)])
        for box in detected.of([row]).tolist():
            apart = (truth.boxes[true] - detected.boxes[box]).abs().sum(1)
            if apart.min() < 0.3:
                scores[box] = truth.actions[true[apart.argmin()]].double()
    assert 85 < mean_average_precision(curves(task, scores)) < 100


def test_views_count_by_the_area_that_they_show_and_detections_by_their_scores() -> None:
    keys = (Key("film", 1.0),)
    boxes, offsets = torch.rand(2, 4).double(), torch.tensor([0, 2])
    none = torch.zeros(2, 3, dtype=torch.bool)
    detected = Keyframes(keys, offsets, boxes, none, torch.tensor([0.5, 1.0]).double(), ("",))
    state = FrameAP(Task(detected, detected, (0,)), CPU)
    views: list[tuple[Tensor, Tensor]] = [
        (torch.tensor([[0.2, 0.4, 0.6], [1.0, 1.0, 1.0]]), torch.tensor([30.0, 0.0])),
        (torch.tensor([[0.8, 0.4, 0.0], [0.5, 0.5, 0.5]]), torch.tensor([10.0, 0.0])),
    ]
    for probabilities, areas in views:
        state.add(torch.arange(2), probabilities, areas)
    expected = [0.5 * 0.35, 0.5 * 0.4, 0.5 * 0.45, 0.0, 0.0, 0.0]
    assert state.gathered(ALONE).flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_a_box_holds_the_ink_of_its_digit_and_nothing_else(tmp_path: Path) -> None:
    data = MovingDigitsBoxes(train=24, test=1, size=40)
    splits = data(tmp_path)
    (batch,) = splits.train.taking(Around(2, 1)).batches([torch.arange(24)], CPU)  # type: ignore[attr-defined]
    assert batch.places is not None
    held = 0
    for clip, item in zip(batch.images, range(24), strict=True):
        still = clip[:, 1].float().amin(0)
        bright = still > 200  # digits are white, photographs are dimmed below 153
        inside = torch.zeros_like(bright)
        for left, top, right, bottom in batch.places.boxes[batch.places.items == item].round().long().tolist():
            inside[top:bottom, left:right] = True
            held += int(bright[top:bottom, left:right].any())
        assert not (bright & ~inside).any()
    assert held > 0.95 * len(batch.places.boxes)  # few are so thin that compression dims them


def test_curves_and_pictures_are_kept() -> None:
    kept: dict[str, bytes] = {}
    measured = boxed(Runtime(5, keep=kept.__setitem__))
    found = json.loads(kept["precision_recall.json"])
    assert set(found) == {"a", "b", "d"}  # those that are evaluated
    for name, curve in found.items():
        assert 100 * curve["area"] == pytest.approx(measured[f"ap_{name}"])
        assert len(curve["precision"]) == len(curve["recall"]) > 10
        assert curve["recall"] == sorted(curve["recall"])
    assert measured["map"] == pytest.approx(sum(measured[f"ap_{name}"] for name in found) / 3)
    with Image.open(io.BytesIO(kept["boxes.png"])) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 3 * 192
