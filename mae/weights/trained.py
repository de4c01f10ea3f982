"""A trained model from a file or a folder of weights: an encoder, and the autoencoder around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mae.errors import DataError
from mae.masking import Random, Strategy, Tube
from mae.methods.masked_autoencoder import Decoder, MaskedAutoencoder
from mae.model import Encoder
from mae.options import nearest
from mae.targets import FittedPCA
from mae.weights.architecture import ARCHITECTURES, Architecture, Told, architecture_of, told_by
from mae.weights.files import tensors_at
from mae.weights.fit import Fit, adapt, adapt_decoder, load
from mae.weights.names import Weights, read, read_decoder


def blank(architecture: Architecture) -> Encoder:
    """A fresh encoder of an architecture."""
    return Encoder(
        architecture.grid, architecture.encoder, class_token=architecture.class_token,
        positions=architecture.positions, mask_tokens=architecture.mask_tokens,
    )  # fmt: skip


def around(encoder: Encoder, architecture: Architecture, mask: Strategy | None = None) -> MaskedAutoencoder:
    """An autoencoder with a fresh decoder around ``encoder``; it masks as the papers do unless ``mask`` is given."""
    assert architecture.decoder is not None
    assert architecture.target is not None
    usual: Strategy = Tube(0.9) if architecture.clips else Random(0.75)
    return MaskedAutoencoder(encoder, decoder=architecture.decoder, mask=mask or usual, target=architecture.target)


@dataclass(frozen=True)
class Trained:
    """The ``weights`` of an encoder at ``path``, those of its decoder if it has one, and what they are of."""

    path: Path
    weights: Weights
    decoder: Weights | None
    architecture: Architecture
    told: Told

    @property
    def spec(self) -> Mapping[str, Any]:
        """What its training computed, empty where nothing says it."""
        return self.told.spec

    @cached_property
    def fit(self) -> Fit:
        """What an encoder of the architecture takes of the weights."""
        with torch.device("meta"):
            shaped = blank(self.architecture)
        try:
            return adapt(self.weights, shaped)
        except ValueError as error:
            raise DataError(f"{self.path}: {error}") from error

    @cached_property
    def decoder_fit(self) -> Fit | None:
        """What a decoder of the architecture takes of the weights, None where there is none that draws."""
        shape = self.architecture.decoder
        if self.decoder is None or shape is None or self.told.undrawn:
            return None
        try:
            with torch.device("meta"):
                shaped = Decoder(blank(self.architecture), shape, len(self.decoder.tensors["head.bias"]))
            return adapt_decoder(self.decoder, shaped)
        except (KeyError, ValueError) as error:
            raise DataError(f"{self.path}: {' '.join(str(error).split())}") from error

    def encoder(self) -> Encoder:
        """The encoder with these weights, ready for use."""
        made = blank(self.architecture)
        missing = {name: made.state_dict()[name] for name in self.fit.missing}
        load(made, Fit({**self.fit.state, **missing}, (), (), (), ()))
        return made.eval()

    def autoencoder(self, mask: Strategy | None = None) -> MaskedAutoencoder:
        """Encoder and decoder with these weights; DataError where there is no decoder, or one that draws nothing."""
        encoder = self.encoder()
        if self.decoder is None:
            raise DataError(f"{self.path} holds no decoder; give the checkpoint of a pre-training, which has one")
        if self.told.undrawn:
            raise DataError(f"{self.path} draws no pictures: {self.told.undrawn}; give that of a masked autoencoder")
        if self.architecture.target is None or self.decoder_fit is None:
            raise DataError(
                f"{self.path} has a decoder that predicts no pixels, so its predictions have no picture; give the "
                "checkpoint of a training on pixels"
            )
        try:
            made = around(encoder, self.architecture, mask)
        except ValueError as error:
            raise DataError(f"{self.path}: {error}") from error
        load(made.decoder, self.decoder_fit)
        return made.eval()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of how the weights were taken, in sentences."""
        fit, beside = self.fit, ""
        if self.decoder is not None:  # what it holds is not left aside
            fit = replace(fit, unused=tuple(name for name in fit.unused if name in self.decoder.aside))
            beside = f"; a decoder of {len(self.decoder.tensors)} tensors is beside them"
        return (f"{self.path}: {fit}{beside}", *(f"assumed: {words}" for words in self.architecture.assumed))


def trained(path: Path | str, model: str = "", *, size: int | None = None, frames: int | None = None) -> Trained:
    """What lies at ``path``: a run's folder of weights, a folder of ``convert`` or transformers, or a file.

    ``model`` names one of ``ARCHITECTURES``, for files that do not tell what they are. They are read for inputs of
    ``size`` pixels and ``frames`` frames, which are their own unless given. DataError where they cannot be read, or do
    not tell what they are.
    """
    path = Path(path)
    told = told_by(path)
    try:
        weights, decoder = read(path), _decoder(path)
    except ValueError as error:
        raise DataError(str(error)) from error
    tensors = None if decoder is None else decoder.tensors
    architecture = named(model) if model else architecture_of(told, weights.tensors, tensors, path)
    target = architecture.target
    if decoder is not None and target is None and any("target.basis" in name for name in decoder.aside):
        found = tensors_at(path)
        fitted = FittedPCA(found["target.mean"], found["target.basis"])
        architecture = replace(architecture, target=fitted)
    return Trained(path, weights, decoder, architecture.on(size, frames), told)


def encoder(
    model: str = "", weights: Path | str | None = None, *, size: int | None = None, frames: int | None = None
) -> Encoder:
    """An encoder: of the shape that ``model`` names, or that its ``weights`` tell; without weights it is untrained.

    ``encoder(grid.patchify(pictures))`` is ``(B, prefix + N, D)``. Errors are those of ``trained``.
    """
    if weights is None:
        return blank(_shape(model).on(size, frames))
    return trained(weights, model, size=size, frames=frames).encoder()


def autoencoder(
    model: str = "",
    weights: Path | str | None = None,
    *,
    mask: Strategy | None = None,
    size: int | None = None,
    frames: int | None = None,
) -> MaskedAutoencoder:
    """An encoder with its decoder: of the shape that ``model`` names, or that its ``weights`` tell.

    It masks as the papers do unless ``mask`` is given. ``autoencoder(pictures, mask)`` is its loss. Errors are those of
    ``Trained.autoencoder``.
    """
    if weights is None:
        architecture = _shape(model).on(size, frames)
        return around(blank(architecture), architecture, mask)
    return trained(weights, model, size=size, frames=frames).autoencoder(mask)


def _shape(model: str) -> Architecture:
    if not model:
        raise DataError(f"say which model: one of {', '.join(ARCHITECTURES)}, or give its weights")
    return named(model)


def named(model: str) -> Architecture:
    """The architecture called ``model``; DataError with the nearest names where there is none."""
    if model not in ARCHITECTURES:
        raise DataError(f"unknown model {model!r}: {nearest(model, ARCHITECTURES)}")
    return ARCHITECTURES[model]


def _decoder(path: Path) -> Weights | None:
    try:
        return read_decoder(path)
    except ValueError as error:
        if "holds no decoder" in str(error):
            return None
        raise
