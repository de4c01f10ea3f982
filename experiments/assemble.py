"""From a resolved spec to the objects of the core, by import path. Bad values fail here, before any training."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from experiments.plan import PRETRAIN, Job
from experiments.spec import Spec, SpecError
from mae.data.augment import Compose, Normalise
from mae.data.source import Splits
from mae.flops import decoder_width
from mae.grid import Grid
from mae.masking import Strategy
from mae.model import Decoder, Encoder, MaskedAutoencoder, Transformer
from mae.targets import Target
from mae.train.evaluate import Evaluation
from mae.train.optim import Recipe
from mae.train.pretrain import Augment


def make(section: dict[str, Any], **extra: Any) -> Any:
    """The object that ``section['_target_']`` names; SpecError in the words of what refused its values."""
    try:
        return instantiate(section, _convert_="all", **extra)
    except InstantiationException as error:
        cause = error.__cause__ or error
        raise SpecError(f"{section['_target_'].rpartition('.')[2]}: {cause}") from error


def grid_of(spec: Spec) -> Grid:
    """The token grid of the spec's clips."""
    data = spec["data"]
    height, width = data["input_size"]
    return Grid.of(data["frames"], (height, width), tuple(spec["model"]["patch"]), data["channels"])


def encoder_of(spec: Spec) -> Encoder:
    """A fresh encoder."""
    model = spec["model"]
    return Encoder(
        grid_of(spec),
        Transformer(**model["encoder"]),
        class_token=model["class_token"],
        positions=model["positions"],
        mask_tokens=model["mask_tokens"],
    )


def autoencoder_of(spec: Spec) -> MaskedAutoencoder:
    """A fresh masked autoencoder."""
    model, grid = spec["model"], grid_of(spec)
    encoder = encoder_of(spec)
    target: Target = make(spec["target"])
    shape = Transformer(decoder_width(model), model["decoder"]["depth"], model["decoder"]["heads"])
    decoder = Decoder(grid, encoder, shape, target.width(grid), positions=model["positions"])
    return MaskedAutoencoder(encoder, decoder, target, spec["objective"]["loss"])


def mask_of(spec: Spec) -> Strategy:
    """The mask sampling strategy."""
    return cast(Strategy, make(spec["mask"]))


def recipe_of(spec: Spec) -> Recipe:
    """The recipe of the pre-training."""
    return cast(Recipe, make(spec["pretrain"]))


def evaluation_of(spec: Spec, stage: str) -> Evaluation:
    """The protocol of an evaluation."""
    return cast(Evaluation, make(spec["evaluate"][stage]["protocol"]))


def augment_of(spec: Spec, section: dict[str, Any]) -> Augment:
    """An augmentation, followed by the normalisation of the spec's data."""
    return Compose((make(section), Normalise(spec["data"]["mean"], spec["data"]["std"])))


def splits_of(spec: Spec, cache: Path) -> Splits:
    """The spec's data, loaded or made once for all jobs that name the same."""
    return _splits(json.dumps(spec["data"]["source"], sort_keys=True), cache)


@lru_cache(maxsize=2)
def _splits(source: str, cache: Path) -> Splits:
    return cast(Splits, make(json.loads(source), cache=cache))


def check(jobs: Iterable[Job]) -> None:
    """Build everything that the jobs' specs name, without memory for weights; SpecError names the job that cannot be."""
    seen: set[str] = set()
    for job in jobs:
        spec = job.spec
        key = json.dumps([spec["model"], spec["mask"], spec["target"], spec["objective"], spec["augment"]]) + job.stage
        if key in seen:
            continue
        seen.add(key)
        try:
            with torch.device("meta"):
                if job.stage == PRETRAIN:
                    mask_of(spec).visible(grid_of(spec))
                    autoencoder_of(spec)
                    recipe_of(spec)
                    augment_of(spec, spec["augment"])
                else:
                    encoder_of(spec)
                    evaluation_of(spec, job.stage)
                    augment_of(spec, spec["evaluate"][job.stage]["augment"])
        except (ValueError, TypeError) as error:
            raise SpecError(f"{job.name}: {error}") from error


def parameter_bytes(spec: Spec) -> int:
    """Bytes of the autoencoder's fp32 parameters."""
    with torch.device("meta"):
        return 4 * sum(parameter.numel() for parameter in autoencoder_of(spec).parameters())
