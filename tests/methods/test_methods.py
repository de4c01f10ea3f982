"""Every method keeps the contract of the loop; SimMIM against its definition; the loop serves any objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Generator, Tensor, nn

from mae.data.source import Images
from mae.grid import Grid
from mae.masking import Mask, Random
from mae.methods import Method
from mae.methods.masked_autoencoder import DecoderShape, MaskedAutoencoder
from mae.methods.simmim import SimMIM
from mae.model import Encoder, Transformer
from mae.targets import PCA, Pixels
from mae.train.loop import Runtime
from mae.train.optim import Recipe
from mae.train.pretrain import pretrain

GRID = Grid.of(1, (16, 16), (1, 4, 4))
RECIPE = Recipe("adamw", 5e-2, 16, 10, 1, 0.0)


def encoder(**options: bool) -> Encoder:
    torch.manual_seed(0)
    return Encoder(GRID, Transformer(16, 1, 2), **options)  # type: ignore[arg-type]


def autoencoder() -> MaskedAutoencoder:
    return MaskedAutoencoder(encoder(), decoder=DecoderShape(0.5, 1, 2), mask=Random(), target=Pixels())


def simmim() -> SimMIM:
    return SimMIM(encoder(), mask=Random(0.5), target=Pixels())


def pictures(count: int = 64) -> Images:
    """Smooth random pictures."""
    coarse = torch.rand(count, 3, 3, 3, generator=Generator().manual_seed(0))
    pixels = (nn.functional.interpolate(coarse, (16, 16), mode="bilinear") * 255).byte()
    return Images(pixels, torch.full((count,), -1), ())


def jittered(images: Tensor, generator: Generator) -> Tensor:
    return (images.float() / 255 - 0.5) / 0.25 + 0.1 * torch.rand(images.shape, generator=generator)


@pytest.mark.parametrize("build", [autoencoder, simmim])
def test_a_method_learns_and_its_loss_is_a_function_of_views_and_generator(build: Callable[[], Method]) -> None:
    method, losses = build(), []
    clips = jittered(pictures(4).pixels, Generator().manual_seed(1))
    first, again, other = (method.loss([clips], Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert first.shape == ()
    assert first.dtype == torch.float32
    runtime = Runtime(0, log_every=5, observe=lambda step, values: losses.append(values["loss"]))
    pretrain(method, pictures(), jittered, RECIPE, runtime)
    assert losses[-1] < 0.9 * losses[0]
    assert {name.split(".")[0] for name in method.state_dict()} >= {"encoder"}
    assert method.pictures(clips, seed=0).keys() == {"original", "masked", "reconstruction", "pasted"}


def test_simmim_sees_a_mask_token_in_the_place_of_every_dropped_patch() -> None:
    """Written out: the sequence that enters the blocks, position by position."""
    method = simmim()
    entered: list[Tensor] = []
    method.encoder.blocks[0].register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0]))
    clips = torch.randn(2, 3, 16, 16, generator=Generator().manual_seed(0))
    mask = Random(0.5)(2, GRID, Generator().manual_seed(0))
    method(clips, mask)
    patches, dropped = GRID.patchify(clips), mask.dropped()
    for b in range(2):
        torch.testing.assert_close(entered[0][b, 0], method.encoder.class_token[0, 0])  # type: ignore[index]
        for n in range(GRID.num_patches):
            token = method.mask_token[0, 0] if dropped[b, n] else method.encoder.embed(patches[b, n])
            torch.testing.assert_close(entered[0][b, 1 + n], token + method.encoder.positions[0, n])


def test_simmim_compares_dropped_pixels_by_their_absolute_error_and_no_other_pixel_matters() -> None:
    method = simmim()
    clips = torch.randn(2, 3, 16, 16, generator=Generator().manual_seed(0))
    mask = Random(0.5)(2, GRID, Generator().manual_seed(0))
    patches = GRID.patchify(clips)
    prediction = method.predict(patches, mask, slice(None))
    rows = torch.arange(2).unsqueeze(1)
    torch.testing.assert_close(method(clips, mask), (prediction - patches[rows, mask.drop]).abs().mean())
    changed = torch.where(mask.dropped().unsqueeze(-1), torch.randn_like(patches), patches)
    assert torch.equal(method.predict(changed, mask, slice(None)), prediction)


@dataclass(frozen=True)
class FirstPatches:
    """Keeps a fixed number of patches: a strategy without a ratio."""

    kept: int

    def visible(self, grid: Grid) -> int:
        return self.kept

    def __call__(self, batch: int, grid: Grid, generator: Generator) -> Mask:
        ids = torch.arange(grid.num_patches).expand(batch, -1)
        return Mask(ids[:, : self.kept], ids[:, self.kept :])


def test_parts_that_do_not_fit_are_refused_before_there_are_weights() -> None:
    decoder = DecoderShape(0.5, 1, 2)
    with torch.device("meta"):
        for kept in (0, GRID.num_patches):
            with pytest.raises(ValueError, match=rf"FirstPatches\(kept={kept}\) keeps {kept} of 16 patches"):
                MaskedAutoencoder(encoder(), decoder=decoder, mask=FirstPatches(kept), target=Pixels())
        with pytest.raises(ValueError, match="choose objective=mse or l1"):
            SimMIM(encoder(), mask=Random(), target=PCA(), loss="cross_entropy")
        with pytest.raises(ValueError, match=r"mask tokens of its own.*choose model.mask_tokens=false"):
            SimMIM(encoder(mask_tokens=True), mask=Random(), target=Pixels())
        with pytest.raises(ValueError, match="cannot have 3 heads"):
            MaskedAutoencoder(encoder(), decoder=DecoderShape(0.5, 1, 3), mask=Random(), target=Pixels())


def test_a_class_that_lacks_a_part_of_the_contract_cannot_be_built() -> None:
    class Lossless(Method):
        def flops(self) -> float:
            return 0.0

    with pytest.raises(TypeError, match="loss"):
        Lossless(encoder())  # type: ignore[abstract]


class Siamese(Method):
    """Two views of a sample, one of them through a teacher that follows the encoder."""

    views = 2

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        self.teacher = nn.Linear(GRID.patch_dim, 16).requires_grad_(False)
        self.done: list[float] = []
        self.seen: list[Tensor] = []

    def loss(self, views: Sequence[Tensor], generator: Generator) -> Tensor:
        first, second = views
        self.seen = [first, second]
        target = self.teacher(GRID.patchify(second)).mean(1)
        return (self.encoder(GRID.patchify(first))[:, 0] - target).square().mean()

    def after_step(self, done: float) -> None:
        self.done.append(done)
        self.teacher.weight.lerp_(self.encoder.embed.weight.detach(), 1 - done)

    def flops(self) -> float:
        return self.encoder.flops()


def test_the_loop_gives_as_many_different_views_as_a_method_wants_and_tells_it_after_each_step() -> None:
    method = Siamese(encoder())
    before = method.teacher.weight.clone()
    pretrain(method, pictures(), jittered, Recipe("adamw", 1e-3, 16, 2, 0, 0.0), Runtime(0))
    assert method.done == [step / 8 for step in range(1, 9)]
    assert not torch.equal(method.teacher.weight, before)
    first, second = method.seen
    assert first.shape == second.shape == (16, 3, 16, 16)
    assert not torch.equal(first, second)
    torch.testing.assert_close(first, second, atol=0.11, rtol=0, msg="not views of the same pictures")
