"""Facts of the machine that trainings rely on."""

import ctypes
import subprocess
import sys

import pytest

GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim")

#: Counts the page faults of one of the last of some steps, and what the next job would see of their memory as its own.
PROGRAM = """
import resource
import torch
from mae.memory import keep_freed_memory
from mae.train.machine import peak_memory_gb, reset_peak_memory

if {keep}:
    keep_freed_memory()
fresh = peak_memory_gb(torch.device("cpu"))
steps = []
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    x = torch.ones(12_000_000)  # 48 MB
    y = x + 1
    del x, y
    steps.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
reset_peak_memory(torch.device("cpu"))
print(min(steps[4:]), peak_memory_gb(torch.device("cpu")) - fresh)
"""


def _run(keep: bool) -> tuple[int, float]:
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(keep=keep)], capture_output=True, text=True, check=True)
    faults, more = done.stdout.split()
    return int(faults), float(more)


@pytest.mark.skipif(not GLIBC, reason="only glibc is told to keep freed memory")
def test_kept_memory_is_used_again_without_fresh_pages_and_is_not_the_next_jobs() -> None:
    faults, more = _run(keep=True)
    fresh, _ = _run(keep=False)
    assert fresh > 100
    assert faults < fresh / 10
    assert more < 0.05  # of the 0.1 GB that were freed
