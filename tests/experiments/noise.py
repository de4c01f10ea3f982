"""Fixed pictures and clips of noise, and digests of what is made of them."""

from __future__ import annotations

import hashlib

import torch
from torch import Generator, Tensor

from experiments.spec import Spec
from experiments.stages.pretraining import Pretraining
from mae.data.source import Images


def digest(tensor: Tensor) -> str:
    """Sixteen hexadecimal digits of the values of a tensor."""
    return hashlib.sha256(tensor.float().numpy().tobytes()).hexdigest()[:16]


def pictures(count: int = 32) -> Images:
    """Fixed noise with fixed labels."""
    pixels = torch.randint(256, (count, 3, 32, 32), generator=Generator().manual_seed(0), dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 10, tuple(map(str, range(10))))


def noise(spec: Spec, count: int = 4) -> Tensor:
    """Fixed noise in the shape that the pre-training of a spec samples."""
    sampling = Pretraining(spec).sampling()
    if sampling is None:
        return pictures(count).pixels
    shape = (count, 3, sampling.frames, *spec.data.input_size)
    return torch.randint(256, shape, generator=Generator().manual_seed(0), dtype=torch.uint8)
