"""What a step costs, counted from shapes alone (no torch): visible patches, and FLOPs (multiply and add are two)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def transformer_flops(tokens: float, width: int, depth: int, mlp_ratio: float = 4.0) -> float:
    """Forward FLOPs of ``depth`` pre-norm blocks over one sequence: projections, attention and MLP."""
    projections = 2 * tokens * width * width * (4 + 2 * mlp_ratio)
    attention = 4 * tokens * tokens * width
    return depth * (projections + attention)


def visible(mask: Mapping[str, Any], slots: int, plane: int) -> int:
    """How many of ``slots * plane`` patches the strategy of a ``mask`` section keeps, ``plane`` of them to a slot.

    A tube is counted on the plane and a frame mask in slots, everything else in patches; ValueError as ``num_keep``.
    """
    ratio, rounding = float(mask["ratio"]), str(mask["rounding"])
    strategy = str(mask["_target_"]).rpartition(".")[2]
    if strategy == "Tube":
        return slots * num_keep(plane, ratio, rounding)
    if strategy == "Frame":
        return plane * num_keep(slots, ratio, rounding)
    return num_keep(slots * plane, ratio, rounding)


def predicted_values(frames: Mapping[str, Any], dropped: int, slots: int, patch: Sequence[int], channels: int) -> float:
    """Pixel values that the decoder gives for one clip, of whose patches ``dropped`` are dropped in ``slots`` slots.

    ``frames`` is the section that names a class of ``mae.frames``, ``patch = (pt, ph, pw)`` that of the encoder.
    """
    share = {"CentreFrame": 1 / (slots * patch[0]), "TwiceTheFrames": 2.0}
    return dropped * math.prod(patch) * channels * share.get(str(frames["_target_"]).rpartition(".")[2], 1.0)


def pretrain_flops(
    model: Mapping[str, Any], patches: int, visible: int, patch_dim: int, predicted: float | None = None
) -> float:
    """Forward FLOPs of one masked clip: encoder over what it sees (all with ``mask_tokens``), decoder over all.

    ``predicted`` values are given by the head, None for all of the dropped patches.
    """
    values = (patches - visible) * patch_dim if predicted is None else predicted
    encoder, decoder = model["encoder"], model["decoder"]
    prefix = int(model["class_token"])
    width, narrow = int(encoder["width"]), decoder_width(model)
    seen = patches if model["mask_tokens"] else visible
    return (
        2 * visible * patch_dim * width
        + transformer_flops(seen + prefix, width, encoder["depth"])
        + 2 * (seen + prefix) * width * narrow
        + transformer_flops(patches + prefix, narrow, decoder["depth"])
        + 2 * narrow * values
    )


def classify_flops(model: Mapping[str, Any], patches: int, patch_dim: int) -> float:
    """Forward FLOPs of one whole clip through the encoder."""
    width, tokens = int(model["encoder"]["width"]), patches + int(model["class_token"])
    return 2 * patches * patch_dim * width + transformer_flops(tokens, width, model["encoder"]["depth"])


def decoder_width(model: Mapping[str, Any]) -> int:
    """Channels of the decoder: its share of the encoder's, to the nearest whole number."""
    return round(int(model["encoder"]["width"]) * float(model["decoder"]["width_share"]))


def num_keep(n: int, ratio: float, rounding: str) -> int:
    """How many of ``n`` patches stay visible at a masking ``ratio`` in (0, 1).

    ``rounding`` names the paper's rule: ``mae`` keeps ``int(n (1 - r))``, ``videomae`` drops ``int(r n)``.
    ValueError if the ratio is outside (0, 1), or if nothing would be kept or dropped.
    """
    if not 0 < ratio < 1:
        raise ValueError(f"masking ratio {ratio} is outside (0, 1)")
    rules = {"mae": int(n * (1 - ratio)), "videomae": n - int(ratio * n)}
    if rounding not in rules:
        raise ValueError(f"unknown rounding {rounding!r}; choose one of {', '.join(rules)}")
    if not 0 < rules[rounding] < n:
        raise ValueError(
            f"masking ratio {ratio} of {n} patches would keep {rules[rounding]}; keep at least 1, drop at least 1"
        )
    return rules[rounding]
