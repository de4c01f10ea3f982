"""What an encoder looks at, and what it tells apart: attention of its last block, components of its patch features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mae.grid import Grid
from mae.model import Encoder


@torch.no_grad()
def attention(encoder: Encoder, patches: Tensor) -> Tensor:
    """How much of its attention each head of the last block gives to each patch: ``(B, heads, N)``, of ``(B, N, P)``.

    It is that of the class token, or where there is none the mean of all patches; what the class token gives to itself
    is left out.
    """
    tokens = encoder.tokens(patches)
    blocks: list[Any] = [*encoder.blocks]  # timm's
    *before, last = blocks
    for block in before:
        tokens = block(tokens)
    layer, count = last.attn, tokens.shape[1]
    query, key, _ = layer.qkv(last.norm1(tokens)).view(len(tokens), count, 3, layer.num_heads, -1).unbind(2)
    query, key = layer.q_norm(query).transpose(1, 2), layer.k_norm(key).transpose(1, 2)  # (B, heads, T, d)
    weights = (query @ key.transpose(-2, -1) * layer.scale).softmax(-1)
    asking = weights[:, :, 0] if encoder.prefix else weights.mean(2)
    seen: Tensor = asking[:, :, encoder.prefix :]
    return seen


def components(features: Tensor) -> tuple[Tensor, float]:
    """The three leading principal components of ``features: (B, N, D)`` over all items, ``(B, N, 3)`` in [0, 1].

    Each goes from its first to its 99th percentile. Beside them stands the share of the variance that they hold.
    """
    flat = features.flatten(0, 1).double()
    flat = flat - flat.mean(0)
    values, vectors = torch.linalg.eigh(flat.T @ flat)
    leading = vectors.flip(1).T[:3]
    # the sign of an eigenvector is free: make its largest entry positive
    leading = leading * leading.gather(1, leading.abs().argmax(1, keepdim=True)).sign()
    found = flat @ leading.T
    low, high = (torch.quantile(found[:: max(1, len(found) // 10_000)], share, dim=0) for share in (0.01, 0.99))
    shown = ((found - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    share = float(values.flip(0)[:3].sum() / values.sum().clamp(min=1e-12))
    return shown.view(*features.shape[:2], 3).float(), share


def spread(values: Tensor, grid: Grid) -> Tensor:
    """``(B, N, K)`` of patches as clips ``(B, K, T, H, W)`` of their pixels."""
    pt, ph, pw = grid.patch
    cubes = values.view(len(values), grid.t, grid.h, grid.w, -1).permute(0, 4, 1, 2, 3)
    return cubes.repeat_interleave(pt, 2).repeat_interleave(ph, 3).repeat_interleave(pw, 4)
