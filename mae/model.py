"""The masked autoencoder: encode what is visible, decode everything, compare what was dropped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mae.frames import FrameSelection, SameFrames
from mae.grid import POSITIONS, Grid
from mae.masking import Mask, take
from mae.targets import Target, loss_for

#: On a CPU in fp32, matmul-softmax-matmul beats the fused kernel up to about this many tokens, its backward above all:
#: with AVX2, and with AVX-512. In bf16 it always does (2 to 9 times from 37 to 288 tokens, 1.4 times at 1568).
PLAIN_ATTENTION_TOKENS = {"AVX512": 48}
PLAIN_ATTENTION_TOKENS_ELSEWHERE = 256

LayerNorm = partial(nn.LayerNorm, eps=1e-6)

SAME_FRAMES = SameFrames()


@dataclass(frozen=True)
class Transformer:
    """Shape of a stack of pre-norm blocks: channels, number of blocks, attention heads."""

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        if self.width < 1 or self.depth < 1 or self.heads < 1 or self.width % self.heads:
            raise ValueError(
                f"a transformer of width {self.width} and depth {self.depth} cannot have {self.heads} heads"
            )

    def blocks(self) -> nn.ModuleList:
        """The stack, freshly made."""
        return nn.ModuleList(
            Block(self.width, self.heads, self.mlp_ratio, qkv_bias=True, norm_layer=LayerNorm)
            for _ in range(self.depth)
        )


def initialise(module: nn.Module) -> None:
    """Xavier-uniform for linear layers (the patch embedding is one), ones and zeros for norms (appendix A.1)."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def choose_attention(model: nn.Module, device: torch.device, tokens: int, precision: str) -> None:
    """Pick the faster attention of timm's blocks for device, sequence length and precision (equal to rounding)."""
    few = PLAIN_ATTENTION_TOKENS.get(torch.backends.cpu.get_cpu_capability(), PLAIN_ATTENTION_TOKENS_ELSEWHERE)
    fused = device.type != "cpu" or (precision == "fp32" and tokens > few)
    for module in model.modules():
        if isinstance(module, Block):
            module.attn.fused_attn = fused


class Encoder(nn.Module):
    """A ViT that sees only the patches it is given. ``mask_tokens`` makes the variant of Table 1c.

    ``class_token`` prepends MAE's dummy token; ``positions`` names a fixed table of ``mae.grid``.
    """

    positions: Tensor

    def __init__(
        self,
        grid: Grid,
        shape: Transformer,
        *,
        class_token: bool = True,
        positions: str = "sincos_2d",
        mask_tokens: bool = False,
    ) -> None:
        super().__init__()
        self.grid, self.shape = grid, shape
        self.embed = nn.Linear(grid.patch_dim, shape.width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, shape.width)) if class_token else None
        self.mask_token = nn.Parameter(torch.zeros(1, 1, shape.width)) if mask_tokens else None
        self.register_buffer("positions", POSITIONS[positions](grid, shape.width).unsqueeze(0), persistent=False)
        self.blocks = shape.blocks()
        self.norm = LayerNorm(shape.width)
        self.apply(initialise)
        for token in (self.class_token, self.mask_token):
            if token is not None:
                nn.init.normal_(token, std=0.02)

    @property
    def prefix(self) -> int:
        """How many tokens stand before the first patch."""
        return 0 if self.class_token is None else 1

    def tokens(self, patches: Tensor, mask: Mask | None = None) -> Tensor:
        """Embed ``patches: (B, N, P)`` into the sequence that enters the first block, ``(B, prefix + K, D)``."""
        if mask is None:
            x = self.embed(patches) + self.positions
        else:
            visible = self.embed(take(patches, mask.keep)) + self._positions_of(mask.keep)
            if self.mask_token is None:
                x = visible
            else:
                # Table 1c: mask tokens enter the encoder; they carry positions as visible tokens do
                x = torch.cat([visible, self.mask_token + self._positions_of(mask.drop)], dim=1)
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1)
        return x

    def _positions_of(self, ids: Tensor) -> Tensor:
        return self.positions[0][ids]

    def forward(self, patches: Tensor, mask: Mask | None = None) -> Tensor:
        """``patches: (B, N, P)`` to the latent ``(B, prefix + K, D)``; all patches when ``mask`` is None."""
        x = self.tokens(patches, mask)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Decoder(nn.Module):
    """A narrower transformer over visible latents and mask tokens; predicts the dropped patches only."""

    positions: Tensor

    def __init__(
        self,
        grid: Grid,
        encoder: Encoder,
        shape: Transformer,
        outputs: int,
        *,
        positions: str = "sincos_2d",
        embed_bias: bool = True,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.prefix = encoder.prefix
        self.embed = nn.Linear(encoder.shape.width, shape.width, bias=embed_bias)
        # with mask tokens in the encoder (Table 1c) the dropped positions arrive encoded
        self.mask_token = nn.Parameter(torch.zeros(1, 1, shape.width)) if encoder.mask_token is None else None
        self.register_buffer("positions", POSITIONS[positions](grid, shape.width).unsqueeze(0), persistent=False)
        self.blocks = shape.blocks()
        self.norm = LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, outputs)
        self.apply(initialise)
        if self.mask_token is not None:
            nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, latent: Tensor, mask: Mask, predicted: slice = slice(None)) -> Tensor:
        """``latent: (B, prefix + K, D)`` to predictions ``(B, M, outputs)`` for ``mask.drop[:, predicted]``."""
        x = self.embed(latent)
        table = self.positions[0]
        prefix, visible = x[:, : self.prefix], x[:, self.prefix : self.prefix + mask.keep.shape[1]]
        encoded = x[:, self.prefix + mask.keep.shape[1] :]  # empty unless the encoder has mask tokens
        dropped = encoded if self.mask_token is None else self.mask_token
        # attention does not depend on the order of tokens: visible first, dropped last saves the un-shuffling
        x = torch.cat([prefix, visible + table[mask.keep], dropped + table[mask.drop]], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, -mask.drop.shape[1] :][:, predicted]))


class MaskedAutoencoder(nn.Module):
    """Asymmetric encoder-decoder of MAE Fig. 1 (and VideoMAE Fig. 2): ``model(clips, mask)`` is the loss.

    ``frames`` says which frames of a clip are seen and which predicted (VideoMAE Table 1c); the decoder's outputs are
    then the width of ``target`` on ``frames.target_grid``.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        target: Target,
        loss: str = "mse",
        frames: FrameSelection = SAME_FRAMES,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.target, self.frames = encoder, decoder, target, frames
        self.target_grid = frames.target_grid(encoder.grid)
        self.loss_function: Callable[[Tensor, Tensor], Tensor] = loss_for(target, loss)

    def forward(self, clips: Tensor, mask: Mask) -> Tensor:
        """``clips: (B, C, T, H, W)`` or ``(B, C, H, W)``, normalised. Returns the scalar loss, float32."""
        patches, target = self.patches(clips)
        predicted, asked = self.frames.predicted(mask, self.encoder.grid)
        prediction = self.decoder(self.encoder(patches, mask), mask, predicted)
        return self.loss(prediction, target, asked)

    def patches(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """What is seen of sampled ``clips``, ``(B, N, P)``, and what is predicted, each cut by its grid."""
        seen = self.encoder.grid.patchify(self.frames.seen(clips))
        if self.target_grid == self.encoder.grid:
            return seen, seen
        return seen, self.target_grid.patchify(self.frames.target(clips))

    def loss(self, prediction: Tensor, patches: Tensor, mask: Mask) -> Tensor:
        """Compare ``prediction: (B, M, outputs)`` with the target of the dropped ``patches: (B, N, P)``, in fp32.

        ``patches`` and ``mask`` are those of ``target_grid``.
        """
        with torch.autocast(prediction.device.type, enabled=False):
            return self.loss_function(prediction.float(), self.target(patches.float(), mask))
