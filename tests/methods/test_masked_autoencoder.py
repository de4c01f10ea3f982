"""The model against the paper's definition and against transformers' independent ViTMAE."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mae.grid import Grid
from mae.masking import Mask, Random
from mae.methods.masked_autoencoder import DecoderShape, MaskedAutoencoder
from mae.model import Encoder, Transformer, choose_attention
from mae.targets import PatchNormalisedPixels, Pixels, Target

GRID = Grid.of(1, (32, 32), (1, 8, 8))


def build(target: Target | None = None, mask_tokens: bool = False, grid: Grid = GRID) -> MaskedAutoencoder:
    encoder = Encoder(grid, Transformer(48, 2, 4), mask_tokens=mask_tokens)
    return MaskedAutoencoder(encoder, decoder=DecoderShape(2 / 3, 2, 4), mask=Random(), target=target or Pixels())


def transformers_twin(model: MaskedAutoencoder, norm_pix: bool) -> nn.Module:
    """A ViTMAE of transformers that holds the same weights as ``model``."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    encoder, decoder = model.encoder, model.decoder
    config = ViTMAEConfig(
        hidden_size=encoder.shape.width,
        num_hidden_layers=encoder.shape.depth,
        num_attention_heads=encoder.shape.heads,
        intermediate_size=int(encoder.shape.width * 4),
        image_size=32,
        patch_size=8,
        decoder_hidden_size=decoder.shape.width,
        decoder_num_hidden_layers=decoder.shape.depth,
        decoder_num_attention_heads=decoder.shape.heads,
        decoder_intermediate_size=int(decoder.shape.width * 4),
        mask_ratio=0.75,
        norm_pix_loss=norm_pix,
        layer_norm_eps=1e-6,
        attn_implementation="eager",
    )
    twin = ViTMAEForPreTraining(config)
    for part in (*twin.modules(), *twin.parameters()):  # some versions flag their parts too early: positions stay zero
        part._is_hf_initialized = False
    twin.vit.embeddings.initialize_weights()
    twin.decoder.initialize_weights(num_patches=16)
    for ours, theirs in pairs(model, twin):
        with torch.no_grad():
            theirs.copy_(ours)
    return twin


def pairs(model: MaskedAutoencoder, twin: nn.Module, grad: bool = False) -> list[tuple[Tensor, Tensor]]:
    """Every parameter of ours beside transformers' (a fused qkv beside each of its three parts)."""
    names = dict(twin.named_parameters())
    found: list[tuple[Tensor, Tensor]] = []

    def pair(ours: Tensor, name: str, part: slice | None = None) -> None:
        theirs = names.pop(name)
        value = ours.grad if grad else ours.detach()
        assert value is not None
        other = theirs.grad if grad else theirs
        assert other is not None
        value = value if part is None else value[part]
        if value.shape != other.shape:  # their patch embedding is a convolution: (D, C, p, p) for our (D, p p C)
            value = value.reshape(len(value), 8, 8, 3).permute(0, 3, 1, 2)
        found.append((value, other))

    pair(model.encoder.class_token, "vit.embeddings.cls_token")
    pair(model.encoder.embed.weight, "vit.embeddings.patch_embeddings.projection.weight")
    pair(model.encoder.embed.bias, "vit.embeddings.patch_embeddings.projection.bias")
    pair(model.decoder.mask_token, "decoder.mask_token")
    for ours, theirs in (
        (model.encoder.norm, "vit.layernorm"),
        (model.decoder.embed, "decoder.decoder_embed"),
        (model.decoder.norm, "decoder.decoder_norm"),
        (model.decoder.head, "decoder.decoder_pred"),
    ):
        pair(ours.weight, f"{theirs}.weight")
        pair(ours.bias, f"{theirs}.bias")
    for stack, prefix in ((model.encoder, "vit.layers"), (model.decoder, "decoder.decoder_layers")):
        for i, block in enumerate(stack.blocks):
            width = stack.shape.width
            for kind in ("weight", "bias"):
                for j, part in enumerate(("q_proj", "k_proj", "v_proj")):
                    rows = slice(j * width, (j + 1) * width)
                    pair(getattr(block.attn.qkv, kind), f"{prefix}.{i}.attention.{part}.{kind}", rows)
                pair(getattr(block.attn.proj, kind), f"{prefix}.{i}.attention.o_proj.{kind}")
                pair(getattr(block.mlp.fc1, kind), f"{prefix}.{i}.mlp.fc1.{kind}")
                pair(getattr(block.mlp.fc2, kind), f"{prefix}.{i}.mlp.fc2.{kind}")
                pair(getattr(block.norm1, kind), f"{prefix}.{i}.layernorm_before.{kind}")
                pair(getattr(block.norm2, kind), f"{prefix}.{i}.layernorm_after.{kind}")
    left = [name for name in names if "pos" not in name]  # fixed tables
    assert not left, left
    return found


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    # a key's bias shifts all scores of a query alike: its gradient is zero but for rounding, hence the second term
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm() + 1e-9


@pytest.mark.parametrize("norm_pix", [False, True], ids=["pixels", "normalised pixels"])
def test_loss_and_every_gradient_agree_with_transformers_vit_mae(norm_pix: bool) -> None:
    torch.manual_seed(0)
    model = build(PatchNormalisedPixels() if norm_pix else Pixels())
    for parameter in model.parameters():  # zeros and ones would hide a misplaced bias or norm
        nn.init.normal_(parameter, std=0.1)
    twin = transformers_twin(model, norm_pix)
    images, noise = torch.randn(3, 3, 32, 32), torch.rand(3, 16)
    loss = model(images, Mask.lowest(noise, 4))
    expected = twin(pixel_values=images, noise=noise).loss
    assert_close(loss.detach(), expected.detach())
    loss.backward()
    expected.backward()
    for ours, theirs in pairs(model, twin, grad=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("width", "depth", "heads", "patch", "expected"),
    [
        (768, 12, 12, 16, 111_655_680),
        (1024, 24, 16, 16, None),
        (1280, 32, 16, 14, None),
    ],
    ids=["ViT-B", "ViT-L", "ViT-H"],
)
def test_parameter_count_is_that_of_the_paper_s_architecture(
    width: int, depth: int, heads: int, patch: int, expected: int | None
) -> None:
    with torch.device("meta"):
        grid = Grid.of(1, (224, 224), (1, patch, patch))
        encoder = Encoder(grid, Transformer(width, depth, heads))
        decoder = DecoderShape(512 / width, 8, 16)
        model = MaskedAutoencoder(encoder, decoder=decoder, mask=Random(), target=Pixels())

    def block(d: int) -> int:  # two norms, qkv and projection, two layers of the MLP
        return 4 * d + (3 * d * d + 3 * d) + (d * d + d) + (4 * d * d + 4 * d) + (4 * d * d + d)

    p = patch * patch * 3
    by_hand = p * width + width + width + depth * block(width) + 2 * width  # embedding, class token, blocks, norm
    by_hand += width * 512 + 512 + 512 + 8 * block(512) + 2 * 512 + 512 * p + p
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == by_hand
    assert expected is None or count == expected


@pytest.mark.parametrize("mask_tokens", [False, True])
def test_dropped_pixels_never_reach_the_latent(mask_tokens: bool) -> None:
    model = build(mask_tokens=mask_tokens)
    mask = Random(0.75)(2, GRID, torch.Generator().manual_seed(0))
    patches = torch.randn(2, 16, GRID.patch_dim)
    changed = patches + mask.dropped().unsqueeze(-1) * torch.randn_like(patches)
    assert not torch.equal(changed, patches)
    assert torch.equal(model.encoder(patches, mask), model.encoder(changed, mask))


def test_visible_pixels_do_reach_the_latent() -> None:
    model = build()
    mask = Random(0.75)(2, GRID, torch.Generator().manual_seed(0))
    patches = torch.randn(2, 16, GRID.patch_dim)
    changed = patches + ~mask.dropped().unsqueeze(-1) * 0.1
    assert not torch.allclose(model.encoder(patches, mask), model.encoder(changed, mask))


@pytest.mark.parametrize("target", [Pixels(), PatchNormalisedPixels()], ids=repr)
def test_kept_patches_never_enter_the_loss(target: Target) -> None:
    model = build(target)
    mask = Random(0.75)(2, GRID, torch.Generator().manual_seed(0))
    patches = torch.randn(2, 16, GRID.patch_dim, requires_grad=True)
    prediction = torch.randn(2, 12, GRID.patch_dim)
    model.error(prediction, patches, mask).backward()
    touched = patches.grad.abs().sum(-1) > 0  # type: ignore[union-attr]
    assert torch.equal(touched, mask.dropped())


def test_mask_tokens_in_the_encoder_make_it_process_every_patch() -> None:
    mask = Random(0.75)(2, GRID, torch.Generator().manual_seed(0))
    patches = torch.randn(2, 16, GRID.patch_dim)
    assert build().encoder(patches, mask).shape[1] == 1 + 4
    assert build(mask_tokens=True).encoder(patches, mask).shape[1] == 1 + 16


def test_positions_tell_patches_apart() -> None:
    model = build()
    same = torch.ones(1, 16, GRID.patch_dim)
    tokens = model.encoder.tokens(same)[0]
    assert len(torch.unique(tokens.detach(), dim=0)) == 17


@pytest.mark.parametrize(
    ("device", "capability", "tokens", "precision", "fused"),
    [
        ("cpu", "AVX2", 65, "fp32", False),
        ("cpu", "AVX512", 37, "fp32", False),
        ("cpu", "AVX512", 65, "fp32", True),
        ("cpu", "AVX2", 1568, "fp32", True),
        ("cpu", "AVX512", 1568, "bf16", False),
        ("cuda", "AVX2", 65, "bf16", True),
    ],
)
def test_attention_is_chosen_by_device_length_and_precision_and_computes_the_same(
    device: str, capability: str, tokens: int, precision: str, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    encoder = Encoder(GRID, Transformer(48, 2, 4)).eval()
    choose_attention(encoder, torch.device(device), tokens, precision)
    assert {block.attn.fused_attn for block in encoder.blocks} == {fused}
    patches = torch.randn(2, GRID.num_patches, GRID.patch_dim)
    chosen = encoder(patches)
    for block in encoder.blocks:
        block.attn.fused_attn = not fused
    torch.testing.assert_close(encoder(patches), chosen, rtol=1e-5, atol=1e-5)
