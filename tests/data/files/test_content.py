"""The digest of what files hold: of copies the same, of other content another, and remembered."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mae.data.files import content
from mae.data.files.content import content_of, remember_in

NAMES = ["a", "b"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "files"
    root.mkdir()
    (root / "a").write_bytes(b"small")
    (root / "b").write_bytes(bytes(range(256)) * 1000)
    return root


def test_a_copy_elsewhere_and_another_name_are_the_same_content(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "a").rename(copy / "renamed")
    assert content_of(copy, ["renamed", "b"]) == content_of(folder, NAMES)
    assert content_of(folder, [str(copy / "renamed"), "b"]) == content_of(folder, NAMES)


@pytest.mark.parametrize(("name", "place"), [("a", 0), ("b", 0), ("b", 255_999), ("b", 128_000)])
def test_other_content_of_the_same_size_and_time_is_another(folder: Path, name: str, place: int) -> None:
    before, path = content_of(folder, NAMES), folder / name
    times = path.stat()
    changed = bytearray(path.read_bytes())
    changed[place : place + 40_000] = bytes(byte ^ 1 for byte in changed[place : place + 40_000])
    path.write_bytes(bytes(changed))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert content_of(folder, NAMES) != before


def test_order_and_missing_files_count(folder: Path) -> None:
    assert len({content_of(folder, names) for names in (["a", "b"], ["b", "a"], ["a"], ["a", "none"])}) == 4


def test_many_files_are_read_in_their_order(folder: Path) -> None:
    for index in range(120):
        (folder / f"n{index}").write_text(str(index))
    names = [f"n{index}" for index in range(120)]
    assert content_of(folder, names) != content_of(folder, names[::-1])
    assert content_of(folder, names) == content_of(folder, [*names])


def test_untouched_files_are_not_read_again_even_by_another_process(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember_in(tmp_path / "kept")
    try:
        first = content_of(folder, NAMES)
        monkeypatch.setattr(content, "_memory", {})  # as in a fresh process
        monkeypatch.setattr(content, "_piecewise", lambda path: pytest.fail("read again"))
        assert content_of(folder, NAMES) == first
    finally:
        remember_in(None)
