"""MoCo v3 (Chen et al., 2104.02057): two views of a sample are told from those of all other samples in the batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mae.flops import linear_flops
from mae.footprint import WORD, Activations, Way, linear_saved
from mae.methods import Method
from mae.methods.teacher import Teacher, cosine_momentum, mlp, mlp_kept, represent
from mae.model import Encoder


def contrast(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """InfoNCE of ``queries`` and ``keys``, both ``(B, K)``, scaled by twice the temperature (Algorithm 1)."""
    logits = F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).T / temperature
    return 2 * temperature * F.cross_entropy(logits, torch.arange(len(queries), device=queries.device))


class MoCoV3(Method):
    """The encoder, a projector and a predictor meet the keys of a momentum teacher, which has no predictor.

    Both heads are MLPs with a hidden layer, the projector with two, of ``hidden`` channels and an output of ``width``.
    The patch embedding keeps its random weights (Sec. 4: training is then stable). The momentum rises from ``momentum``
    to 1. Of an encoder without a class token the mean of the tokens is compared.
    """

    views = 2
    least_batch = 2
    indivisible = "each sample is told from all others of the batch"

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden: int = 4096,
        width: int = 256,
        temperature: float = 0.2,
        momentum: float = 0.99,
    ) -> None:
        super().__init__(encoder)
        if temperature <= 0 or not 0 <= momentum <= 1:
            raise ValueError(
                f"temperature={temperature}, momentum={momentum}: one must be above 0, the other within [0, 1]"
            )
        encoder.embed.requires_grad_(False)
        self.temperature, self.momentum = temperature, momentum
        self.shapes = (encoder.shape.width, hidden, hidden, width), (width, hidden, width)
        self.projector, self.predictor = (mlp(widths) for widths in self.shapes)
        self.teacher = Teacher(encoder, self.projector)

    def loss(self, views: Sequence[Tensor], generator: Generator) -> Tensor:
        first, second = (self.predictor(self.projector(represent(self.encoder, view))) for view in views)
        key, other = (self.teacher(view) for view in views)
        with torch.autocast(first.device.type, enabled=False):
            ways = (first.float(), other.float()), (second.float(), key.float())
            return sum((contrast(*way, self.temperature) for way in ways), torch.zeros((), device=first.device))

    def after_step(self, done: float) -> None:
        self.teacher.follow(self.encoder, self.projector, cosine_momentum(self.momentum, done))

    def _heads(self) -> tuple[float, float]:
        projector, predictor = (sum(linear_flops(1, *ends) for ends in pairwise(widths)) for widths in self.shapes)
        return projector, predictor

    def flops(self) -> float:
        projector, predictor = self._heads()
        return self.views * (2 * (self.encoder.flops() + projector) + predictor)

    def sample_flops(self) -> float:
        projector, predictor = self._heads()
        student = 3 * (self.encoder.flops() + projector + predictor) - 2 * self.encoder.embedding_flops()
        return self.views * (student + self.encoder.flops() + projector)

    def activations(self, way: Way) -> Activations:
        """The views go through one after the other; the frozen embedding and the teacher keep nothing.

        The loss keeps query and key of each view. Its similarities, one for each sample of a batch, are left out.
        """
        saved, working = self.encoder.activations(way)
        grid, (projector, predictor) = self.encoder.grid, self.shapes
        saved -= linear_saved(grid.num_patches, grid.patch_dim, way)
        heads = mlp_kept(projector, way) + mlp_kept(predictor, way) + 3 * predictor[-1] * WORD
        return Activations(self.views * (saved + heads), working)
