"""DINO (Caron et al., 2104.14294): a student sees small crops and agrees with a teacher that sees large ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from mae.data.augment.compose import Compose, steps
from mae.data.augment.crops import Crop, pair
from mae.data.source import Augment
from mae.flops import linear_flops
from mae.footprint import WORD, Activations, Way
from mae.grid import Grid
from mae.methods import Method
from mae.methods.teacher import Teacher, cosine_momentum, represent, summary
from mae.model import Encoder
from mae.weights.positions import resampled


class Prototypes(nn.Module):
    """DINO's head: three layers with GELU, a bottleneck of length one, and directions that it is compared with.

    It is ``(B, D)`` to ``(B, prototypes)`` cosines. The directions have length one (weight norm with a fixed scale).
    """

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.widths = (width, hidden, hidden, bottleneck)
        first, second, third = (nn.Linear(*ends) for ends in pairwise(self.widths))
        self.layers = nn.Sequential(first, nn.GELU(), second, nn.GELU(), third)
        for layer in (first, second, third):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.directions = nn.Parameter(torch.empty(prototypes, bottleneck))
        nn.init.kaiming_uniform_(self.directions, a=5**0.5)

    def forward(self, features: Tensor, trained: Tensor | None = None) -> Tensor:
        """Compare ``features: (B, D)``; no gradient reaches the directions where the flag ``trained`` is False."""
        directions: Tensor = self.directions
        if trained is not None:
            directions = torch.where(trained, directions, directions.detach())
        return F.linear(F.normalize(self.layers(features), dim=-1), F.normalize(directions, dim=-1))

    def flops(self) -> float:
        """Count the forward pass of one vector."""
        ends = (*pairwise(self.widths), tuple(self.directions.shape))
        return sum(linear_flops(1, *each) for each in ends)

    def kept(self, way: Way) -> float:
        """Count the bytes that stay of one vector: what enters layers and GELUs, and the bottleneck twice.

        The directions, once for all vectors, are left out.
        """
        width, hidden, _, bottleneck = self.widths
        return float(way.element * (width + 4 * hidden + 2 * bottleneck))


class DINO(Method):
    """Two views go to student and momentum teacher, and ``local_views`` crops by ``local_crop`` to the student alone.

    The teacher's output is centred by a running mean (``centre_momentum``) and sharpened by a temperature that warms up
    from ``warm_temperature`` to ``teacher_temperature`` within the share ``warm_up`` of the training; without them it
    collapses (Sec. 5.3). The directions wait for the share ``wait`` of it. The published values are those of ViT-B/16
    over 400 epochs. Weight decay is that of the recipe: it does not rise as in the paper.
    """

    least_batch = 2
    indivisible = "outputs are centred by the mean of the batch"

    def __init__(
        self,
        encoder: Encoder,
        *,
        local_crop: Crop,
        local_views: int = 10,
        prototypes: int = 65536,
        hidden: int = 2048,
        bottleneck: int = 256,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.07,
        warm_temperature: float = 0.04,
        warm_up: float = 50 / 400,
        wait: float = 3 / 400,
        centre_momentum: float = 0.9,
        momentum: float = 0.996,
    ) -> None:
        super().__init__(encoder)
        if min(student_temperature, teacher_temperature, warm_temperature) <= 0:
            raise ValueError("a temperature must be above 0")
        if not (0 <= momentum <= 1 and 0 <= centre_momentum <= 1) or local_views < 0:
            raise ValueError(
                f"momentum={momentum} and centre_momentum={centre_momentum} lie within [0, 1], "
                f"local_views={local_views} is not negative"
            )
        self.local_crop, self.local_views, self.views = local_crop, local_views, 2 + local_views
        self.local = self._local_grid(pair(local_crop.size))  # type: ignore[attr-defined]
        self.student_temperature, self.momentum, self.centre_momentum = student_temperature, momentum, centre_momentum
        self.teacher_temperatures = warm_temperature, teacher_temperature
        self.warm_up, self.wait = warm_up, wait
        self.head = Prototypes(encoder.shape.width, hidden, bottleneck, prototypes)
        self.teacher = Teacher(encoder, self.head)
        self.register_buffer("centre", torch.zeros(1, prototypes))
        self.register_buffer("done", torch.zeros(()))

    centre: Tensor
    done: Tensor

    def _local_grid(self, size: tuple[int, int]) -> Grid:
        grid = self.encoder.grid
        if size[0] > grid.h * grid.patch[1] or size[1] > grid.w * grid.patch[2]:
            raise ValueError(f"local crops of {size[0]}x{size[1]} pixels are larger than the views; take less")
        return Grid.of(grid.t * grid.patch[0], size, grid.patch, grid.channels)

    def looks(self, augment: Augment) -> Sequence[Augment]:
        local = Compose((self.local_crop, *steps(augment)[1:]))
        return [augment] * 2 + [local] * self.local_views

    def loss(self, views: Sequence[Tensor], generator: Generator) -> Tensor:
        trained = self.done >= self.wait
        seen = [represent(self.encoder, torch.cat(list(views[:2])))]
        if self.local_views:
            tokens = self.local_tokens(torch.cat(list(views[2:])))
            seen.append(summary(self.encoder, self.encoder.transform(tokens)))
        students = self.head(torch.cat(seen), trained).float().chunk(self.views)
        teachers = self.teacher(torch.cat(list(views[:2]))).float()
        with torch.autocast(teachers.device.type, enabled=False):
            targets = ((teachers - self.centre) / self.teacher_temperature()).softmax(-1).chunk(2)
            logs = [(student / self.student_temperature).log_softmax(-1) for student in students]
            pairs = [(t, s) for t in range(2) for s in range(self.views) if t != s]
            loss = torch.stack([-(targets[t] * logs[s]).sum(-1).mean() for t, s in pairs]).mean()
        with torch.no_grad():
            self.centre.lerp_(teachers.mean(0, keepdim=True), 1 - self.centre_momentum)
        return loss

    def signature(self, views: Tensor) -> Tensor:
        return (self.head(represent(self.encoder, views)).float() / self.student_temperature).softmax(-1)

    def local_tokens(self, views: Tensor) -> Tensor:
        """Embed small ``views`` with the positions of the whole picture at their resolution: ``(B, prefix + N, D)``."""
        encoder, grid = self.encoder, self.encoder.grid
        positions = resampled(encoder.positions[0], (grid.t, grid.h, grid.w), self.local)
        return encoder.with_class_token(encoder.embed(self.local.patchify(views)) + positions)

    def teacher_temperature(self) -> Tensor:
        """The temperature of the teacher at this point of the training."""
        first, last = self.teacher_temperatures
        return first + (last - first) * (self.done / self.warm_up if self.warm_up else self.done + 1).clamp(max=1)

    def after_step(self, done: float) -> None:
        self.done.fill_(done)
        self.teacher.follow(self.encoder, self.head, cosine_momentum(self.momentum, done))

    def _local_flops(self) -> float:
        encoder, patches = self.encoder, self.local.num_patches
        return encoder.embedding_flops(patches) + encoder.shape.flops(encoder.length(patches)) + self.head.flops()

    def flops(self) -> float:
        return 4 * (self.encoder.flops() + self.head.flops()) + self.local_views * self._local_flops()

    def sample_flops(self) -> float:
        whole, embedding = self.encoder.flops() + self.head.flops(), self.encoder.embedding_flops()
        local = 3 * self._local_flops() - self.encoder.embedding_flops(self.local.num_patches)
        return 2 * (3 * whole - embedding) + 2 * whole + self.local_views * local

    def activations(self, way: Way) -> Activations:
        """The large views go through together, then the small ones; the teacher keeps nothing.

        The loss keeps the logarithms of the student's probabilities, and the teacher's probabilities.
        """
        whole, part = self.encoder.activations(way), self.encoder.activations(way, self.local.num_patches)
        outputs = (self.views + 2) * len(self.head.directions) * WORD
        saved = 2 * whole.saved + self.local_views * part.saved + self.views * self.head.kept(way) + outputs
        return Activations(saved, max(2 * whole.working, self.local_views * part.working))
