"""What the parts of a network cost on one sample: FLOPs, a multiplication and an addition counting as two.

Products of matrices are counted, nothing else, as ``torch.utils.flop_counter`` does.
"""

from __future__ import annotations


def linear_flops(rows: float, inputs: int, outputs: int) -> float:
    """A linear layer from ``inputs`` to ``outputs`` channels runs over ``rows`` vectors."""
    return 2.0 * rows * inputs * outputs


def attention_flops(queries: int, keys: int, width: int) -> float:
    """Every query meets every key, and weighs every value; all heads together have ``width`` channels."""
    return 4.0 * queries * keys * width
