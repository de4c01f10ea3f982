"""Encoder weights from elsewhere: own checkpoints, the official MAE and VideoMAE, timm, transformers.

``read`` gives them in the names of ``mae.model.Encoder``, ``adapt`` makes them fit one: an image model's patch
embedding is inflated to cubes, a class token that is not asked for is left out. Position tables are not taken over:
they are fixed here, as in both papers.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mae.model import Encoder

#: Where a file keeps its tensors, when not at the top.
CONTAINERS = ("model", "module", "state_dict")

#: What stands before the names of an encoder in a file that holds more than the encoder.
PREFIXES = {
    "encoder.embed.": "encoder.",
    "encoder.patch_embed.": "encoder.",
    "videomae.": "videomae.",
    "vit.": "vit.",
}

#: Names elsewhere and here; each rule is applied once, in this order.
RENAMES = (
    (r"^(patch_embed\.proj|embeddings\.patch_embeddings\.projection)\.", "embed."),
    (r"^(embeddings\.)?cls_token$", "class_token"),
    (r"^layernorm\.", "norm."),
    (r"^(encoder\.layer|layers)\.", "blocks."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.attention\.(attention\.)?", ".attn."),
    (r"\.attn\.(q|k|v)_proj\.", r".attn.\1."),
    (r"\.attn\.query\.", ".attn.q."),
    (r"\.attn\.key\.", ".attn.k."),
    (r"\.attn\.value\.", ".attn.v."),
    (r"\.attn\.(q|v)_bias$", r".attn.\1.bias"),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
)

#: What a file may hold besides an encoder, in its names: decoders, heads, fixed positions.
ELSEWHERE = re.compile(
    r"^(decoder|encoder_to_decoder|head\.|fc_norm\.|classifier\.|pooler\.|(embeddings\.)?mask_token$"
    r"|pos_embed$|positions$|embeddings\.position_embeddings$)"
)


def read(path: Path | str) -> dict[str, Tensor]:
    """The encoder's tensors in the file at ``path`` by their names in ``Encoder``, float32, on the CPU.

    A ``.safetensors`` file, or one that ``torch.save`` wrote, of which nothing but tensors is loaded. A key without a
    bias, as VideoMAE's, gets one of zeros. ValueError when the file cannot be read, or holds a tensor that this encoder
    cannot have.
    """
    path = Path(path)
    found = _tensors(path)
    prefix = next((cut for start, cut in PREFIXES.items() if any(name.startswith(start) for name in found)), "")
    inside = {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}
    own = "encoder.embed.weight" in found  # an own encoder may have mask tokens; in other files they are the decoder's
    tensors = {
        _renamed(name): tensor.float()
        for name, tensor in inside.items()
        if not ELSEWHERE.match(name) or (own and name == "mask_token")
    }
    tensors = _fused(tensors)
    if "embed.weight" not in tensors:
        raise ValueError(f"{path} holds no patch embedding under a name known here; give the weights of a ViT")
    weight = tensors["embed.weight"]
    if weight.ndim > 2:  # a convolution: (D, C, [pt,] ph, pw) -> (D, [pt] ph pw C), the order of Grid.patchify
        tensors["embed.weight"] = weight.movedim(1, -1).flatten(1)
    return tensors


def adapt(tensors: Mapping[str, Tensor], encoder: Encoder) -> dict[str, Tensor]:
    """``tensors`` of ``read`` as a state that ``encoder`` loads.

    The embedding of an image patch is repeated over the pt frames of a cube and divided by pt, so that a still clip is
    embedded as its picture. A class token is left out where ``encoder`` has none. A final norm that is not among
    ``tensors`` (of a model fine-tuned with mean pooling) stays that of ``encoder``. ValueError, naming the tensor, when
    anything else does not fit.
    """
    state = {}
    for name, own in encoder.state_dict().items():
        tensor = tensors.get(name)
        if tensor is None and name.startswith("norm."):
            tensor = own
        if tensor is None:
            raise ValueError(f"the weights have no {name}, which this encoder needs; choose a model that they fit")
        frames = encoder.grid.patch[0]
        if name == "embed.weight" and tensor.shape[1] * frames == own.shape[1]:
            tensor = tensor.repeat(1, frames) / frames
        if tensor.shape != own.shape:
            raise ValueError(
                f"{name} is {tuple(tensors[name].shape)} in the weights and {tuple(own.shape)} in this encoder; "
                f"choose a model of their width and patch size"
            )
        state[name] = tensor
    left = sorted(tensors.keys() - state.keys() - {"class_token"})
    if left:
        raise ValueError(f"the weights have {left[0]}, which this encoder lacks; choose a model that they fit")
    return state


def _tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by their names in it."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # official checkpoints keep the options of their run beside the tensors; they are looked at by nobody
        with torch.serialization.safe_globals([argparse.Namespace]):
            found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, AttributeError, UnpicklingError) as error:
        why = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} cannot be read as weights ({why}); give a .safetensors or .pth file") from error
    for container in CONTAINERS:
        if isinstance(found, dict) and isinstance(found.get(container), dict):
            found = found[container]
            break
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise ValueError(f"{path} holds no tensors by name; give a file with the state of a model")
    return found


def _renamed(name: str) -> str:
    for pattern, ours in RENAMES:
        name = re.sub(pattern, ours, name)
    return name


def _fused(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values of a block in the one projection of timm's blocks."""
    found = dict(tensors)
    for name, query in tensors.items():
        stem, _, kind = name.partition(".q.")
        if kind:
            parts = [found.pop(f"{stem}.{part}.{kind}", torch.zeros_like(query)) for part in "qkv"]
            found[f"{stem}.qkv.{kind}"] = torch.cat(parts)  # VideoMAE's keys have no bias
    return found
