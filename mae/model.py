"""The vision transformer of both papers: patches become tokens, blocks of attention encode the visible ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mae.flops import attention_flops, linear_flops
from mae.footprint import WORD, Activations, Way, block_saved, linear_saved, norm_saved
from mae.grid import POSITIONS, Grid
from mae.masking import Mask, take

#: On a CPU in fp32, matmul-softmax-matmul beats the fused kernel up to about this many tokens, its backward above all:
#: with AVX2, and with AVX-512. In bf16 it always does (2 to 9 times from 37 to 288 tokens, 1.4 times at 1568).
PLAIN_ATTENTION_TOKENS = {"AVX512": 48}
PLAIN_ATTENTION_TOKENS_ELSEWHERE = 256

LayerNorm = partial(nn.LayerNorm, eps=1e-6)


#: A deeper stack is a slip of the keyboard: only to make it would take minutes.
MOST_BLOCKS = 1000


@dataclass(frozen=True)
class Transformer:
    """It says how wide and how deep a stack of pre-norm blocks is, and how many attention heads each has."""

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        if self.width < 1 or self.depth < 1 or self.heads < 1 or self.width % self.heads:
            raise ValueError(
                f"a transformer of width {self.width} and depth {self.depth} cannot have {self.heads} heads"
            )
        if self.depth > MOST_BLOCKS:
            raise ValueError(f"a transformer of depth {self.depth} is deeper than {MOST_BLOCKS} blocks; choose fewer")

    def blocks(self) -> Blocks:
        """Make the stack afresh."""
        return Blocks(
            Block(self.width, self.heads, self.mlp_ratio, qkv_bias=True, norm_layer=LayerNorm)
            for _ in range(self.depth)
        )

    def flops(self, tokens: int) -> float:
        """Count the forward pass of the stack over one sequence of ``tokens``."""
        projections = linear_flops(tokens, self.width, 4 * self.width)  # queries, keys, values, and the output
        attention = attention_flops(tokens, tokens, self.width)
        return self.depth * (projections + attention + self.mlp_flops(tokens))

    def mlp_flops(self, tokens: int) -> float:
        """Count the forward pass of the MLP of one block over ``tokens``."""
        return 2 * linear_flops(tokens, self.width, int(self.mlp_ratio * self.width))

    def activations(self, tokens: int, way: Way, depth: int | None = None) -> Activations:
        """Count what the last ``depth`` blocks of the stack keep of one sequence, all of them for None."""
        depth = self.depth if depth is None else depth
        block = block_saved(tokens, self.width, int(self.mlp_ratio * self.width), self.heads, way)
        if way.checkpointing and depth:
            # the block that is computed again has its activations and their gradients
            return Activations(depth * tokens * self.width * WORD, 2 * block)
        return Activations(depth * block, block)


class Blocks(nn.ModuleList):
    """A stack of blocks, one after the other.

    With ``recompute`` only what enters a block is kept, and the backward pass computes the rest again (1604.06174).
    """

    recompute: bool = False

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self:
            if self.recompute and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        return tokens


def recompute(model: nn.Module, on: bool) -> None:
    """Switch ``recompute`` in all stacks of ``model``."""
    for module in model.modules():
        if isinstance(module, Blocks):
            module.recompute = on


def initialise(module: nn.Module) -> None:
    """Fill linear layers, of which the patch embedding is one, Xavier-uniformly (MAE appendix A.1)."""
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
    """This ViT sees only the patches that it is given. ``mask_tokens`` makes the variant of Table 1c.

    ``class_token`` prepends MAE's dummy token; ``positions`` names a fixed table of ``mae.grid``, which its state does
    not hold. Weights that came with a table of their own put that in its place (``keep_positions``).
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
        self.grid, self.shape, self.table = grid, shape, positions
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

    def keep_positions(self, table: Tensor) -> None:
        """Put ``table: (1, N, D)`` in the place of the fixed positions; the state then holds it."""
        self.register_buffer("positions", table.to(self.positions.device), persistent=True)

    @property
    def prefix(self) -> int:
        """Tell how many tokens stand before the first patch."""
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
        return self.with_class_token(x)

    def with_class_token(self, tokens: Tensor) -> Tensor:
        """Put the class token, where there is one, before ``tokens: (B, K, D)``."""
        if self.class_token is None:
            return tokens
        return torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1)

    def _positions_of(self, ids: Tensor) -> Tensor:
        return self.positions[0][ids]

    def forward(self, patches: Tensor, mask: Mask | None = None) -> Tensor:
        """Encode ``patches: (B, N, P)`` to the latent ``(B, prefix + K, D)``: all of them when ``mask`` is None."""
        return self.transform(self.tokens(patches, mask))

    def transform(self, tokens: Tensor) -> Tensor:
        """Send ``tokens: (B, prefix + K, D)`` through the blocks and the final norm: the latent has their shape."""
        latent: Tensor = self.norm(self.blocks(tokens))
        return latent

    def length(self, visible: int | None = None) -> int:
        """Count how many tokens enter the first block when ``visible`` patches are seen, all of them for None."""
        if visible is None or self.mask_token is not None:
            visible = self.grid.num_patches
        return self.prefix + visible

    def flops(self, visible: int | None = None) -> float:
        """Count the forward pass of one sample of which ``visible`` patches are seen, all of them for None."""
        return self.embedding_flops(visible) + self.shape.flops(self.length(visible))

    def activations(self, way: Way, visible: int | None = None) -> Activations:
        """Count what a forward pass of one sample keeps: all parts are trained, the final norm included."""
        patches, tokens = self.grid.num_patches if visible is None else visible, self.length(visible)
        stack = self.shape.activations(tokens, way)
        ends = linear_saved(patches, self.grid.patch_dim, way) + norm_saved(tokens, self.shape.width)
        return Activations(stack.saved + ends, stack.working)

    def embedding_flops(self, visible: int | None = None) -> float:
        """Count what embeds patches: its backward pass costs once as much, as no gradient reaches pixels."""
        patches = self.grid.num_patches if visible is None else visible
        return linear_flops(patches, self.grid.patch_dim, self.shape.width)
