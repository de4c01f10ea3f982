"""Features of files are those of the encoder, and keep paths and labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mae.data.pictures.decode import cover, to_array
from mae.features import features_of, main
from mae.weights import trained
from tests.data.clips.clip_writer import numbered, write
from tests.weights.test_convert import drawn, model_of, saved
from tests.weights.test_read import latent


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of two pictures of other sizes, in two splits."""
    for number, name in enumerate(("train/cat/a.png", "train/dog/b.jpg", "test/cat/c.png", "test/dog/d.webp")):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True)
        pixels = np.random.default_rng(number).integers(0, 256, (20 + number, 24, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path / "pictures"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return saved(drawn(model_of(False, 16, 2, 2, 8, 16)), tmp_path / "run")


def test_features_are_the_mean_of_the_tokens_of_the_test_view(pictures: Path, weights: Path) -> None:
    table = features_of(pictures, weights, batch=3)
    assert table.paths == ("train/cat/a.png", "train/dog/b.jpg", "test/cat/c.png", "test/dog/d.webp")
    assert table.labels == ("cat", "dog", "cat", "dog")
    assert table.splits == ("train", "train", "test", "test")
    encoder = trained(weights).encoder()
    for row, name in enumerate(table.paths):
        with Image.open(pictures / name) as picture:
            seen = cover(picture.convert("RGB"), (16, 16), (18, 18))
        pixels = (torch.from_numpy(to_array(seen))[None] / 255 - 0.5) / 0.25
        expected = latent(encoder, pixels)[0, 1:].mean(0)
        torch.testing.assert_close(torch.from_numpy(table.values[row]), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("suffix", ["parquet", "npz"])
def test_what_is_written_is_read_by_other_libraries(suffix: str, pictures: Path, weights: Path, tmp_path: Path) -> None:
    to = tmp_path / f"features.{suffix}"
    assert main([str(pictures), f"weights={weights}", f"to={to}", "pooling=class"]) == 0
    expected = features_of(pictures, weights, pooling="class")
    if suffix == "npz":
        found = np.load(to)
        assert np.array_equal(found["features"], expected.values)
        assert tuple(found["labels"]) == expected.labels
        assert json.loads(str(found["about"]))["pooling"] == "class"
    else:
        import pandas as pd

        frame = pd.read_parquet(to)
        assert np.array_equal(np.stack(frame["features"]), expected.values)
        assert tuple(frame["path"]) == expected.paths


def test_a_list_of_clips_gives_features_of_clips(tmp_path: Path) -> None:
    weights = saved(drawn(model_of(True, 16, 2, 2, 8, 16)), tmp_path / "run")
    for name in ("a.mp4", "b.mp4"):
        write(tmp_path / name, numbered(12))
    (tmp_path / "list.csv").write_text("video,label\na.mp4,left\nb.mp4,right\n")
    table = features_of(tmp_path / "list.csv", weights)
    assert table.values.shape == (2, 16)
    assert table.labels == ("left", "right")
    assert np.array_equal(table.values[0], table.values[1])


def test_a_broken_picture_among_many_is_left_out_and_said(
    pictures: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(20):
        Image.new("L", (16, 16), number).save(pictures / "train" / "cat" / f"{number}.png")
    (pictures / "train" / "cat" / "broken.png").write_bytes(b"no picture")
    assert main([str(pictures), f"weights={weights}", f"to={tmp_path / 'f.npz'}"]) == 0
    assert "24 rows of 16 features, 1 left out" in capsys.readouterr().out
    assert "train/cat/broken.png" not in np.load(tmp_path / "f.npz")["paths"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{pictures}", "weights={weights}"], "to= is missing"),
        (["{pictures}", "to=f.npz"], "weights= is missing"),
        (["weights={weights}", "to=f.npz"], "give the folder or the list first"),
        (["{pictures}", "weights={weights}", "to=f.csv"], "ends in neither .parquet nor .npz"),
        (["{pictures}", "weights={weights}", "to={weights}/there.npz"], "exists; name a file that does not"),
        (["{pictures}", "weights={weights}", "to=f.npz", "size=20"], "height 20 is not a multiple of its patch size 8"),
        (
            ["{pictures}", "weights={weights}", "to=f.npz", "poling=class"],
            "unknown key 'poling': did you mean pooling?",
        ),
        (["{pictures}/none", "weights={weights}", "to=f.npz"], "none does not exist"),
        (["{pictures}", "weights={clips}", "to=f.npz"], "holds no clips"),
        (["{clips}", "weights={weights}", "to=f.npz"], "holds no pictures"),
        (["{pictures}", "weights={clips}", "to=f.npz", "pooling=class"], "has no class token; choose pooling=mean"),
        (["{pictures}", "weights={weights}", "to=f.npz", "device=tpu"], "device=tpu cannot be used here"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(
    words: list[str], said: str, pictures: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (weights / "there.npz").touch()
    clips = saved(drawn(model_of(True, 16, 2, 2, 8, 16)), tmp_path / "of clips")
    filled = [word.format(pictures=pictures, weights=weights, clips=clips) for word in words]
    assert main(filled) == 2
    error = capsys.readouterr().err
    assert said in error.splitlines()[-1]
    assert error.splitlines()[-1].startswith("error: ")
    assert not Path("f.npz").exists()
