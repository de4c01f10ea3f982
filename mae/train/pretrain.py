"""Phase one trains a method without labels."""

from __future__ import annotations

from torch import Generator, Tensor

from mae.data.source import Augment, Batch, Source
from mae.methods import Method
from mae.model import choose_attention
from mae.train.loop import Fitted, Runtime, fit
from mae.train.optim import Recipe
from mae.train.views import Views


def pretrain(method: Method, source: Source, augment: Augment, recipe: Recipe, runtime: Runtime) -> Fitted:
    """Train ``method`` on as many augmented views of each sample of ``source`` as it wants, without labels.

    What the method must fit first (principal components, a tokenizer) is fitted to such views and becomes a part of it.
    """
    views, looks = Views(source, augment, runtime), method.looks(augment)
    method.prepare(views)
    choose_attention(method, runtime.device, method.encoder.length(), runtime.precision)

    def loss_fn(batch: Batch, generator: Generator) -> Tensor:
        return method.loss([look(batch.images, generator) for look in looks], generator)

    fitted = fit(method, recipe.build(method), loss_fn, source, recipe, runtime, after_step=method.after_step)
    if views.checkpoints:
        views.checkpoints.clear()
    return fitted
