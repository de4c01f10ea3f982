"""Tokenizers: one code for each patch, many codes in use, exact resumption, and files that are not encoders."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Generator, Tensor, nn

from mae.data.source import Images
from mae.grid import Grid
from mae.targets import Tokens, perplexity
from mae.tokenizer import DalleEncoder, DalleTokenizer, LearnedTokenizer
from mae.train.checkpoint import Checkpoints
from mae.train.loop import Runtime
from mae.train.views import Views

GRID = Grid.of(1, (16, 16), (1, 4, 4))
SMALL = LearnedTokenizer(codebook=16, width=16, blocks=1, steps=120, batch_size=32)


def plain(images: Tensor, generator: Generator) -> Tensor:
    return (images.float() / 255 - 0.5) / 0.25


def pictures(count: int = 64) -> Images:
    coarse = torch.rand(count, 3, 4, 4, generator=Generator().manual_seed(0))
    pixels = (nn.functional.interpolate(coarse, (16, 16), mode="nearest") * 255).byte()
    return Images(pixels, torch.full((count,), -1), ())


def views(checkpoints: Checkpoints | None = None) -> Views:
    return Views(pictures(), plain, Runtime(0, checkpoints=checkpoints, log_every=10))


def patches() -> Tensor:
    return GRID.patchify(plain(pictures().pixels, Generator()))


def reconstruction_error(tokenizer: LearnedTokenizer) -> tuple[float, Tensor]:
    """Mean squared error of decoding the hard codes, and the codes."""
    model = tokenizer.prepare(GRID, views())
    with torch.no_grad():
        codes = model(patches())
        planes = nn.functional.one_hot(codes.view(-1, 4, 4), tokenizer.codebook).permute(0, 3, 1, 2).float()
        return nn.functional.mse_loss(model.decoder(planes), model.planes(patches())).item(), codes


def test_the_learned_codes_are_many_and_tell_patches_apart() -> None:
    error, codes = reconstruction_error(SMALL)
    assert codes.shape == (64, 16)
    assert codes.dtype == torch.int64
    assert perplexity(codes, 16) > 8, "codes have collapsed"
    assert error < 0.5 * patches().var()


def test_the_tokenizer_is_a_function_of_the_seed_and_leaves_the_global_generator_alone() -> None:
    few = LearnedTokenizer(codebook=8, width=8, blocks=1, steps=3, batch_size=32)
    weights = []
    for state in (1, 2):
        torch.manual_seed(state)
        weights.append(few.prepare(GRID, views()).state_dict())
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


class Stopped(Exception):
    pass


def test_a_stopped_tokenizer_goes_on_to_the_same_weights_and_a_finished_one_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = LearnedTokenizer(codebook=8, width=8, blocks=1, steps=40, batch_size=32)
    whole = settings.prepare(GRID, views())
    calls = 0

    def counted(images: Tensor, generator: Generator) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 25:
            raise Stopped
        return plain(images, generator)

    resumable = Views(pictures(), counted, Runtime(0, checkpoints=Checkpoints(tmp_path, every=0), log_every=10))
    with pytest.raises(Stopped):
        settings.prepare(GRID, resumable)
    resumed = settings.prepare(GRID, resumable)
    assert calls == 25 + 20, "the second attempt starts from the checkpoint at step 20"
    settings.prepare(GRID, resumable)
    assert calls == 25 + 20, "the third finds the tokenizer finished"
    assert not list(tmp_path.glob("checkpoint*")), "the run's own checkpoints are not touched"
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_clips_get_one_code_for_each_cube() -> None:
    grid = Grid.of(4, (16, 8), (2, 4, 4))
    clips = Images(torch.randint(0, 255, (8, 3, 4, 16, 8), dtype=torch.uint8), torch.zeros(8), ())
    settings = LearnedTokenizer(codebook=8, width=8, blocks=1, steps=2, batch_size=4)
    model = settings.prepare(grid, Views(clips, plain, Runtime(0)))
    assert model(torch.randn(3, 16, grid.patch_dim)).shape == (3, 16)


def test_the_head_of_the_token_target_is_as_wide_as_the_codebook() -> None:
    assert Tokens(SMALL).width(GRID) == 16


def test_senseless_sizes_of_a_tokenizer_are_refused() -> None:
    with pytest.raises(ValueError, match="two codes or more"):
        LearnedTokenizer(codebook=1)
    with pytest.raises(ValueError, match="two positive numbers"):
        LearnedTokenizer(temperature=(1.0, 0.0))


PICTURE = Grid.of(1, (224, 224), (1, 16, 16))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def published(width: int = 256, codebook: int = 8192) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the released state dict."""
    shapes: dict[str, tuple[int, ...]] = {
        "blocks.input": (width, 3, 7, 7),
        "blocks.output.conv": (codebook, 8 * width, 1, 1),
    }
    before = width
    for group, factor in enumerate((1, 2, 4, 8), 1):
        after = factor * width
        hidden = after // 4
        for block in (1, 2):
            name = f"blocks.group_{group}.block_{block}"
            if before != after:
                shapes[f"{name}.id_path"] = (after, before, 1, 1)
            shapes[f"{name}.res_path.conv_1"] = (hidden, before, 3, 3)
            shapes[f"{name}.res_path.conv_2"] = shapes[f"{name}.res_path.conv_3"] = (hidden, hidden, 3, 3)
            shapes[f"{name}.res_path.conv_4"] = (after, hidden, 1, 1)
            before = after
    return {f"{name}.w": shape for name, shape in shapes.items()} | {f"{n}.b": shape[:1] for n, shape in shapes.items()}


def small_file(path: Path) -> dict[str, Tensor]:
    """A random state dict of the published structure, eight channels wide, written to ``path``."""
    generator = Generator().manual_seed(0)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in published(8, 32).items()}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return tensors


def small(path: Path) -> DalleTokenizer:
    return DalleTokenizer(str(path), MEAN, STD, codebook=32, width=8)


def test_the_dalle_encoder_has_the_published_names_and_shapes(tmp_path: Path) -> None:
    (tmp_path / "encoder.safetensors").touch()
    with torch.device("meta"):
        model = DalleEncoder(PICTURE, DalleTokenizer(str(tmp_path / "encoder.safetensors"), MEAN, STD))
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert ours == {n[:-1] + {"w": "weight", "b": "bias"}[n[-1]]: shape for n, shape in published().items()}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_picture_of_224_pixels_gets_14_by_14_codes_from_112(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"encoder{suffix}"
    small_file(path)
    model = small(path).prepare(PICTURE, views())
    clips = torch.randn(2, 3, 224, 224)
    pixels = model.pixels(PICTURE.patchify(clips))
    assert pixels.shape == (2, 3, 112, 112)
    assert 0.1 <= pixels.min() < pixels.max() <= 0.9
    codes = model(PICTURE.patchify(clips))
    assert codes.shape == (2, 196)
    assert codes.dtype == torch.int64
    assert len(codes.unique()) > 1
    assert 0 <= codes.min() <= codes.max() < 32


def test_the_dalle_encoder_computes_what_its_definition_says(tmp_path: Path) -> None:
    tensors = small_file(tmp_path / "encoder.pt")
    model = small(tmp_path / "encoder.pt").prepare(PICTURE, views())
    tokens = PICTURE.patchify(torch.randn(1, 3, 224, 224))

    def conv(name: str, x: Tensor) -> Tensor:
        weight = tensors[f"{name}.w"]
        return nn.functional.conv2d(x, weight, tensors[f"{name}.b"], padding=weight.shape[-1] // 2)

    x = conv("blocks.input", model.pixels(tokens))
    for group in (1, 2, 3, 4):
        for block in (1, 2):
            name = f"blocks.group_{group}.block_{block}"
            y = x
            for i in (1, 2, 3, 4):
                y = conv(f"{name}.res_path.conv_{i}", y.relu())
            x = (conv(f"{name}.id_path", x) if f"{name}.id_path.w" in tensors else x) + y / 8**2
        if group < 4:
            x = nn.functional.max_pool2d(x, 2)
    assert torch.equal(model(tokens), conv("blocks.output.conv", x.relu()).argmax(1).flatten(1))


def test_a_wrong_encoder_file_is_named_with_what_is_wrong_and_how_to_get_a_right_one(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    with pytest.raises(ValueError, match=r"no file is named; open the published encoder\.pkl"):
        DalleTokenizer(None, MEAN, STD).prepare(PICTURE, views())
    with pytest.raises(ValueError, match=r"encoder\.safetensors is not a file; open"):
        small(path)
    tensors = small_file(path)
    save_file({n: t for n, t in tensors.items() if n != "blocks.input.b"} | {"other.b": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"blocks\.input\.bias is absent there and should be \(8,\); open"):
        small(path).prepare(PICTURE, views())
    save_file(tensors | {"blocks.input.w": torch.ones(8, 3, 3, 3)}, path)
    with pytest.raises(ValueError, match=r"blocks\.input\.weight is \(8, 3, 3, 3\) there and should be \(8, 3, 7, 7\)"):
        small(path).prepare(PICTURE, views())
    path.write_bytes(b"not a file of tensors")
    with pytest.raises(ValueError, match="cannot be read as a state dict of tensors"):
        small(path).prepare(PICTURE, views())


def spring() -> None:
    raise AssertionError("a pickle was executed")


class Trap:
    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return spring, ()


def test_a_pickled_module_is_never_executed(tmp_path: Path) -> None:
    path = tmp_path / "encoder.pkl"
    path.write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(ValueError, match="cannot be read as a state dict of tensors"):
        small(path).prepare(PICTURE, views())
    torch.save(Trap(), path)
    with pytest.raises(ValueError, match="cannot be read as a state dict of tensors"):
        small(path).prepare(PICTURE, views())


def test_the_dalle_encoder_refuses_clips(tmp_path: Path) -> None:
    small_file(tmp_path / "encoder.pt")
    with pytest.raises(ValueError, match="use tokenizer=learned for clips"):
        small(tmp_path / "encoder.pt").prepare(Grid.of(4, (16, 8), (2, 4, 4)), views())
