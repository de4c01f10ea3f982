"""What of weights an encoder takes: by name, with other channels, wrapped by others, and told in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mae.grid import Grid
from mae.model import Encoder, Transformer
from mae.weights import Weights, adapt, load, read

WIDTH, DEPTH, HEADS = 16, 2, 2
IMAGE = Grid.of(1, (16, 16), (1, 8, 8))
CLIP = Grid.of(4, (16, 16), (2, 8, 8))


def image_encoder(channels: int = 3, **options: bool) -> Encoder:
    grid = Grid.of(1, (16, 16), (1, 8, 8), channels)
    return Encoder(grid, Transformer(WIDTH, DEPTH, HEADS), **options)  # type: ignore[arg-type]


def clip_encoder() -> Encoder:
    return Encoder(CLIP, Transformer(WIDTH, DEPTH, HEADS), class_token=False, positions="sincos_1d")


def foreign(channels: int = 3) -> dict[str, Tensor]:
    """A state in the names of timm and MAE, every tensor drawn at random."""
    torch.manual_seed(0)
    encoder = image_encoder(channels)
    state = {name: torch.randn_like(tensor) for name, tensor in encoder.state_dict().items()}
    weight = state.pop("embed.weight").view(WIDTH, 8, 8, channels).permute(0, 3, 1, 2).contiguous()
    state |= {"patch_embed.proj.weight": weight, "patch_embed.proj.bias": state.pop("embed.bias")}
    return state | {"cls_token": state.pop("class_token")}


def at(tmp_path: Path, state: object) -> Weights:
    torch.save(state, tmp_path / "a.pth")
    return read(tmp_path / "a.pth")


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "model.", "backbone.", "teacher.", "module.backbone.", "_orig_mod.module.encoder.",
     "model.vit.", "student_net.base_encoder."],
)  # fmt: skip
def test_prefixes_are_seen_through(prefix: str, tmp_path: Path) -> None:
    expected = at(tmp_path, foreign()).tensors
    found = at(tmp_path, {"state_dict": prefixed(prefix, foreign()), "epoch": 3}).tensors
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_wrappers_inside_names_are_seen_through(tmp_path: Path) -> None:
    state = {f"encoder._orig_mod.{name}": tensor for name, tensor in image_encoder().state_dict().items()}
    assert at(tmp_path, state).tensors.keys() == image_encoder().state_dict().keys()


@pytest.mark.parametrize("nested", [False, True])
def test_of_a_student_and_its_teacher_the_teacher_is_read(nested: bool, tmp_path: Path) -> None:
    student, teacher = foreign(), {name: tensor + 1 for name, tensor in foreign().items()}
    state = (
        {"student": student, "teacher": prefixed("backbone.", teacher)}
        if nested
        else prefixed("student.", student) | prefixed("teacher.", teacher)
    )
    weights = at(tmp_path, state)
    assert torch.equal(weights.tensors["norm.bias"], teacher["norm.bias"])
    assert nested or len(weights.aside) == len(student)


def mmpretrain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {"patch_embed.proj.": "patch_embed.projection.", "blocks.": "layers.", "norm1": "ln1", "norm2": "ln2"}
    names |= {"mlp.fc1": "ffn.layers.0.0", "mlp.fc2": "ffn.layers.1"}
    found = {}
    for name, tensor in state.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        found["backbone." + ("ln1" + name[4:] if name.startswith("norm.") else name)] = tensor
    return found


def test_the_names_of_mmpretrain_are_known(tmp_path: Path) -> None:
    expected = at(tmp_path, foreign()).tensors
    head = {"head.fc.weight": torch.zeros(5, WIDTH), "neck.mask_token": torch.zeros(1)}
    weights = at(tmp_path, {"meta": {}, "state_dict": mmpretrain(foreign()) | head})
    assert all(torch.equal(tensor, weights.tensors[name]) for name, tensor in expected.items())
    assert weights.aside == ("head.fc.weight", "neck.mask_token")


@pytest.mark.parametrize("own", [False, True])
def test_three_channels_read_grey_as_they_read_it_before(own: bool, tmp_path: Path) -> None:
    colour, grey = image_encoder(), image_encoder(1)
    weights = Weights(colour.state_dict()) if own else at(tmp_path, foreign())
    load(colour, adapt(weights, colour))
    fit = adapt(weights, grey)
    load(grey, fit)
    picture = torch.randn(2, 1, 16, 16)
    expected = colour.embed(IMAGE.patchify(picture.expand(-1, 3, -1, -1)))
    torch.testing.assert_close(grey.embed(grey.grid.patchify(picture)), expected)
    assert "a patch embedding of 1 channels is made" in str(fit)


def test_one_channel_becomes_three_that_read_grey_alike_and_a_fourth_begins_at_zero(tmp_path: Path) -> None:
    grey, colour, alpha = image_encoder(1), image_encoder(3), image_encoder(4)
    picture = torch.randn(2, 1, 16, 16)
    for encoder in (grey, colour):
        load(encoder, adapt(at(tmp_path, foreign(1)), encoder))
    expected = grey.embed(grey.grid.patchify(picture))
    torch.testing.assert_close(colour.embed(IMAGE.patchify(picture.expand(-1, 3, -1, -1))), expected)
    load(alpha, adapt(Weights(colour.state_dict()), alpha))
    four = torch.cat([picture.expand(-1, 3, -1, -1), torch.randn(2, 1, 16, 16)], 1)
    torch.testing.assert_close(alpha.embed(alpha.grid.patchify(four)), expected)


@pytest.mark.parametrize(("before", "after"), [(4, 3), (4, 1), (2, 3), (13, 3)])
def test_other_channels_are_refused_by_number(before: int, after: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"the weights read {before} channels and this encoder {after}"):
        adapt(at(tmp_path, foreign(before)), image_encoder(after))


def test_three_channels_become_one_in_clips_that_are_inflated(tmp_path: Path) -> None:
    clips = Encoder(Grid.of(4, (16, 16), (2, 8, 8), 1), Transformer(WIDTH, DEPTH, HEADS), class_token=False,
                    positions="sincos_1d")  # fmt: skip
    colour = image_encoder()
    for encoder in (clips, colour):
        load(encoder, adapt(at(tmp_path, foreign()), encoder))
    picture = torch.randn(2, 1, 16, 16)
    still = clips.grid.patchify(picture.unsqueeze(2).expand(-1, -1, 4, -1, -1))
    expected = colour.embed(IMAGE.patchify(picture.expand(-1, 3, -1, -1))).repeat(1, 2, 1)
    torch.testing.assert_close(clips.embed(still), expected)


def test_a_fit_accounts_for_every_name(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in foreign().items() if not name.startswith("norm.")}
    fit = adapt(at(tmp_path, state | {"head.weight": torch.zeros(1), "decoder_norm.bias": torch.zeros(1)}),
                image_encoder())  # fmt: skip
    assert sorted((*fit.used, *fit.missing)) == sorted(image_encoder().state_dict())
    assert fit.missing == ("norm.weight", "norm.bias")
    assert fit.unused == ("head.weight", "decoder_norm.bias")
    assert str(fit).startswith(
        f"{len(fit.used)} tensors are used; 2 are left aside (head.weight, decoder_norm.bias); 2 "
    )
    assert "class_token" in adapt(at(tmp_path, foreign()), clip_encoder()).unused


def wider() -> dict[str, Tensor]:
    return Encoder(IMAGE, Transformer(32, DEPTH, HEADS)).state_dict()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (wider(), r"embed.weight is \(32, 192\) in the weights and \(16, 384\) in this encoder"),
        (
            Encoder(IMAGE, Transformer(WIDTH, 3, HEADS)).state_dict(),
            "have blocks.2.attn.proj.bias, which this encoder lacks",
        ),
        (
            Encoder(IMAGE, Transformer(WIDTH, 1, HEADS)).state_dict(),
            "have no blocks.1.norm1.weight, which this encoder needs",
        ),
        (image_encoder(mask_tokens=True).state_dict(), "have mask_token, which this encoder lacks"),
        (image_encoder().state_dict() | {"blocks.0.ls1.gamma": torch.ones(WIDTH)}, "have blocks.0.ls1.gamma, which"),
    ],
    ids=["width", "deeper", "shallower", "mask tokens", "layer scale"],
)
def test_what_does_not_fit_is_refused_by_name(tensors: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapt(Weights(tensors), clip_encoder())


def test_an_encoder_with_a_class_token_needs_one() -> None:
    with pytest.raises(ValueError, match="have no class_token, which this encoder needs"):
        adapt(Weights(image_encoder(class_token=False).state_dict()), image_encoder())
