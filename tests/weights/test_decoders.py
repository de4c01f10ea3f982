"""Decoders of other programs, saved by them and read here, give the reconstructions that they gave there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mae.grid import sincos_2d
from mae.masking import Mask, Random, Tube
from mae.methods.masked_autoencoder import DecoderShape, MaskedAutoencoder
from mae.targets import Pixels
from mae.weights import adapt, adapt_decoder, load, read, read_decoder
from tests.weights.test_read import (
    IMAGE,
    clip_encoder,
    image_encoder,
    timm_vit,
    transformers_videomae,
    transformers_vit_mae,
)

PICTURES = DecoderShape(0.5, 1, 2)
CLIPS = DecoderShape(0.5, 1, 2, embed_bias=False, positions="sincos_1d")


def of_pictures() -> MaskedAutoencoder:
    return MaskedAutoencoder(image_encoder(), decoder=PICTURES, mask=Random(0.5), target=Pixels()).eval()


def of_clips() -> MaskedAutoencoder:
    return MaskedAutoencoder(clip_encoder(), decoder=CLIPS, mask=Tube(0.5), target=Pixels()).eval()


def filled(model: MaskedAutoencoder, path: Path) -> MaskedAutoencoder:
    load(model.encoder, adapt(read(path), model.encoder))
    load(model.decoder, adapt_decoder(read_decoder(path), model.decoder))
    return model


def with_decoder_positions(model: nn.Module) -> nn.Module:
    table = model.decoder.decoder_pos_embed.data  # type: ignore[union-attr]
    table.zero_()
    table[0, 1:] = sincos_2d(IMAGE, 8)
    model.config.mask_ratio = 0.5  # type: ignore[union-attr]
    return model


@pytest.mark.parametrize("saved", ["as a folder", "as a state"])
def test_a_vit_mae_of_transformers_gives_equal_reconstructions(saved: str, tmp_path: Path) -> None:
    twin = with_decoder_positions(transformers_vit_mae())
    if saved == "as a folder":
        twin.save_pretrained(tmp_path)  # type: ignore[operator]
        path = tmp_path
    else:
        path = tmp_path / "mae.bin"
        torch.save(twin.state_dict(), path)
    pictures, noise = torch.randn(2, 3, 16, 16), torch.rand(2, 4)
    mask = Mask.lowest(noise, 2)
    with torch.no_grad():
        twin.vit.config.mask_ratio = 0.5  # type: ignore[union-attr]
        expected = twin(pictures, noise=noise).logits
        found = filled(of_pictures(), path).predict(IMAGE.patchify(pictures), mask, slice(None))
    dropped = expected.gather(1, mask.drop.unsqueeze(-1).expand(-1, -1, expected.shape[-1]))
    torch.testing.assert_close(found, dropped, rtol=1e-4, atol=1e-5)


def test_a_videomae_of_transformers_gives_equal_reconstructions(tmp_path: Path) -> None:
    twin = transformers_videomae("VideoMAEForPreTraining", mean_pooling=False)
    twin.save_pretrained(tmp_path)  # type: ignore[operator]
    model = of_clips()
    clips = torch.randn(2, 3, 4, 16, 16)
    mask = Tube(0.5)(2, model.encoder.grid, torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = twin(clips.transpose(1, 2), bool_masked_pos=mask.dropped()).logits
        found = filled(model, tmp_path).predict(model.encoder.grid.patchify(clips), mask, slice(None))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_official_names_of_mae_are_read(tmp_path: Path) -> None:
    twin = with_decoder_positions(transformers_vit_mae())
    names = {"decoder.mask_token": "mask_token"}
    parts = {}
    model = of_pictures()
    for name, tensor in twin.decoder.state_dict().items():  # type: ignore[union-attr]
        parts[names.get(f"decoder.{name}", name)] = tensor
    official = {name: tensor for name, tensor in parts.items() if "decoder_layers" not in name}
    for name, tensor in model.decoder.blocks.state_dict().items():
        official[f"decoder_blocks.{name}"] = tensor
    state = {name: t for name, t in timm_vit().state_dict().items() if not name.startswith("head.")}
    torch.save({"model": state | official}, tmp_path / "mae.pth")
    fit = adapt_decoder(read_decoder(tmp_path / "mae.pth"), model.decoder)
    assert torch.equal(fit.state["head.weight"], twin.decoder.decoder_pred.weight)  # type: ignore[union-attr]
    assert set(fit.used) == set(model.decoder.state_dict())
    assert not fit.missing
    assert "patch_embed.proj.weight" in fit.unused


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (DecoderShape(0.5, 2, 2), r"have no blocks\.1\..*this decoder needs"),
        (DecoderShape(0.25, 1, 2), r"this decoder; choose one of their width, depth and patch size"),
    ],
    ids=["deeper", "narrower"],
)
def test_a_decoder_that_does_not_fit_is_refused_by_name(shape: DecoderShape, words: str, tmp_path: Path) -> None:
    save_file(of_pictures().state_dict(), tmp_path / "own.safetensors")
    other = MaskedAutoencoder(image_encoder(), decoder=shape, mask=Random(0.5), target=Pixels())
    with pytest.raises(ValueError, match=words):
        adapt_decoder(read_decoder(tmp_path / "own.safetensors"), other.decoder)


def test_an_encoder_alone_is_no_pre_training(tmp_path: Path) -> None:
    save_file(image_encoder().state_dict(), tmp_path / "encoder.safetensors")
    with pytest.raises(ValueError, match="holds no decoder; give the checkpoint of a pre-training"):
        read_decoder(tmp_path / "encoder.safetensors")
