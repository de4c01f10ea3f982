"""Reconstruction targets: what the decoder is asked to predict for each dropped patch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mae.grid import Grid
from mae.masking import Mask, take

if TYPE_CHECKING:
    from mae.train.pretrain import Views

log = logging.getLogger(__name__)

#: The losses that compare real numbers, and the one that compares codes.
REGRESSION, CLASSIFICATION = ("mse", "l1", "smooth_l1"), ("cross_entropy",)


class Target(Protocol):
    """What to predict, the width of the head that predicts it, and the losses that can compare the two."""

    losses: ClassVar[tuple[str, ...]]

    def __call__(self, patches: Tensor, mask: Mask) -> Tensor:
        """All ``patches: (B, N, P)`` float32 to the values ``(B, M, width)`` to predict for the dropped ones."""
        ...

    def width(self, grid: Grid) -> int:
        """Outputs per token of the decoder's last layer."""
        ...

    def prepare(self, grid: Grid, views: Views) -> Target:
        """The target ready for use: fitted to ``views`` where it has something to learn, otherwise itself."""
        ...


@runtime_checkable
class Pictured(Protocol):
    """A target of which a prediction can be drawn."""

    def picture(self, prediction: Tensor, visible: Tensor) -> Tensor:
        """``prediction: (B, M, width)`` as patches ``(B, M, P)``; what it lacks comes from ``visible: (B, K, P')``.

        The visible patches are those that the encoder saw, so that nothing of a dropped patch leaks into its picture.
        """
        ...


class PixelTarget:
    """What targets made of a patch's own values share: one output per value, nothing to learn."""

    losses: ClassVar[tuple[str, ...]] = REGRESSION

    def width(self, grid: Grid) -> int:
        return grid.patch_dim


@dataclass(frozen=True)
class Pixels(PixelTarget):
    """The pixels themselves, as the encoder sees them (MAE Table 1d, w/o norm)."""

    def prepare(self, grid: Grid, views: Views) -> Pixels:
        return self

    def __call__(self, patches: Tensor, mask: Mask) -> Tensor:
        return take(patches, mask.drop)

    def picture(self, prediction: Tensor, visible: Tensor) -> Tensor:
        return prediction


@dataclass(frozen=True)
class PatchNormalisedPixels(PixelTarget):
    """Pixels less their patch's mean, over its standard deviation (MAE Table 1d, w/ norm).

    Statistics run over all values of a patch, colours together; the variance is unbiased, eps 1e-6 as released.
    """

    eps: float = 1e-6

    def prepare(self, grid: Grid, views: Views) -> PatchNormalisedPixels:
        return self

    def __call__(self, patches: Tensor, mask: Mask) -> Tensor:
        dropped = take(patches, mask.drop)
        variance, mean = torch.var_mean(dropped, dim=-1, keepdim=True)
        return (dropped - mean) / (variance + self.eps).sqrt()

    def picture(self, prediction: Tensor, visible: Tensor) -> Tensor:
        std, mean = torch.std_mean(visible, dim=(1, 2), keepdim=True)
        return prediction * std + mean


@dataclass(frozen=True)
class ChannelNormalisedPixels(PixelTarget):
    """Pixels less the mean of their cube and colour channel, over its standard deviation (VideoMAE, as released).

    Statistics run over the ``pt * ph * pw`` values that a cube has of a channel; the deviation is unbiased, and ``eps``
    is added to it on pixels in [0, 1]. Patches arrive normalised by ``std``, one number for each channel, as
    ``mae.data.augment.color.Normalise`` does.
    """

    std: Sequence[float]
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if not self.std or not all(s > 0 for s in self.std):
            raise ValueError(f"std={self.std} must be a positive number for each channel")

    def width(self, grid: Grid) -> int:
        if grid.channels != len(self.std):
            raise ValueError(f"std={self.std} is for {len(self.std)} channels and the clips have {grid.channels}")
        if grid.patch_dim == grid.channels:
            raise ValueError("a cube of one pixel has no standard deviation; choose a larger patch")
        return grid.patch_dim

    def prepare(self, grid: Grid, views: Views) -> ChannelNormalisedPixels:
        return self

    def __call__(self, patches: Tensor, mask: Mask) -> Tensor:
        # channels come last in a patch: (B, M, pt ph pw C) -> (B, M, pt ph pw, C)
        dropped = take(patches, mask.drop)
        cubes = dropped.view(*dropped.shape[:2], -1, len(self.std))
        std, mean = torch.std_mean(cubes, dim=2, keepdim=True)
        return ((cubes - mean) / (std + self.eps / std.new_tensor(list(self.std)))).flatten(2)

    def picture(self, prediction: Tensor, visible: Tensor) -> Tensor:
        channels = len(self.std)
        # (B, K, pt ph pw C) -> (B, K pt ph pw, C)
        std, mean = torch.std_mean(visible.reshape(len(visible), -1, channels), dim=1)
        values = prediction.view(*prediction.shape[:2], -1, channels)
        return (values * std[:, None, None] + mean[:, None, None]).flatten(2)


@dataclass(frozen=True)
class PCA:
    """Coefficients of a patch on the leading principal components of patch space (MAE Table 1d, PCA).

    ``share`` of the components are kept: 96 of 768 as published is 0.125. They are fitted to the patches of about
    ``pictures`` training views of the run itself.
    """

    share: float = 0.125
    pictures: int = 4096

    losses: ClassVar[tuple[str, ...]] = REGRESSION

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or self.pictures < 2:
            raise ValueError(f"PCA: share={self.share} must be in (0, 1] and pictures={self.pictures} at least 2")

    def width(self, grid: Grid) -> int:
        return max(1, round(self.share * grid.patch_dim))

    def __call__(self, patches: Tensor, mask: Mask) -> Tensor:
        raise _not_ready(self)

    def prepare(self, grid: Grid, views: Views) -> FittedPCA:
        """Fit by the eigenvectors of the patches' covariance, summed in float64 batch by batch."""
        device = views.runtime.device
        total = torch.zeros(grid.patch_dim, dtype=torch.float64, device=device)
        products = torch.zeros(grid.patch_dim, grid.patch_dim, dtype=torch.float64, device=device)
        count = 0
        for clips in views(self.pictures, "pca"):
            patches = grid.patchify(clips).flatten(0, 1).double()
            total += patches.sum(0)
            products += patches.T @ patches
            count += len(patches)
        mean = total / count
        covariance = products / count - mean.outer(mean)
        # ascending eigenvalues; on the CPU, so that every device gets the same basis
        leading = torch.linalg.eigh(covariance.cpu()).eigenvectors.flip(1).T[: self.width(grid)]
        # the sign of an eigenvector is free: make its largest entry positive
        largest = leading.gather(1, leading.abs().argmax(1, keepdim=True))
        return FittedPCA(mean.float().cpu(), (leading * largest.sign()).float()).to(device)


class FittedPCA(nn.Module):
    """Patches in the orthonormal ``basis: (K, P)`` around ``mean: (P,)``; saved with the model that predicts them."""

    losses: ClassVar[tuple[str, ...]] = REGRESSION
    mean: Tensor
    basis: Tensor

    def __init__(self, mean: Tensor, basis: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)

    def width(self, grid: Grid) -> int:
        return len(self.basis)

    def prepare(self, grid: Grid, views: Views) -> FittedPCA:
        return self

    def forward(self, patches: Tensor, mask: Mask) -> Tensor:
        return (take(patches, mask.drop) - self.mean) @ self.basis.T

    def inverse(self, coefficients: Tensor) -> Tensor:
        """``coefficients: (B, M, K)`` to the patches ``(B, M, P)`` that they stand for."""
        return coefficients @ self.basis + self.mean

    def picture(self, prediction: Tensor, visible: Tensor) -> Tensor:
        return self.inverse(prediction)


class Tokenizer(Protocol):
    """Something that gives each patch one of ``codebook`` discrete codes, once it is ready."""

    @property
    def codebook(self) -> int: ...

    def prepare(self, grid: Grid, views: Views) -> nn.Module:
        """A module on the device of ``views``: ``patches: (B, N, P)`` float32 to codes ``(B, N)`` int64."""
        ...


@dataclass(frozen=True)
class Tokens:
    """The code that ``tokenizer`` gives to a patch (MAE Table 1d, dVAE token; BEiT): one logit per code."""

    tokenizer: Tokenizer

    losses: ClassVar[tuple[str, ...]] = CLASSIFICATION

    def width(self, grid: Grid) -> int:
        return self.tokenizer.codebook

    def __call__(self, patches: Tensor, mask: Mask) -> Tensor:
        raise _not_ready(self)

    def prepare(self, grid: Grid, views: Views) -> FittedTokens:
        """Train or load the tokenizer, and look how many of its codes the run's own pictures use."""
        tokenizer = self.tokenizer.prepare(grid, views)
        with torch.no_grad():
            codes = torch.cat([tokenizer(grid.patchify(clips)) for clips in views(512, "codes")])
        used = perplexity(codes, self.tokenizer.codebook)
        log.info("the training pictures use %.1f of %d codes evenly (perplexity)", used, self.tokenizer.codebook)
        if used < 2:
            log.warning("the tokenizer has collapsed to a code or two, so its tokens say nothing; train it longer")
        return FittedTokens(tokenizer, self.tokenizer.codebook, used)


class FittedTokens(nn.Module):
    """Codes by a frozen ``tokenizer``; ``perplexity`` is the number of codes in use on the run's own pictures."""

    losses: ClassVar[tuple[str, ...]] = CLASSIFICATION

    def __init__(self, tokenizer: nn.Module, codebook: int, perplexity: float) -> None:
        super().__init__()
        self.tokenizer = tokenizer.eval().requires_grad_(False)
        self.codebook, self.perplexity = codebook, perplexity

    def width(self, grid: Grid) -> int:
        return self.codebook

    def prepare(self, grid: Grid, views: Views) -> FittedTokens:
        return self

    @torch.no_grad()
    def forward(self, patches: Tensor, mask: Mask) -> Tensor:
        # a code depends on the neighbours of its patch, so all patches are encoded
        codes: Tensor = self.tokenizer(patches)
        return codes.gather(1, mask.drop)


def perplexity(codes: Tensor, codebook: int) -> float:
    """How many codes are in use: exp of the entropy of their frequencies, 1 (collapsed) to ``codebook`` (even)."""
    shares = torch.bincount(codes.flatten(), minlength=codebook).double() / codes.numel()
    return float(torch.special.entr(shares).sum().exp())


def _not_ready(target: PCA | Tokens) -> RuntimeError:
    name = type(target).__name__
    return RuntimeError(f"the target {name} has not been fitted; call prepare first, as pretrain does")


def cross_entropy(logits: Tensor, codes: Tensor) -> Tensor:
    """Mean over patches of the cross-entropy of ``logits: (B, M, codebook)`` with ``codes: (B, M)`` int64."""
    return F.cross_entropy(logits.flatten(0, 1), codes.flatten())


#: Loss functions by name: each takes a prediction and a target and returns a scalar.
#: Every patch has equally many values, so one mean equals MAE's mean over pixels, then over dropped patches.
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "smooth_l1": F.smooth_l1_loss,
    "cross_entropy": cross_entropy,
}


def loss_for(target: Target, name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss called ``name``; ValueError if there is none, or if it cannot compare what ``target`` predicts."""
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}; choose one of {', '.join(LOSSES)}")
    if name not in target.losses:
        raise ValueError(
            f"the loss {name} cannot compare the target {type(target).__name__}; "
            f"choose objective={' or '.join(target.losses)}"
        )
    return LOSSES[name]
