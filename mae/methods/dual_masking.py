"""Dual masking (VideoMAE V2, Wang et al., 2303.16727): a second mask spares the decoder most of what is dropped."""

from __future__ import annotations

import torch
from torch import Tensor

from mae.frames import SAME_FRAMES, FrameSelection
from mae.masking import Strategy
from mae.methods.masked_autoencoder import DecoderShape, MaskedAutoencoder
from mae.methods.masked_prediction import PartlyPredicted
from mae.model import Encoder
from mae.targets import Target


class DualMasking(PartlyPredicted, MaskedAutoencoder):
    """The decoder sees visible patches and ``predicted_share`` of the dropped ones, which alone are predicted.

    These are taken from running cells first (Fig. 2): of every 2 x 2 places two are decoded, and the pair moves on by
    one place in each slot of time, so that every place is decoded in half of the slots. The loss is over dropped
    patches that are decoded, as published.
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
        predicted_share: float = 0.5,
    ) -> None:
        super().__init__(encoder, decoder=decoder, mask=mask, target=target, loss=loss, frames=frames)
        if encoder.mask_token is not None:
            raise ValueError("DualMasking encodes visible patches only; choose model.mask_tokens=false")
        self.predict_only(predicted_share)

    def last(self, ids: Tensor) -> Tensor:
        grid = self.encoder.grid
        time, place = ids // (grid.h * grid.w), ids % (grid.h * grid.w)
        row, column = place // grid.w, place % grid.w
        # the places of a cell in the order of a walk around it
        turn = 2 * (row % 2) + torch.where(row % 2 == 0, column % 2, 1 - column % 2)
        return (turn + time) % 4 >= 2

    @property
    def decoded(self) -> int:
        return self.visible + self.few
