"""Weights made to fit an encoder, and an account of it by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mae.methods.masked_autoencoder import Decoder
from mae.model import Encoder
from mae.weights.names import Weights
from mae.weights.positions import positions_for, split

#: As many names as a sentence holds.
SHOWN = 4


@dataclass(frozen=True)
class Fit:
    """The ``state`` that an encoder loads, and where it comes from.

    ``used`` are the names of ``Encoder`` that the weights fill, ``missing`` those that keep what the encoder has,
    ``unused`` what the weights hold besides, as it is called there. ``changes`` say what was made to fit, and how.
    """

    state: Mapping[str, Tensor]
    used: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    changes: tuple[str, ...]

    def __str__(self) -> str:
        """One sentence for the user."""
        words = [f"{len(self.used)} tensors are used"]
        if self.unused:
            words.append(f"{len(self.unused)} are left aside ({_few(self.unused)})")
        if self.missing:
            words.append(f"{len(self.missing)} are not among them and stay untrained ({_few(self.missing)})")
        return "; ".join([*words, *self.changes])


def adapt(weights: Weights, encoder: Encoder) -> Fit:
    """What ``encoder`` takes of ``weights``; it may lie on the meta device. ValueError, with the name, where none fits.

    The embedding of an image patch is repeated over the pt frames of a cube and divided by pt, so that a still clip is
    embedded as its picture; three channels are added up for one, and one is divided among three. A class token is left
    out where ``encoder`` has none. A final norm that is not among the weights (of a model fine-tuned with mean pooling)
    stays that of ``encoder``. Positions are those of the weights, as ``positions_for`` says.
    """
    tensors, changes, missing = dict(weights.tensors), [], []
    table = tensors.pop("positions", None)
    state = {}
    if table is not None:
        still = _reads_pictures(tensors.get("embed.weight"), encoder)
        position, patches = split(table, encoder.grid, class_token="class_token" in tensors, still=still)
        if position is not None and "class_token" in tensors:
            tensors["class_token"] = tensors["class_token"] + position
        table, words = positions_for(encoder, patches, still=still)
        changes += [words] if words else []
    for name, own in encoder.state_dict().items():
        if name == "positions":
            continue
        tensor = tensors.get(name)
        if tensor is None and name.startswith("norm."):
            missing.append(name)
            tensor = own
        if tensor is None:
            raise ValueError(f"the weights have no {name}, which this encoder needs; choose a model that they fit")
        if name == "embed.weight":
            tensor, made = _embedding(tensor, encoder)
            changes += made
        if tensor.shape != own.shape:
            raise ValueError(
                f"{name} is {tuple(tensors[name].shape)} in the weights and {tuple(own.shape)} in this encoder; "
                f"choose a model of their width and patch size"
            )
        state[name] = tensor
    left = sorted(tensors.keys() - state.keys() - {"class_token"})
    if left:
        raise ValueError(f"the weights have {left[0]}, which this encoder lacks; choose a model that they fit")
    unused = (*weights.aside, *(tensors.keys() - state.keys()))
    used = tuple(name for name in state if name not in missing)
    if table is not None:
        state["positions"], used = table, (*used, "positions")
    return Fit(state, used, tuple(missing), unused, tuple(changes))


def adapt_decoder(weights: Weights, decoder: Decoder) -> Fit:
    """What ``decoder`` takes of ``weights``, which ``read_decoder`` found. ValueError, with the name, where none fits.

    Positions are treated as those of an encoder. The class token has none here: where the weights give it one that is
    not zero, they are refused. A projection without a bias gets one of zeros where ``decoder`` has one.
    """
    tensors, changes, own = dict(weights.tensors), [], decoder.state_dict()
    table = tensors.pop("positions", None)
    if table is not None:
        position, patches = split(table, decoder.grid, class_token=decoder.prefix > 0, still=False)
        if position is not None and position.any():
            raise ValueError("the decoder of the weights has a position for its class token, which this one lacks")
        table, words = positions_for(decoder, patches, still=False)
        changes += [f"decoder: {words}"] if words else []
    if "embed.bias" in own and "embed.bias" not in tensors:
        tensors["embed.bias"] = torch.zeros_like(own["embed.bias"])
        changes.append("the projection to the decoder gets a bias of zeros")
    wanted = own.keys() - {"positions"}
    if lacking := sorted(wanted - tensors.keys()):
        raise ValueError(f"the weights have no {lacking[0]}, which this decoder needs; choose one that they fit")
    if left := sorted(tensors.keys() - wanted):
        raise ValueError(f"the weights have {left[0]}, which this decoder lacks; choose one that they fit")
    for name in sorted(wanted):
        if tensors[name].shape != own[name].shape:
            raise ValueError(
                f"{name} is {tuple(tensors[name].shape)} in the weights and {tuple(own[name].shape)} in this decoder; "
                f"choose one of their width, depth and patch size"
            )
    state = {name: tensors[name] for name in own if name in wanted}
    used = tuple(state)
    if table is not None:
        state["positions"], used = table, (*used, "positions")
    return Fit(state, used, (), weights.aside, tuple(changes))


def load(model: Encoder | Decoder, fit: Fit) -> None:
    """Fill ``model`` with what ``adapt`` or ``adapt_decoder`` made for it."""
    if "positions" in fit.state:
        model.keep_positions(fit.state["positions"])
    model.load_state_dict(dict(fit.state))


def _reads_pictures(weight: Tensor | None, encoder: Encoder) -> bool:
    """Whether a patch embedding takes one frame, and the encoder's takes several."""
    frames = encoder.grid.patch[0]
    if weight is None or frames == 1:
        return False
    return weight.shape[1] == 1 if weight.ndim == 5 else weight.shape[1] * frames == encoder.embed.in_features


def _embedding(weight: Tensor, encoder: Encoder) -> tuple[Tensor, list[str]]:
    """``(D, pt * ph * pw * C)`` for the encoder's patches of weights for other channels, or for one frame."""
    (frames, height, width), channels = encoder.grid.patch, encoder.grid.channels
    words = []
    if weight.ndim == 2:  # an own encoder's, which does not tell its axes
        ways = [(pt, c) for pt in (frames, 1) for c in (channels, 3, 1, 4)]
        fits = [way for way in ways if way[0] * height * width * way[1] == weight.shape[1]]
        if not fits:
            return weight, []
        weight = weight.view(len(weight), fits[0][0], height, width, fits[0][1])
    if weight.shape[2:4] != (height, width):
        return weight.flatten(1), []
    if weight.shape[4] != channels:
        weight = _channels(weight, channels)
        words.append(f"a patch embedding of {weight.shape[4]} channels is made")
    if weight.shape[1] == 1 < frames:
        weight = weight.expand(-1, frames, -1, -1, -1)
        weight = weight if weight.is_meta else weight / frames  # torch loads its compiler to divide what is not there
        words.append(f"the patch embedding is inflated to {frames} frames")
    return weight.flatten(1), words


def _channels(weight: Tensor, channels: int) -> Tensor:
    """``(D, pt, ph, pw, C)`` for other channels: what it gives for grey stays; a fourth one, alpha, begins at zero."""
    before = weight.shape[4]
    if (before, channels) == (3, 1):
        return weight.sum(4, keepdim=True)
    if (before, channels) == (1, 3):
        return weight.expand(-1, -1, -1, -1, 3) / 3
    if (before, channels) == (3, 4):
        return torch.cat([weight, torch.zeros_like(weight[..., :1])], 4)
    raise ValueError(
        f"the weights read {before} channels and this encoder {channels}, which cannot stand for each other; choose "
        f"data.channels={before}, or other weights"
    )


def _few(names: tuple[str, ...]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
