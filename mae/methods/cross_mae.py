"""CrossMAE (Fu et al., 2401.14391): dropped patches look at visible ones, not at one another, and few are predicted."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mae.flops import attention_flops, linear_flops
from mae.footprint import Activations, Way, linear_saved, mlp_saved, norm_saved
from mae.frames import SAME_FRAMES, FrameSelection
from mae.grid import POSITIONS
from mae.masking import Mask, Strategy
from mae.methods.masked_autoencoder import DecoderShape
from mae.methods.masked_prediction import PartlyPredicted
from mae.model import Encoder, LayerNorm, initialise
from mae.targets import Target


class CrossAttention(nn.Module):
    """A pre-norm block without self-attention: queries ``(B, M, D)`` read the latent ``(B, K, D)``, then an MLP."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.query, self.key_value = LayerNorm(width), nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)
        hidden = int(mlp_ratio * width)
        self.mlp = nn.Sequential(LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, queries: Tensor, latent: Tensor) -> Tensor:
        asked = self._apart(self.query(self.norm(queries)))
        key, value = (self._apart(part) for part in self.key_value(latent).chunk(2, dim=-1))
        read = F.scaled_dot_product_attention(asked, key, value).transpose(1, 2).flatten(2)
        queries = queries + self.output(read)
        mixed: Tensor = queries + self.mlp(queries)
        return mixed

    def _apart(self, tokens: Tensor) -> Tensor:
        """Split ``(B, n, D)`` into attention heads ``(B, heads, n, D / heads)``."""
        return tokens.view(*tokens.shape[:-1], self.heads, -1).transpose(1, 2)


class CrossMAE(PartlyPredicted):
    """The share ``predicted_share`` of the dropped patches, drawn anew in each step, is predicted by cross-attention.

    The decoder reads the last latent of the encoder alone; the paper also tries weighted sums over its blocks.
    ValueError if the encoder has mask tokens, since dropped patches must not be encoded.
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
        predicted_share: float = 1 / 3,
    ) -> None:
        super().__init__(encoder, mask=mask, target=target, loss=loss, frames=frames)
        if encoder.mask_token is not None:
            raise ValueError("CrossMAE encodes visible patches only; choose model.mask_tokens=false")
        self.predict_only(predicted_share)
        self.shape = decoder.transformer(encoder)
        width = self.shape.width
        self.embed = nn.Linear(encoder.shape.width, width, bias=decoder.embed_bias)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        table = POSITIONS[decoder.positions](encoder.grid, width).unsqueeze(0)
        self.register_buffer("positions", table, persistent=False)
        blocks = (CrossAttention(width, self.shape.heads, self.shape.mlp_ratio) for _ in range(self.shape.depth))
        self.decoder, self.norm, self.head = nn.ModuleList(blocks), LayerNorm(width), nn.Linear(width, self.outputs)
        for part in (self.embed, self.decoder, self.head):
            part.apply(initialise)
        nn.init.normal_(self.mask_token, std=0.02)

    positions: Tensor

    def predict(self, patches: Tensor, mask: Mask, predicted: slice) -> Tensor:
        latent = self.embed(self.encoder(patches, mask))
        queries = self.mask_token + self.positions[0][mask.drop[:, predicted]]
        for block in self.decoder:
            queries = block(queries, latent)
        prediction: Tensor = self.head(self.norm(queries))
        return prediction

    def activations(self, way: Way) -> Activations:
        encoder, width, memory = self.encoder.activations(way, self.visible), self.shape.width, self._memory
        hidden = int(self.shape.mlp_ratio * width)
        # its queries have two norms as those of a ViT; keys and values are projected from the latent, which all share
        queries = 2 * norm_saved(self.few, width) + 3 * linear_saved(self.few, width, way)
        block = queries + mlp_saved(self.few, width, hidden, way) + 2 * memory * width * way.element
        ends = linear_saved(memory, self.encoder.shape.width, way) + linear_saved(self.few, width, way)
        kept = self.shape.depth * block + ends + memory * width * way.element + norm_saved(self.few, width)
        return Activations(encoder.saved + kept + self.compared, max(encoder.working, block))

    @property
    def _memory(self) -> int:
        """Count the tokens of the latent."""
        return self.encoder.length(self.visible)

    def flops(self) -> float:
        width, memory = self.shape.width, self._memory
        projections = linear_flops(2 * self.few + 2 * memory, width, width)
        block = projections + attention_flops(self.few, memory, width) + self.shape.mlp_flops(self.few)
        ends = linear_flops(memory, self.encoder.shape.width, width) + linear_flops(self.few, width, self.outputs)
        return self.encoder.flops(self.visible) + self.shape.depth * block + ends + self.target_flops
