"""Attentive probing: a learned query chooses what to read from a frozen encoder's tokens, and a linear layer reads it.

V-JEPA (2404.08471) and CAPI (2502.08769) evaluate so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.layers import Mlp, trunc_normal_
from torch import Tensor, nn

from mae.flops import attention_flops, linear_flops
from mae.footprint import Activations, Way, linear_saved, norm_saved
from mae.heads.classifier import Readout
from mae.heads.probe import Probe
from mae.model import Encoder, LayerNorm
from mae.train.optim import Recipe


class AttentiveClassifier(Readout):
    """A learned query attends to all tokens of a frozen encoder, passes an MLP, and is classified linearly.

    Width, attention heads and the MLP's ratio are those of the encoder's blocks. The query has a residual around the
    attention and around the MLP, which normalise their inputs, as in V-JEPA's released block.
    """

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        shape = encoder.shape
        self.query = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.norm1, self.norm2 = LayerNorm(shape.width), LayerNorm(shape.width)
        self.attention = nn.MultiheadAttention(shape.width, shape.heads, batch_first=True)
        self.mlp = Mlp(shape.width, int(shape.width * shape.mlp_ratio))
        self.head = nn.Linear(shape.width, classes)
        for name, parameter in self.named_parameters():
            if not name.startswith("encoder.") and parameter.ndim > 1:
                trunc_normal_(parameter, std=0.02)

    def train(self, mode: bool = True) -> AttentiveClassifier:
        """The frozen encoder stays in eval mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def features(self, clips: Tensor) -> Tensor:
        """Encode ``clips`` to tokens ``(B, prefix + N, D)``."""
        tokens: Tensor = self.encoder(self.grid.patchify(clips))
        return tokens

    def classify(self, features: Tensor) -> Tensor:
        tokens, query = self.norm1(features), self.query.expand(len(features), -1, -1)
        read = query + self.attention(query, tokens, tokens, need_weights=False)[0]
        read = read + self.mlp(self.norm2(read))
        logits: Tensor = self.head(read[:, 0])
        return logits

    def no_weight_decay(self) -> set[str]:
        """Spare the query: it is a token, no matrix."""
        return {"query"}


@dataclass(frozen=True)
class AttentiveProbe(Probe):
    """``AttentiveClassifier`` is trained by ``recipe``; ``cached`` keeps all tokens of the training and test sets."""

    recipe: Recipe
    cached: bool = False

    def classifier(self, encoder: Encoder, classes: int) -> AttentiveClassifier:
        """Put a fresh block and a fresh linear layer on the frozen encoder."""
        return AttentiveClassifier(encoder, classes)

    def classify_flops(self, encoder: Encoder) -> float:
        width, tokens = encoder.shape.width, encoder.length()
        projections = linear_flops(tokens, width, 2 * width) + linear_flops(1, width, 2 * width)
        return projections + attention_flops(1, tokens, width) + encoder.shape.mlp_flops(1)

    def activations(self, encoder: Encoder, way: Way) -> Activations:
        """The tokens are kept three times over: before and after their norm, and as keys and values."""
        width, tokens = encoder.shape.width, encoder.length()
        read = norm_saved(tokens, width) + linear_saved(tokens, width, way) + linear_saved(tokens, 2 * width, way)
        return Activations(read, super().activations(encoder, way).working)
