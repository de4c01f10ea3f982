"""SimMIM (Xie et al., 2111.09886): the encoder itself fills in dropped patches, and one linear layer reads them off."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mae.flops import linear_flops
from mae.footprint import Activations, Way, linear_saved
from mae.frames import SAME_FRAMES, FrameSelection
from mae.masking import Mask, Strategy, take
from mae.methods.masked_prediction import MaskedPrediction
from mae.model import Encoder, initialise
from mae.targets import Target


class SimMIM(MaskedPrediction):
    """A learned mask token stands for every dropped patch before positions are added; the encoder sees all tokens.

    The published loss is ``l1`` on pixels (Sec. 3). ValueError if the encoder has mask tokens of its own.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        mask: Strategy,
        target: Target,
        loss: str = "l1",
        frames: FrameSelection = SAME_FRAMES,
    ) -> None:
        super().__init__(encoder, mask=mask, target=target, loss=loss, frames=frames)
        if encoder.mask_token is not None:
            raise ValueError("SimMIM puts mask tokens of its own into the encoder; choose model.mask_tokens=false")
        self.mask_token = nn.Parameter(torch.zeros(1, 1, encoder.shape.width))
        nn.init.normal_(self.mask_token, std=0.02)
        self.head = nn.Linear(encoder.shape.width, self.outputs)
        initialise(self.head)

    def predict(self, patches: Tensor, mask: Mask, predicted: slice) -> Tensor:
        embedded = self.encoder.embed(patches)
        tokens = torch.where(mask.dropped().unsqueeze(-1), self.mask_token, embedded) + self.encoder.positions
        latent = self.encoder.transform(self.encoder.with_class_token(tokens))[:, self.encoder.prefix :]
        prediction: Tensor = self.head(take(latent, mask.drop[:, predicted]))
        return prediction

    @property
    def embedded(self) -> int:
        return self.encoder.grid.num_patches

    def flops(self) -> float:
        prediction = linear_flops(self.asked, self.encoder.shape.width, self.outputs)
        return self.encoder.flops() + prediction + self.target_flops

    def activations(self, way: Way) -> Activations:
        saved, working = self.encoder.activations(way)
        return Activations(saved + linear_saved(self.asked, self.encoder.shape.width, way) + self.compared, working)
