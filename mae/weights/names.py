"""From the names of others to those of ``mae.model.Encoder``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mae.weights.files import tensors_at

#: The patch embedding, by which the encoder is found among all tensors, and what stands before its names.
PATCHES = re.compile(
    r"^(?P<prefix>(?:.*\.)?)(?P<name>embed|patch_embed\.proj|patch_embed\.projection"
    r"|embeddings\.patch_embeddings\.projection)\.weight$"
)

#: What wraps models, anywhere in a name: data parallelism, compilation.
WRAPPERS = re.compile(r"(^|\.)(?:(?:module|_orig_mod)\.)+")

#: Names elsewhere and here; each rule is applied once, in this order.
RENAMES = (
    (r"^(patch_embed\.proj(ection)?|embeddings\.patch_embeddings\.projection)\.", "embed."),
    (r"^(embeddings\.)?cls_token$", "class_token"),
    (r"^(pos_embed|embeddings\.position_embeddings)$", "positions"),
    (r"^(layernorm|ln1)\.", "norm."),
    (r"^(encoder\.layer|layers)\.", "blocks."),
    (r"\.ln(\d)\.", r".norm\1."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
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

#: What stands beside an encoder under the same prefix: decoders and heads.
ELSEWHERE = re.compile(
    r"^(decoder|encoder_to_decoder|head[._]|heads\.|fc_norm\.|classifier\.|pooler\.|neck\.|(embeddings\.)?mask_token$)"
)

#: The projection from the encoder, by which a decoder is found among all tensors, and what stands before its names.
PROJECTION = re.compile(
    r"^(?P<prefix>(?:.*\.)?)(?:decoder\.embed|decoder_embed|decoder\.decoder_embed|encoder_to_decoder)\.weight$"
)

#: What of a prefix belongs to its decoder.
OF_DECODER = re.compile(r"^(decoder[._]|encoder_to_decoder\.|mask_token$)")

#: Names of decoders elsewhere and here; those of blocks follow as they do in encoders.
DECODER_RENAMES = (
    (r"^encoder_to_decoder\.", "embed."),
    (r"^decoder[._](decoder_)?", ""),
    (r"^pred\.", "head."),
    (r"^(encoder\.)?layers?\.", "blocks."),
)


@dataclass(frozen=True)
class Weights:
    """``tensors`` by their names in ``Encoder`` or ``Decoder``, float32 on the CPU.

    ``aside`` names what else was there, as there.

    ``embed.weight`` is ``(D, pt, ph, pw, C)`` where that is known, else ``(D, pt * ph * pw * C)``. ``positions`` is the
    table ``(1, prefix + N, D)`` that came with them, if one did.
    """

    tensors: Mapping[str, Tensor]
    aside: tuple[str, ...] = ()


def read(path: Path | str) -> Weights:
    """The encoder in the file, or the folder of transformers, at ``path``.

    Of a ``.safetensors`` file, or one that ``torch.save`` wrote, nothing but tensors is loaded. Of several encoders a
    teacher comes first, else the first is taken. A key without a bias, as VideoMAE's, gets one of zeros. ValueError
    when the file cannot be read, holds no encoder, or one whose numbers are not finite.
    """
    path = Path(path)
    found = _unwrapped(path)
    places = [match for match in map(PATCHES.match, found) if match and "decoder" not in match["prefix"]]
    if not places:
        raise ValueError(f"{path} holds no patch embedding under a name known here; give the weights of a ViT")
    place = min(places, key=lambda match: "teacher" not in match["prefix"])  # the first of equals
    prefix, own = place["prefix"], place["name"] == "embed"
    tensors, aside = {}, []
    for name, tensor in found.items():
        inside = name.removeprefix(prefix)
        # an own encoder may have mask tokens; in other files they are the decoder's
        wanted = name.startswith(prefix) and (not ELSEWHERE.match(inside) or (own and inside == "mask_token"))
        if wanted and tensor.is_floating_point():
            tensors[_renamed(inside)] = tensor.float()
        else:
            aside.append(name)
    tensors = _fused(_finite(tensors, path))
    weight = tensors["embed.weight"]
    if weight.ndim > 2:  # a convolution: (D, C, [pt,] ph, pw) -> (D, pt, ph, pw, C), the order of Grid.patchify
        weight = weight.movedim(1, -1)
        tensors["embed.weight"] = weight if weight.ndim == 5 else weight.unsqueeze(1)
    return Weights(tensors, tuple(aside))


def read_decoder(path: Path | str) -> Weights:
    """The decoder in the file, or the folder of transformers, at ``path``, by its names in ``Decoder``.

    Files of MAE, VideoMAE, transformers and of this project have one. ValueError as for ``read``, and when there is an
    encoder alone.
    """
    path = Path(path)
    found = _unwrapped(path)
    place = next((match for match in map(PROJECTION.match, found) if match), None)
    if place is None:
        raise ValueError(f"{path} holds no decoder; give the checkpoint of a pre-training, which has one")
    tensors, aside = {}, []
    for name, tensor in found.items():
        inside = name.removeprefix(place["prefix"])
        if name.startswith(place["prefix"]) and OF_DECODER.match(inside) and tensor.is_floating_point():
            for pattern, ours in DECODER_RENAMES:
                inside = re.sub(pattern, ours, inside)
            tensors[_renamed(inside)] = tensor.float()
        else:
            aside.append(name)
    return Weights(_fused(_finite(tensors, path)), tuple(aside))


def _unwrapped(path: Path) -> dict[str, Tensor]:
    return {WRAPPERS.sub(r"\1", name): tensor for name, tensor in tensors_at(path).items()}


def _finite(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    if broken := next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None):
        raise ValueError(f"{path} has numbers in {broken} that are not finite; give the weights of another training")
    return tensors


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
