"""Fine-tuning: all of an encoder, the last of its blocks, or one that has only random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from timm.utils import ModelEmaV3
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from mae.data.source import Augment, Batch, Splits
from mae.footprint import Activations, Way, linear_saved, mlp_saved, norm_saved
from mae.heads import Head
from mae.heads.classifier import Classifier, set_drop_path
from mae.model import Encoder, choose_attention
from mae.train.accuracy import accuracy, clips_at_once, robustness
from mae.train.loop import Runtime, fit
from mae.train.optim import Recipe
from mae.train.parts import Objective, check_shares
from mae.train.regularise import Mix, RandomErasing


@dataclass(frozen=True)
class FineTune(Head):
    """All of the encoder is tuned (MAE Table 9, VideoMAE Table 10); from random weights, it is trained (Table 11).

    ``tuned_blocks`` makes it partial (MAE Sec. 4.3, Fig. 9; see Classifier). ``mixup`` and ``cutmix`` are the
    parameters of Mix, which draws ``mix_draws`` times a batch, once for each of as many equal groups. ``erasing`` is
    the probability of RandomErasing, 0 for without. ``ema`` is the decay of averaged weights, which are then those
    tested. ``dropout`` and ``tune_positions`` are those of Classifier. RandAugment belongs to ``train_augment``. The
    model is tested on the shifted test sets of the data as it is, without further training (Table 13; see
    ``robustness``).
    """

    tests_shifted: ClassVar[bool] = True

    recipe: Recipe
    pooling: str = "mean"
    drop_path: float = 0.0
    label_smoothing: float = 0.0
    head_std: float = 2e-5
    tuned_blocks: float | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    erasing: float = 0.0
    ema: float | None = None
    dropout: float = 0.0
    tune_positions: bool = True
    mix_draws: int = 1

    def __post_init__(self) -> None:
        for name in ("drop_path", "label_smoothing", "erasing", "dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is outside [0, 1]")
        for name in ("mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} is negative; choose 0 for without")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema={self.ema} is outside (0, 1); choose null for without")
        if self.mix_draws < 1:
            raise ValueError(f"mix_draws={self.mix_draws}: a batch is drawn for at least once")
        if self.mixes:
            check_shares(self.recipe.batch_size, groups=self.mix_draws)

    @property
    def mixes(self) -> bool:
        """Whether pictures are mixed with one another."""
        return bool(self.mixup or self.cutmix)

    def classifier(self, encoder: Encoder, classes: int) -> Classifier:
        """Put a fresh head on the encoder, and drop path in its blocks."""
        set_drop_path(encoder, self.drop_path)
        return Classifier(
            encoder,
            classes,
            pooling=self.pooling,
            tuned_blocks=self.tuned_blocks,
            dropout=self.dropout,
            head_std=self.head_std,
            tune_positions=self.tune_positions,
        )

    def __call__(self, encoder: Encoder, splits: Splits, train_augment: Augment, runtime: Runtime) -> dict[str, float]:
        classes = len(splits.train.classes)
        model = self.classifier(encoder, classes).to(runtime.device)
        choose_attention(model, runtime.device, encoder.length(), runtime.precision)
        average = None if self.ema is None else ModelEmaV3(model, decay=self.ema)
        erase, mix = RandomErasing(self.erasing), Mix(self.mixup, self.cutmix, self.mix_draws)

        def prepare(batch: Batch, generator: Generator) -> tuple[Tensor, Tensor]:
            images, targets = train_augment(batch.images, generator), batch.labels
            if self.erasing:
                images = erase(images, generator)
            if self.mixes:
                images, targets = mix(images, targets, classes, generator)
            return images, targets

        def loss(model: nn.Module, prepared: Sequence[Tensor], generator: Generator) -> Tensor:
            images, targets = prepared
            return F.cross_entropy(model(images).float(), targets, label_smoothing=self.label_smoothing)

        objective = Objective(prepare, loss, groups=self.mix_draws if self.mixes else None)
        optimizer = self.recipe.build(model, model.layer_of, len(encoder.blocks) + 1)
        fitted = fit(model, optimizer, objective, splits.train, self.recipe, runtime, average)
        tested = model if average is None else average.module
        top1 = accuracy(tested, splits.views, runtime, clips_at_once(encoder.grid))
        shifted = robustness(tested, splits.shifts, runtime)
        return {
            "top1": top1,
            **shifted,
            "seconds": fitted.seconds,
            "samples_per_second": fitted.samples_per_second,
        }

    @property
    def averages(self) -> bool:
        return self.ema is not None

    def sample_flops(self, encoder: Encoder) -> float:
        """A frozen part costs its forward pass, a trained one three; no gradient reaches the pixels."""
        forward, blocks, tokens = encoder.flops(), encoder.shape, encoder.length()
        if self.tuned_blocks is None:
            return 3 * forward - encoder.embedding_flops()
        if self.tuned_blocks == 0.5:
            return forward + 2 * blocks.mlp_flops(tokens)
        return forward + 2 * blocks.flops(tokens) * self.tuned_blocks / blocks.depth

    def activations(self, encoder: Encoder, way: Way) -> Activations:
        """A frozen part keeps nothing, and pooling turns the tokens into one vector."""
        shape, tokens, tuned = encoder.shape, encoder.length(), self.tuned_blocks
        stack = shape.activations(tokens, way, None if tuned is None else int(tuned))
        saved = stack.saved + norm_saved(1 if self.pooling == "mean" else tokens, shape.width)
        if tuned is None:
            saved += linear_saved(encoder.grid.num_patches, encoder.grid.patch_dim, way)
        elif tuned == 0.5:
            hidden = int(shape.mlp_ratio * shape.width)
            saved += norm_saved(tokens, shape.width) + mlp_saved(tokens, shape.width, hidden, way)
        return Activations(saved, stack.working)
