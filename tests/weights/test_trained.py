"""A file of weights says what it is of: by what lies beside it, by its shapes, or by a name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from experiments.ablation import CONF, read_yaml
from mae.errors import DataError
from mae.masking import Mask, Random
from mae.methods.masked_autoencoder import DecoderShape, MaskedAutoencoder
from mae.model import Encoder, Transformer
from mae.targets import FittedPCA, Pixels
from mae.weights import trained
from mae.weights.architecture import ARCHITECTURES, Architecture
from mae.weights.trained import around, blank
from tests.weights.test_convert import drawn, model_of, pixels, saved
from tests.weights.test_decoders import with_decoder_positions
from tests.weights.test_read import image_encoder, latent, timm_vit, transformers_videomae, transformers_vit_mae


def small(clips: bool) -> MaskedAutoencoder:
    return drawn(model_of(clips, 16, 2, 2, 8, 16))


@pytest.mark.parametrize("clips", [False, True], ids=["pictures", "clips"])
@pytest.mark.parametrize("named", ["folder", "file"])
def test_the_weights_of_a_run_are_what_they_were(clips: bool, named: str, tmp_path: Path) -> None:
    model = small(clips)
    folder = saved(model, tmp_path / "run")
    found = trained(folder if named == "folder" else next(folder.glob("*.safetensors")))
    inputs = pixels(model)
    mask = model.strategy(2, model.encoder.grid, torch.Generator().manual_seed(0))
    again = found.autoencoder()
    with torch.no_grad():
        assert torch.equal(latent(found.encoder(), inputs), latent(model.encoder, inputs))
        assert torch.equal(again(inputs, mask), model(inputs, mask))
    assert found.architecture.mean == [0.5] * 3
    assert not found.architecture.assumed


def test_what_is_told_of_weights_counts_each_tensor_once(tmp_path: Path) -> None:
    model = small(False)
    encoder, decoder = (len(part.state_dict()) for part in (model.encoder, model.decoder))
    (note,) = trained(saved(model, tmp_path / "run")).notes
    assert note.endswith(f"{encoder} tensors are used; a decoder of {decoder} tensors is beside them")


def test_a_folder_of_transformers_says_all_but_its_colours(tmp_path: Path) -> None:
    twin = with_decoder_positions(transformers_vit_mae())
    twin.config.norm_pix_loss = False  # type: ignore[union-attr]
    twin.save_pretrained(tmp_path)  # type: ignore[operator]
    pictures, noise = torch.rand(2, 3, 16, 16), torch.rand(2, 4)
    found = trained(tmp_path)
    with torch.no_grad():
        twin.config.mask_ratio = twin.vit.config.mask_ratio = 0.5  # type: ignore[union-attr]
        expected = twin(pictures, noise=noise).loss
        loss = found.autoencoder(Random(0.5))(pictures, Mask.lowest(noise, 2))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert found.architecture.assumed == ("colours are normalised by ImageNet's mean and deviation",)
    assert isinstance(found.architecture.target, Pixels)


def test_a_folder_of_a_videomae_of_transformers_is_read_for_its_own_clips(tmp_path: Path) -> None:
    twin = transformers_videomae("VideoMAEForPreTraining", mean_pooling=False)
    twin.save_pretrained(tmp_path)  # type: ignore[operator]
    made = trained(tmp_path).architecture
    assert (made.frames, made.size, made.positions, made.class_token) == (4, (16, 16), "sincos_1d", False)


def test_the_published_shapes_are_those_of_the_tables() -> None:
    def option(name: str) -> dict[str, object]:
        found = read_yaml(CONF / "model" / f"{name}.yaml")
        parents = [parent for parent in found.pop("defaults", []) if parent != "_self_"]
        for key, value in found.items():
            before = option(parents[0]).get(key) if parents else None
            found[key] = {**before, **value} if isinstance(before, dict) else value
        return {**(option(parents[0]) if parents else {}), **found}

    for name, made in ARCHITECTURES.items():
        stated = option(name)
        shape, decoder = made.encoder, made.decoder
        assert stated["encoder"] == {"width": shape.width, "depth": shape.depth, "heads": shape.heads}
        assert (list(made.grid.patch), made.positions) == (stated["patch"], stated["positions"])
        assert made.class_token == stated["class_token"]
        wanted = DecoderShape(**stated["decoder"], positions=made.positions)  # type: ignore[arg-type]
        assert decoder is not None
        assert decoder == replace(wanted, width_share=pytest.approx(wanted.width_share))


def test_a_published_file_is_known_by_its_shapes(tmp_path: Path) -> None:
    one = replace(ARCHITECTURES["vit_b16"].on(64), encoder=Transformer(128, 2, 2), decoder=DecoderShape(0.5, 1, 1))
    model = around(blank(one), one)
    # the names of the official file: a convolution, and positions behind that of the class token
    encoder, decoder = model.encoder, model.decoder
    state = {name: tensor for name, tensor in encoder.state_dict().items() if name.startswith(("blocks.", "norm."))}
    state["patch_embed.proj.weight"] = encoder.embed.weight.view(128, 16, 16, 3).movedim(-1, 1).contiguous()
    state |= {"patch_embed.proj.bias": encoder.embed.bias, "cls_token": encoder.class_token}
    state["pos_embed"] = torch.cat([torch.zeros(1, 1, 128), encoder.positions], 1)
    state["decoder_pos_embed"] = torch.cat([torch.zeros(1, 1, 64), decoder.positions], 1)
    names = {"embed": "decoder_embed", "norm": "decoder_norm", "head": "decoder_pred", "blocks": "decoder_blocks"}
    for name, tensor in decoder.state_dict().items():
        part, dot, rest = name.partition(".")
        state[names.get(part, part) + dot + rest] = tensor
    torch.save({"model": state}, tmp_path / "mae.pth")
    found = trained(tmp_path / "mae.pth")
    made = found.architecture
    assert (made.size, made.encoder, made.class_token) == ((64, 64), Transformer(128, 2, 2), True)
    assert any("2 attention heads" in words for words in made.assumed)
    inputs, mask = torch.randn(1, 3, 64, 64), Random(0.75)(1, made.grid, torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(found.autoencoder()(inputs, mask), model(inputs, mask))


def test_principal_components_are_drawn_by_their_own_basis(tmp_path: Path) -> None:
    model = small(False)
    dim = model.encoder.grid.patch_dim
    model.target = FittedPCA(torch.randn(dim), torch.randn(dim, dim))
    folder = saved(model, tmp_path / "run", target="mae.targets.PCA")
    inputs = pixels(model)
    expected = model.pictures(inputs, seed=0)["reconstruction"]
    found = trained(folder).autoencoder(model.strategy).pictures(inputs, seed=0)["reconstruction"]
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            "vit_b16",
            "4 positions of width 16, which do not fit this encoder's 196 of 768; choose a model",
        ),
        ("vit_b17", "unknown model 'vit_b17': did you mean vit_b16"),
        (
            "",
            "does not say how many attention heads its encoder of width 16 has; give the folder",
        ),
    ],
)
def test_weights_of_another_shape_are_refused(model: str, words: str, tmp_path: Path) -> None:
    save_file(timm_vit().state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(DataError, match=words):
        trained(tmp_path / "vit.safetensors", model).encoder()


def test_an_own_file_alone_does_not_say_what_its_patches_are(tmp_path: Path) -> None:
    save_file(image_encoder().state_dict(), tmp_path / "own.safetensors")
    with pytest.raises(DataError, match="does not say what its patches are; give the folder of its run, or model=NAME"):
        trained(tmp_path / "own.safetensors")


def test_weights_for_another_depth_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(timm_vit().state_dict(), tmp_path / "vit.safetensors")
    for depth, words in ((1, "have blocks.1.*which this encoder lacks"), (3, "have no blocks.2.*encoder needs")):
        deep: Architecture = replace(
            ARCHITECTURES["vit_b16"],
            grid=image_encoder().grid,
            encoder=Transformer(16, depth, 2),
        )
        monkeypatch.setitem(ARCHITECTURES, "mine", deep)  # type: ignore[misc]
        with pytest.raises(DataError, match=words):
            trained(tmp_path / "vit.safetensors", "mine").encoder()


def test_an_encoder_alone_draws_no_pictures(tmp_path: Path) -> None:
    model = small(False)
    folder = saved(model, tmp_path / "run")
    file = next(folder.glob("*.safetensors"))
    save_file({f"encoder.{name}": tensor for name, tensor in model.encoder.state_dict().items()}, file)
    with pytest.raises(DataError, match="holds no decoder; give the checkpoint of a pre-training"):
        trained(folder).autoencoder()


def test_positions_are_resized_for_other_inputs(tmp_path: Path) -> None:
    found = trained(saved(small(False), tmp_path / "run"), size=32)
    encoder: Encoder = found.encoder()
    assert latent(encoder, torch.randn(1, 3, 32, 32)).shape == (1, 17, 16)


def test_a_pickle_is_refused_with_how_to_convert_it(tmp_path: Path) -> None:
    torch.save(image_encoder(), tmp_path / "whole.pth")
    with pytest.raises(DataError, match=r"save .*state_dict"):
        trained(tmp_path / "whole.pth")
