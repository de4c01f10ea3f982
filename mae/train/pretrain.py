"""Phase one: masked pre-training, and pictures of what it reconstructs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from mae.data.source import Batch, Source
from mae.masking import Strategy, take
from mae.model import MaskedAutoencoder, choose_attention
from mae.targets import PatchNormalisedPixels, Pixels
from mae.train.loop import Fitted, Runtime, fit
from mae.train.optim import Recipe

#: ``augment(images: (B, C, H, W) uint8, generator)`` to normalised float32 ``(B, C, h, w)``.
Augment = Callable[[Tensor, Generator], Tensor]


def pretrain(
    model: MaskedAutoencoder, source: Source, mask: Strategy, augment: Augment, recipe: Recipe, runtime: Runtime
) -> Fitted:
    """Train ``model`` to predict dropped patches of ``source``; masks are drawn on the device inside the step."""
    grid = model.encoder.grid
    choose_attention(model, runtime.device, grid.num_patches + model.encoder.prefix)

    def loss_fn(batch: Batch, generator: Generator) -> Tensor:
        clips = augment(batch.images, generator)
        loss: Tensor = model(clips, mask(len(clips), grid, generator))
        return loss

    return fit(model, recipe.build(model), loss_fn, source, recipe, runtime)


@torch.no_grad()
def reconstruct(model: MaskedAutoencoder, clips: Tensor, mask: Strategy, seed: int) -> dict[str, Tensor]:
    """Pictures ``(B, C, T, H, W)`` of one masked forward pass, in the units of ``clips``.

    ``masked``: dropped patches grey; ``reconstruction``: the prediction where dropped, grey where kept;
    ``pasted``: the prediction among the visible patches. A patch-normalised prediction is given the mean and the
    standard deviation of the clip's *visible* patches, so nothing of a dropped patch leaks into its picture.
    Targets that are not pixels have no such picture: the dict then lacks the last two.
    """
    grid = model.encoder.grid
    patches = grid.patchify(clips)
    drawn = mask(len(clips), grid, Generator(clips.device).manual_seed(seed))
    ids = drawn.drop.unsqueeze(-1).expand(-1, -1, grid.patch_dim)
    pictures = {"original": grid.unpatchify(patches), "masked": grid.unpatchify(patches.scatter(1, ids, 0.0))}
    if isinstance(model.target, Pixels | PatchNormalisedPixels):
        prediction = model.decoder(model.encoder(patches, drawn), drawn).float()
        if isinstance(model.target, PatchNormalisedPixels):
            visible = take(patches, drawn.keep)
            std, mean = torch.std_mean(visible, dim=(1, 2), keepdim=True)
            prediction = prediction * std + mean
        grey = torch.zeros_like(patches)
        pictures["reconstruction"] = grid.unpatchify(grey.scatter(1, ids, prediction))
        pictures["pasted"] = grid.unpatchify(patches.scatter(1, ids, prediction))
    return pictures
