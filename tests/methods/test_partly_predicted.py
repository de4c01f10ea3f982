"""CrossMAE and dual masking: which dropped patches are predicted, and what of a picture the loss can feel."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mae.grid import Grid
from mae.masking import Mask, Random, Strategy, Tube
from mae.methods.cross_mae import CrossAttention, CrossMAE
from mae.methods.dual_masking import DualMasking
from mae.methods.masked_autoencoder import DecoderShape
from mae.methods.masked_prediction import PartlyPredicted
from mae.model import Encoder, Transformer
from mae.targets import Pixels

PICTURES = Grid.of(1, (24, 24), (1, 4, 4))
CLIPS = Grid.of(16, (24, 24), (2, 4, 4))
Kind = type[CrossMAE] | type[DualMasking]


def build(kind: Kind, grid: Grid = PICTURES, mask: Strategy | None = None, share: float = 0.5) -> PartlyPredicted:
    torch.manual_seed(0)
    positions = "sincos_2d" if grid.t == 1 else "sincos_1d"
    encoder = Encoder(grid, Transformer(16, 1, 2), positions=positions, class_token=grid.t == 1)
    decoder = DecoderShape(0.5, 2, 2, positions=positions)
    return kind(encoder, decoder=decoder, mask=mask or Random(), target=Pixels(), predicted_share=share)


def clips(grid: Grid, count: int = 3) -> Tensor:
    shape = (count, 3, grid.t * grid.patch[0], 24, 24)
    return torch.randn(shape, generator=Generator().manual_seed(0))


def predicted(method: PartlyPredicted, seed: int = 0, count: int = 3) -> tuple[Mask, Tensor]:
    """The mask that a loss draws, and those of its dropped patches that are predicted."""
    asked: list[Mask] = []
    predict = method.predict

    def record(patches: Tensor, mask: Mask, part: slice) -> Tensor:
        asked.append(mask)
        return predict(patches, mask, part)

    method.predict = record  # type: ignore[method-assign]
    method.loss([clips(method.encoder.grid, count)], Generator().manual_seed(seed))
    method.predict = predict  # type: ignore[method-assign]
    return method.strategy(count, method.encoder.grid, Generator().manual_seed(seed)), asked[0].drop


@pytest.mark.parametrize("kind", [CrossMAE, DualMasking])
def test_a_part_of_the_dropped_patches_is_predicted_and_another_one_in_the_next_step(kind: Kind) -> None:
    method = build(kind, share=1 / 3)
    mask, few = predicted(method)
    assert few.shape == (3, 9)
    for row in range(3):
        assert set(few[row].tolist()) < set(mask.drop[row].tolist())
    assert len({tuple(row.tolist()) for row in few}) == 3
    assert not torch.equal(few, predicted(method, seed=1)[1])


@pytest.mark.parametrize("kind", [CrossMAE, DualMasking])
def test_the_loss_feels_visible_and_predicted_patches_and_no_other(kind: Kind) -> None:
    method = build(kind, share=1 / 3)
    pictures = clips(PICTURES).squeeze(2).requires_grad_()
    mask, few = predicted(method)
    method.loss([pictures], Generator().manual_seed(0)).backward()
    assert pictures.grad is not None
    felt = PICTURES.patchify(pictures.grad).abs().sum(-1) > 0
    for row in range(3):
        assert set(felt[row].nonzero()[:, 0].tolist()) == {*mask.keep[row].tolist(), *few[row].tolist()}


def test_crossmae_predicts_a_patch_alone_as_it_does_among_others() -> None:
    method = build(CrossMAE)
    patches = PICTURES.patchify(clips(PICTURES))
    mask = Random()(3, PICTURES, Generator().manual_seed(0))
    together = method.predict(patches, mask, slice(None))
    for number in (0, 13, 26):
        alone = method.predict(patches, Mask(mask.keep, mask.drop[:, number : number + 1]), slice(None))
        torch.testing.assert_close(alone[:, 0], together[:, number])


def test_cross_attention_is_that_of_torch() -> None:
    torch.manual_seed(0)
    block, oracle = CrossAttention(16, 2, 4.0), torch.nn.MultiheadAttention(16, 2, batch_first=True)
    with torch.no_grad():
        oracle.in_proj_weight.copy_(torch.cat([block.query.weight, block.key_value.weight]))
        oracle.in_proj_bias.copy_(torch.cat([block.query.bias, block.key_value.bias]))
        oracle.out_proj.weight.copy_(block.output.weight)
        oracle.out_proj.bias.copy_(block.output.bias)
    queries, latent = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    read = queries + oracle(block.norm(queries), latent, latent)[0]
    torch.testing.assert_close(block(queries, latent), read + block.mlp(read), atol=1e-5, rtol=1e-5)


def test_running_cells_decode_every_dropped_place_in_half_of_the_slots() -> None:
    """Under tubes, of every place: the slots in which it is decoded, two of each four in a row."""
    method = build(DualMasking, CLIPS, Tube(0.75))
    mask, few = predicted(method)
    area = CLIPS.h * CLIPS.w
    for row in range(3):
        places = {int(patch) % area for patch in mask.drop[row]}
        for place in places:
            slots = sorted(int(patch) // area for patch in few[row] if int(patch) % area == place)
            assert len(slots) == CLIPS.t // 2
            assert [slot % 4 for slot in slots[:2]] == [slot % 4 for slot in slots[2:]] or len(set(slots)) == 4
    for slot in range(CLIPS.t):  # in a whole cell two places of four
        decoded = {patch % area for patch in method.encoder.grid and range(slot * area, (slot + 1) * area)
                   if not bool(method.last(torch.tensor([[patch]])))}  # fmt: skip
        for row in range(0, CLIPS.h, 2):
            for column in range(0, CLIPS.w, 2):
                cell = {(row + i) * CLIPS.w + column + j for i in (0, 1) for j in (0, 1)}
                assert len(cell & decoded) == 2


@pytest.mark.parametrize("grid", [PICTURES, CLIPS])
@pytest.mark.parametrize("kind", [CrossMAE, DualMasking])
def test_a_forward_pass_costs_what_torch_counts(kind: Kind, grid: Grid) -> None:
    method = build(kind, grid, Random() if grid is PICTURES else Tube(0.75), share=0.3)
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        method.loss([clips(grid, 2)], Generator())
    assert counter.get_total_flops() / 2 == pytest.approx(method.flops(), rel=0.01)


@pytest.mark.parametrize("build_one", [lambda: build(CrossMAE, share=0.0), lambda: build(DualMasking, share=1.5)])
def test_a_share_that_predicts_nothing_or_more_than_all_is_refused(build_one: Callable[[], PartlyPredicted]) -> None:
    with pytest.raises(ValueError, match=r"predicted_share=.* choose a share above 0 and at most 1"):
        build_one()


@pytest.mark.parametrize("kind", [CrossMAE, DualMasking])
def test_mask_tokens_in_the_encoder_are_refused(kind: Kind) -> None:
    encoder = Encoder(PICTURES, Transformer(16, 1, 2), mask_tokens=True)
    with pytest.raises(ValueError, match=r"encodes visible patches only; choose model\.mask_tokens=false"):
        kind(encoder, decoder=DecoderShape(0.5, 1, 2), mask=Random(), target=Pixels())
