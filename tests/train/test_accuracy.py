"""Accuracy over whole test sets: over views of items, among some classes, with items that cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
import torch
from torch import Generator, Tensor, nn

from mae.data.source import Batch, Images, Shifted, View
from mae.errors import DataError
from mae.train.accuracy import accuracy, robustness
from mae.train.loop import Runtime

CLASSES = ("a", "b", "c", "d")


def runtime() -> Runtime:
    return Runtime(seed=0)


def plain(images: Tensor, generator: Generator) -> Tensor:
    return images


def blank(*labels: int) -> Images:
    return Images(torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8), torch.tensor(labels), CLASSES)


class Constant(nn.Module):
    """Gives every picture the same scores."""

    def __init__(self, *scores: float) -> None:
        super().__init__()
        self.scores = torch.tensor(scores)

    def forward(self, images: Tensor) -> Tensor:
        return self.scores.expand(len(images), -1)


def test_predictions_are_made_among_the_classes_that_a_set_has() -> None:
    views = (View(blank(1, 3, 3, 3), (plain,)),)
    model = Constant(9.0, 1.0, 8.0, 2.0)
    assert accuracy(model, views, runtime()) == 0
    assert accuracy(model, views, runtime(), among=torch.tensor([1, 3])) == 75


def test_the_parts_of_a_shifted_set_count_alike_whatever_their_sizes() -> None:
    parts = {"fog": (Shifted(blank(*[0] * 8), plain), Shifted(blank(1, 1), plain))}
    assert robustness(Constant(1.0, 0.0, 0.0, 0.0), parts, runtime()) == {"top1_fog": 50.0, "error_fog": 50.0}


def test_mce_divides_each_corruption_by_its_reference_before_the_mean() -> None:
    """Two corruptions of two severities: 100 and 50 wrong in 100 against 80, then 25 and 0 against 50."""
    wrong = {80.0: (blank(1, 1), blank(0, 1)), 50.0: (blank(0, 0, 0, 1), blank(0, 0))}
    parts = tuple(Shifted(images, plain, None, by) for by, pair in wrong.items() for images in pair)
    found = robustness(Constant(1.0, 0.0, 0.0, 0.0), {"fog": parts}, runtime())
    assert found["mce_fog"] == pytest.approx(100 * ((100 + 50) / (2 * 80) + (25 + 0) / (2 * 50)) / 2)
    assert found["error_fog"] == pytest.approx((100 + 50 + 25 + 0) / 4)
    unknown = (*parts, Shifted(blank(0), plain))
    assert "mce_fog" not in robustness(Constant(1.0, 0.0, 0.0, 0.0), {"fog": unknown}, runtime())


def test_accuracy_counts_every_picture_once() -> None:
    labels = [row % 4 for row in range(1002)]
    found = accuracy(Constant(1.0, 0.0, 0.0, 0.0), (View(blank(*labels), (plain,)),), runtime())
    assert found == pytest.approx(100 * 251 / 1002)


class Readings(nn.Module):
    """Gives each picture the scores written in its first pixels, times 10."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0, 0, :2] * 10


class Lossy:
    """A source that cannot read some of its items."""

    def __init__(self, whole: Images, missing: set[int]) -> None:
        self.whole, self.missing, self.classes = whole, missing, whole.classes

    def __len__(self) -> int:
        return len(self.whole)

    def batches(self, order: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        found = (torch.tensor([row for row in rows.tolist() if row not in self.missing]) for rows in order)
        return self.whole.batches((rows.long() for rows in found), device)


def readings(*scores: tuple[float, float]) -> Images:
    pixels = torch.zeros(len(scores), 3, 1, 2)
    pixels[:, 0, 0] = torch.tensor(scores)
    return Images(pixels, torch.zeros(len(scores), dtype=torch.int64), ("a", "b"))


def swapped(images: Tensor, generator: Generator) -> Tensor:
    return images.flip(-1)


def test_the_softmax_is_taken_before_the_mean_over_views() -> None:
    """One view is certain of b by its logits, two lean to a: their mean probability says a, their mean logit b."""
    leaning, certain = readings((0.2, 0.0)), readings((0.0, 3.0))
    views = (View(leaning, (plain,)), View(certain, (plain,)), View(leaning, (plain,)), View(leaning, (plain,)))
    logits = torch.stack([Readings()(view.source.pixels.float())[0] for view in views])  # type: ignore[attr-defined]
    assert (logits.mean(0).argmax(), logits.softmax(1).mean(0).argmax()) == (1, 0)
    assert accuracy(Readings(), views, runtime()) == 100


def test_all_crops_of_all_clips_are_counted() -> None:
    source = readings((1.0, 0.0), (0.0, 1.0), (0.6, 0.0))
    assert accuracy(Readings(), (View(source, (plain,)),), runtime()) == pytest.approx(200 / 3)
    assert accuracy(Readings(), (View(source, (swapped,)),), runtime()) == pytest.approx(100 / 3)
    stronger = (View(source, (plain, swapped, swapped)), View(source, (swapped,)))
    assert accuracy(Readings(), stronger, runtime()) == pytest.approx(100 / 3)


@pytest.mark.parametrize("at_once", [1, 2, 500])
def test_items_that_no_view_can_read_do_not_count_and_rows_stay_together(at_once: int) -> None:
    source = readings((1.0, 0.0), (0.0, 1.0), (1.0, 0.0), (0.0, 1.0))
    views = (View(Lossy(source, {0, 3}), (plain,)), View(Lossy(source, {3}), (plain,)))
    assert accuracy(Readings(), views, runtime(), at_once) == pytest.approx(200 / 3)


def test_a_test_set_of_which_nothing_can_be_read_is_refused() -> None:
    source = Lossy(readings((1.0, 0.0)), {0})
    with pytest.raises(DataError, match="none of the 1 items to test on can be read"):
        accuracy(Readings(), (View(source, (plain,)),), runtime())
    for nothing in ((), (View(source, ()),)):
        with pytest.raises(ValueError, match=r"splits.views needs a view, and each view an augmentation"):
            accuracy(Readings(), nothing, runtime())
