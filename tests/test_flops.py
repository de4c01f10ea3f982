"""FLOPs as methods and heads state them against torch's own count of what their steps do, within one percent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mae.data.source import Images
from mae.frames import CentreFrame, FrameSelection, SameFrames, TwiceTheFrames
from mae.grid import Grid
from mae.heads import Head
from mae.heads.action_detection import ActionDetection
from mae.heads.attentive import AttentiveProbe
from mae.heads.fine_tuning import FineTune
from mae.heads.linear_probe import LinearProbe
from mae.heads.nearest_neighbours import NearestNeighbours
from mae.masking import BlockWise, Frame, Mask, Random, Strategy, Tube
from mae.methods import Method
from mae.methods.masked_autoencoder import DecoderShape, MaskedAutoencoder
from mae.methods.simmim import SimMIM
from mae.model import Encoder, Transformer
from mae.targets import PCA, Pixels, Target, Tokens
from mae.tokenizer import DalleEncoder, DalleTokenizer, LearnedTokenizer
from mae.train.loop import Runtime
from mae.train.optim import Recipe
from mae.train.views import Views

PICTURE, CLIP = Grid.of(1, (32, 32), (1, 8, 8)), Grid.of(8, (32, 16), (2, 8, 8))
RECIPE = Recipe("adamw", 1e-3, 4, 3, 0, 0.0)
BATCH = 2


def encoder(grid: Grid = PICTURE, mask_tokens: bool = False) -> Encoder:
    positions = "sincos_2d" if grid.t == 1 else "sincos_1d"
    return Encoder(grid, Transformer(96, 3, 4), class_token=grid.t == 1, positions=positions, mask_tokens=mask_tokens)


def clips(grid: Grid, frames: int | None = None) -> Tensor:
    pt, ph, pw = grid.patch
    return torch.randn(BATCH, 3, frames or grid.t * pt, grid.h * ph, grid.w * pw)


def counted(forward: Callable[[], Tensor]) -> tuple[float, float]:
    """FLOPs of a forward pass, and of it with its backward pass, by torch."""
    # of the kernels of attention, torch counts only the one that is written in products of matrices on every machine
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = forward()
        forward_flops = counter.get_total_flops()
        if loss.requires_grad:
            loss.backward()
    return forward_flops, counter.get_total_flops()


def assert_counted(method: Method, sampled: Tensor) -> None:
    forward, step = counted(lambda: method.loss([sampled], Generator().manual_seed(0)))
    assert method.flops() == pytest.approx(forward / BATCH, rel=0.01)
    assert method.sample_flops() == pytest.approx(step / BATCH, rel=0.01)


@dataclass(frozen=True)
class OnePerSlot:
    """Keeps one place of each slot: a strategy that has no ratio, and counts in slots."""

    def visible(self, grid: Grid) -> int:
        return grid.t

    def __call__(self, batch: int, grid: Grid, generator: Generator) -> Mask:
        scores = torch.rand(batch, grid.t, grid.h * grid.w, generator=generator)
        return Mask.lowest((scores != scores.amin(2, keepdim=True)).float().flatten(1), grid.t)


@pytest.mark.parametrize(
    ("grid", "mask"),
    [(PICTURE, Random(0.75)), (PICTURE, BlockWise(0.5)), (CLIP, Tube(0.75)), (CLIP, Frame(0.5)), (CLIP, OnePerSlot())],
    ids=repr,
)
@pytest.mark.parametrize("mask_tokens", [False, True])
def test_masked_autoencoders_cost_what_torch_counts_whatever_the_mask(
    grid: Grid, mask: Strategy, mask_tokens: bool
) -> None:
    positions = "sincos_2d" if grid.t == 1 else "sincos_1d"
    decoder = DecoderShape(0.5, 2, 4, positions=positions)
    seen = encoder(grid, mask_tokens)
    assert_counted(MaskedAutoencoder(seen, decoder=decoder, mask=mask, target=Pixels()), clips(grid))


@pytest.mark.parametrize("frames", [SameFrames(), CentreFrame(), TwiceTheFrames()], ids=repr)
def test_predicted_frames_are_counted(frames: FrameSelection) -> None:
    decoder = DecoderShape(0.5, 1, 4, positions="sincos_1d")
    method = MaskedAutoencoder(encoder(CLIP), decoder=decoder, mask=Tube(0.75), target=Pixels(), frames=frames)
    assert_counted(method, clips(CLIP, 16 if isinstance(frames, TwiceTheFrames) else None))


@pytest.mark.parametrize(
    ("target", "loss"),
    [(Pixels(), "l1"), (PCA(0.5, 8), "mse"), (Tokens(LearnedTokenizer(16, 32, 2, steps=2)), "cross_entropy")],
    ids=["pixels", "pca", "tokens"],
)
def test_simmim_costs_what_torch_counts_and_its_target_with_it(target: Target, loss: str) -> None:
    method = SimMIM(encoder(), mask=Random(0.5), target=target, loss=loss)
    unfitted = method.flops()
    source = Images(torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8), torch.zeros(8, dtype=torch.int64), ())
    method.prepare(Views(source, lambda images, generator: images / 255, Runtime(0)))
    assert method.flops() == unfitted
    assert_counted(method, clips(PICTURE))


def test_the_dall_e_encoder_costs_what_torch_counts(tmp_path: Path) -> None:
    (tmp_path / "encoder.pth").touch()
    settings = DalleTokenizer(str(tmp_path / "encoder.pth"), (0.5,) * 3, (0.25,) * 3, codebook=32, width=8)
    model = DalleEncoder(PICTURE, settings)
    forward, _ = counted(lambda: model(PICTURE.patchify(clips(PICTURE))))
    assert settings.flops(PICTURE) == pytest.approx(forward / BATCH, rel=0.01)


HEADS = [
    FineTune(RECIPE),
    FineTune(RECIPE, pooling="class"),
    FineTune(RECIPE, tuned_blocks=0.5),
    FineTune(RECIPE, tuned_blocks=2),
    FineTune(RECIPE, tuned_blocks=0),
    LinearProbe(RECIPE),
    AttentiveProbe(RECIPE),
]


@pytest.mark.parametrize(
    ("head", "grid"), [*((head, PICTURE) for head in HEADS), (HEADS[0], CLIP), (HEADS[-1], CLIP)], ids=repr
)
def test_a_training_step_of_a_head_costs_what_torch_counts(head: Head, grid: Grid) -> None:
    seen = encoder(grid)
    expected = head.sample_flops(seen)
    model = head.classifier(seen, 4).train()
    _, step = counted(lambda: model(clips(grid)).square().mean())
    assert expected == pytest.approx(step / BATCH, rel=0.01)


def test_a_training_step_of_detection_costs_what_torch_counts() -> None:
    seen, head = encoder(CLIP), ActionDetection(RECIPE)
    expected, model = head.sample_flops(seen), head.classifier(seen, 4).train()
    boxes, items = torch.tensor([[0.0, 0.0, 12.0, 20.0]]).expand(BATCH, 4), torch.arange(BATCH)
    _, step = counted(lambda: model(clips(CLIP), boxes, items).square().mean())
    assert expected == pytest.approx(step / BATCH, rel=0.01)


def test_cached_steps_cost_what_reads_the_features_alone() -> None:
    seen = encoder()
    assert LinearProbe(RECIPE, cached=True).sample_flops(seen) == 0
    head = AttentiveProbe(RECIPE, cached=True)
    model = head.classifier(seen, 4).train()
    tokens = model.features(clips(PICTURE))
    _, step = counted(lambda: model.classify(tokens).square().mean())
    assert head.sample_flops(seen) == pytest.approx(step / BATCH, rel=0.01)


def test_an_evaluation_costs_its_steps_and_its_tests() -> None:
    """By hand: epochs times samples times repeats, then views of test samples, then shifted ones where they count."""
    seen, samples = encoder(), {"train": 10, "test": 20}
    encode, read = seen.flops(), AttentiveProbe(RECIPE).classify_flops(seen)
    step = FineTune(RECIPE).sample_flops(seen)
    for head, expected in (
        (FineTune(RECIPE), 3 * 10 * 2 * step + (20 * 6 + 5) * encode),
        (LinearProbe(RECIPE), (3 * 10 * 2 + 20 * 6) * encode),
        (LinearProbe(RECIPE, cached=True), (10 * 2 + 20) * encode),
        (NearestNeighbours(), (10 * 2 + 20) * encode),
        (AttentiveProbe(RECIPE), 3 * 10 * 2 * (encode + 3 * read) + 20 * 6 * (encode + read)),
        (AttentiveProbe(RECIPE, cached=True), 3 * 10 * 2 * 3 * read + (10 * 2 + 20) * encode + 20 * read),
    ):
        found = head.flops(seen, samples, views=6, repeats=2, shifted=5)
        assert found == pytest.approx(expected), repr(head)


def test_flops_need_no_weights() -> None:
    with torch.device("meta"):
        grid = Grid.of(1, (224, 224), (1, 16, 16))
        large = Encoder(grid, Transformer(1024, 24, 16))
        # ViT-L/16 at 224 pixels takes 61.6 GFLOPs by the usual count of one for a multiplication with its addition
        assert large.flops() / 2e9 == pytest.approx(61.6, rel=0.01)
