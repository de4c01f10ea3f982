"""How often a model is right: predictions over whole test sets, averaged over the views of an item."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import truediv
from statistics import fmean

import torch
from torch import Generator, Tensor, nn

from mae.data.source import Shifted, View
from mae.errors import DataError
from mae.grid import Grid
from mae.train.loop import Runtime

#: Pictures that are tested at once.
AT_ONCE = 500


def clips_at_once(grid: Grid) -> int:
    """Count how many clips are tested at once, so that they hold as many patches as ``AT_ONCE`` pictures."""
    return max(1, AT_ONCE // grid.t)


def robustness(model: nn.Module, shifts: Mapping[str, Sequence[Shifted]], runtime: Runtime) -> dict[str, float]:
    """Give each shifted test set ``top1_NAME``, in percent, the mean over its parts, and ``error_NAME``, 100 less that.

    Where every part has a reference error, ``mce_NAME`` is the mean over parts of their errors, each in percent of its
    reference. With AlexNet's mean error of each corruption, and as many severities of each, that is the mCE of
    ImageNet-C (1903.12261, Sec. 4.3): a corruption's errors, summed over severities, over AlexNet's sum, then the mean.
    """
    found: dict[str, float] = {}
    for name, parts in shifts.items():
        errors = [
            100.0 - accuracy(model, (View(part.source, (part.augment,)),), runtime, among=part.among) for part in parts
        ]
        found |= {f"top1_{name}": 100.0 - fmean(errors), f"error_{name}": fmean(errors)}
        references = [part.reference for part in parts if part.reference is not None]
        if len(references) == len(parts):
            found[f"mce_{name}"] = 100.0 * fmean(map(truediv, errors, references))
    return found


@torch.no_grad()
def accuracy(
    model: nn.Module,
    views: Sequence[View],
    runtime: Runtime,
    at_once: int = AT_ONCE,
    among: Tensor | None = None,
) -> float:
    """Measure top-1 accuracy in percent over a test set, each item predicted from all ``views`` of it together.

    The softmax of every view is taken before the mean over them (VideoMAE, released evaluation). ``among: (K,)`` int64
    restricts predictions to these classes, None to none. An item that no view can read counts for nothing.
    """
    if not views or not all(view.augments for view in views):
        raise ValueError("there is nothing to test on: splits.views needs a view, and each view an augmentation")
    model.eval()
    chosen = None if among is None else among.to(runtime.device)
    items = len(views[0].source)
    labels = torch.full((items,), -1, device=runtime.device)
    seen = torch.zeros(items, dtype=torch.bool, device=runtime.device)
    shares: Tensor | None = None
    world = runtime.world
    for source, augments in views:
        for batch in source.batches(world.share(in_order(items, at_once)), runtime.device):
            rows = batch.rows.to(runtime.device)
            labels[rows], seen[rows] = batch.labels, True
            for augment in augments:
                with runtime.autocast():
                    logits = model(augment(batch.images, Generator(runtime.device)))
                logits = logits.float() if chosen is None else logits[:, chosen].float()
                if shares is None:
                    shares = logits.new_zeros(items, logits.shape[1])
                shares[rows] += logits.softmax(1)
    if world.size > 1:  # each item was seen by one process, so that sums are what that one has
        width = world.most(0 if shares is None else shares.shape[1])
        shares = world.sum(torch.zeros(items, width, device=runtime.device) if shares is None else shares)
        labels, seen = world.sum(labels + 1) - 1, world.sum(seen.int()).bool()
    if shares is None or not seen.any():
        raise DataError(f"none of the {items} items to test on can be read; check the data of the test split.")
    predicted = shares.argmax(1) if chosen is None else chosen[shares.argmax(1)]
    return percent((predicted == labels)[seen])


def percent(hits: Tensor) -> float:
    """Compute the share of True among ``hits: (n,)``, in percent."""
    return 100.0 * hits.sum().item() / len(hits)


def in_order(samples: int, batch_size: int) -> Iterator[Tensor]:
    """Yield all indices once, in batches, of which the last is shorter."""
    return iter(torch.split(torch.arange(samples), batch_size))
