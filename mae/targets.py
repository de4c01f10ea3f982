"""Reconstruction targets: what the decoder is asked to predict for each dropped patch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mae.constants import constant
from mae.flops import linear_flops
from mae.grid import Grid
from mae.masking import Mask, take
from mae.train.views import Views

log = logging.getLogger(__name__)

#: The losses that compare real numbers, and the one that compares codes.
REGRESSION, CLASSIFICATION = ("mse", "l1", "smooth_l1"), ("cross_entropy",)


class Target(Protocol):
    """It says what to predict, how wide the layer is that predicts it, and which losses compare the two."""

    losses: ClassVar[tuple[str, ...]]

    def __call__(self, patches: Tensor, grid: Grid, mask: Mask) -> Tensor:
        """Return ``(B, M, width)`` to predict for the dropped of ``patches: (B, N, P)`` float32, cut by ``grid``.

        All patches are given with their grid, so that a target may depend on the neighbours of a patch.
        """
        ...

    def width(self, grid: Grid) -> int:
        """Count the outputs for each token of the layer that predicts; ValueError if ``grid`` has no such target."""
        ...

    def prepare(self, grid: Grid, views: Views) -> Target:
        """Make the target ready for use: it is fitted to ``views`` where it has something to learn."""
        ...

    def flops(self, grid: Grid, dropped: int) -> float:
        """Count what it costs to compute the target of one sample of which ``dropped`` patches are asked for."""
        ...


@runtime_checkable
class Pictured(Protocol):
    """A prediction of such a target can be drawn. ``note`` says how, where a reader of the picture must know."""

    note: ClassVar[str]

    def picture(self, prediction: Tensor, visible: Tensor) -> Tensor:
        """Draw ``prediction: (B, M, width)`` as patches ``(B, M, P)``; ``visible: (B, K, P')`` gives what it lacks.

        The visible patches are those that the encoder saw, so that nothing of a dropped patch leaks into its picture.
        """
        ...


Self = TypeVar("Self", bound="PixelTarget")

#: What a picture of normalised pixels owes to the patches that the encoder saw.
VISIBLE_STATISTICS = "mean and std of the visible patches"


class PixelTarget:
    """It has one output for each value of a patch, and nothing to learn: new targets may begin here."""

    losses: ClassVar[tuple[str, ...]] = REGRESSION

    def width(self, grid: Grid) -> int:
        """There are as many outputs as a patch has values."""
        return grid.patch_dim

    def prepare(self: Self, grid: Grid, views: Views) -> Self:
        """It is ready as it is."""
        return self

    def flops(self, grid: Grid, dropped: int) -> float:
        """It multiplies no matrices."""
        return 0.0


@dataclass(frozen=True)
class Pixels(PixelTarget):
    """The pixels themselves are predicted, as the encoder sees them (MAE Table 1d, w/o norm)."""

    note: ClassVar[str] = ""

    def __call__(self, patches: Tensor, grid: Grid, mask: Mask) -> Tensor:
        return take(patches, mask.drop)

    def picture(self, prediction: Tensor, visible: Tensor) -> Tensor:
        return prediction


@dataclass(frozen=True)
class PatchNormalisedPixels(PixelTarget):
    """Pixels are taken less their patch's mean, over its standard deviation (MAE Table 1d, w/ norm).

    Statistics run over all values of a patch, colours together; the variance is unbiased, eps 1e-6 as released.
    """

    eps: float = 1e-6

    note: ClassVar[str] = VISIBLE_STATISTICS

    def __call__(self, patches: Tensor, grid: Grid, mask: Mask) -> Tensor:
        dropped = take(patches, mask.drop)
        variance, mean = torch.var_mean(dropped, dim=-1, keepdim=True)
        return (dropped - mean) / (variance + self.eps).sqrt()

    def picture(self, prediction: Tensor, visible: Tensor) -> Tensor:
        std, mean = torch.std_mean(visible, dim=(1, 2), keepdim=True)
        return prediction * std + mean


@dataclass(frozen=True)
class ChannelNormalisedPixels(PixelTarget):
    """Pixels are taken less the mean of their cube and channel, over its standard deviation (VideoMAE, as released).

    Statistics run over the ``pt * ph * pw`` values that a cube has of a channel; the deviation is unbiased, and ``eps``
    is added to it on pixels in [0, 1]. Patches arrive normalised by ``std``, one number for each channel, as
    ``mae.data.augment.color.Normalise`` does.
    """

    std: Sequence[float]
    eps: float = 1e-6

    note: ClassVar[str] = VISIBLE_STATISTICS

    def __post_init__(self) -> None:
        if not self.std or not all(s > 0 for s in self.std):
            raise ValueError(f"std={self.std} must be a positive number for each channel")

    def width(self, grid: Grid) -> int:
        if grid.channels != len(self.std):
            raise ValueError(f"std={self.std} is for {len(self.std)} channels and the clips have {grid.channels}")
        if grid.patch_dim == grid.channels:
            raise ValueError("a cube of one pixel has no standard deviation; choose a larger patch")
        return grid.patch_dim

    def __call__(self, patches: Tensor, grid: Grid, mask: Mask) -> Tensor:
        # channels come last in a patch: (B, M, pt ph pw C) -> (B, M, pt ph pw, C)
        dropped = take(patches, mask.drop)
        cubes = dropped.view(*dropped.shape[:2], -1, len(self.std))
        std, mean = torch.std_mean(cubes, dim=2, keepdim=True)
        return ((cubes - mean) / (std + self.eps / constant(self.std, std.device))).flatten(2)

    def picture(self, prediction: Tensor, visible: Tensor) -> Tensor:
        channels = len(self.std)
        # (B, K, pt ph pw C) -> (B, K pt ph pw, C)
        std, mean = torch.std_mean(visible.reshape(len(visible), -1, channels), dim=1)
        values = prediction.view(*prediction.shape[:2], -1, channels)
        return (values * std[:, None, None] + mean[:, None, None]).flatten(2)


@dataclass(frozen=True)
class PCA:
    """The coefficients of a patch on leading principal components of patch space are predicted (MAE Table 1d, PCA).

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

    def flops(self, grid: Grid, dropped: int) -> float:
        return linear_flops(dropped, grid.patch_dim, self.width(grid))

    def __call__(self, patches: Tensor, grid: Grid, mask: Mask) -> Tensor:
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
    """It gives patches in the orthonormal ``basis: (K, P)`` around ``mean: (P,)``, and is saved with the model."""

    losses: ClassVar[tuple[str, ...]] = REGRESSION
    note: ClassVar[str] = ""
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

    def flops(self, grid: Grid, dropped: int) -> float:
        return linear_flops(dropped, *self.basis.T.shape)

    def forward(self, patches: Tensor, grid: Grid, mask: Mask) -> Tensor:
        return (take(patches, mask.drop) - self.mean) @ self.basis.T

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Turn ``coefficients: (B, M, K)`` into the patches ``(B, M, P)`` that they stand for."""
        return coefficients @ self.basis + self.mean

    def picture(self, prediction: Tensor, visible: Tensor) -> Tensor:
        return self.inverse(prediction)


class Tokenizer(Protocol):
    """It gives each patch one of ``codebook`` discrete codes, once it is ready."""

    @property
    def codebook(self) -> int: ...

    def prepare(self, grid: Grid, views: Views) -> nn.Module:
        """Make a module on the device of ``views``: it gives ``patches: (B, N, P)`` float32 codes ``(B, N)`` int64."""
        ...

    def flops(self, grid: Grid) -> float:
        """Count what it costs to give all patches of one sample their codes."""
        ...


@dataclass(frozen=True)
class Tokens:
    """The code that ``tokenizer`` gives a patch is predicted, by one logit a code (MAE Table 1d, dVAE token; BEiT)."""

    tokenizer: Tokenizer

    losses: ClassVar[tuple[str, ...]] = CLASSIFICATION

    def width(self, grid: Grid) -> int:
        return self.tokenizer.codebook

    def flops(self, grid: Grid, dropped: int) -> float:
        return self.tokenizer.flops(grid)

    def __call__(self, patches: Tensor, grid: Grid, mask: Mask) -> Tensor:
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
        return FittedTokens(tokenizer, self.tokenizer.codebook, used, self.tokenizer.flops(grid))


class FittedTokens(nn.Module):
    """It holds a frozen ``tokenizer``; ``perplexity`` is the number of codes in use on the run's own pictures.

    ``cost`` is what it takes to give the patches of one sample their codes, in FLOPs.
    """

    losses: ClassVar[tuple[str, ...]] = CLASSIFICATION

    def __init__(self, tokenizer: nn.Module, codebook: int, perplexity: float, cost: float) -> None:
        super().__init__()
        self.tokenizer = tokenizer.eval().requires_grad_(False)
        self.codebook, self.perplexity, self.cost = codebook, perplexity, cost

    def width(self, grid: Grid) -> int:
        return self.codebook

    def flops(self, grid: Grid, dropped: int) -> float:
        return self.cost

    def prepare(self, grid: Grid, views: Views) -> FittedTokens:
        return self

    @torch.no_grad()
    def forward(self, patches: Tensor, grid: Grid, mask: Mask) -> Tensor:
        # a code depends on the neighbours of its patch, so all patches are encoded
        codes: Tensor = self.tokenizer(patches)
        return codes.gather(1, mask.drop)


def perplexity(codes: Tensor, codebook: int) -> float:
    """Estimate how many codes are in use, 1 (collapsed) to ``codebook`` (even): exp of the entropy of their shares."""
    shares = torch.bincount(codes.flatten(), minlength=codebook).double() / codes.numel()
    return float(torch.special.entr(shares).sum().exp())


def _not_ready(target: PCA | Tokens) -> RuntimeError:
    name = type(target).__name__
    return RuntimeError(f"the target {name} has not been fitted; call prepare first, as a pre-training does first")


def cross_entropy(logits: Tensor, codes: Tensor) -> Tensor:
    """Average over patches the cross-entropy of ``logits: (B, M, codebook)`` with ``codes: (B, M)`` int64."""
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
    """Find the loss called ``name``; ValueError if there is none, or if it cannot compare what ``target`` predicts."""
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}; choose one of {', '.join(LOSSES)}")
    if name not in target.losses:
        raise ValueError(
            f"the loss {name} cannot compare the target {type(target).__name__}; "
            f"choose objective={' or '.join(target.losses)}"
        )
    return LOSSES[name]
