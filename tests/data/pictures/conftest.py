"""A folder of pictures for the tests beside."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.pictures.picture_writer import draw


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures of cats and dogs each for training, three for testing."""
    root = tmp_path / "pets"
    for split, count in {"train": 6, "test": 3}.items():
        for label, kind in enumerate(("cat", "dog")):
            for index in range(count):
                draw(root / split / kind / f"{index}.png", seed=100 * label + 10 * count + index)
    return root
