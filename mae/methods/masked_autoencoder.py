"""The masked autoencoder: encode what is visible, decode everything, compare what was dropped."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mae.flops import linear_flops
from mae.footprint import Activations, Way, linear_saved, norm_saved
from mae.frames import SAME_FRAMES, FrameSelection
from mae.grid import POSITIONS
from mae.masking import Mask, Strategy
from mae.methods.masked_prediction import MaskedPrediction
from mae.model import Encoder, LayerNorm, Transformer, initialise
from mae.targets import Target


@dataclass(frozen=True)
class DecoderShape:
    """A decoder has ``width_share`` of the width of its encoder, and blocks and attention heads of its own.

    ``embed_bias`` gives the projection from the encoder a bias (MAE has one, VideoMAE has none). ``positions`` names a
    fixed table of ``mae.grid``.
    """

    width_share: float
    depth: int
    heads: int
    embed_bias: bool = True
    positions: str = "sincos_2d"

    def transformer(self, encoder: Encoder) -> Transformer:
        """Shape the blocks of the decoder of ``encoder``; their width is rounded to a whole number."""
        return Transformer(round(encoder.shape.width * self.width_share), self.depth, self.heads)


class MaskedAutoencoder(MaskedPrediction):
    """Encoder and decoder are asymmetric (MAE Fig. 1, VideoMAE Fig. 2): only the decoder sees every position.

    ``as_released`` begins and decays as VideoMAE's code does: the embedding of cubes and the projection to the decoder
    keep PyTorch's uniform initialisation, the mask token is normal with a deviation of 0.02 cut off at once that (which
    leaves 0.0108), and weight decay spares the mask token.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        decoder: DecoderShape,
        mask: Strategy,
        target: Target,
        loss: str = "mse",
        frames: FrameSelection = SAME_FRAMES,
        as_released: bool = False,
    ) -> None:
        super().__init__(encoder, mask=mask, target=target, loss=loss, frames=frames)
        self.decoder, self.as_released = Decoder(encoder, decoder, self.outputs), as_released
        if as_released:
            encoder.embed.reset_parameters()
            self.decoder.embed.reset_parameters()
            if self.decoder.mask_token is not None:
                nn.init.trunc_normal_(self.decoder.mask_token, std=0.02, a=-0.02, b=0.02)

    def no_weight_decay(self) -> set[str]:
        """Name the parameters that are left undecayed although they are not vectors."""
        return {"decoder.mask_token"} if self.as_released else set()

    def predict(self, patches: Tensor, mask: Mask, predicted: slice) -> Tensor:
        latent = self.encoder(patches, mask)
        prediction: Tensor = self.decoder(latent, mask, predicted)
        return prediction

    def flops(self) -> float:
        encoded, decoded = self.encoder.length(self.visible), self.encoder.length(self.decoded)
        decoder = self.decoder.flops(encoded, decoded, self.asked)
        return self.encoder.flops(self.visible) + decoder + self.target_flops

    @property
    def decoded(self) -> int:
        """Count how many patches of a sample the decoder sees."""
        return self.encoder.grid.num_patches

    def activations(self, way: Way) -> Activations:
        encoder = self.encoder.activations(way, self.visible)
        decoder = self.decoder.activations(way, self.encoder.length(self.visible), self.decoded, self.asked)
        return Activations(encoder.saved + decoder.saved + self.compared, max(encoder.working, decoder.working))


class Decoder(nn.Module):
    """A narrower transformer runs over visible latents and mask tokens, and predicts dropped patches only."""

    positions: Tensor

    def __init__(self, encoder: Encoder, shape: DecoderShape, outputs: int) -> None:
        super().__init__()
        self.grid, self.prefix, self.shape = encoder.grid, encoder.prefix, shape.transformer(encoder)
        self.table, width = shape.positions, self.shape.width
        self.embed = nn.Linear(encoder.shape.width, width, bias=shape.embed_bias)
        # with mask tokens in the encoder (Table 1c) the dropped positions arrive encoded
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width)) if encoder.mask_token is None else None
        self.register_buffer("positions", POSITIONS[shape.positions](self.grid, width).unsqueeze(0), persistent=False)
        self.blocks = self.shape.blocks()
        self.norm = LayerNorm(width)
        self.head = nn.Linear(width, outputs)
        self.apply(initialise)
        if self.mask_token is not None:
            nn.init.normal_(self.mask_token, std=0.02)

    def keep_positions(self, table: Tensor) -> None:
        """Put ``table: (1, N, D)`` in the place of the fixed positions; the state then holds it."""
        self.register_buffer("positions", table.to(self.positions.device), persistent=True)

    def forward(self, latent: Tensor, mask: Mask, predicted: slice = slice(None)) -> Tensor:
        """Decode ``latent: (B, prefix + K, D)`` to predictions ``(B, M, outputs)`` for ``mask.drop[:, predicted]``."""
        x = self.embed(latent)
        table = self.positions[0]
        prefix, visible = x[:, : self.prefix], x[:, self.prefix : self.prefix + mask.keep.shape[1]]
        encoded = x[:, self.prefix + mask.keep.shape[1] :]  # empty unless the encoder has mask tokens
        dropped = encoded if self.mask_token is None else self.mask_token
        # attention does not depend on the order of tokens: visible first, dropped last saves the un-shuffling
        x = torch.cat([prefix, visible + table[mask.keep], dropped + table[mask.drop]], dim=1)
        x = self.blocks(x)
        return self.head(self.norm(x[:, -mask.drop.shape[1] :][:, predicted]))

    def flops(self, encoded: int, decoded: int, asked: int) -> float:
        """Count the forward pass of one sample: ``encoded`` tokens arrive, ``decoded`` run, ``asked`` are predicted."""
        embedding = linear_flops(encoded, self.embed.in_features, self.shape.width)
        prediction = linear_flops(asked, self.shape.width, self.head.out_features)
        return embedding + self.shape.flops(decoded) + prediction

    def activations(self, way: Way, encoded: int, decoded: int, asked: int) -> Activations:
        """Count what the forward pass of one sample keeps; the final norm keeps all tokens, and reads some."""
        tokens, width = self.prefix + decoded, self.shape.width
        stack = self.shape.activations(tokens, way)
        ends = linear_saved(encoded, self.embed.in_features, way) + linear_saved(asked, width, way)
        return Activations(stack.saved + ends + norm_saved(tokens, width), stack.working)
