"""Each file holds one pre-training objective, behind the one contract that the loop knows: ``Method``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Generator, Tensor, nn

from mae.data.clips.sampling import Sampling
from mae.data.source import Augment
from mae.footprint import Activations, Way
from mae.model import Encoder
from mae.train.views import Views


class Method(nn.Module, ABC):
    """A method is an objective on an ``encoder``, built as ``method = Kind(encoder, **fields)``.

    A kind must say ``loss`` and ``flops``; the rest has a default. Its constructor raises ValueError if its parts do
    not fit one another, also on the meta device, so that nothing is trained in vain. ``views`` is the number of
    augmented views of a sample that a step wants, ``least_batch`` the smallest batch that the loss is defined for.
    ``indivisible`` says why a batch must not be done in parts, where a loss is no mean over samples ("samples are told
    from one another"); it is empty for one that is. A kind that is ``labelled`` trains on the labelled part of the
    data, and its loss is given the labels ``(B,)`` int64 after the views.
    """

    views: int = 1
    least_batch: int = 1
    indivisible: str = ""
    labelled: ClassVar[bool] = False

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    @abstractmethod
    def loss(self, views: Sequence[Tensor], generator: Generator) -> Tensor:
        """Return the scalar loss, float32, of ``views`` of B samples: each is normalised, ``(B, C, [T,] H, W)``.

        Whatever is random, such as a mask, is drawn from ``generator`` on the generator's device, by ``mae.draws``.
        """

    @abstractmethod
    def flops(self) -> float:
        """Count the forward pass of one sample, all its views together."""

    def sample_flops(self) -> float:
        """Count one sample of a training step: the backward pass costs twice the forward pass."""
        return 3 * self.flops()

    def activations(self, way: Way) -> Activations:
        """Count what a step keeps of one sample: by default what the encoder does that sees all of every view.

        A kind that keeps more, or much less, says so.
        """
        saved, working = self.encoder.activations(way)
        return Activations(self.views * saved, self.views * working)

    def prepare(self, views: Views) -> None:
        """Fit what must be fitted before the first step to the run's own training views."""

    def looks(self, augment: Augment) -> Sequence[Augment]:
        """Say how each view is made: by the recipe's own ``augment``, unless a kind says otherwise."""
        return [augment] * self.views

    def after_step(self, done: float) -> None:
        """Follow a step of the optimiser, by which the share ``done`` of the training, in (0, 1], is done."""

    def signature(self, views: Tensor) -> Tensor:
        """Return what tells samples apart for this objective, ``(B, K)``, of normalised ``views: (B, C, [T,] H, W)``.

        When it is nearly the same for all samples, the training has collapsed.
        """
        latent = self.encoder(self.encoder.grid.patchify(views))
        return latent[:, self.encoder.prefix :].mean(1).float()

    def sampling(self, sampling: Sampling) -> Sampling:
        """Say how clips must be sampled when the encoder is to see the frames of ``sampling``."""
        return sampling

    def pictures(self, clips: Tensor, seed: int) -> dict[str, Tensor]:
        """Draw what can be drawn of sampled ``clips``: pictures ``(B, C, T, H, W)`` by name, in the clips' units."""
        return {}

    @property
    def note(self) -> str:
        """Say what a reader must know of the pictures of predictions; it is empty where that is nothing."""
        return ""
