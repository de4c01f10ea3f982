"""Weights of this project as a folder that transformers, timm or this project opens.

A folder holds ``model.safetensors``, ``manifest.json``, a model card, and for transformers ``config.json``.
"""

from __future__ import annotations

import json
import math
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
from mae.weights.names import Weights, read, read_decoder

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
class Trained:
    """The ``encoder`` of a training, its ``decoder`` if it has one, by own names, and the ``spec`` that it computed."""

    encoder: Mapping[str, Tensor]
    decoder: Mapping[str, Tensor] | None
    spec: Mapping[str, Any]

    @property
    def grid(self) -> Grid:
        data = self.spec["data"]
        return Grid.of(data["frames"], tuple(data["input_size"]), tuple(self.spec["model"]["patch"]), data["channels"])

    @property
    def width(self) -> int:
        return len(self.encoder["embed.bias"])

    def positions(self) -> Tensor:
        """The table ``(1, N, D)`` that the encoder adds: its own, or the fixed one."""
        table = self.encoder.get("positions")
        return (
            POSITIONS[self.spec["model"]["positions"]](self.grid, self.width).unsqueeze(0) if table is None else table
        )

    def kernel(self) -> Tensor:
        """The patch embedding as a convolution ``(D, C, pt, ph, pw)``."""
        return self.encoder["embed.weight"].view(self.width, *self.grid.patch, self.grid.channels).movedim(-1, 1)


def trained(path: Path) -> Trained:
    """What lies at ``path``: a run's folder of weights, or one that ``convert`` wrote as safetensors.

    DataError when there is no spec beside the weights, when they are damaged, or not those of a plain ViT.
    """
    index, manifest = path / "checkpoint.json", path / "manifest.json"
    try:
        if index.is_file():
            found = json.loads(index.read_text(encoding="utf-8"))
            file, spec = path / found["file"], found["state"]["spec"]
        else:
            file, spec = path / "model.safetensors", json.loads(manifest.read_text(encoding="utf-8"))["spec"]
        weights = read(file)
        decoder = _decoder(file)
        made = Trained(weights.tensors, decoder, spec)
        if made.encoder["embed.weight"].numel() != made.width * made.grid.patch_dim:
            raise ValueError(f"{file} has patches of another size than its spec")
    except FileNotFoundError as error:
        raise DataError(
            f"{path} has no checkpoint.json or manifest.json, which say what the weights are; "
            "give the folder of a run, out/weights/FINGERPRINT"
        ) from error
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} has a spec without {error}; give the folder of a run of this version") from error
    except ValueError as error:
        raise DataError(str(error)) from error
    if "mask_token" in made.encoder:
        raise DataError(f"{path} has mask tokens in its encoder, which no other library has; give another training")
    return made


def _decoder(file: Path) -> Mapping[str, Tensor] | None:
    try:
        found: Weights = read_decoder(file)
    except ValueError as error:
        if "holds no decoder" in str(error):
            return None
        raise
    return found.tensors


def convert(source: Path, to: Path, kind: str) -> None:
    """Write the weights at ``source`` to the new folder ``to`` in the format ``kind``; DataError where none fits."""
    if kind not in FORMATS:
        raise DataError(f"format={kind} is unknown; choose one of {', '.join(FORMATS)}")
    if to.exists():
        raise DataError(f"{to} exists; name a folder that does not")
    found = trained(source)
    state, config = {"timm": _timm, "transformers": _transformers, "safetensors": _own}[kind](found)
    with replacing(to / "model.safetensors") as draft:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, draft, {"format": "pt"})
    if config:
        write_text(to / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
    kept = ("model", "data", "method", "pretrain", "augment", "scale", "seed")
    spec = {key: found.spec[key] for key in kept if key in found.spec}
    manifest = {"format": kind, "spec": spec, "license": "MIT"}
    write_text(to / "manifest.json", json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    write_text(to / "README.md", card(found, kind))


def _own(found: Trained) -> tuple[dict[str, Tensor], dict[str, Any]]:
    parts = {"encoder": found.encoder, "decoder": found.decoder or {}}
    return {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}, {}


def _timm(found: Trained) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if found.grid.patch[0] > 1 or found.grid.t > 1 or "class_token" not in found.encoder:
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


def _transformers(found: Trained) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """ViTMAE for pictures, VideoMAE for clips, with a decoder where there is one."""
    grid, encoder, decoder = found.grid, found.encoder, found.decoder
    size = {grid.h * grid.patch[1], grid.w * grid.patch[2]}
    if len(size) > 1 or grid.patch[1] != grid.patch[2]:
        raise DataError("transformers opens square inputs with square patches only; choose format=safetensors")
    clips = "class_token" not in encoder
    if clips == (found.spec["model"]["positions"] == "sincos_2d") or (not clips and grid.patch[0] > 1):
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
    shape = found.spec["model"]["encoder"]
    config: dict[str, Any] = {
        "model_type": "videomae" if clips else "vit_mae",
        "architectures": ["VideoMAEModel" if clips else "ViTMAEModel"],
        **_shape(encoder, shape["heads"], ""),
        "image_size": size.pop(),
        "patch_size": grid.patch[1],
        "num_channels": grid.channels,
        "layer_norm_eps": 1e-6,
    }
    if clips:
        frames = {"num_frames": grid.t * grid.patch[0], "tubelet_size": grid.patch[0]}
        config |= {**frames, "use_mean_pooling": False}
    if decoder is not None:
        config["architectures"] = ["VideoMAEForPreTraining" if clips else "ViTMAEForPreTraining"]
        config |= _shape(decoder, found.spec["method"]["decoder"]["heads"], "decoder_")
        target = found.spec["method"]["target"]["_target_"]
        config["norm_pix_loss"] = "Normalised" in target
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


def card(found: Trained, kind: str) -> str:
    """The model card: what was trained on what, and how the folder is opened."""
    grid, source = found.grid, found.spec["data"]["source"].get("_target_", "unknown")
    count = sum(math.prod(tensor.shape) for tensor in found.encoder.values())
    opened = {
        "timm": "timm.create_model(NAME, num_classes=0, checkpoint_path='model.safetensors')",
        "transformers": "transformers.AutoModel.from_pretrained(FOLDER)",
        "safetensors": "mae.weights.read(FOLDER)",
    }
    decoder = "with" if found.decoder is not None else "without"
    return f"""---
license: mit
---
# A masked autoencoder

The encoder is a ViT of width {found.width} with {count:,} parameters, {decoder} a decoder beside it. It reads
{grid.t * grid.patch[0]} x {grid.h * grid.patch[1]} x {grid.w * grid.patch[2]} pixels in patches of {grid.patch}.
It was pre-trained on `{source}` at the scale `{found.spec.get("scale")}`, with the seed {found.spec.get("seed")}.
Pictures are normalised by the mean {found.spec["data"]["mean"]} and the deviation {found.spec["data"]["std"]}.
`manifest.json` holds the whole spec. Metrics are not recorded here.

`{opened[kind]}` opens it.
"""
