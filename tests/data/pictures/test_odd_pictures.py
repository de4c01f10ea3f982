"""Pictures as cameras and scanners leave them: turned, of 16 bits, long, large."""

from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from mae.data.pictures.decode import Decoding, cover, part_of_scaled, read_picture, scaled_to_cover, to_array
from mae.data.pictures.depth import white_of
from mae.data.pictures.folder import DecodedFolder, StreamedFolder
from mae.data.pictures.geometry import CentreView, FixedView, RandomView
from mae.data.pictures.lists import pictures_in
from mae.errors import DataError
from tests.data.pictures.picture_writer import draw

CPU = torch.device("cpu")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_pictures_are_turned_upright_as_exif_says(tmp_path: Path, orientation: int, suffix: str) -> None:
    picture = Image.open(draw(tmp_path / "a.png", size=(40, 30)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / f"b.{suffix}", exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    with Image.open(tmp_path / f"b.{suffix}") as again:
        expected = ImageOps.exif_transpose(again)
    found = read_picture(tmp_path / f"b.{suffix}")
    assert found.size == ((40, 30) if orientation < 5 else (30, 40))
    assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_a_damaged_orientation_says_nothing(tmp_path: Path) -> None:
    picture = Image.open(draw(tmp_path / "a.png"))
    picture.save(tmp_path / "b.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\xff")
    assert read_picture(tmp_path / "b.jpg").size == (40, 30)


def deep(path: Path, highest: int) -> Path:
    """A ramp of 16-bit grey from 0 to ``highest``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, highest, 24 * 24).round().astype(np.uint16).reshape(24, 24)
    Image.fromarray(ramp).save(path)
    return path


def deep_set(root: Path, highest: int, suffix: str) -> Path:
    for split in ("train", "test"):
        for place in range(3):  # the others are darker, and are read by the same white
            deep(root / split / "a" / f"{place}.{suffix}", highest // (place + 1))
    return root


@pytest.mark.parametrize(("highest", "white"), [(200, 255), (1000, 1023), (2160, 4095), (4095, 4095), (16000, 16383)])
@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_fewer_bits_in_16_do_not_become_black_and_that_is_said_once(
    tmp_path: Path, highest: int, white: int, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    root = str(deep_set(tmp_path / "set", highest, suffix))
    with caplog.at_level(logging.WARNING):
        splits = DecodedFolder(root=root, size=[24, 24], channels=1, train=3, test=3)(tmp_path / "cache")
    assert [record.getMessage().partition("its ")[2] for record in caplog.records] == [
        f"16-bit pictures use {white.bit_length()} bits; {white} is read as white"
    ]
    (batch,) = splits.train.batches([torch.arange(3)], CPU)
    assert batch.images[0].max() == highest * 255 // white
    assert batch.images[1].max() == (highest // 2) * 255 // white
    streamed = StreamedFolder(root=root, channels=1, train=3, test=3)(Path()).test
    streamed.workers, streamed.geometry = 0, CentreView((24, 24), (24, 24))  # type: ignore[attr-defined]
    (again,) = streamed.batches([torch.arange(3)], CPU)
    assert torch.equal(again.images, batch.images)


def test_whole_16_bits_keep_their_upper_byte_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = deep(tmp_path / "train" / "a" / "0.png", 65535)
    deep(tmp_path / "test" / "a" / "0.png", 65535)
    assert white_of(pictures_in(tmp_path).train) == 65535
    assert not caplog.records
    assert np.array_equal(np.asarray(Decoding(1)(path)), np.asarray(read_picture(path)) >> 8)


@pytest.mark.parametrize("white", [4095, 900, 300, 65534])
def test_a_white_that_is_stated_takes_the_place_of_the_one_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, white: int
) -> None:
    root = deep_set(tmp_path / "set", 900, "png")  # which by themselves pass for 10 bits
    values = np.asarray(Image.open(root / "test" / "a" / "0.png")).astype(int)
    decoded, streamed = (
        kind(root=str(root), train=3, test=3, channels=1, white=white, **more)  # type: ignore[arg-type]
        for kind, more in ((DecodedFolder, {"size": (24, 24)}), (StreamedFolder, {}))
    )
    (batch,) = decoded(tmp_path / "cache").test.batches([torch.tensor([0])], CPU)
    assert np.array_equal(batch.images[0, 0].numpy(), values.clip(max=white) * 255 // white)
    assert streamed.decoding(streamed.sides()) == Decoding(1, white)
    assert not caplog.records


@pytest.mark.parametrize("white", [0, -1, 65536, 4095.0, "4095", True])
def test_a_white_that_no_16_bits_have_is_refused(white: object) -> None:
    with pytest.raises(DataError, match=rf"data\.source\.white={white} is no white of 16-bit pixels; give a whole"):
        StreamedFolder(root=None, train=1, test=1, white=white)  # type: ignore[arg-type]


def test_a_white_renames_what_is_read_only_where_it_is_stated(tmp_path: Path) -> None:
    deep_set(tmp_path, 2160, "png")
    given = {"root": str(tmp_path), "train": 1, "test": 1, "channels": 1}
    plain, found, stated = (
        StreamedFolder(**given, **more).identity("pretrain")  # type: ignore[arg-type]
        for more in ({}, {"white": None}, {"white": 4095})
    )
    assert plain == found != stated
    assert "white" not in plain


def test_colours_of_16_bits_that_would_become_black_are_refused(tmp_path: Path) -> None:
    values = np.linspace(0, 4095, 64 * 3).round().astype(">u2").reshape(8, 8, 3)
    content = b"P6 8 8 65535\n" + values.tobytes()
    (tmp_path / "a.ppm").write_bytes(content)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(png)
    for name in ("a.ppm", "a.png"):
        with pytest.raises(ValueError, match="colours of 16 bits that hold less than the upper 4 would become black"):
            read_picture(tmp_path / name)


@pytest.mark.parametrize("size", [(30000, 1), (1, 30000), (60000, 2)])
@pytest.mark.parametrize("view", [CentreView(), RandomView(), FixedView((224, 224), (256, 256))], ids=repr)
def test_a_long_line_takes_little_memory(size: tuple[int, int], view: CentreView) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, size[::-1], dtype=np.uint8)).convert("RGB")
    made: list[int] = []
    resize = Image.Image.resize

    def watched(self: Image.Image, target: tuple[int, int], *arguments: object, **options: object) -> Image.Image:
        made.append(target[0] * target[1])
        return resize(self, target, *arguments, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", watched)
        found = view(picture, torch.Generator().manual_seed(0))
    assert found.size == (224, 224)
    assert max(made) <= 1 << 24


def test_a_part_of_a_scaled_picture_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 300, 3), dtype=np.uint8))
    scaled = scaled_to_cover(picture, (64, 64))
    whole = to_array(cover(picture, (56, 56), (64, 64))).astype(int)
    monkeypatch.setattr("mae.data.pictures.decode.LARGEST", 1)
    left, top = round((scaled[0] - 56) / 2), round((scaled[1] - 56) / 2)
    part = to_array(part_of_scaled(picture, scaled, (left, top, left + 56, top + 56))).astype(int)
    assert abs(part - whole).max() <= 1


def test_a_picture_of_more_pixels_than_allowed_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = draw(tmp_path / "a.png", size=(100, 50))
    for limit in (4999, 999):
        with pytest.raises(ValueError, match=rf"100 x 50 pixels are more than {limit}; .* raise data\.source\.max_pix"):
            read_picture(path, limit)
    assert read_picture(path, 5000).size == (100, 50)
    for split in ("train", "test"):
        for place in range(2):
            draw(tmp_path / "set" / split / "a" / f"{place}.png", size=(100, 50))
    data = DecodedFolder(root=str(tmp_path / "set"), size=[8, 8], channels=3, train=2, test=2, max_pixels=4999)
    with pytest.raises(ValueError, match="100 x 50 pixels are more than 4999"):
        data(tmp_path / "cache")
