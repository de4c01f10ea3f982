"""An encoder with a classifier on top: fine-tuning, partial fine-tuning, linear probing, training from scratch."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

from mae.draws import Dropout, DropPath
from mae.grid import Grid
from mae.heads.batch_norm import BatchNorm
from mae.model import Encoder, LayerNorm


def set_drop_path(encoder: Encoder, rate: float) -> None:
    """Set stochastic depth: the last block is skipped at ``rate``, growing linearly from 0 at the first."""
    rates = torch.linspace(0, rate, len(encoder.blocks), device="cpu").tolist()
    for block, p in zip(encoder.blocks, rates, strict=True):
        block.drop_path1 = DropPath(p) if p else nn.Identity()
        block.drop_path2 = DropPath(p) if p else nn.Identity()


class Readout(nn.Module, ABC):
    """It tells classes from the features of an ``encoder``: ``model(clips)`` is ``(B, classes)``."""

    encoder: Encoder

    @property
    def grid(self) -> Grid:
        """Return the grid that cuts the encoder's clips."""
        return self.encoder.grid

    @abstractmethod
    def features(self, clips: Tensor) -> Tensor:
        """Return what the encoder gives for normalised ``clips``, one row a clip."""

    @abstractmethod
    def classify(self, features: Tensor) -> Tensor:
        """Turn ``features`` into logits ``(B, classes)``: this is what a probe on cached features trains."""

    def forward(self, clips: Tensor) -> Tensor:
        return self.classify(self.features(clips))

    def dense(self, clips: Tensor) -> Tensor:
        """Encode ``clips`` to maps ``(B, D, t, h, w)``: what a head reads that tells where."""
        latent: Tensor = self.encoder(self.grid.patchify(clips))[:, self.encoder.prefix :]
        return latent.transpose(1, 2).reshape(len(latent), -1, self.grid.t, self.grid.h, self.grid.w)

    def layer_of(self, name: str) -> int:
        """Tell a parameter's depth for layer-wise decay: 0 is the embedding, 1..L the blocks, L + 1 norm and head."""
        if name.startswith("encoder.blocks."):
            return int(name.split(".")[2]) + 1
        if name.startswith("encoder.") and not name.startswith("encoder.norm."):
            return 0
        return len(self.encoder.blocks) + 1

    def no_weight_decay(self) -> set[str]:
        """Name the parameters that fine-tuning leaves undecayed although they are not vectors (timm's convention)."""
        return {"encoder.positions", "encoder.class_token"}


class Classifier(Readout):
    """A linear head reads pooled features of the encoder: ``model(clips)`` is ``(B, classes)``.

    ``pooling="mean"`` averages the patch tokens, ``"class"`` takes the class token. ``tuned_blocks`` says how much of
    the encoder is trained (MAE Sec. 4.3): None all of it, with the positions; 0 nothing; 0.5 the MLP half of the last
    block; n the last n blocks. The final norm is tuned with them; everything before is frozen and stays in eval mode.

    The pre-trained final norm is used wherever it was trained: before pooling when the encoder is frozen or the class
    token is read. Mean pooling with tuned blocks normalises after pooling instead, with a norm of its own (the
    repository's ``fc_norm``). ``norm_groups`` above 0 puts a BatchNorm without affine parameters before the head (MAE
    Table 10), which goes by that many groups of the batch. ``dropout`` zeroes that share of what enters the head.
    ``tune_positions=False`` leaves the positions fixed, as VideoMAE does.
    ValueError on a pooling or a number of tuned blocks that this encoder does not have.
    """

    def __init__(
        self,
        encoder: Encoder,
        classes: int,
        *,
        pooling: str = "mean",
        tuned_blocks: float | None = None,
        norm_groups: int = 0,
        dropout: float = 0.0,
        head_std: float = 2e-5,
        tune_positions: bool = True,
    ) -> None:
        super().__init__()
        if pooling not in ("mean", "class"):
            raise ValueError(f"unknown pooling {pooling!r}; choose mean or class")
        if pooling == "class" and encoder.class_token is None:
            raise ValueError("pooling=class needs an encoder with a class token; choose pooling=mean")
        self.encoder, self.pooling, self.tuned_blocks = encoder, pooling, tuned_blocks
        width = encoder.shape.width
        norm: nn.Module = nn.Identity()
        if pooling == "mean" and tuned_blocks != 0:
            encoder.norm, norm = nn.Identity(), LayerNorm(width)  # type: ignore[assignment]
        if norm_groups:
            norm = BatchNorm(width, 1e-6, norm_groups)
        self.norm, self.dropout = norm, Dropout(dropout)
        self.head = nn.Linear(width, classes)
        trunc_normal_(self.head.weight, std=head_std)
        nn.init.zeros_(self.head.bias)
        if tuned_blocks is None and tune_positions:
            # MAE's fine-tuning also tunes the positions, as the released code does
            table = encoder.positions
            del encoder.positions
            encoder.positions = nn.Parameter(table.clone())
        elif tuned_blocks is not None:
            tuned = self._tuned()
            encoder.requires_grad_(False)
            for module in tuned:
                module.requires_grad_(True)

    def _tuned(self) -> list[nn.Module]:
        """List the parts of the encoder that are trained, in order."""
        blocks, tuned = self.encoder.blocks, self.tuned_blocks
        if tuned is None:
            return [self.encoder]
        if tuned == 0:
            return []
        if tuned == 0.5:
            last = blocks[-1]
            return [*(last.get_submodule(part) for part in ("norm2", "mlp", "drop_path2")), self.encoder.norm]
        if tuned != int(tuned) or not 0 < tuned <= len(blocks):
            raise ValueError(
                f"tuned_blocks={tuned} of an encoder with {len(blocks)} blocks; choose 0, 0.5, or 1 to {len(blocks)}"
            )
        return [*blocks[-int(tuned) :], self.encoder.norm]

    def train(self, mode: bool = True) -> Classifier:
        """Leave what is frozen in eval mode, whatever the rest does: its drop path is off."""
        super().train(mode)
        self.encoder.eval()
        for module in self._tuned():
            module.train(mode)
        return self

    def features(self, clips: Tensor) -> Tensor:
        """Encode ``clips`` to pooled features ``(B, D)``, before the norm and the head."""
        latent: Tensor = self.encoder(self.grid.patchify(clips))
        return latent[:, 0] if self.pooling == "class" else latent[:, self.encoder.prefix :].mean(1)

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.norm(features)))
        return logits
