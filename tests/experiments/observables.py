"""What a table may say that its rows differ in (``observe`` of its YAML), computed from the spec of a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

import mae.heads.fine_tuning
from experiments.assemble import augment_of, encoder_of, grid_of, method_of, splits_of
from experiments.spec import Data, Spec
from experiments.stages.evaluation import Evaluation
from experiments.stages.pretraining import Pretraining
from mae.data.source import Splits, View
from mae.heads.fine_tuning import FineTune
from mae.methods.masked_prediction import MaskedPrediction
from mae.train.loop import Runtime
from mae.train.views import Views
from tests.experiments.noise import digest, noise, pictures

#: Of a spec, and of the evaluations that its table shows.
Observable = Callable[[Spec, Sequence[str]], Any]


def masked(spec: Spec) -> MaskedPrediction:
    """The method of a spec, without memory."""
    with torch.device("meta"):
        method = method_of(spec)
    assert isinstance(method, MaskedPrediction)
    return method


def visible(spec: Spec, stages: Sequence[str]) -> int:
    """How many patches the encoder sees."""
    return masked(spec).visible


def mask(spec: Spec, stages: Sequence[str]) -> list[list[int]]:
    """The patches that four fixed masks keep."""
    drawn: list[list[int]] = masked(spec).strategy(4, grid_of(spec), Generator().manual_seed(0)).keep.tolist()
    return drawn


def parameters(spec: Spec, stages: Sequence[str]) -> int:
    """How many parameters pre-training has."""
    return sum(parameter.numel() for parameter in masked(spec).parameters())


def steps(spec: Spec, stages: Sequence[str]) -> int:
    """How many steps pre-training takes."""
    return Pretraining(spec).steps()


def batch(spec: Spec, stages: Sequence[str]) -> str:
    """A fixed batch, as pre-training sees it."""
    return digest(augment_of(spec.augment, spec.data)(noise(spec), Generator().manual_seed(0)))


def target(spec: Spec, stages: Sequence[str]) -> tuple[str, int]:
    """What is predicted, and how many values of each patch."""
    method = masked(spec)
    return type(method.target).__name__, method.outputs


def frames(spec: Spec, stages: Sequence[str]) -> tuple[list[int], int, int]:
    """The frames that pre-training takes of a long clip, and how many values it predicts of how many slots."""
    method, sampling = masked(spec), Pretraining(spec).sampling()
    assert sampling is not None
    ids = sampling.test(100, 0, 1)
    return (ids - ids[0]).tolist(), method.outputs, method.target_grid.t


def loss(spec: Spec, stages: Sequence[str]) -> float:
    """The loss of one fixed batch under fixed weights, the target fitted as pre-training fits it."""
    torch.manual_seed(0)
    method, augment = method_of(spec), augment_of(spec.augment, spec.data)
    method.prepare(Views(pictures(), augment, Runtime(0)))
    generator = Generator().manual_seed(0)
    return float(method.loss([augment(noise(spec), generator)], generator).detach())


def trained(spec: Spec, stages: Sequence[str]) -> list[set[str]]:
    """Names of the parameters that each evaluation tunes."""
    with torch.device("meta"):
        models = [Evaluation(spec, stage).head.classifier(encoder_of(spec), 10) for stage in stages]
    return [{name for name, p in model.named_parameters() if p.requires_grad} for model in models]


def start(spec: Spec, stages: Sequence[str]) -> list[Any]:
    """What each evaluation starts from: a training, a file, or nothing; and the shape of the encoder."""
    origins = [Evaluation(spec, stage).origin() for stage in stages]
    return [*(origin if isinstance(origin, str | None) else origin.fingerprint() for origin in origins), shape(spec)]


def origin(spec: Spec, stages: Sequence[str]) -> tuple[list[bool], str]:
    """Whether each evaluation starts from random weights, and the shape of the encoder."""
    return [not Evaluation(spec, stage).pretrained for stage in stages], shape(spec)


def labels(spec: Spec, stages: Sequence[str]) -> tuple[int, list[bool]]:
    """How many labels the evaluations have, and whether each starts from random weights."""
    return spec.evaluate_data.samples["train"], [not Evaluation(spec, stage).pretrained for stage in stages]


def objective(spec: Spec, stages: Sequence[str]) -> tuple[str, list[bool]]:
    """What is pre-trained for, with its target if any, and whether each evaluation starts from random weights."""
    with torch.device("meta"):
        method = method_of(spec)
    target = type(method.target).__name__ if isinstance(method, MaskedPrediction) else ""
    return f"{type(method).__name__} {target}", [not Evaluation(spec, stage).pretrained for stage in stages]


def averaged(spec: Spec, stages: Sequence[str]) -> tuple[list[bool], str]:
    """Whether each evaluation tests averaged weights, and the shape of the encoder."""
    heads = [Evaluation(spec, stage).head for stage in stages]
    return [isinstance(head, FineTune) and head.ema is not None for head in heads], shape(spec)


def weights(spec: Spec, stages: Sequence[str]) -> list[str]:
    """The weights that are tested after a few steps from the same encoder on the same pictures."""
    found: list[str] = []

    def record(model: torch.nn.Module, *_: Any) -> float:
        found.append(digest(torch.cat([p.detach().flatten() for p in model.parameters()])))
        return 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mae.heads.fine_tuning, "accuracy", record)
        for stage in stages:
            torch.manual_seed(0)
            evaluation = Evaluation(spec, stage)
            train, test = (augment_of(section, spec.data) for section in (evaluation.augment, spec.data.test_augment))
            source = Splits(pictures(), pictures(), pictures(), views=(View(pictures(), (test,)),))
            evaluation.head(encoder_of(spec), source, train, Runtime(0))
    return found


def data(spec: Spec, stages: Sequence[str]) -> tuple[int, str]:
    """Classes and first test picture of the data that evaluations read, and the shape of the encoder."""
    tested = spec.evaluate_data
    if Evaluation(spec, stages[0]).sampling() is not None:
        return tested.classes, f"{tested.samples['train']} {shape(spec)}"
    if spec.scale == "paper":  # the pictures are not here
        return tested.classes, shape(spec)
    return tested.classes, digest(first_test_picture(tested)) + shape(spec)


def first_test_picture(tested: Data) -> Tensor:
    """The first four test pictures of built-in data, uint8."""
    with TemporaryDirectory() as folder:
        first = splits_of(tested, Path(folder)).test.batches([torch.arange(4)], torch.device("cpu"))
        return next(iter(first)).images


def shape(spec: Spec) -> str:
    """The shape of the encoder, in words."""
    return str(spec.tree["model"]["encoder"])


OBSERVED: dict[str, Observable] = {
    f.__name__: f
    for f in (
        *(visible, mask, parameters, steps, batch, target, frames),
        *(trained, objective, origin, labels, start, averaged, data, loss, weights),
    )
}

#: Those that compute, which is affordable at scale=smoke only.
COMPUTED = ("loss", "weights")
