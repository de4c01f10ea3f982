"""Tables of positions that come with weights are used, on another grid as the libraries they come from use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mae.grid import Grid, sincos_1d, sincos_2d
from mae.heads.classifier import Classifier
from mae.model import Encoder, Transformer
from mae.weights import Weights, adapt, load, read
from mae.weights.positions import places_of, positions_for, resampled, split

WIDTH, DEPTH, HEADS = 16, 2, 2
CLIP = Grid.of(4, (32, 32), (2, 8, 8))


def picture_encoder(size: int, class_token: bool = True) -> Encoder:
    return Encoder(Grid.of(1, (size, size), (1, 8, 8)), Transformer(WIDTH, DEPTH, HEADS), class_token=class_token)


def clip_encoder(frames: int = 4, size: int = 32) -> Encoder:
    grid = Grid.of(frames, (size, size), (2, 8, 8))
    return Encoder(grid, Transformer(WIDTH, DEPTH, HEADS), class_token=False, positions="sincos_1d")


def randomised(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def timm_vit(size: int, **options: Any) -> nn.Module:
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=size, patch_size=8, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, **options
    )
    return randomised(model)


def latent(encoder: Encoder, pictures: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = encoder.eval()(encoder.grid.patchify(pictures))
    return found


def loaded(state: dict[str, Tensor], encoder: Encoder, folder: Path) -> Encoder:
    torch.save(state, folder / "a.pth")
    load(encoder, adapt(read(folder / "a.pth"), encoder))
    return encoder


def with_table(encoder: Encoder, table: Tensor) -> Weights:
    return Weights({**encoder.state_dict(), "positions": table.unsqueeze(0)})


@pytest.mark.parametrize(
    "options", [{}, {"no_embed_class": True}, {"class_token": False, "global_pool": "avg"}], ids=str
)
def test_learned_positions_of_timm_give_equal_features(options: dict[str, Any], tmp_path: Path) -> None:
    model = timm_vit(32, **options)
    encoder = picture_encoder(32, options.get("class_token", True))
    pictures = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = model.forward_features(pictures)
    state = {name.replace("fc_norm", "norm"): tensor for name, tensor in model.state_dict().items()}
    found = latent(loaded(state, encoder, tmp_path), pictures)
    if "global_pool" in options:  # its norm comes after the pooling
        expected = model.fc_norm(expected)
    torch.testing.assert_close(found, expected)


def test_positions_at_another_size_agree_with_transformers(tmp_path: Path) -> None:
    from transformers import ViTMAEConfig, ViTMAEModel

    config = ViTMAEConfig(
        hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=4 * WIDTH,
        image_size=32, patch_size=8, mask_ratio=0.0, layer_norm_eps=1e-6,
    )  # fmt: skip
    model = randomised(ViTMAEModel(config))
    model.save_pretrained(tmp_path)
    encoder = picture_encoder(48)
    load(encoder, adapt(read(tmp_path), encoder))
    pictures = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        noise = torch.arange(36.0).expand(2, -1)
        expected = model(pictures, noise=noise, interpolate_pos_encoding=True).last_hidden_state
    torch.testing.assert_close(latent(encoder, pictures), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fixed", [False, True])
def test_positions_at_a_larger_size_agree_with_timm(fixed: bool, tmp_path: Path) -> None:
    model, other = timm_vit(32), timm_vit(64)
    if fixed:  # an official checkpoint of MAE holds its fixed table, and its code interpolates that, too
        model.pos_embed.data[0, 1:] = sincos_2d(picture_encoder(32).grid, WIDTH)
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("head")}
    pictures = torch.randn(2, 3, 64, 64)
    table = timm.layers.resample_abs_pos_embed(model.pos_embed.data, [8, 8])
    other.load_state_dict({**state, "pos_embed": table}, strict=False)
    with torch.no_grad():
        expected = other.forward_features(pictures)
    found = latent(loaded(state, picture_encoder(64), tmp_path), pictures)
    assert F.cosine_similarity(found, expected, dim=-1).min() > 0.99


def test_the_table_that_is_fixed_here_too_leaves_the_state_as_it_was() -> None:
    encoder = picture_encoder(32)
    fit = adapt(with_table(encoder, sincos_2d(encoder.grid, WIDTH).half().float()), encoder)
    assert "positions" not in fit.state
    assert fit.changes == ()


def test_learned_positions_stay_with_the_weights_that_a_training_leaves() -> None:
    table = torch.randn(16, WIDTH)
    first, second = picture_encoder(32), picture_encoder(32)
    load(first, adapt(with_table(first, table), first))
    load(second, adapt(Weights(first.state_dict()), second))
    assert torch.equal(second.positions[0], table)
    assert isinstance(Classifier(second, 5).encoder.positions, nn.Parameter)


def test_time_is_linear_and_space_is_bicubic() -> None:
    before, after = Grid(2, 4, 4, (2, 8, 8)), Grid(4, 8, 8, (2, 8, 8))
    slots = torch.tensor([0.0, 1.0]).repeat_interleave(16)[:, None]
    in_time = resampled(slots, (2, 4, 4), after).view(4, 64)
    torch.testing.assert_close(in_time, torch.tensor([0.0, 0.25, 0.75, 1.0])[:, None].expand(4, 64))
    table = torch.randn(16, WIDTH)
    still = resampled(table.repeat(2, 1), (2, 4, 4), after).view(4, 64, WIDTH)
    expected = F.interpolate(table.T.view(1, WIDTH, 4, 4), size=(8, 8), mode="bicubic").flatten(2)[0].T
    torch.testing.assert_close(still, expected.expand(4, 64, WIDTH))
    assert before.num_patches == 32


def test_the_sinusoid_of_clips_is_computed_for_another_grid() -> None:
    before, after = clip_encoder(), clip_encoder(8, 48)
    table, words = positions_for(after, sincos_1d(before.grid, WIDTH), still=False)
    assert table is None
    assert words == "positions are computed for 4 x 6 x 6"


def test_learned_positions_of_clips_are_interpolated_in_time_and_space() -> None:
    table, words = positions_for(clip_encoder(8, 48), torch.randn(32, WIDTH), still=False)
    assert table is not None
    assert table.shape == (1, 4 * 36, WIDTH)
    assert words.endswith("are used, interpolated from 2 x 4 x 4 to 4 x 6 x 6")


def test_learned_positions_of_pictures_are_repeated_over_frames_and_that_is_said() -> None:
    pictures, clips, table = picture_encoder(32), clip_encoder(), torch.randn(16, WIDTH)
    fit = adapt(with_table(pictures, table), clips)
    assert torch.equal(fit.state["positions"][0], table.repeat(2, 1))
    assert "they do not tell frames apart" in str(fit)
    fixed = adapt(with_table(pictures, sincos_2d(pictures.grid, WIDTH)), clips)
    assert "positions" not in fixed.state
    assert "fixed positions of pictures give way to those of clips" in str(fixed)


def test_the_position_of_the_class_token_is_added_to_it_and_found_where_there_is_none() -> None:
    grid = picture_encoder(32).grid
    first, patches = split(torch.randn(1, 17, WIDTH), grid, class_token=True, still=False)
    assert first is not None
    assert len(patches) == 16
    assert split(torch.randn(1, 16, WIDTH), grid, class_token=True, still=False)[0] is None
    assert split(torch.randn(1, 37, WIDTH), grid, class_token=True, still=False)[0] is not None  # six by six, and one


@pytest.mark.parametrize("entries", [8, 14, 23])
def test_positions_that_cover_no_square_are_refused(entries: int) -> None:
    encoder = picture_encoder(32)
    with pytest.raises(ValueError, match=f"the weights have {entries} positions, which cover no square of patches"):
        adapt(with_table(encoder, torch.randn(entries, WIDTH)), encoder)


@pytest.mark.parametrize(
    ("count", "frames", "size", "still", "places"),
    [
        (1568, 16, 224, False, (8, 14, 14)),
        (1568, 16, 384, False, (8, 14, 14)),
        (1568, 32, 224, False, (8, 14, 14)),
        (196, 16, 224, True, (1, 14, 14)),
        (196, 8, 256, True, (1, 14, 14)),
        (196, 1, 384, False, (1, 14, 14)),
    ],
)
def test_where_positions_lay_is_guessed_from_their_number(
    count: int, frames: int, size: int, still: bool, places: tuple[int, int, int]
) -> None:
    grid = Grid.of(frames, (size, size), (min(frames, 2), 16, 16))
    assert places_of(count, grid, still) == places


def test_positions_of_another_width_are_refused() -> None:
    encoder = picture_encoder(32)
    with pytest.raises(ValueError, match="16 positions of width 8, which do not fit this encoder's 16 of 16"):
        adapt(with_table(encoder, torch.randn(16, 8)), encoder)
