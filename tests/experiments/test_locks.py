"""Locks: one holder at a time, whoever dies lets go, and a clock that jumps changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from experiments.ablation import SpecError
from experiments.locks import FileLocks, Leases, Locks, locks_of, use_locks

#: Short enough for a test, long enough for a busy machine.
BEAT, DEAD = 0.05, 0.6


def leases(folder: Path) -> Leases:
    return Leases(folder, BEAT, DEAD)


@pytest.mark.parametrize("kind", [FileLocks, leases])
def test_one_of_many_holds_a_lock_and_the_next_one_after_it(tmp_path: Path, kind: Callable[[Path], Locks]) -> None:
    with kind(tmp_path).hold("a") as held:
        assert held is not None
        assert not held.lost()
        with kind(tmp_path).hold("a", wait=False) as other, kind(tmp_path).hold("b", wait=False) as free:
            assert other is None
            assert free is not None
    with kind(tmp_path).hold("a", wait=False) as again:
        assert again is not None


def test_of_many_that_wait_for_a_lease_one_at_a_time_has_it(tmp_path: Path) -> None:
    inside: list[int] = []

    def enter(number: int) -> int:
        with leases(tmp_path).hold("a"):
            inside.append(number)
            assert len(inside) == 1
            time.sleep(0.02)
            inside.remove(number)
        return number

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(enter, range(6))) == list(range(6))


def test_a_lease_is_kept_as_long_as_its_holder_lives_and_taken_when_it_is_dead(tmp_path: Path) -> None:
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from experiments.locks import Leases
with Leases(Path({str(tmp_path)!r}), {BEAT}, {DEAD}).hold("a"):
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        others = leases(tmp_path)
        until = time.monotonic() + 3 * DEAD
        while time.monotonic() < until:  # it lives for longer than a dead one would count as dead
            with others.hold("a", wait=False) as taken:
                assert taken is None
            time.sleep(BEAT)
        process.kill()
        with others.hold("a") as taken:
            assert taken is not None


def test_a_holder_that_was_taken_for_dead_knows_it_when_it_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with leases(tmp_path).hold("a") as held:
        assert held is not None
        monkeypatch.setattr("experiments.locks.Lease._touch", lambda *_, **__: None)  # it hangs
        others = leases(tmp_path)
        begun = time.monotonic()
        while time.monotonic() - begun < 20 * DEAD:
            with others.hold("a", wait=False) as taken:
                if taken is not None:
                    break
            time.sleep(BEAT)
        assert taken is not None
        assert held.lost()


def test_a_clock_that_jumps_neither_frees_nor_keeps_a_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = leases(tmp_path)
    with leases(tmp_path).hold("a") as held:
        for jump in (0.0, 1e9, -1e9):
            monkeypatch.setattr("time.time", lambda jump=jump: jump)
            for path in tmp_path.iterdir():
                os.utime(path, (abs(jump), abs(jump)))
            with others.hold("a", wait=False) as taken:
                assert taken is None
            time.sleep(2 * BEAT)
        assert held is not None
        assert not held.lost()


def test_an_output_folder_keeps_to_one_kind_of_lock(tmp_path: Path) -> None:
    assert isinstance(locks_of(tmp_path), FileLocks)
    assert isinstance(use_locks(tmp_path, "lease"), Leases)
    assert isinstance(locks_of(tmp_path), Leases)
    assert isinstance(use_locks(tmp_path, ""), Leases)
    with pytest.raises(SpecError, match="is used with locks=lease"):
        use_locks(tmp_path, "file")
