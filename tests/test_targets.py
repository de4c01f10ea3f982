"""Targets against written-out formulas and against scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA as SklearnPCA
from torch import Generator, Tensor, nn

from mae.data.source import Images
from mae.grid import Grid
from mae.masking import BlockWise, Mask, Random, Strategy, take
from mae.methods.masked_autoencoder import DecoderShape, MaskedAutoencoder
from mae.model import Encoder, Transformer
from mae.targets import (
    LOSSES,
    PCA,
    ChannelNormalisedPixels,
    FittedPCA,
    PatchNormalisedPixels,
    Pixels,
    PixelTarget,
    Target,
    Tokens,
    perplexity,
)
from mae.train.checkpoint import Checkpoints
from mae.train.loop import Runtime
from mae.train.optim import Recipe
from mae.train.pretrain import pretrain
from mae.train.views import Views

GRID = Grid.of(1, (16, 16), (1, 4, 4))


def jittered(images: Tensor, generator: Generator) -> Tensor:
    noise = torch.rand(images.shape, generator=generator)
    return (images.float() / 255 - 0.5) / 0.25 + 0.1 * noise


def pictures(count: int = 100) -> Images:
    """Smooth random pictures, whose patches have leading components."""
    coarse = torch.rand(count, 3, 5, 5, generator=Generator().manual_seed(0))
    pixels = (nn.functional.interpolate(coarse, (16, 16), mode="bilinear") * 255).byte()
    return Images(pixels, torch.full((count,), -1), ())


def views(seed: int = 0) -> Views:
    return Views(pictures(), jittered, Runtime(seed))


def mask(batch: int = 2) -> Mask:
    return Random(0.75)(batch, GRID, Generator().manual_seed(0))


class Brightness(nn.Module):
    """Codes 0 .. 7 by a patch's mean."""

    def forward(self, patches: Tensor) -> Tensor:
        return (patches.mean(-1) * 2 + 4).long().clamp(0, 7)


class BrightnessTokenizer:
    codebook = 8

    def prepare(self, grid: Grid, views: Views) -> nn.Module:
        return Brightness()

    def flops(self, grid: Grid) -> float:
        return 0.0


def model(target: Target, loss: str = "mse", mask: Strategy | None = None) -> MaskedAutoencoder:
    torch.manual_seed(0)
    encoder = Encoder(GRID, Transformer(16, 1, 2))
    decoder = DecoderShape(0.5, 1, 2)
    return MaskedAutoencoder(encoder, decoder=decoder, mask=mask or Random(), target=target, loss=loss)


def test_patch_normalised_pixels_are_the_written_formula() -> None:
    patches, drawn = torch.randn(2, 16, 48) * 3 + 1, mask()
    found = PatchNormalisedPixels()(patches, GRID, drawn).numpy()
    for b in range(2):
        for m, patch_id in enumerate(drawn.drop[b].tolist()):
            x = patches[b, patch_id].double().numpy()
            expected = (x - x.mean()) / np.sqrt(((x - x.mean()) ** 2).sum() / 47 + 1e-6)
            np.testing.assert_allclose(found[b, m], expected, rtol=1e-5, atol=1e-5)


def test_a_constant_patch_is_normalised_to_zeros() -> None:
    assert bool((PatchNormalisedPixels()(torch.full((2, 16, 48), 3.0), GRID, mask()) == 0).all())


@dataclass(frozen=True)
class Smoothed(PixelTarget):
    """The mean of a patch and its neighbours in the plane."""

    def __call__(self, patches: Tensor, grid: Grid, mask: Mask) -> Tensor:
        planes = patches.view(-1, grid.h, grid.w, grid.patch_dim).permute(0, 3, 1, 2)
        means = nn.functional.avg_pool2d(planes, 3, 1, 1, count_include_pad=False)
        return take(means.permute(0, 2, 3, 1).reshape(patches.shape), mask.drop)


def test_a_target_may_look_at_neighbours_and_say_nothing_else() -> None:
    net = model(Smoothed())
    net(jittered(pictures(2).pixels, Generator()), mask()).backward()
    patches, drawn = torch.randn(2, 16, 48), mask()
    first = drawn.drop[0, 0].item()
    row, column = divmod(first, 4)
    near = [4 * r + c for r in range(4) for c in range(4) if abs(r - row) <= 1 and abs(c - column) <= 1]
    torch.testing.assert_close(Smoothed()(patches, GRID, drawn)[0, 0], patches[0, near].mean(0))


def test_pca_is_that_of_scikit_learn_on_the_same_patches() -> None:
    fitted = PCA(pictures=100).prepare(GRID, views())
    patches = torch.cat([GRID.patchify(v) for v in views()(100, "pca")])
    reference = SklearnPCA(6).fit(patches.flatten(0, 1).double().numpy())
    coefficients = fitted(patches, GRID, mask(100)).flatten(0, 1).numpy()
    expected = reference.transform(take(patches, mask(100).drop).flatten(0, 1).double().numpy())
    signs = np.sign((coefficients * expected).sum(0))
    np.testing.assert_allclose(coefficients * signs, expected, atol=2e-4)
    np.testing.assert_allclose(fitted.mean.numpy(), reference.mean_, atol=1e-5)


def test_pca_keeps_the_published_share_of_components() -> None:
    assert PCA().width(Grid.of(1, (224, 224), (1, 16, 16))) == 96
    assert PCA().width(GRID) == 6


def test_all_components_give_the_patches_back_and_the_leading_ones_nearly() -> None:
    patches, drawn = torch.cat([GRID.patchify(v) for v in views()(100, "pca")]), mask(100)
    dropped = take(patches, drawn.drop)
    errors = []
    for share in (0.125, 0.5, 1.0):
        fitted = PCA(share, 100).prepare(GRID, views())
        errors.append((fitted.inverse(fitted(patches, GRID, drawn)) - dropped).square().mean().item())
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] < 0.25 * dropped.var()
    assert errors[2] < 1e-8


def test_views_and_the_fit_are_a_function_of_the_seed() -> None:
    first, again, other = (PCA(pictures=50).prepare(GRID, views(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.basis, again.basis)
    assert not torch.equal(first.basis, other.basis)
    assert sum(len(v) for v in views()(250, "pca")) >= 250, "a small set is passed through more than once"


def test_tokens_are_the_codes_of_the_dropped_patches() -> None:
    fitted = Tokens(BrightnessTokenizer()).prepare(GRID, views())
    patches, drawn = torch.randn(2, 16, 48), mask()
    codes = fitted(patches, GRID, drawn)
    assert codes.dtype == torch.int64
    assert torch.equal(codes, Brightness()(take(patches, drawn.drop)))
    assert 1 < fitted.perplexity <= 8


def test_perplexity_is_one_for_one_code_and_the_codebook_for_all() -> None:
    assert perplexity(torch.full((4, 9), 3), 16) == pytest.approx(1)
    assert perplexity(torch.arange(16).repeat(3), 16) == pytest.approx(16)


def test_cross_entropy_is_the_written_formula() -> None:
    logits, codes = torch.randn(2, 3, 5), torch.tensor([[0, 4, 2], [1, 1, 3]])
    by_hand = sum(
        (logits[b, m].exp().sum().log() - logits[b, m, codes[b, m]]).item() for b in range(2) for m in range(3)
    )
    assert LOSSES["cross_entropy"](logits, codes).item() == pytest.approx(by_hand / 6, rel=1e-5)


@pytest.mark.parametrize(
    ("target", "loss", "advice"),
    [
        (Tokens(BrightnessTokenizer()), "mse", "Tokens; choose objective=cross_entropy"),
        (Pixels(), "cross_entropy", "Pixels; choose objective=mse or l1 or smooth_l1"),
        (PCA(), "cross_entropy", "PCA; choose objective=mse"),
    ],
)
def test_a_loss_that_cannot_compare_the_target_is_refused_when_the_model_is_built(
    target: Target, loss: str, advice: str
) -> None:
    with pytest.raises(ValueError, match=advice):
        model(target, loss)
    with pytest.raises(ValueError, match="unknown loss 'huber'"):
        model(target, "huber")


@pytest.mark.parametrize("target", [PCA(), Tokens(BrightnessTokenizer())], ids=["pca", "tokens"])
def test_a_target_that_was_not_fitted_says_so(target: Target) -> None:
    with pytest.raises(RuntimeError, match="has not been fitted"):
        target(torch.zeros(2, 16, 48), GRID, mask())


CASES: list[tuple[Callable[[], Target], str]] = [
    (Pixels, "l1"),
    (PatchNormalisedPixels, "smooth_l1"),
    (PCA, "mse"),
    (lambda: Tokens(BrightnessTokenizer()), "cross_entropy"),
]


@pytest.mark.parametrize(("target", "loss"), CASES, ids=["pixels", "normalised", "pca", "tokens"])
def test_every_target_can_be_learned(target: Callable[[], Target], loss: str) -> None:
    net, losses = model(target(), loss, BlockWise(0.5)), []
    recipe = Recipe("adamw", 5e-2, 50, 20, 2, 0.0)
    runtime = Runtime(0, log_every=5, observe=lambda step, values: losses.append(values["loss"]))
    pretrain(net, pictures(), jittered, recipe, runtime)
    assert losses[-1] < 0.9 * losses[0]
    drawn = net.pictures(jittered(pictures(2).pixels, Generator()), seed=0)
    assert ("pasted" in drawn) == (loss != "cross_entropy")


class Stopped(Exception):
    pass


def test_a_resumed_run_has_the_same_target_and_the_same_weights(tmp_path: Path) -> None:
    recipe = Recipe("adamw", 1e-2, 25, 2, 0, 0.0)
    whole = model(PCA())
    pretrain(whole, pictures(), jittered, recipe, Runtime(3))

    def stop(step: int, values: dict[str, float]) -> None:
        if step == 6:
            raise Stopped

    net = model(PCA())
    checkpoints = Checkpoints(tmp_path, every=0)
    with pytest.raises(Stopped):
        pretrain(net, pictures(), jittered, recipe, Runtime(3, checkpoints=checkpoints, log_every=2, observe=stop))
    assert checkpoints.index.exists()
    resumed = model(PCA())
    pretrain(resumed, pictures(), jittered, recipe, Runtime(3, checkpoints=checkpoints))
    assert isinstance(resumed.target, FittedPCA)
    assert resumed.state_dict().keys() == whole.state_dict().keys() > {"target.mean", "target.basis"}
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_picture_of_principal_components_is_the_patch_they_stand_for() -> None:
    net = model(PCA(1.0))
    net.prepare(views())
    with torch.no_grad():  # a decoder that predicts the mean patch whatever it sees
        net.decoder.head.weight.zero_()
        net.decoder.head.bias.zero_()
    drawn = net.pictures(jittered(pictures(2).pixels, Generator()), seed=0)
    patches = GRID.patchify(drawn["reconstruction"])
    flags = Random()(2, GRID, Generator().manual_seed(0)).dropped()
    assert isinstance(net.target, FittedPCA)
    torch.testing.assert_close(patches[flags], net.target.mean.expand(24, -1))


def test_channels_of_a_cube_are_normalised_as_pixels_from_0_to_1_even_where_they_are_nearly_flat() -> None:
    """The released formula on pixels in [0, 1], in float64; of a flat cube eps decides the result."""
    grid = Grid.of(4, (8, 8), (2, 4, 4))
    mean, std = (0.4, 0.5, 0.6), (0.1, 0.25, 0.4)
    contrast = torch.tensor([0.3, 1e-2, 1e-5, 1e-6]).view(1, 1, 4, 1, 1).repeat_interleave(1, 2)
    pixels = 0.5 + contrast * torch.randn(2, 3, 4, 8, 8, generator=Generator().manual_seed(0)).double()
    drop = torch.arange(grid.num_patches).expand(2, -1)
    cubes = grid.patchify(pixels).reshape(2, -1, 32, 3)
    expected = (cubes - cubes.mean(2, keepdim=True)) / (cubes.std(2, keepdim=True) + 1e-6)
    seen = (pixels - torch.tensor(mean).view(3, 1, 1, 1)) / torch.tensor(std).view(3, 1, 1, 1)
    target = ChannelNormalisedPixels(std)(grid.patchify(seen.double()), grid, Mask(drop[:, :0], drop))
    torch.testing.assert_close(target, expected.flatten(2), rtol=1e-5, atol=1e-5)
    assert 0.3 < target[:, grid.num_patches // 2 :].std() < 0.97
