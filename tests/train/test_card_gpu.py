"""What a card must give: the losses of the CPU and of compiled blocks, and the memory that is reckoned with."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from mae.footprint import State, Way
from mae.grid import Grid
from mae.masking import Random, Strategy, Tube
from mae.methods.masked_autoencoder import DecoderShape, MaskedAutoencoder
from mae.model import Encoder, Transformer, choose_attention
from mae.targets import PatchNormalisedPixels
from mae.train.optim import Recipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
CUDA = torch.device("cuda")
PICTURES, CLIPS = Grid.of(1, (224, 224), (1, 16, 16)), Grid.of(16, (112, 112), (2, 16, 16))
MASKS: dict[str, tuple[Grid, Strategy]] = {"pictures": (PICTURES, Random()), "clips": (CLIPS, Tube(0.9))}


def autoencoder(grid: Grid, mask: Strategy, depth: int = 4) -> MaskedAutoencoder:
    torch.manual_seed(0)
    positions = "sincos_2d" if grid.t == 1 else "sincos_1d"
    encoder = Encoder(grid, Transformer(192, depth, 3), class_token=grid.t == 1, positions=positions)
    decoder = DecoderShape(0.5, 2, 3, positions=positions)
    return MaskedAutoencoder(encoder, decoder=decoder, mask=mask, target=PatchNormalisedPixels())


def sampled(grid: Grid, count: int) -> torch.Tensor:
    pt, ph, pw = grid.patch
    return torch.randn(count, 3, grid.t * pt, grid.h * ph, grid.w * pw, generator=Generator().manual_seed(1))


@pytest.mark.parametrize("name", MASKS)
def test_the_loss_and_the_gradients_of_a_card_are_those_of_the_cpu(name: str) -> None:
    grid, strategy = MASKS[name]
    mask = strategy(4, grid, Generator().manual_seed(0))
    found = {}
    for device in (torch.device("cpu"), CUDA):
        method = autoencoder(grid, strategy).to(device)
        choose_attention(method, device, method.encoder.length(), "fp32")
        there = type(mask)(mask.keep.to(device), mask.drop.to(device))
        loss = method(sampled(grid, 4).to(device), there)
        loss.backward()
        found[device.type] = [loss.detach().cpu(), *(p.grad.cpu() for p in method.parameters() if p.grad is not None)]
    for card, cpu in zip(found["cuda"], found["cpu"], strict=True):
        torch.testing.assert_close(card, cpu, atol=1e-4 * float(cpu.abs().max()), rtol=1e-3)


def test_compiled_blocks_give_the_loss_of_plain_ones() -> None:
    method = autoencoder(PICTURES, Random()).to(CUDA)
    mask = Random()(4, PICTURES, Generator(CUDA).manual_seed(0))
    pictures = sampled(PICTURES, 4).to(CUDA)
    plain = method(pictures, mask)
    for block in method.encoder.blocks:
        block.compile()
    torch.testing.assert_close(method(pictures, mask), plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", MASKS)
def test_a_step_takes_the_memory_that_is_reckoned_with(name: str) -> None:
    """A part of it: what the allocator holds at its fullest, to a quarter."""
    grid, strategy = MASKS[name]
    way, count = Way("bf16"), 64
    torch.cuda.empty_cache()
    method = autoencoder(grid, strategy, depth=12).to(CUDA)
    recipe = Recipe("adamw", 1e-3, count, 1, 0, 0.05)
    optimizer, pictures = recipe.build(method), sampled(grid, count).to(CUDA)
    taken = pictures.nbytes
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        with torch.autocast("cuda", torch.bfloat16):
            loss = method.loss([pictures], Generator(CUDA).manual_seed(0))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    reckoned = State.of(method, way, recipe.states).bytes() + count * sum(method.activations(way)) + 2 * taken
    assert torch.cuda.max_memory_allocated() == pytest.approx(reckoned, rel=0.25)
