"""Phase one: pre-training on pictures or clips, by most methods without labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.assemble import Look, assembled, augment_of, make, method_of
from experiments.spec import PRETRAIN, Data, Section
from experiments.stages.sketch import bytes_of, meta_method, recipe_of, shapes_of
from experiments.stages.stage import Outcome, Stage, unreadable
from mae.data.clips.sampling import Sampling
from mae.footprint import Footprint, State, Way
from mae.methods import Method
from mae.methods.collapse import COLLAPSED, spread_of
from mae.train.accuracy import clips_at_once
from mae.train.loop import Runtime
from mae.train.optim import Recipe
from mae.train.pretrain import pretrain

#: Most samples whose features are looked at for a collapse, and how many of them are drawn.
WATCHED, PICTURED = 256, 8

#: How many are drawn while it trains.
SKETCHED = 3


@dataclass(frozen=True)
class Pretraining(Stage):
    """Phase one: the objective of the spec's method on pictures or clips, unlabelled unless the method wants labels."""

    name: str = PRETRAIN

    @property
    def data(self) -> Data:
        return self.spec.data

    @property
    def side(self) -> str:
        return "train" if meta_method(shapes_of(self.spec)).labelled else PRETRAIN

    @property
    def recipe(self) -> Recipe:
        return recipe_of(json.dumps(self.spec.pretrain))

    @property
    def augment(self) -> Section:
        return self.spec.augment

    def sampling(self) -> Sampling | None:
        """As the data says, unless the method wants other frames to be sampled."""
        if self.data.sampling is None:
            return None
        return meta_method(shapes_of(self.spec)).sampling(make(self.data.sampling))

    def look(self) -> Look:
        """Its pictures are drawn of what is tested on, or of what it trains on where the data has no other."""
        return replace(super().look(), tested=PRETRAIN if self.alone else "test")

    def reads(self) -> dict[str, Any]:
        tree = self.spec.tree
        return {key: tree[key] for key in ("model", "method", "augment", "pretrain")}

    def identity(self) -> dict[str, Any]:
        spec = self.spec
        sections = {
            "method": spec.method,
            "augment": spec.augment,
            "recipe": spec.pretrain,
            "sampling": spec.data.sampling,
        }
        return {
            **self._common(),
            "model": self._model(),
            "data": self._data_identity([self.side]),
            **{key: self._named(section) for key, section in sections.items()},
        }

    def sample_flops(self) -> float:
        return meta_method(shapes_of(self.spec)).sample_flops()

    def flops(self) -> float:
        return self.sample_flops() * self.recipe.samples_seen(self.data.samples[self.side])

    def parameter_bytes(self) -> int:
        """Bytes of the fp32 parameters of encoder and method."""
        return bytes_of(meta_method(shapes_of(self.spec)))

    def footprint(self) -> Footprint:
        method, way = meta_method(shapes_of(self.spec)), Way(self.spec.precision)
        state = State.of(method, way, self.recipe.states)
        return Footprint.of(state, method.activations, way, method.views * self._values())

    def check(self) -> None:
        method = meta_method(shapes_of(self.spec))
        self.sampling()
        augment_of(self.augment, self.data)
        self._check_samples()
        kind = type(method).__name__
        if self.recipe.batch_size < method.least_batch:
            raise ValueError(
                f"{kind} compares the samples of a batch: set pretrain.batch_size to {method.least_batch} or more"
            )
        if method.views > 1 and self.data_set().streams():
            raise ValueError(
                f"{kind} wants {method.views} views of a sample, and files that are decoded for every batch give one; "
                f"choose data that are decoded once"
            )

    def check_sharing(self, devices: int, micro_batch: int | None, sharding: str) -> None:
        super().check_sharing(devices, micro_batch, sharding)
        why = meta_method(shapes_of(self.spec)).indivisible
        if why and (devices > 1 or micro_batch not in (None, self.recipe.batch_size)):
            raise ValueError(f"a batch cannot be shared out here, because {why}: leave out micro_batch and devices")

    def run(self, start: Mapping[str, Tensor] | None, cache: Path, runtime: Runtime) -> Outcome:
        splits, augment = assembled(self.look(), self.spec.seed, cache, runtime.device)
        method = method_of(self.spec).to(runtime.device)

        def looked_at(count: int) -> Tensor:
            source, (view, *_) = splits.views[0]
            ids = torch.arange(min(count, clips_at_once(method.encoder.grid), len(source)))
            batch = next(iter(source.batches([ids], runtime.device)))
            return view(batch.images, torch.Generator(runtime.device))

        per_epoch = self.recipe.steps_per_epoch(self.data.samples[self.side])
        sketching = _sketching(runtime, method, lambda: looked_at(SKETCHED), per_epoch, self.steps())
        fitted = pretrain(method, splits.pretrain, augment, self.recipe, sketching)
        clips = looked_at(WATCHED)
        results = {
            "loss": fitted.loss,
            "seconds": fitted.seconds,
            "hours": fitted.seconds / 3600,
            "samples": float(fitted.steps * self.recipe.batch_size),
            "samples_per_second": fitted.samples_per_second,
            "gflops": method.flops() / 1e9,
            **_spread(method, clips),
            **unreadable(runtime.world, splits.pretrain),
        }
        return Outcome(results, method.state_dict(), method.pictures(clips[:PICTURED], seed=0), method.note)


def _sketching(runtime: Runtime, method: Method, clips: Callable[[], Tensor], per_epoch: int, steps: int) -> Runtime:
    """``runtime`` that also draws ``clips`` at the first look after epoch 1, 2, 4, 8 ...; the end is drawn apart.

    It draws between the stretches of steps that are timed. A sharded model, of which no process has the whole, is not
    drawn.
    """
    sketch, known = runtime.sketch, runtime.observe
    if sketch is None or (runtime.sharding == "fsdp" and runtime.world.size > 1):
        return runtime
    moments = [per_epoch << power for power in range(steps.bit_length()) if per_epoch << power < steps]
    found: list[Tensor] = []

    def observe(step: int, values: dict[str, float]) -> None:
        known(step, values)
        if step < steps and any(step - runtime.log_every < moment <= step for moment in moments):
            found[:] = found or [clips()]
            method.eval()
            pictures = method.pictures(found[0], seed=0)
            method.train()
            if pictures:
                sketch(step, pictures, method.note)

    return replace(runtime, observe=observe)


@torch.no_grad()
def _spread(method: Method, clips: Tensor) -> dict[str, float]:
    """How far apart the features of ``clips`` lie, and whether the training has collapsed."""
    found = spread_of(method.signature(clips))
    return {**found._asdict(), **({"collapsed": 1.0} if found.feature_std < COLLAPSED else {})}
