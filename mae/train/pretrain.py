"""Phase one trains a method, which most do without labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Generator, Tensor, nn

from mae.data.source import Augment, Batch, Source
from mae.methods import Method
from mae.model import choose_attention
from mae.train.loop import Fitted, Runtime, fit
from mae.train.optim import Recipe
from mae.train.parts import Objective
from mae.train.views import Views


def pretrain(method: Method, source: Source, augment: Augment, recipe: Recipe, runtime: Runtime) -> Fitted:
    """Train ``method`` on as many augmented views of each sample of ``source`` as it wants.

    What the method must fit first (principal components, a tokenizer) is fitted to such views and becomes a part of it.
    """
    views, looks = Views(source, augment, runtime), method.looks(augment)
    method.prepare(views)
    choose_attention(method, runtime.device, method.encoder.length(), runtime.precision)

    def prepare(batch: Batch, generator: Generator) -> list[Tensor]:
        seen = [look(batch.images, generator) for look in looks]
        return [*seen, batch.labels] if method.labelled else seen

    def loss(trained: nn.Module, seen: Sequence[Tensor], generator: Generator) -> Tensor:
        return cast(Method, trained).loss(seen, generator)

    def after_step(trained: Method, done: float) -> None:
        trained.after_step(done)

    objective = Objective(prepare, loss, indivisible=method.indivisible)
    fitted = fit(method, recipe.build(method), objective, source, recipe, runtime, after_step=after_step)
    if views.checkpoints:
        views.checkpoints.clear()
    return fitted
