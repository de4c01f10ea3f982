"""Weights of this project as a folder that transformers, timm or this project opens.

A folder holds ``model.safetensors``, ``manifest.json``, a model card, and for transformers ``config.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mae.disk import replacing, write_text
from mae.errors import DataError
from mae.grid import POSITIONS, Grid
from mae.targets import FittedPCA, Pixels
from mae.weights.architecture import Architecture
from mae.weights.card import Measured, card, manifest
from mae.weights.trained import Trained

FORMATS = ("timm", "transformers", "safetensors")

#: What transformers calls the parts of a block, for those of timm; queries, keys and values come apart.
PARTS = {
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
}


@dataclass(frozen=True)
class Fitted:
    """The tensors of ``found`` by own names, as its encoder and its decoder load them; no ``decoder`` for None."""

    found: Trained
    encoder: Mapping[str, Tensor]
    decoder: Mapping[str, Tensor] | None

    @classmethod
    def of(cls, found: Trained) -> Fitted:
        """DataError where a part of the encoder is missing, or is one that no other library has."""
        if found.fit.missing:
            raise DataError(f"{found.path} has no {found.fit.missing[0]}, as fine-tuned weights; give those before")
        if "mask_token" in found.fit.state:
            raise DataError(
                f"{found.path} has mask tokens in its encoder, which no other library has; give another training"
            )
        return cls(found, found.fit.state, None if found.decoder_fit is None else found.decoder_fit.state)

    @property
    def architecture(self) -> Architecture:
        return self.found.architecture

    def positions(self) -> Tensor:
        """The table ``(1, N, D)`` that the encoder adds: its own, or the fixed one."""
        table, made = self.encoder.get("positions"), self.architecture
        return POSITIONS[made.positions](made.grid, made.encoder.width).unsqueeze(0) if table is None else table

    def kernel(self) -> Tensor:
        """The patch embedding as a convolution ``(D, C, pt, ph, pw)``."""
        grid = self.architecture.grid
        return self.encoder["embed.weight"].view(-1, *grid.patch, grid.channels).movedim(-1, 1)


def convert(found: Trained, to: Path, kind: str, measured: Measured | None = None) -> None:
    """Write ``found`` to the new folder ``to`` in the format ``kind``; DataError where none fits.

    ``measured`` is what a report says of them.
    """
    if to.exists():
        raise DataError(f"{to} exists; name a folder that does not")
    fitted = Fitted.of(found)
    state, config = {"timm": _timm, "transformers": _transformers, "safetensors": _own}[kind](fitted)
    with replacing(to / "model.safetensors") as draft:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, draft, {"format": "pt"})
    if config:
        write_text(to / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
    write_text(to / "manifest.json", json.dumps(manifest(found, kind, measured), indent=2, sort_keys=True) + "\n")
    write_text(to / "README.md", card(found, kind, measured))


def _own(found: Fitted) -> tuple[dict[str, Tensor], dict[str, Any]]:
    raw, target = found.found.decoder, found.architecture.target
    parts = {"encoder": found.encoder, "decoder": found.decoder or (raw.tensors if raw else {})}
    if isinstance(target, FittedPCA):
        parts["target"] = target.state_dict()
    return {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}, {}


def _timm(found: Fitted) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if found.architecture.clips or "class_token" not in found.encoder:
        raise DataError("timm has ViTs of pictures with a class token, and these weights are of another kind; "
                        "choose format=transformers")  # fmt: skip
    state = {name: tensor for name, tensor in found.encoder.items() if name.startswith(("blocks.", "norm."))}
    state["patch_embed.proj.weight"], state["patch_embed.proj.bias"] = (
        found.kernel()[:, :, 0],
        found.encoder["embed.bias"],
    )
    state["cls_token"] = found.encoder["class_token"]
    state["pos_embed"] = _behind_class_token(found.positions())
    return state, {}


def _behind_class_token(table: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(table[:, :1]), table], 1)


def _transformers(found: Fitted) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """ViTMAE for pictures, VideoMAE for clips, with a decoder where there is one."""
    made, encoder, decoder = found.architecture, found.encoder, found.decoder
    grid, size = made.grid, set(made.size)
    if len(size) > 1 or grid.patch[1] != grid.patch[2]:
        raise DataError("transformers opens square inputs with square patches only; choose format=safetensors")
    clips = "class_token" not in encoder
    if clips == (made.positions == "sincos_2d") or (not clips and grid.patch[0] > 1):
        raise DataError("transformers has pictures with a class token and clips without one; choose format=safetensors")
    if clips and "positions" in encoder:
        raise DataError("transformers' VideoMAE has fixed positions and these are others; choose format=safetensors")
    base = "videomae" if clips else "vit"
    state = {
        f"{base}.embeddings.patch_embeddings.projection.weight": found.kernel() if clips else found.kernel()[:, :, 0],
        f"{base}.embeddings.patch_embeddings.projection.bias": encoder["embed.bias"],
        f"{base}.layernorm.weight": encoder["norm.weight"],
        f"{base}.layernorm.bias": encoder["norm.bias"],
        **_blocks(encoder, f"{base}.encoder.layer", clips),
    }
    if not clips:
        state["vit.embeddings.cls_token"] = encoder["class_token"]
        state["vit.embeddings.position_embeddings"] = _behind_class_token(found.positions())
    config: dict[str, Any] = {
        "model_type": "videomae" if clips else "vit_mae",
        "architectures": ["VideoMAEModel" if clips else "ViTMAEModel"],
        **_shape(encoder, made.encoder.heads, ""),
        "image_size": size.pop(),
        "patch_size": grid.patch[1],
        "num_channels": grid.channels,
        "layer_norm_eps": 1e-6,
    }
    if clips:
        frames = {"num_frames": made.frames, "tubelet_size": grid.patch[0]}
        config |= {**frames, "use_mean_pooling": False}
    if decoder is not None and made.decoder is not None:
        config["architectures"] = ["VideoMAEForPreTraining" if clips else "ViTMAEForPreTraining"]
        config |= _shape(decoder, made.decoder.heads, "decoder_")
        config["norm_pix_loss"] = not isinstance(made.target, Pixels)
        if clips and "embed.bias" in decoder:
            raise DataError("transformers' VideoMAE has no bias before its decoder; choose format=safetensors")
        if "mask_token" not in decoder or (clips and "positions" in decoder):
            raise DataError("transformers has no decoder like this one; choose format=safetensors")
        state |= _blocks(decoder, "decoder.decoder_layers", clips) | _ends(decoder, grid, clips)
    return state, config


def _ends(decoder: Mapping[str, Tensor], grid: Grid, clips: bool) -> dict[str, Tensor]:
    """What of a decoder is in no block."""
    names = (
        {"embed": "encoder_to_decoder", "norm": "decoder.norm", "head": "decoder.head", "mask_token": "mask_token"}
        if clips
        else {
            "embed": "decoder.decoder_embed",
            "norm": "decoder.decoder_norm",
            "head": "decoder.decoder_pred",
            "mask_token": "decoder.mask_token",
        }
    )
    state = {}
    for name, tensor in decoder.items():
        part, dot, kind = name.partition(".")
        if part in names:
            state[names[part] + dot + kind] = tensor
    if not clips:
        table = decoder.get("positions", POSITIONS["sincos_2d"](grid, len(decoder["norm.bias"])).unsqueeze(0))
        state["decoder.decoder_pos_embed"] = _behind_class_token(table)
    return state


def _shape(state: Mapping[str, Tensor], heads: int, prefix: str) -> dict[str, int]:
    return {
        f"{prefix}hidden_size": len(state["norm.bias"]),
        f"{prefix}num_hidden_layers": len({name.split(".")[1] for name in state if name.startswith("blocks.")}),
        f"{prefix}num_attention_heads": heads,
        f"{prefix}intermediate_size": len(state["blocks.0.mlp.fc1.bias"]),
    }


def _blocks(state: Mapping[str, Tensor], stack: str, clips: bool) -> dict[str, Tensor]:
    """The blocks as transformers calls them; VideoMAE's keys have no bias, which shifts all scores of a query alike."""
    made = {}
    for name, tensor in state.items():
        if not name.startswith("blocks."):
            continue
        _, number, inside = name.split(".", 2)
        part, _, kind = inside.rpartition(".")
        if part != "attn.qkv":
            made[f"{stack}.{number}.{PARTS[part]}.{kind}"] = tensor
            continue
        for which, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
            attention = f"{stack}.{number}.attention.attention"
            if kind == "weight" or not clips:
                made[f"{attention}.{which}.{kind}"] = piece.clone()
            elif which != "key":
                made[f"{attention}.{which[0]}_bias"] = piece.clone()
    return made
