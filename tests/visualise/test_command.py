"""The figures of pictures and clips are drawn from weights, or one sentence says why they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mae.methods.masked_autoencoder import MaskedAutoencoder
from mae.targets import PatchNormalisedPixels
from mae.visualise.__main__ import main, masks_of
from mae.visualise.sheet import CAPTION, GAP, save_sheet, strip
from mae.weights import trained
from tests.data.clips.clip_writer import numbered, write
from tests.data.pictures.picture_writer import draw
from tests.weights.test_convert import drawn, model_of, saved


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return saved(drawn(model_of(False, 16, 2, 2, 8, 32)), tmp_path / "run")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number, mode in enumerate(("RGB", "L")):
        draw(tmp_path / "pictures" / f"{number}.png", seed=number, mode=mode)
    return tmp_path / "pictures"


def test_a_folder_of_pictures_is_drawn(weights: Path, pictures: Path, tmp_path: Path) -> None:
    to = tmp_path / "figures"
    assert main([str(pictures), f"weights={weights}", f"to={to}"]) == 0
    assert sorted(path.name for path in to.iterdir()) == [
        "001-0-attention.png",
        "001-0-reconstructions.png",
        "002-1-attention.png",
        "002-1-reconstructions.png",
        "components.png",
    ]


def test_clips_are_drawn(tmp_path: Path) -> None:
    weights, to = saved(drawn(model_of(True, 16, 2, 2, 8, 16)), tmp_path / "run"), tmp_path / "figures"
    write(tmp_path / "a.mp4", numbered(12))
    assert main([str(tmp_path / "a.mp4"), f"weights={weights}", f"to={to}", "masks=tube,random", "ratios=0.5"]) == 0
    assert len(list(to.iterdir())) == 3


def test_a_sheet_holds_the_colours_that_it_was_given(tmp_path: Path) -> None:
    clips = torch.full((1, 3, 1, 96, 96), 1.0)  # at a mean of 0.5 and a deviation of 0.25: 0.75
    path = save_sheet({"a": strip(clips, [0.5] * 3, [0.25] * 3)}, tmp_path / "sheet.png", notes=("note",))
    with Image.open(path) as sheet:
        assert sheet.size == (96, CAPTION + 96 + CAPTION)
        assert sheet.getpixel((48, CAPTION + GAP)) == (191, 191, 191)


def test_a_normalised_prediction_owes_nothing_to_what_is_dropped(tmp_path: Path) -> None:
    model = model_of(False, 16, 2, 2, 8, 32)
    model = MaskedAutoencoder(
        model.encoder,
        decoder=trained(saved(model, tmp_path / "run")).architecture.decoder,  # type: ignore[arg-type]
        mask=model.strategy,
        target=PatchNormalisedPixels(),
    )
    picture = torch.randn(1, 3, 32, 32)
    mask = model.strategy(1, model.encoder.grid, torch.Generator().manual_seed(0))
    grid = model.encoder.grid
    other = grid.patchify(picture)
    other[0, mask.drop[0]] = 7.0
    shown = (model.drawn(picture, mask), model.drawn(grid.unpatchify(other)[:, :, 0], mask))
    assert torch.equal(shown[0]["reconstruction"], shown[1]["reconstruction"])


def test_masks_that_a_grid_cannot_have_are_left_out_unless_they_are_asked_for(tmp_path: Path) -> None:
    architecture = trained(saved(model_of(False, 16, 2, 2, 8, 24), tmp_path / "run")).architecture  # 3 x 3 patches
    assert list(masks_of(architecture, (), ("0.5",))) == ["random 50%", "block 50%"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["weights={weights}", "to={to}"], "give files or folders first"),
        (["{pictures}", "to={to}"], "weights= is missing"),
        (["{pictures}", "weights={weights}", "to={pictures}"], "exists and is not empty; name a folder that does not"),
        (["{pictures}", "weights={weights}", "to={to}", "masks=tube"], "masks=tube does not mask pictures; choose of"),
        (
            ["{pictures}", "weights={weights}", "to={to}", "masks=random", "ratios=2"],
            "ratios=2: choose numbers between 0 and 1",
        ),
        (
            ["{pictures}", "weights={weights}", "to={to}", "masks=random", "ratios=0.99"],
            "keep at least 1, drop at least 1",
        ),
        (["{pictures}", "weights={alone}", "to={to}"], "holds no decoder; give the checkpoint of a pre-training"),
        (["{pictures}", "weights={pickle}", "to={to}"], "save the state_dict of its model"),
        (["{pictures}", "weights={weights}", "to={to}", "model=vit_b16"], "choose a model of their width"),
        (["{tiny}", "weights={weights}", "to={to}"], "is too small: it has 5 x 5 pixels, less than a patch of 8"),
        (["{broken}", "weights={weights}", "to={to}"], "broken.png: not a picture in any known format"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_sentence(
    words: list[str], said: str, weights: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = trained(weights).encoder()
    alone = saved(model_of(False, 16, 2, 2, 8, 32), tmp_path / "alone")
    state = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    save_file(state, next(alone.glob("*.safetensors")))
    torch.save(encoder, tmp_path / "pickle.pth")
    Image.fromarray(np.zeros((5, 5, 3), np.uint8)).save(tmp_path / "tiny.png")
    (tmp_path / "broken.png").write_bytes(b"none")
    places = {"weights": weights, "pictures": pictures, "to": tmp_path / "out", "alone": alone}
    places |= {name: tmp_path / f"{name}.png" for name in ("tiny", "broken")} | {"pickle": tmp_path / "pickle.pth"}
    assert main([word.format(**places) for word in words]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert said in error
    assert not (tmp_path / "out").exists()


def test_an_encoder_alone_is_drawn_without_a_decoder(weights: Path, pictures: Path, tmp_path: Path) -> None:
    state = {f"encoder.{name}": tensor for name, tensor in trained(weights).encoder().state_dict().items()}
    save_file(state, next(weights.glob("*.safetensors")))
    to = tmp_path / "out"
    assert main([str(pictures), f"weights={weights}", f"to={to}", "show=attention,components", "files=1"]) == 0
    assert len(list(to.iterdir())) == 2
