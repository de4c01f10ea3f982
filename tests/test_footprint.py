"""Memory as methods and heads state it, against what autograd saves; and the micro-batches that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import Block
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mae.data.augment.crops import RandomResizedCrop
from mae.footprint import (
    RESERVE,
    Activations,
    Footprint,
    State,
    Way,
    devices_that_fit,
    memory_that_fits,
    micro_batch_that_fits,
)
from mae.grid import Grid
from mae.heads.action_detection import ActionDetection
from mae.heads.fine_tuning import FineTune
from mae.heads.linear_probe import LinearProbe
from mae.masking import Random, Strategy, Tube
from mae.methods import Method
from mae.methods.cross_mae import CrossMAE
from mae.methods.dino import DINO, Prototypes
from mae.methods.dual_masking import DualMasking
from mae.methods.masked_autoencoder import DecoderShape, MaskedAutoencoder
from mae.methods.moco_v3 import MoCoV3
from mae.methods.simmim import SimMIM
from mae.methods.supervised import Supervised
from mae.methods.teacher import mlp, mlp_kept
from mae.model import Encoder, Transformer
from mae.targets import Pixels
from mae.train.optim import Recipe

PICTURE, CLIP = Grid.of(1, (224, 224), (1, 16, 16), 3), Grid.of(16, (224, 224), (2, 16, 16), 3)
BATCH, GB = 3, 10**9
RECIPE = Recipe("adamw", 1e-3, 4, 3, 0, 0.0)
PICTURES, CLIPS = Random(0.75), Tube(0.9)


def encoder(grid: Grid, mask_tokens: bool = False) -> Encoder:
    positions = "sincos_2d" if grid.t == 1 else "sincos_1d"
    return Encoder(grid, Transformer(96, 3, 3), class_token=grid.t == 1, positions=positions, mask_tokens=mask_tokens)


def sampled(grid: Grid) -> Tensor:
    pt, ph, pw = grid.patch
    return torch.randn(BATCH, 3, grid.t * pt, grid.h * ph, grid.w * pw)


def arrange(model: nn.Module, way: Way) -> None:
    """Let the blocks of ``model`` attend and keep their activations in this way."""
    for stack in [part for part in model.modules() if isinstance(part, nn.ModuleList)]:
        for block in stack:
            if isinstance(block, Block):
                block.attn.fused_attn = way.fused
            if way.checkpointing:
                block.forward = again(block.forward)


def again(forward: Callable[[Tensor], Tensor]) -> Any:
    return lambda tokens: checkpoint(forward, tokens, use_reentrant=False)


def saved(model: nn.Module, way: Way, loss: Callable[[], Tensor]) -> int:
    """Bytes that autograd saves for the backward pass of ``loss``, each storage once, parameters left out."""
    arrange(model, way)
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[storage._cdata] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=way.precision == "bf16"):
        kept = loss()  # while it lives, no storage is given away a second time
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    assert kept.requires_grad
    return sum(size for place, size in found.items() if place not in own)


WAYS = [Way("bf16"), Way("fp32"), Way("bf16", fused=False), Way("bf16", checkpointing=True)]


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(
    ("grid", "mask", "mask_tokens"),
    [(PICTURE, PICTURES, False), (PICTURE, PICTURES, True), (CLIP, CLIPS, False)],
    ids=["pictures", "pictures with mask tokens in the encoder", "clips"],
)
def test_a_masked_autoencoder_keeps_what_it_states(grid: Grid, mask: Strategy, mask_tokens: bool, way: Way) -> None:
    decoder = DecoderShape(0.5, 2, 3, positions="sincos_2d" if grid.t == 1 else "sincos_1d")
    assert_kept(MaskedAutoencoder(encoder(grid, mask_tokens), decoder=decoder, mask=mask, target=Pixels()), way)


def test_simmim_keeps_what_it_states() -> None:
    assert_kept(SimMIM(encoder(PICTURE), mask=Random(0.6), target=Pixels(), loss="mse"), Way())


@pytest.mark.parametrize("way", [Way("bf16"), Way("fp32")], ids=str)
@pytest.mark.parametrize("kind", [CrossMAE, DualMasking])
def test_a_method_that_predicts_a_part_keeps_what_it_states(kind: type[CrossMAE] | type[DualMasking], way: Way) -> None:
    decoder = DecoderShape(0.5, 2, 3)
    assert_kept(kind(encoder(PICTURE), decoder=decoder, mask=PICTURES, target=Pixels(), predicted_share=0.4), way)


@pytest.mark.parametrize("way", [Way("bf16"), Way("bf16", fused=False)], ids=str)
@pytest.mark.parametrize("kind", ["moco_v3", "dino", "supervised"])
def test_methods_with_heads_keep_what_they_state(kind: str, way: Way) -> None:
    own, crop = encoder(PICTURE), RandomResizedCrop((96, 96), (0.05, 0.25), flip=False)
    if kind == "moco_v3":
        assert_kept(MoCoV3(own, hidden=256, width=64), way, [sampled(PICTURE), sampled(PICTURE)])
    elif kind == "dino":
        small = [torch.randn(BATCH, 3, 96, 96) for _ in range(3)]
        method = DINO(own, local_crop=crop, local_views=3, prototypes=512, hidden=256, bottleneck=64)
        assert_kept(method, way, [sampled(PICTURE), sampled(PICTURE), *small])
    else:
        method = Supervised(own, classes=10, drop_path=0.0)
        assert_kept(method, way, [sampled(PICTURE), torch.zeros(BATCH, dtype=torch.int64)])


@pytest.mark.parametrize("way", [Way("bf16"), Way("fp32")], ids=str)
@pytest.mark.parametrize("head", ["mlp", "prototypes"])
def test_heads_keep_what_they_state(head: str, way: Way) -> None:
    widths, vectors = (96, 512, 512, 64), 256
    model: nn.Module = mlp(widths) if head == "mlp" else Prototypes(96, 512, 64, 16)
    stated = mlp_kept(widths, way) if isinstance(model, nn.Sequential) else model.kept(way)  # type: ignore[operator]
    features = torch.randn(vectors, 96, requires_grad=True)
    found = saved(model, way, lambda: model(features).float().sum())
    copies = State.of(model, way, RECIPE.states).copies
    assert vectors * stated + copies == pytest.approx(found, rel=0.05)


def assert_kept(method: Method, way: Way, views: Sequence[Tensor] = ()) -> None:
    seen = views or [sampled(method.encoder.grid)]
    found = saved(method, way, lambda: method.loss(seen, Generator()))
    stated = BATCH * method.activations(way).saved
    if not way.checkpointing:  # else the copies are made, and dropped, inside each block
        stated += State.of(method, way, RECIPE.states).copies
        if isinstance(method, MoCoV3 | DINO):  # nothing goes back through a teacher, so its copies are dropped at once
            stated -= State.of(method.teacher, way, RECIPE.states).copies
    assert stated == pytest.approx(found, rel=0.05)


@pytest.mark.parametrize(
    ("grid", "tuned", "pooling", "way"),
    [
        *((grid, None, "mean", way) for grid in (PICTURE, CLIP) for way in WAYS),
        (PICTURE, None, "class", Way()),
        (PICTURE, 2, "mean", Way()),
        (PICTURE, 0.5, "mean", Way()),
    ],
    ids=str,
)
def test_fine_tuning_keeps_what_it_states(grid: Grid, tuned: float | None, pooling: str, way: Way) -> None:
    head, own = FineTune(RECIPE, pooling=pooling, tuned_blocks=tuned), encoder(grid)
    stated = BATCH * head.activations(own, way).saved
    model, labels = head.classifier(own, 10), torch.zeros(BATCH, dtype=torch.int64)
    found = saved(model, way, lambda: F.cross_entropy(model(sampled(grid)).float(), labels))
    if not way.checkpointing and way.precision == "bf16":
        trained = [part for part in model.modules() if isinstance(part, nn.Linear) and part.weight.requires_grad]
        stated += 2 * sum(part.weight.numel() for part in trained)
    assert stated == pytest.approx(found, rel=0.05)


@pytest.mark.parametrize("way", [Way("bf16"), Way("fp32")], ids=str)
def test_detection_keeps_what_it_states(way: Way) -> None:
    head, own = ActionDetection(RECIPE), encoder(CLIP)
    stated = BATCH * head.activations(own, way).saved
    model = head.classifier(own, 10)
    boxes, items = torch.tensor([[10.0, 10.0, 120.0, 200.0]]).expand(BATCH, 4), torch.arange(BATCH)
    found = saved(model, way, lambda: model(sampled(CLIP), boxes, items).float().square().mean())
    if way.precision == "bf16":
        stated += 2 * sum(part.weight.numel() for part in model.modules() if isinstance(part, nn.Linear))
    assert stated == pytest.approx(found, rel=0.05)


def test_a_probe_keeps_nothing_of_the_encoder_but_the_block_at_work() -> None:
    saved, working = LinearProbe(RECIPE).activations(encoder(PICTURE), Way())
    assert saved == 0
    assert working == encoder(PICTURE).shape.activations(197, Way()).saved / 3


def test_the_state_is_that_of_the_tensors_that_hold_it() -> None:
    method = MaskedAutoencoder(encoder(PICTURE), decoder=DecoderShape(0.5, 2, 3), mask=PICTURES, target=Pixels())
    method.encoder.embed.requires_grad_(False)
    optimizer = RECIPE.build(method)
    method.loss([sampled(PICTURE)], Generator()).backward()
    optimizer.step()
    moments = [t for state in optimizer.state.values() for name, t in state.items() if name != "step"]
    state = State.of(method, Way(), RECIPE.states, average=True)
    assert state.weights == state.average == sum(p.nbytes for p in method.parameters())
    assert state.gradients == sum(p.grad.nbytes for p in method.parameters() if p.grad is not None)
    assert state.optimiser == sum(t.nbytes for t in moments)
    assert State.of(method, Way("fp32"), RECIPE.states).copies == 0


def footprint(saved: float = 4.0, state: int = 16) -> Footprint:
    """A step on gigabytes: ``state`` of them, in four parts; ``saved`` a sample, and 1 that comes and goes."""
    part = state * GB // 4
    stays = State(part, part, 2 * part, 0, 0, unit=GB)
    return Footprint(stays, Activations(saved * GB, GB), Activations(0.1 * saved * GB, 2 * GB))


@pytest.mark.parametrize("memory", [30, 45, 80, 1000])
@pytest.mark.parametrize("devices", [1, 3, 8])
def test_the_largest_micro_batch_fits_and_one_more_sample_does_not(memory: int, devices: int) -> None:
    found = micro_batch_that_fits(footprint(), 4096, memory * GB, devices)
    assert found is not None
    assert (found.checkpointing, found.sharded) == (False, False)
    assert found.bytes <= memory * GB * (1 - RESERVE)
    assert devices * found.parts * found.micro_batch >= 4096
    fewer = found.parts - 1
    assert not fewer or footprint().bytes(-(-4096 // (devices * fewer))) > memory * GB * (1 - RESERVE)


def test_checkpointing_and_sharding_come_in_where_one_sample_does_not_fit_without() -> None:
    def chosen(saved: float, state: int, memory: float, devices: int) -> tuple[bool, bool] | None:
        found = micro_batch_that_fits(footprint(saved, state), 64, memory * GB, devices)
        return found and (found.checkpointing, found.sharded)

    assert chosen(4, 16, 24, 8) == (False, False)
    assert chosen(30, 16, 24, 8) == (True, False)
    assert chosen(4, 64, 24, 8) == (False, True)
    assert chosen(30, 64, 24, 8) == (True, True)
    assert chosen(30, 64, 24, 1) is None  # one device has nobody to share with


def test_the_smallest_change_that_makes_a_model_fit_is_just_enough() -> None:
    heavy, memory = footprint(30, 64), 24.0 * GB
    devices = devices_that_fit(heavy, memory)
    assert devices is not None
    assert micro_batch_that_fits(heavy, 64, memory, devices) is not None
    assert micro_batch_that_fits(heavy, 64, memory, devices - 1) is None
    needed = memory_that_fits(heavy, 2)
    assert micro_batch_that_fits(heavy, 64, needed * 1.001, 2) is not None
    assert micro_batch_that_fits(heavy, 64, needed * 0.999, 2) is None
    assert devices_that_fit(footprint(30, 64), 2.0 * GB) is None


def test_the_published_pre_training_needs_what_was_measured_of_it() -> None:
    """ViT-L at batch 4096, in bf16: 309 GB of activations, and 846 with mask tokens in the encoder."""

    def activations(mask_tokens: bool) -> float:
        with torch.device("meta"):
            own = Encoder(PICTURE, Transformer(1024, 24, 16), mask_tokens=mask_tokens)
            method = MaskedAutoencoder(own, decoder=DecoderShape(0.5, 8, 16), mask=PICTURES, target=Pixels())
        return 4096 * method.activations(Way()).saved / GB

    assert activations(False) == pytest.approx(309, rel=0.1)
    assert activations(True) == pytest.approx(846, rel=0.1)
