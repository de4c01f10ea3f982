"""One picture: every mode and size, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mae.data.pictures.decode import cover, read_picture, to_array, with_channels
from tests.data.pictures.picture_writer import damage, draw


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (300, 31), (33, 33)])
def test_cover_agrees_with_torchvisions_resize_and_centre_crop(tmp_path: Path, size: tuple[int, int]) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    picture = read_picture(draw(tmp_path / "a.png", size=size))
    resize = transforms.Resize(28, transforms.InterpolationMode.BICUBIC)
    expected = transforms.CenterCrop(24)(resize(picture))
    assert np.array_equal(to_array(cover(picture, (24, 24), (28, 28))), to_array(expected))


def test_cover_fills_a_size_that_is_not_square_without_distortion() -> None:
    half = Image.new("L", (80, 40))
    half.paste(255, (40, 0, 80, 40))
    out = to_array(cover(half, (20, 10)))
    assert out.shape == (1, 20, 10)
    assert out[0, :, :4].max() < 10
    assert out[0, :, 6:].min() > 245


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_common_mode_becomes_the_channels_asked_for(mode: str, channels: int) -> None:
    picture = Image.new("I;16", (4, 4), 40000) if mode == "I;16" else Image.new("L", (4, 4), 255).convert(mode)
    out = to_array(with_channels(picture, channels))
    assert out.shape == (channels, 4, 4)
    assert np.all(out == (40000 >> 8 if mode == "I;16" else 255))


def test_pixels_without_a_white_point_are_refused() -> None:
    with pytest.raises(ValueError, match="white point"):
        with_channels(Image.new("F", (4, 4)), 3)


def test_a_cut_file_is_never_filled_up_even_if_another_library_allows_it(tmp_path: Path) -> None:
    from PIL import ImageFile

    path = draw(tmp_path / "a.jpg", size=(200, 200))
    damage(path)
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    with pytest.raises(OSError, match="truncated"):
        read_picture(path)
