"""What every masked method shares: draw a mask, predict what it drops, compare the prediction with a target."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from mae.data.clips.sampling import Sampling
from mae.draws import of_batch, rows_of, uniform
from mae.footprint import compared_saved
from mae.frames import FrameSelection
from mae.masking import Mask, Strategy, take
from mae.methods import Method
from mae.model import Encoder
from mae.targets import CLASSIFICATION, Pictured, Target, loss_for
from mae.train.views import Views


class MaskedPrediction(Method):
    """Such a method predicts the ``target`` of the patches that ``mask`` drops, and compares them by ``loss``.

    ``frames`` says which frames of a clip are seen and which are predicted (VideoMAE Table 1c). A kind says how it
    predicts, ``predict``, with a last layer of ``outputs`` channels.
    """

    def __init__(self, encoder: Encoder, *, mask: Strategy, target: Target, loss: str, frames: FrameSelection) -> None:
        super().__init__(encoder)
        grid = encoder.grid
        self.strategy, self.target, self.frames = mask, target, frames
        self.visible = mask.visible(grid)
        if not 0 < self.visible < grid.num_patches:
            raise ValueError(f"{mask} keeps {self.visible} of {grid.num_patches} patches; keep some and drop some")
        frames.check(mask, grid)
        self.target_grid = frames.target_grid(grid)
        self.outputs = target.width(self.target_grid)
        self.compare: Callable[[Tensor, Tensor], Tensor] = loss_for(target, loss)

    @abstractmethod
    def predict(self, patches: Tensor, mask: Mask, predicted: slice) -> Tensor:
        """Predict ``(B, M, outputs)`` for ``mask.drop[:, predicted]`` from the visible ``patches: (B, N, P)``."""

    def prepare(self, views: Views) -> None:
        """Fit a target that must be fitted (principal components, tokens); it becomes a part of this module."""
        self.target = self.target.prepare(self.target_grid, views.of(self.frames.target))

    def signature(self, views: Tensor) -> Tensor:
        return super().signature(self.frames.seen(views))

    def loss(self, views: Sequence[Tensor], generator: Generator) -> Tensor:
        (clips,) = views
        rows = rows_of(generator, len(clips))
        mask = self.strategy(rows.batch, self.encoder.grid, of_batch(generator)).of(rows)
        loss: Tensor = self(clips, mask)
        return loss

    def forward(self, clips: Tensor, mask: Mask) -> Tensor:
        """Return the scalar loss, float32, of normalised ``clips: (B, C, [T,] H, W)`` under a given ``mask``."""
        seen, patches = self.patches(clips)
        predicted, asked = self.frames.predicted(mask, self.encoder.grid)
        return self.error(self.predict(seen, mask, predicted), patches, asked)

    def patches(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is seen of sampled ``clips``, ``(B, N, P)``, and what is predicted, each cut by its grid."""
        seen = self.encoder.grid.patchify(self.frames.seen(clips))
        if self.target_grid == self.encoder.grid:
            return seen, seen
        return seen, self.target_grid.patchify(self.frames.target(clips))

    def error(self, prediction: Tensor, patches: Tensor, mask: Mask) -> Tensor:
        """Compare ``prediction: (B, M, outputs)`` with the target of the dropped ``patches: (B, N, P)``, in float32.

        ``patches`` and ``mask`` are those of ``target_grid``.
        """
        with torch.autocast(prediction.device.type, enabled=False):
            return self.compare(prediction.float(), self.target(patches.float(), self.target_grid, mask))

    @property
    def asked(self) -> int:
        """Count how many patches of a sample are predicted."""
        grid = self.encoder.grid
        sides = (torch.zeros(1, n, device="cpu") for n in (self.visible, grid.num_patches - self.visible))
        return self.frames.predicted(Mask(*sides), grid)[1].drop.shape[1]

    @property
    def target_flops(self) -> float:
        """Count what the target of one sample costs; nothing of it is trained."""
        return self.target.flops(self.target_grid, self.asked)

    @property
    def embedded(self) -> int:
        """Count how many patches of a sample the encoder embeds."""
        return self.visible

    @property
    def compared(self) -> float:
        """Count the bytes that the loss of one sample keeps."""
        return compared_saved(self.asked, self.outputs, codes=self.target.losses == CLASSIFICATION)

    def sample_flops(self) -> float:
        return 3 * self.flops() - 2 * self.target_flops - self.encoder.embedding_flops(self.embedded)

    def sampling(self, sampling: Sampling) -> Sampling:
        return self.frames.sampling(sampling)

    @property
    def note(self) -> str:
        return self.target.note if isinstance(self.target, Pictured) else ""

    def pictures(self, clips: Tensor, seed: int) -> dict[str, Tensor]:
        """Draw the frames that are predicted, from one pass under a mask that is drawn from ``seed``: see ``drawn``."""
        return self.drawn(
            clips, self.strategy(len(clips), self.encoder.grid, Generator(clips.device).manual_seed(seed))
        )

    @torch.no_grad()
    def drawn(self, clips: Tensor, mask: Mask) -> dict[str, Tensor]:
        """Draw the frames of ``clips: (B, C, [T,] H, W)`` that are predicted under ``mask``.

        Of ``masked``, dropped patches are grey. ``reconstruction`` shows the prediction where dropped, grey where kept;
        ``pasted`` shows it among the patches that are kept. A normalised prediction is given the mean and the
        standard deviation of the clip's *visible* patches, so that nothing of a dropped patch leaks into its picture.
        Tokens have no such picture: the last two are then absent.
        """
        grid = self.target_grid
        seen, patches = self.patches(clips)
        predicted, asked = self.frames.predicted(mask, self.encoder.grid)
        ids = asked.drop.unsqueeze(-1).expand(-1, -1, grid.patch_dim)
        pictures = {"original": grid.unpatchify(patches), "masked": grid.unpatchify(patches.scatter(1, ids, 0.0))}
        if isinstance(self.target, Pictured):
            prediction = self.predict(seen, mask, predicted).float()
            prediction = self.target.picture(prediction, take(seen, mask.keep))
            pictures["reconstruction"] = grid.unpatchify(torch.zeros_like(patches).scatter(1, ids, prediction))
            pictures["pasted"] = grid.unpatchify(patches.scatter(1, ids, prediction))
        return pictures


class PartlyPredicted(MaskedPrediction):
    """Of the dropped patches only the share ``predicted_share`` is predicted, another part of them in each step.

    A kind may say which come first (``last``). ValueError if the share of what is dropped comes to nothing.
    """

    few: int

    def predict_only(self, predicted_share: float) -> None:
        """Predict this share of what a mask drops."""
        dropped = super().asked
        self.few = round(dropped * predicted_share)
        if not 0 < self.few <= dropped:
            raise ValueError(
                f"predicted_share={predicted_share} of {dropped} dropped patches predicts {self.few}; "
                "choose a share above 0 and at most 1"
            )

    def last(self, ids: Tensor) -> Tensor | None:
        """Flag those of the dropped patches ``ids: (B, M)`` that are predicted only when there are no others left."""
        return None

    def loss(self, views: Sequence[Tensor], generator: Generator) -> Tensor:
        (clips,) = views
        rows = rows_of(generator, len(clips))
        mask = self.strategy(rows.batch, self.encoder.grid, of_batch(generator)).of(rows)
        predicted, asked = self.frames.predicted(mask, self.encoder.grid)
        dropped = mask.drop[:, predicted]
        scores = uniform(generator, *dropped.shape)
        if (last := self.last(dropped)) is not None:
            scores = scores + last
        few = scores.argsort(1)[:, : self.few].sort(1).values
        seen, patches = self.patches(clips)
        prediction = self.predict(seen, Mask(mask.keep, dropped.gather(1, few)), slice(None))
        return self.error(prediction, patches, Mask(asked.keep, asked.drop.gather(1, few)))

    @property
    def asked(self) -> int:
        return self.few
