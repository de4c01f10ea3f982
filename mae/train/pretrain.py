"""Phase one: masked pre-training, and pictures of what it reconstructs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from mae.data.source import Augment, Batch, Source
from mae.masking import Strategy, take
from mae.model import MaskedAutoencoder, choose_attention
from mae.targets import Pictured
from mae.train.checkpoint import Checkpoints
from mae.train.loop import Fitted, Runtime, fit, order, seed_of
from mae.train.optim import Recipe

#: Most pictures that are augmented at once for a target to be fitted to.
VIEWS_AT_ONCE = 256


@dataclass(frozen=True)
class Views:
    """The run's own training views, for a target that must be fitted before the training starts.

    ``views(pictures, stream)`` is a function of the run's seed and the name of the ``stream``, so that a resumed run
    fits the same target.
    """

    source: Source
    augment: Augment
    runtime: Runtime

    def __call__(self, pictures: int, stream: str) -> Iterator[Tensor]:
        """At least ``pictures`` views in batches ``(B, C, H, W)``, augmented and normalised, on the device."""
        device, seed = self.runtime.device, seed_of(self.runtime.seed, stream, 0)
        size = min(VIEWS_AT_ONCE, len(self.source))
        ids = order(len(self.source), size, seed, 0, -(-pictures // size))
        generator = Generator(device)
        for step, batch in enumerate(self.source.batches(ids, device)):
            yield self.augment(batch.images, generator.manual_seed(seed_of(seed, "view", step)))

    @property
    def checkpoints(self) -> Checkpoints | None:
        """Where a training of the target itself keeps its checkpoints: beside those of the run, if it has any."""
        run = self.runtime.checkpoints
        return Checkpoints(run.folder / "target", run.every) if run else None


def pretrain(
    model: MaskedAutoencoder, source: Source, mask: Strategy, augment: Augment, recipe: Recipe, runtime: Runtime
) -> Fitted:
    """Train ``model`` to predict dropped patches of ``source``; masks are drawn on the device inside the step.

    A target that must be fitted first (PCA, tokens) is fitted to the run's own views and becomes part of ``model``.
    """
    grid = model.encoder.grid
    model.frames.check(mask, grid)
    views = Views(source, lambda images, generator: model.frames.target(augment(images, generator)), runtime)
    model.target = model.target.prepare(model.target_grid, views)
    choose_attention(model, runtime.device, grid.num_patches + model.encoder.prefix, runtime.precision)

    def loss_fn(batch: Batch, generator: Generator) -> Tensor:
        clips = augment(batch.images, generator)
        loss: Tensor = model(clips, mask(len(clips), grid, generator))
        return loss

    fitted = fit(model, recipe.build(model), loss_fn, source, recipe, runtime)
    if views.checkpoints:
        views.checkpoints.clear()
    return fitted


@torch.no_grad()
def reconstruct(model: MaskedAutoencoder, clips: Tensor, mask: Strategy, seed: int) -> dict[str, Tensor]:
    """Pictures ``(B, C, T, H, W)`` of one masked forward pass over sampled ``clips``, in their units.

    All show the frames that are predicted (``model.frames``). ``masked``: dropped patches grey; ``reconstruction``: the
    prediction where dropped, grey where kept; ``pasted``: the prediction among the patches that are kept. A normalised
    prediction is given the mean and the standard deviation of the clip's *visible* patches, so nothing of a dropped
    patch leaks into its picture. Principal components are drawn as the patch they stand for. Tokens have no such
    picture: the dict then lacks the last two.
    """
    grid = model.target_grid
    patches, target = model.patches(clips)
    drawn = mask(len(clips), model.encoder.grid, Generator(clips.device).manual_seed(seed))
    predicted, asked = model.frames.predicted(drawn, model.encoder.grid)
    ids = asked.drop.unsqueeze(-1).expand(-1, -1, grid.patch_dim)
    pictures = {"original": grid.unpatchify(target), "masked": grid.unpatchify(target.scatter(1, ids, 0.0))}
    if isinstance(model.target, Pictured):
        prediction = model.decoder(model.encoder(patches, drawn), drawn, predicted).float()
        prediction = model.target.picture(prediction, take(patches, drawn.keep))
        pictures["reconstruction"] = grid.unpatchify(torch.zeros_like(target).scatter(1, ids, prediction))
        pictures["pasted"] = grid.unpatchify(target.scatter(1, ids, prediction))
    return pictures
