"""Atomic writing and locks: a reader sees the old file or the new one, and one process at a time goes on."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mae.disk import locked, replacing, write_bytes, write_text


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "a.txt"
    write_text(path, "old\n")
    write_text(path, "ångström\n")
    assert path.read_bytes() == "ångström\n".encode()
    write_bytes(path, b"\0")
    assert path.read_bytes() == b"\0"
    assert list(path.parent.iterdir()) == [path]


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_bytes(path, b"old")

    def write() -> None:
        with replacing(path) as draft:
            assert (draft.parent, draft.suffix) == (path.parent, path.suffix)
            draft.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_longest_file_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_bytes(path, b"all")
    assert path.read_bytes() == b"all"


def test_another_process_is_told_that_a_lock_is_held(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from mae.disk import locked\nwith locked(Path({str(tmp_path / 'l')!r}), "
    ask = [sys.executable, "-c", code + "wait=False) as mine: print(mine)"]
    with locked(tmp_path / "l") as mine:
        assert mine
        assert subprocess.check_output(ask, text=True).strip() == "False"
        with locked(tmp_path / "l", wait=False) as again:  # not even this process gets it twice
            assert not again
    assert subprocess.check_output(ask, text=True).strip() == "True"


def test_who_waits_goes_on_when_the_lock_is_free(tmp_path: Path) -> None:
    entered = threading.Event()

    def wait() -> None:
        with locked(tmp_path / "l"):
            entered.set()

    with locked(tmp_path / "l"):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not entered.wait(0.2)
    assert entered.wait(10)
    thread.join()
