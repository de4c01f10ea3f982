"""Weights of other programs, saved by them and read here, give the features that they gave there."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mae.grid import Grid, sincos_2d
from mae.heads.classifier import Classifier
from mae.masking import Random
from mae.methods.masked_autoencoder import DecoderShape, MaskedAutoencoder
from mae.model import Encoder, Transformer
from mae.targets import Pixels
from mae.weights import Weights, adapt, load, read

WIDTH, DEPTH, HEADS = 16, 2, 2
IMAGE = Grid.of(1, (16, 16), (1, 8, 8))
CLIP = Grid.of(4, (16, 16), (2, 8, 8))
SHAPE = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "intermediate_size": 4 * WIDTH,
    "image_size": 16,
    "patch_size": 8,
    "layer_norm_eps": 1e-6,
}


def image_encoder(**options: bool) -> Encoder:
    return Encoder(IMAGE, Transformer(WIDTH, DEPTH, HEADS), **options)  # type: ignore[arg-type]


def clip_encoder() -> Encoder:
    return Encoder(CLIP, Transformer(WIDTH, DEPTH, HEADS), class_token=False, positions="sincos_1d")


def randomised(model: nn.Module) -> nn.Module:
    """The model with every parameter drawn anew: zeros and ones would hide what is not read."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def loaded(path: Path, encoder: Encoder) -> Encoder:
    load(encoder, adapt(read(path), encoder))
    return encoder.eval()


def latent(encoder: Encoder, clips: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = encoder(encoder.grid.patchify(clips))
    return found


def timm_vit() -> nn.Module:
    """A ViT of timm with our positions, which it learns and we do not."""
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS
    )
    randomised(model)
    model.pos_embed.data.zero_()
    model.pos_embed.data[0, 1:] = sincos_2d(IMAGE, WIDTH)
    return model


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_vit_of_timm_gives_equal_features(suffix: str, tmp_path: Path) -> None:
    model, path = timm_vit(), tmp_path / f"vit.{suffix}"
    save_file(model.state_dict(), path) if suffix == "safetensors" else torch.save(model.state_dict(), path)
    pictures = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = model.forward_features(pictures)
    torch.testing.assert_close(latent(loaded(path, image_encoder()), pictures), expected)


def test_the_official_mae_checkpoint_is_a_vit_of_timm_with_a_decoder_beside_it(tmp_path: Path) -> None:
    model = timm_vit()
    extra = {
        "mask_token": torch.zeros(1, 1, 8),
        "decoder_embed.weight": torch.zeros(8, WIDTH),
        "decoder_pos_embed": torch.zeros(1, 5, 8),
    }
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("head.")}
    torch.save({"model": state | extra, "args": argparse.Namespace(lr=1.0), "epoch": 1}, tmp_path / "mae.pth")
    pictures = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = model.forward_features(pictures)
    torch.testing.assert_close(latent(loaded(tmp_path / "mae.pth", image_encoder()), pictures), expected)


def transformers_vit_mae() -> nn.Module:
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(
        **SHAPE,
        mask_ratio=0.0,
        decoder_hidden_size=8,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
    )
    model = randomised(ViTMAEForPreTraining(config))
    positions = model.vit.embeddings.position_embeddings.data
    positions.zero_()
    positions[0, 1:] = sincos_2d(IMAGE, WIDTH)
    return model


@pytest.mark.parametrize("saved", ["as a folder", "as a state", "without its decoder"])
def test_a_vit_mae_of_transformers_gives_equal_features(saved: str, tmp_path: Path) -> None:
    model = transformers_vit_mae()
    if saved == "as a folder":
        model.save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors"
    else:
        path = tmp_path / "pytorch_model.bin"
        torch.save((model if saved == "as a state" else model.vit).state_dict(), path)
    pictures = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = model.vit(pictures, noise=torch.arange(4.0).expand(2, -1)).last_hidden_state
    torch.testing.assert_close(latent(loaded(path, image_encoder()), pictures), expected)


def transformers_videomae(kind: str, mean_pooling: bool) -> nn.Module:
    import transformers

    config = transformers.VideoMAEConfig(
        **SHAPE,
        num_frames=4,
        use_mean_pooling=mean_pooling,
        num_labels=5,
        decoder_hidden_size=8,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
    )
    model = randomised(getattr(transformers, kind)(config))
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
    return model


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_videomae_of_transformers_gives_equal_features(as_folder: bool, tmp_path: Path) -> None:
    model = transformers_videomae("VideoMAEForPreTraining", mean_pooling=False)
    model.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "videomae.bin")
    path = tmp_path / ("model.safetensors" if as_folder else "videomae.bin")
    clips = torch.randn(2, 3, 4, 16, 16)
    with torch.no_grad():
        expected = model.videomae(clips.transpose(1, 2)).last_hidden_state
    torch.testing.assert_close(latent(loaded(path, clip_encoder()), clips), expected)


def official(model: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The encoder of a VideoMAE of transformers in the names of the official code."""
    state = {}
    for name, tensor in model.videomae.state_dict().items():
        name = name.replace("embeddings.patch_embeddings.projection", "patch_embed.proj").replace(
            "encoder.layer", "blocks"
        )
        name = name.replace("layernorm_before", "norm1").replace("layernorm_after", "norm2")
        name = name.replace("attention.output.dense", "attn.proj").replace("intermediate.dense", "mlp.fc1")
        name = name.replace("output.dense", "mlp.fc2").replace("layernorm.", "norm.")
        name = name.replace("attention.attention.query.bias", "attn.q_bias").replace(
            "attention.attention.value.bias", "attn.v_bias"
        )
        if "attention.attention" not in name:
            state[prefix + name] = tensor
    for i, block in enumerate(model.videomae.encoder.layer):
        parts = block.attention.attention
        state[f"{prefix}blocks.{i}.attn.qkv.weight"] = torch.cat(
            [parts.query.weight, parts.key.weight, parts.value.weight]
        )
    return state


def test_the_official_videomae_checkpoint_is_read_with_its_two_biases(tmp_path: Path) -> None:
    model = transformers_videomae("VideoMAEForPreTraining", mean_pooling=False)
    decoder = {
        "mask_token": torch.zeros(1, 1, 8),
        "decoder.norm.weight": torch.ones(8),
        "encoder_to_decoder.weight": torch.zeros(8, WIDTH),
    }
    torch.save(
        {"model": official(model, "encoder.") | decoder, "args": argparse.Namespace()}, tmp_path / "checkpoint.pth"
    )
    clips = torch.randn(2, 3, 4, 16, 16)
    with torch.no_grad():
        expected = model.videomae(clips.transpose(1, 2)).last_hidden_state
    torch.testing.assert_close(latent(loaded(tmp_path / "checkpoint.pth", clip_encoder()), clips), expected)


def test_the_official_fine_tuned_videomae_gives_equal_pooled_features(tmp_path: Path) -> None:
    """It has no norm before the pooling, and its norm after it is the head's."""
    model = transformers_videomae("VideoMAEForVideoClassification", mean_pooling=True)
    head = {"fc_norm.weight": model.fc_norm.weight, "head.weight": model.classifier.weight}
    torch.save({"module": official(model, "") | head}, tmp_path / "best.pth")
    clips = torch.randn(2, 3, 4, 16, 16)
    with torch.no_grad():
        expected = model.videomae(clips.transpose(1, 2)).last_hidden_state.mean(1)
        classifier = Classifier(loaded(tmp_path / "best.pth", clip_encoder()), 5, tune_positions=False)
        torch.testing.assert_close(classifier.features(clips), expected)


@pytest.mark.parametrize("mask_tokens", [False, True])
def test_an_own_checkpoint_is_read_back(mask_tokens: bool, tmp_path: Path) -> None:
    encoder = image_encoder(mask_tokens=mask_tokens)
    model = randomised(MaskedAutoencoder(encoder, decoder=DecoderShape(0.5, 1, 2), mask=Random(), target=Pixels()))
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    again = loaded(tmp_path / "own.safetensors", image_encoder(mask_tokens=mask_tokens))
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in encoder.state_dict().items())


def test_a_tuned_classifier_gives_its_encoder_with_its_positions(tmp_path: Path) -> None:
    model = randomised(Classifier(image_encoder(), 5))
    save_file(model.state_dict(), tmp_path / "tuned.safetensors")
    again = loaded(tmp_path / "tuned.safetensors", image_encoder())
    assert torch.equal(again.blocks[1].attn.qkv.weight, model.encoder.blocks[1].attn.qkv.weight)
    assert torch.equal(again.positions, model.encoder.positions)


def test_a_still_clip_is_embedded_as_its_picture() -> None:
    images, clips = randomised(image_encoder()), clip_encoder()
    load(clips, adapt(Weights(images.state_dict()), clips))
    picture = torch.randn(2, 3, 16, 16)
    still = CLIP.patchify(picture.unsqueeze(2).expand(-1, -1, 4, -1, -1))
    expected = images.embed(IMAGE.patchify(picture))  # type: ignore[operator]
    torch.testing.assert_close(clips.embed(still), expected.repeat(1, CLIP.t, 1))
    assert torch.equal(clips.blocks[1].mlp.fc2.weight, images.blocks[1].mlp.fc2.weight)  # type: ignore[index,union-attr]


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = dict(image_encoder().state_dict())
    state["blocks.0.attn.qkv.weight"] = state["blocks.0.attn.qkv.weight"] * float("nan")
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"numbers in blocks\.0\.attn\.qkv\.weight that are not finite"):
        read(tmp_path / "w.safetensors")
