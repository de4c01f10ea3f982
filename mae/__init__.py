"""Masked autoencoders for images (arXiv 2111.06377) and clips (arXiv 2203.12602).

What is named in ``__all__`` keeps its name. It is imported when it is first used, so that ``import mae`` loads nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mae.errors import DataError as DataError
    from mae.errors import SpecError as SpecError
    from mae.errors import UserError as UserError
    from mae.features import features_of as features_of
    from mae.grid import Grid as Grid
    from mae.masking import BlockWise as BlockWise
    from mae.masking import Frame as Frame
    from mae.masking import GridWise as GridWise
    from mae.masking import Mask as Mask
    from mae.masking import Random as Random
    from mae.masking import Tube as Tube
    from mae.methods.masked_autoencoder import DecoderShape as DecoderShape
    from mae.methods.masked_autoencoder import MaskedAutoencoder as MaskedAutoencoder
    from mae.model import Encoder as Encoder
    from mae.model import Transformer as Transformer
    from mae.targets import PCA as PCA
    from mae.targets import ChannelNormalisedPixels as ChannelNormalisedPixels
    from mae.targets import PatchNormalisedPixels as PatchNormalisedPixels
    from mae.targets import Pixels as Pixels
    from mae.targets import Tokens as Tokens
    from mae.weights.trained import Trained as Trained
    from mae.weights.trained import autoencoder as autoencoder
    from mae.weights.trained import encoder as encoder
    from mae.weights.trained import trained as trained

#: Raised by one whenever a change alters the numbers that a spec produces; part of every fingerprint.
NUMERICS = 1

#: The stable names, by the module that holds them.
_HOMES = {
    "mae.errors": ("DataError", "SpecError", "UserError"),
    "mae.features": ("features_of",),
    "mae.grid": ("Grid",),
    "mae.masking": ("BlockWise", "Frame", "GridWise", "Mask", "Random", "Tube"),
    "mae.methods.masked_autoencoder": ("DecoderShape", "MaskedAutoencoder"),
    "mae.model": ("Encoder", "Transformer"),
    "mae.targets": ("PCA", "ChannelNormalisedPixels", "PatchNormalisedPixels", "Pixels", "Tokens"),
    "mae.weights.trained": ("Trained", "autoencoder", "encoder", "trained"),
}

__all__ = [
    "NUMERICS",
    "PCA",
    "BlockWise",
    "ChannelNormalisedPixels",
    "DataError",
    "DecoderShape",
    "Encoder",
    "Frame",
    "Grid",
    "GridWise",
    "Mask",
    "MaskedAutoencoder",
    "PatchNormalisedPixels",
    "Pixels",
    "Random",
    "SpecError",
    "Tokens",
    "Trained",
    "Transformer",
    "Tube",
    "UserError",
    "autoencoder",
    "encoder",
    "features_of",
    "trained",
]


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'mae' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
