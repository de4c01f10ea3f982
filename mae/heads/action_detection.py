"""Action detection (VideoMAE Sec. 4.4, Table 12): who does what in a keyframe, told from a map of its clip."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from timm.layers import trunc_normal_
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from mae.constants import constant
from mae.data.augment.places import augmented
from mae.data.keyframes.source import KeyframeSource
from mae.data.source import Augment, Batch, Places, Splits
from mae.draws import uniform
from mae.errors import DataError
from mae.footprint import Activations, Way, linear_saved, norm_saved
from mae.heads import Head
from mae.heads.average_precision import FrameAP, curves, mean_average_precision
from mae.heads.classifier import Readout, set_drop_path
from mae.heads.drawn import sheet
from mae.model import Encoder, choose_attention
from mae.train.accuracy import clips_at_once, in_order
from mae.train.loop import Runtime, fit
from mae.train.optim import Recipe
from mae.train.parts import Objective

#: Keyframes that are drawn.
PICTURED = 9
#: Bins of a box, down and across, of which the largest value is taken.
BINS = 7
#: Most boxes of a keyframe that are trained on, as released.
MOST = 100
#: How far, in shares of a box, training moves its sides outward and inward: left and right, top and bottom. Tests make
#: a box larger by the shares ``GROWN`` of its width and height. Both are the released code's.
OUTWARD, INWARD, GROWN = (0.2, 0.1), (0.1, 0.05), (0.1, 0.05)


class ActionDetector(Readout):
    """A linear layer reads the actions in boxes: ``model(clips, boxes, items)`` is ``(N, classes)`` logits.

    The encoder's map, after its final norm, is averaged over time; of each box, RoIAlign takes ``BINS`` x ``BINS``
    values of every channel, and the largest is read. ``boxes: (N, 4)`` are in pixels, ``items: (N,)`` the clips that
    they lie in.
    """

    def __init__(self, encoder: Encoder, classes: int, *, head_std: float = 2e-5) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.shape.width, classes)
        trunc_normal_(self.head.weight, std=head_std)
        nn.init.zeros_(self.head.bias)

    def features(self, clips: Tensor) -> Tensor:
        """Encode ``clips`` to maps ``(B, D, h, w)``, the means over time."""
        return self.dense(clips).mean(2)

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits

    def pooled(self, maps: Tensor, boxes: Tensor, items: Tensor) -> Tensor:
        """Read ``(N, D)`` off maps ``(B, D, h, w)``: of each channel the largest value of the bins of each box."""
        rois = torch.cat([items[:, None].to(boxes.dtype), boxes], 1)
        height, width = self.grid.patch[1:]
        scale = constant((1, height / width, 1, height / width, 1), rois.device)
        bins: Tensor = roi_align(maps.float(), rois * scale, BINS, 1 / height, sampling_ratio=-1)
        return bins.amax((2, 3))

    def forward(self, clips: Tensor, boxes: Tensor, items: Tensor) -> Tensor:  # type: ignore[override]
        return self.classify(self.pooled(self.features(clips), boxes, items))


@dataclass(frozen=True)
class ActionDetection(Head):
    """All of the encoder is tuned to tell the actions in boxes that are given, several at once (VideoMAE Table 12).

    Training takes the true boxes, moves their sides at random, and sums binary cross-entropy over the boxes of a
    keyframe, the mean over classes of each. Testing takes detections; how sure an action is counts times how sure the
    detection is, and over the views of a clip by the area that they show of the box. The metric is AVA's (``FrameAP``).
    """

    reads_boxes: ClassVar[bool] = True

    recipe: Recipe
    drop_path: float = 0.0
    head_std: float = 2e-5

    def __post_init__(self) -> None:
        if not 0 <= self.drop_path <= 1:
            raise ValueError(f"drop_path={self.drop_path} is outside [0, 1]")

    def classifier(self, encoder: Encoder, classes: int) -> ActionDetector:
        """Put a fresh detector on the encoder, and drop path in its blocks."""
        set_drop_path(encoder, self.drop_path)
        return ActionDetector(encoder, classes, head_std=self.head_std)

    def __call__(self, encoder: Encoder, splits: Splits, train_augment: Augment, runtime: Runtime) -> dict[str, float]:
        model = self.classifier(encoder, len(splits.train.classes)).to(runtime.device)
        choose_attention(model, runtime.device, encoder.length(), runtime.precision)

        def prepare(batch: Batch, generator: Generator) -> Sequence[Tensor]:
            seen = augmented(batch, train_augment, generator)
            places = places_of(seen)
            boxes, there = by_item(places.boxes, places.items, len(seen.images))
            actions, _ = by_item(cast(Tensor, places.labels).float(), places.items, len(seen.images))
            return seen.images, jittered(boxes, seen.images.shape[-2:], generator), actions, there

        optimizer = self.recipe.build(model, model.layer_of, len(encoder.blocks) + 1)
        fitted = fit(model, optimizer, Objective(prepare, loss), splits.train, self.recipe, runtime)
        state, names = self.test(model, splits, runtime), splits.train.classes
        scores = state.gathered(runtime.world)
        found = curves(state.task, scores)
        runtime.keep(
            "precision_recall.json", json.dumps({names[action]: c.points() for action, c in found.items()}).encode()
        )
        source = splits.views[0].source
        shown = next(iter(source.batches([torch.arange(min(PICTURED, len(source)))], runtime.device)))
        if len(shown.rows):
            middle = shown.images.shape[-3] // 2
            runtime.keep("boxes.png", sheet(shown, middle, scores[state.task.detected.of(shown.rows.tolist())], names))
        return {
            "map": mean_average_precision(found),
            **{f"ap_{short(names[action])}": 100.0 * curve.area for action, curve in found.items()},
            "seconds": fitted.seconds,
            "samples_per_second": fitted.samples_per_second,
        }

    @torch.no_grad()
    def test(self, model: ActionDetector, splits: Splits, runtime: Runtime) -> FrameAP:
        """Let ``model`` say what it sees in the detections of the keyframes to test on."""
        model.eval()
        task = cast(KeyframeSource, splits.views[0].source).task
        if task is None:
            raise DataError("there are no detections to test on; give a data set that states them.")
        state = FrameAP(task, runtime.device)
        for source, augments in splits.views:
            asked = in_order(len(source), clips_at_once(model.grid))
            for batch in source.batches(runtime.world.share(asked), runtime.device):
                if not len(batch.rows):
                    continue
                ids = task.detected.of(batch.rows.tolist()).to(runtime.device)
                for augment in augments:
                    seen = augmented(batch, augment, Generator(runtime.device))
                    places = places_of(seen)
                    with runtime.autocast():
                        logits = model(seen.images, grown(places.boxes, seen.images.shape[-2:]), places.items)
                    state.add(ids, logits.float().sigmoid(), area(places.boxes))
        return state

    def sample_flops(self, encoder: Encoder) -> float:
        """The encoder alone: what boxes cost besides is little."""
        return 3 * encoder.flops() - encoder.embedding_flops()

    def activations(self, encoder: Encoder, way: Way) -> Activations:
        """The map is kept once more, for its mean over time."""
        shape, tokens = encoder.shape, encoder.length()
        stack = shape.activations(tokens, way)
        saved = stack.saved + norm_saved(tokens, shape.width)
        saved += linear_saved(encoder.grid.num_patches, encoder.grid.patch_dim, way)
        return Activations(saved, stack.working)


def loss(model: nn.Module, prepared: Sequence[Tensor], generator: Generator) -> Tensor:
    """Sum binary cross-entropy over the boxes of a clip, each the mean over classes; the mean over clips."""
    clips, boxes, actions, there = prepared
    logits = model(clips, boxes[there], there.nonzero()[:, 0])
    each = F.binary_cross_entropy_with_logits(logits.float(), actions[there], reduction="sum")
    return each / (actions.shape[-1] * len(clips))


def places_of(batch: Batch) -> Places:
    """Return the boxes of a batch; DataError for a source that has none."""
    if batch.places is None or batch.places.labels is None:
        raise DataError(
            "action detection needs boxes and their actions; choose evaluate_data=moving_digits_boxes, or ava."
        )
    return batch.places


def by_item(values: Tensor, items: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Lay out ``values: (N, ...)`` of ``items: (N,)``, ascending, as ``(count, MOST, ...)``, and say which are there.

    Of an item with more than ``MOST`` the first are kept.
    """
    place = torch.arange(len(items), device=items.device) - torch.searchsorted(items, items)
    kept = place < MOST
    laid = values.new_zeros(count, MOST, *values.shape[1:])
    laid[items[kept], place[kept]] = values[kept]
    there = torch.zeros(count, MOST, dtype=torch.bool, device=items.device)
    there[items[kept], place[kept]] = True
    return laid, there


def jittered(boxes: Tensor, size: Sequence[int], generator: Generator) -> Tensor:
    """Move the sides of ``boxes: (B, K, 4)`` by shares of them, and cut them at the border of pictures of ``size``."""
    drawn = uniform(generator, *boxes.shape)
    lengths = (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2)
    outward, inward = (constant(shares * 2, boxes.device) for shares in (OUTWARD, INWARD))
    sign = constant((-1, -1, 1, 1), boxes.device)
    return cut(boxes + sign * lengths * (drawn * (outward + inward) - inward), size)


def grown(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Make ``boxes: (N, 4)`` larger by the shares ``GROWN``, half of it on each side, and cut them at the border."""
    margin = (boxes[:, 2:] - boxes[:, :2]) * constant(GROWN, boxes.device) / 2
    return cut(boxes + torch.cat([-margin, margin], 1), size)


def cut(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Cut boxes at the border of pictures of ``size`` (h, w)."""
    limit = constant((size[1], size[0], size[1], size[0]), boxes.device)
    return torch.minimum(boxes.clamp(min=0), limit)


def area(boxes: Tensor) -> Tensor:
    """Compute the areas of ``boxes: (N, 4)``."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def short(name: str) -> str:
    """A class name as part of the name of a metric: letters and digits, with underscores between."""
    return "_".join("".join(c if c.isalnum() else " " for c in name).split())
