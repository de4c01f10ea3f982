"""Facts of the machine: its precision, its memory, its name."""

from __future__ import annotations

import resource
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from mae.errors import SpecError
from mae.memory import give_back_freed_memory


def device_of(name: str) -> torch.device:
    """``auto`` is CUDA where there is one; SpecError on a device that this machine lacks."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise SpecError(
            f"device={name} cannot be used here: {str(error).splitlines()[0]}; choose device=cpu"
        ) from error
    return torch.device(name)


def best_precision(device: torch.device) -> str:
    """``bf16`` where the processor multiplies it in hardware (CUDA from Ampere on, AVX512-BF16, AMX), else ``fp32``."""
    if device.type == "cuda":
        # older cards emulate it, slower than fp32
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        has: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # since torch 2.8
        return "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16") else "fp32"
    return "fp32"


@lru_cache
def matmul_peak(device: torch.device, precision: str) -> float:
    """FLOPs per second of the fastest large square matmul in ``precision`` on this machine, measured once."""
    side = 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.ones(2, side, side, dtype=dtype, device=device)
    best = 0.0
    for _ in range(3):
        begun = time.perf_counter()
        torch.mm(a, b)[0, 0].item()  # waits for the device
        best = max(best, 2 * side**3 / (time.perf_counter() - begun))
    return best


def memory_of(device: torch.device) -> int:
    """Bytes of memory that a CUDA device has."""
    return torch.cuda.get_device_properties(device).total_memory


def room_for_data(device: torch.device) -> int:
    """Bytes of a device's memory that data may stay in: a quarter of what is free on CUDA, none elsewhere."""
    return torch.cuda.mem_get_info(device)[0] // 4 if device.type == "cuda" else 0


def reset_peak_memory(device: torch.device) -> None:
    """Start a new peak, so that a job does not report the memory of the job before it (CUDA and Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        give_back_freed_memory()  # what earlier jobs freed and the process kept is not this job's
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # some containers forbid it: the peak is then that of the whole process
            return


def peak_memory_gb(device: torch.device) -> float:
    """Most memory held since the last reset in GB: by torch's allocator on CUDA, by this process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


def environment(device: torch.device) -> dict[str, Any]:
    """Device facts that explain a speed: name, threads, capability."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {"device": device.type, "device_name": name, "threads": torch.get_num_threads(), "torch": torch.__version__}
