"""Objects of a spec that hold no memory, made once for all specs that agree in them: what plans count and check."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from experiments.ablation import SpecError
from experiments.assemble import data_set, encoder_of, make, method_of
from experiments.spec import Spec
from mae.data.source import DataSet, Holding, Use, identity_of
from mae.heads import Head
from mae.methods import Method
from mae.model import Encoder
from mae.train.optim import Recipe
from mae.weights import adapt, read

log = logging.getLogger(__name__)


@lru_cache(maxsize=256)
def data_set_of(section: str) -> DataSet:
    return data_set(json.loads(section))


@lru_cache(maxsize=256)
def holding_of(section: str) -> Holding | None:
    return data_set_of(section).holds()


@lru_cache(maxsize=256)
def source_identity(section: str, use: Use) -> Mapping[str, object]:
    return identity_of(data_set_of(section), use)


@lru_cache(maxsize=256)
def recipe_of(section: str) -> Recipe:
    return cast(Recipe, make(json.loads(section)))


@lru_cache(maxsize=256)
def head_of(section: str) -> Head:
    head = make(json.loads(section))
    if not isinstance(head, Head):
        raise SpecError(f"{type(head).__name__} is no mae.heads.Head; see CONTRIBUTING.md, 'A head'")
    return head


#: What fills a tensor in its place. Without memory torch loads its compiler for some of them.
FILLS = frozenset(
    (
        Tensor.uniform_,
        Tensor.normal_,
        Tensor.zero_,
        Tensor.fill_,
        Tensor.erfinv_,
        Tensor.mul_,
        Tensor.add_,
        Tensor.clamp_,
    )
)


class Unfilled(TorchFunctionMode):
    """It leaves tensors as they are made: to fill those without memory only takes time."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if function in FILLS or getattr(function, "__module__", "") == nn.init.__name__:
            return args[0] if args else given["tensor"]
        return function(*args, **given)


@contextmanager
def sketched() -> Iterator[None]:
    """What is made within holds no memory."""
    with torch.device("meta"), Unfilled():
        yield


@dataclass(frozen=True)
class Shapes:
    """What of a spec the shapes of encoder and method depend on; specs that agree in it share one construction."""

    spec: Spec = field(compare=False, repr=False)
    key: str = ""


def shapes_of(spec: Spec) -> Shapes:
    data = spec.data
    sections = [asdict(spec.model), spec.method, data.channels, data.frames, data.input_size]
    return Shapes(spec, json.dumps(sections))


@lru_cache(maxsize=256)
def meta_encoder(shapes: Shapes) -> Encoder:
    with sketched():
        return encoder_of(shapes.spec)


@lru_cache(maxsize=256)
def meta_method(shapes: Shapes) -> Method:
    """A method that holds no memory; ValueError as its constructor raises."""
    with sketched():
        return method_of(shapes.spec)


@lru_cache(maxsize=1024)
def meta_classifier(shapes: Shapes, head: str, classes: int) -> nn.Module:
    """What a head trains and tests; ValueError if it cannot evaluate an encoder."""
    with sketched():
        return head_of(head).classifier(encoder_of(shapes.spec), classes)


def check_head(shapes: Shapes, head: str, classes: int) -> None:
    """ValueError if a head cannot evaluate an encoder."""
    classifier, recipe = meta_classifier(shapes, head, classes), head_of(head).recipe
    if recipe and recipe.batch_size == 1 and any(isinstance(part, nn.BatchNorm1d) for part in classifier.modules()):
        raise ValueError("batch_size=1 gives BatchNorm nothing to normalise by: choose 2 or more")


@lru_cache(maxsize=256)
def check_weights(path: str, digest: str, shapes: Shapes) -> None:
    """ValueError if an encoder cannot start from a file; what of it is used is told, once for all trainings."""
    try:
        log.warning("%s: %s", path, adapt(read(path), meta_encoder(shapes)))
    except ValueError as error:
        raise ValueError(str(error) if path in str(error) else f"{path}: {error}") from error


def bytes_of(module: nn.Module) -> int:
    return 4 * sum(parameter.numel() for parameter in module.parameters())
