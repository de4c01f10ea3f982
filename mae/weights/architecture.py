"""What weights are the weights of: known by a name, by what lies beside them, or by the shapes of their tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isqrt
from pathlib import Path
from typing import Any

from torch import Tensor

from mae.errors import DataError
from mae.grid import Grid
from mae.methods.masked_autoencoder import DecoderShape
from mae.model import Transformer
from mae.targets import ChannelNormalisedPixels, PatchNormalisedPixels, Pixels, Target

#: The mean and the deviation of the colours of ImageNet, by which the official codes normalise pictures and clips.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: Attention heads of the published encoders and decoders by width, where they are not one for each 64 channels.
HEADS, DECODER_HEADS = {1280: 16}, {512: 16}
CLIP_DECODER_HEADS = {640: 8}

#: Methods whose decoder draws every dropped patch.
DECODING = ("mae.methods.masked_autoencoder.MaskedAutoencoder", "mae.methods.dual_masking.DualMasking")

SIZE, FRAMES, STRIDE = 224, 16, 4


@dataclass(frozen=True)
class Architecture:
    """An encoder on a ``grid``, and the decoder beside it where there is one.

    ``target`` is what the decoder predicts, None where that is unknown or has no picture. Inputs are normalised by
    ``mean`` and ``std``; frames of clips lie ``stride`` apart. ``assumed`` says in sentences what nothing stated.
    """

    grid: Grid
    encoder: Transformer
    class_token: bool
    positions: str
    decoder: DecoderShape | None = None
    target: Target | None = None
    mean: Sequence[float] = MEAN
    std: Sequence[float] = STD
    stride: int = 1
    mask_tokens: bool = False
    assumed: tuple[str, ...] = ()

    @property
    def clips(self) -> bool:
        """Whether it reads several frames."""
        return self.frames > 1

    @property
    def frames(self) -> int:
        return self.grid.t * self.grid.patch[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what it reads, in pixels."""
        return self.grid.h * self.grid.patch[1], self.grid.w * self.grid.patch[2]

    def on(self, size: int | None = None, frames: int | None = None) -> Architecture:
        """The same for square inputs of ``size`` pixels, and of ``frames`` frames; None keeps what there is."""
        wanted = (size, size) if size else self.size
        return replace(self, grid=_grid(frames or self.frames, wanted, self.grid.patch, self.grid.channels))


def _of_pictures(patch: int, width: int, depth: int, heads: int) -> Architecture:
    grid = Grid.of(1, (SIZE, SIZE), (1, patch, patch))
    decoder = DecoderShape(512 / width, 8, 16)
    return Architecture(grid, Transformer(width, depth, heads), True, "sincos_2d", decoder, PatchNormalisedPixels())


def _of_clips(width: int, depth: int, heads: int, decoder: int, decoder_heads: int) -> Architecture:
    grid = Grid.of(FRAMES, (SIZE, SIZE), (2, 16, 16))
    shape = DecoderShape(0.5, decoder, decoder_heads, embed_bias=False, positions="sincos_1d")
    target = ChannelNormalisedPixels(STD)
    return Architecture(grid, Transformer(width, depth, heads), False, "sincos_1d", shape, target, stride=STRIDE)


#: The published models by the names that they have as ``model=NAME`` of a table.
ARCHITECTURES: Mapping[str, Architecture] = {
    "vit_b16": _of_pictures(16, 768, 12, 12),
    "vit_l16": _of_pictures(16, 1024, 24, 16),
    "vit_h14": _of_pictures(14, 1280, 32, 16),
    "videomae_vit_s16": _of_clips(384, 12, 6, 4, 3),
    "videomae_vit_b16": _of_clips(768, 12, 12, 4, 6),
    "videomae_vit_l16": _of_clips(1024, 24, 16, 12, 8),
    "videomae_vit_h16": _of_clips(1280, 32, 16, 12, 8),
}


@dataclass(frozen=True)
class Told:
    """What a spec or a config beside weights says of them; None where it says nothing.

    ``spec`` is what a run computed. ``undrawn`` says why the decoder draws no pictures.
    """

    heads: int | None = None
    decoder_heads: int | None = None
    positions: str | None = None
    patch: tuple[int, int, int] | None = None
    size: tuple[int, int] | None = None
    frames: int | None = None
    channels: int = 3
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    stride: int = STRIDE
    target: Target | None = None
    undrawn: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)


def told_by(path: Path) -> Told:
    """What lies beside the weights at ``path``, a folder or a file in it; DataError when that is damaged."""
    folder = path if path.is_dir() else path.parent
    index, manifest, config = (folder / name for name in ("checkpoint.json", "manifest.json", "config.json"))
    try:
        if index.is_file() and (path.is_dir() or _json(index)["file"] == path.name):
            return _by_spec(_json(index)["state"]["spec"])
        if path.is_dir() and manifest.is_file():
            found = _json(manifest)
            return _by_spec(found["spec"]) if "spec" in found else _by_manifest(found["architecture"])
        if config.is_file() and (path.is_dir() or path.name.startswith(("model", "pytorch_model"))):
            return _by_config(_json(config), folder)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder} has a spec without {error}; give the folder of a run of this version") from error
    except ValueError as error:
        raise DataError(
            f"{folder} has a spec that cannot be read: {error}; give weights with what was saved"
        ) from error
    return Told()


def _json(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _by_spec(spec: Mapping[str, Any]) -> Told:
    model, data, method = spec["model"], spec["data"], spec["method"]
    kind, target = method.get("_target_", DECODING[0]), method.get("target", {}).get("_target_", "")
    undrawn = ""
    if kind not in DECODING:
        undrawn = f"it was trained by {kind.rpartition('.')[2]}, which has no decoder of all patches"
    elif not method.get("frames", {}).get("_target_", "SameFrames").endswith("SameFrames"):
        undrawn = "its decoder predicts other frames than the encoder sees"
    return Told(
        heads=model["encoder"]["heads"],
        decoder_heads=method.get("decoder", {}).get("heads"),
        positions=model["positions"],
        patch=tuple(model["patch"]),
        size=tuple(data["input_size"]),
        frames=data["frames"],
        channels=data["channels"],
        mean=data["mean"],
        std=data["std"],
        stride=data.get("stride") or STRIDE,
        target=_target(target.rpartition(".")[2], data["std"]),
        undrawn=undrawn,
        spec=spec,
    )


def _target(kind: str, std: Sequence[float]) -> Target | None:
    """What is predicted, by the name of its class; None where that has no picture without its own tensors."""
    known: dict[str, Target] = {
        "Pixels": Pixels(),
        "PatchNormalisedPixels": PatchNormalisedPixels(),
        "ChannelNormalisedPixels": ChannelNormalisedPixels(std),
    }
    return known.get(kind)


def stated(made: Architecture) -> dict[str, Any]:
    """What a manifest says of an architecture, so that it is known again."""
    return {
        "heads": made.encoder.heads, "decoder_heads": made.decoder and made.decoder.heads,
        "positions": made.positions, "patch": list(made.grid.patch), "size": list(made.size),
        "frames": made.frames, "channels": made.grid.channels,
        "mean": list(made.mean), "std": list(made.std), "stride": made.stride,
        "target": type(made.target).__name__ if made.decoder else None,
    }  # fmt: skip


def _by_manifest(found: Mapping[str, Any]) -> Told:
    """From what ``stated`` wrote."""
    patch, size, target = found["patch"], found["size"], _target(found["target"] or "", found["std"])
    return Told(**{**found, "patch": tuple(patch), "size": tuple(size), "target": target})


def _by_config(config: Mapping[str, Any], folder: Path) -> Told:
    """From ``config.json`` of transformers, and what its image processor says of colours."""
    processor = folder / "preprocessor_config.json"
    colours = _json(processor) if processor.is_file() else {}
    clips, size, side = "num_frames" in config, config["image_size"], config["patch_size"]
    normalised: Target = ChannelNormalisedPixels(STD) if clips else PatchNormalisedPixels()
    return Told(
        heads=config["num_attention_heads"],
        decoder_heads=config.get("decoder_num_attention_heads"),
        patch=(config.get("tubelet_size", 1), side, side),
        size=(size, size),
        frames=config.get("num_frames", 1),
        channels=config.get("num_channels", 3),
        mean=colours.get("image_mean"),
        std=colours.get("image_std"),
        target=normalised if config.get("norm_pix_loss", clips) else Pixels(),
    )


def architecture_of(
    told: Told, encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor] | None, path: Path
) -> Architecture:
    """The architecture of ``encoder`` and ``decoder``, as ``read`` found them at ``path``.

    What ``told`` leaves open follows from shapes, or from what the published models have in common, which is said.
    DataError where neither decides.
    """
    assumed: list[str] = []
    width = len(encoder["embed.bias"])
    patch, channels = told.patch, told.channels
    if patch is None:
        weight = encoder["embed.weight"]
        if weight.ndim != 5:
            raise DataError(f"{path} does not say what its patches are; give the folder of its run, or model=NAME")
        patch, channels = (weight.shape[1], weight.shape[2], weight.shape[3]), weight.shape[4]
    clips = (told.frames or patch[0]) > 1
    frames, size = told.frames, told.size
    if frames is None:
        frames = FRAMES if clips else 1
        assumed += [f"clips have {frames} frames, {told.stride} apart"] if clips else []
    if size is None:
        size = _size(encoder, patch, frames)
    positions = told.positions or ("sincos_1d" if clips else "sincos_2d")
    heads = told.heads or _heads(width, HEADS, path, "encoder", assumed)
    shape = Transformer(width, _depth(encoder), heads, _mlp_ratio(encoder))
    mean, std = told.mean or MEAN, told.std or STD
    if told.mean is None:
        assumed.append("colours are normalised by ImageNet's mean and deviation")
    made = Architecture(
        _grid(frames, size, patch, channels), shape, "class_token" in encoder, positions,
        mean=mean, std=std, stride=told.stride if clips else 1, mask_tokens="mask_token" in encoder,
    )  # fmt: skip
    if decoder is None or told.undrawn:
        return replace(made, assumed=tuple(assumed))
    known = CLIP_DECODER_HEADS if clips else DECODER_HEADS
    decoder_width = len(decoder["norm.bias"])
    decoder_heads = told.decoder_heads or _heads(decoder_width, known, path, "decoder", assumed)
    decoding = DecoderShape(
        decoder_width / width, _depth(decoder), decoder_heads, embed_bias="embed.bias" in decoder, positions=positions
    )
    target = told.target
    if target is None and not told.spec and len(decoder["head.bias"]) == made.grid.patch_dim:
        target = ChannelNormalisedPixels(std) if clips else PatchNormalisedPixels()
        assumed.append("the decoder predicts normalised pixels")
    return replace(made, decoder=decoding, target=target, assumed=tuple(assumed))


def _grid(frames: int, size: tuple[int, int], patch: tuple[int, int, int], channels: int) -> Grid:
    try:
        return Grid.of(frames, size, patch, channels)
    except ValueError as error:
        raise DataError(str(error)) from error


def _heads(width: int, known: Mapping[int, int], path: Path, part: str, assumed: list[str]) -> int:
    """Attention heads, of which no tensor tells."""
    if width not in known and width % 64:
        raise DataError(
            f"{path} does not say how many attention heads its {part} of width {width} has; give the folder of its "
            "run, or model=NAME"
        )
    heads = known.get(width, width // 64)
    assumed.append(f"the {part} has {heads} attention heads, as published ones of width {width}")
    return heads


def _depth(state: Mapping[str, Tensor]) -> int:
    return len({name.split(".")[1] for name in state if name.startswith("blocks.")})


def _mlp_ratio(state: Mapping[str, Tensor]) -> float:
    return len(state["blocks.0.mlp.fc1.bias"]) / len(state["embed.bias"])


def _size(encoder: Mapping[str, Tensor], patch: tuple[int, int, int], frames: int) -> tuple[int, int]:
    """The square that the positions cover, 224 pixels where there are none."""
    if "positions" in encoder:
        count = encoder["positions"].flatten(0, -2).shape[0]
        for places in (count - 1, count) if "class_token" in encoder else (count,):
            side = isqrt(places * patch[0] // frames)
            if side and side * side * (frames // patch[0]) == places:
                return side * patch[1], side * patch[2]
    return SIZE, SIZE
