"""Phase two: what a representation is worth, by a head, from pre-trained weights or from random ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from experiments.ablation import SpecError, nearest
from experiments.assemble import Look, assembled, augment_of, encoder_of, make, shifts_of
from experiments.compose import groups
from experiments.identity import file_digest
from experiments.spec import FILE, PRETRAIN, Data, Protocol, Section, Spec, origin_of
from experiments.stages.pretraining import Pretraining
from experiments.stages.sketch import (
    bytes_of,
    check_head,
    check_weights,
    head_of,
    meta_classifier,
    meta_encoder,
    shapes_of,
)
from experiments.stages.stage import Outcome, Stage, unreadable
from mae.data.clips.sampling import Sampling
from mae.footprint import Footprint, State, Way
from mae.heads import Head
from mae.train.loop import Runtime
from mae.train.optim import Recipe
from mae.weights import Weights, adapt, load, read

#: Before the names of the encoder's tensors in the weights that a training leaves.
ENCODER = "encoder."


@dataclass(frozen=True)
class Evaluation(Stage):
    """Phase two: what a head makes of the encoder, from pre-trained weights or from random ones."""

    @property
    def protocol(self) -> Protocol:
        """The section of the evaluation."""
        try:
            return self.spec.evaluate[self.name]
        except KeyError:
            known = [group.partition("/")[2] for group in groups(self.spec.own) if group.startswith("evaluate/")]
            if self.name not in known:
                raise SpecError(f"unknown stage {self.name!r}: {nearest(self.name, [PRETRAIN, *known])}") from None
            raise SpecError(f"nothing is chosen for evaluate/{self.name} at scale={self.spec.scale}") from None

    @property
    def data(self) -> Data:
        return self.spec.evaluate_data

    @property
    def side(self) -> str:
        return "train"

    @property
    def head(self) -> Head:
        """The head, with its hyper-parameters."""
        return head_of(json.dumps(self.protocol.protocol))

    @property
    def recipe(self) -> Recipe | None:
        return self.head.recipe

    @property
    def augment(self) -> Section:
        return self.protocol.augment

    @property
    def pretrained(self) -> bool:
        """Whether it starts from weights rather than from random ones."""
        return self.protocol.init == "pretrained"

    def sampling(self) -> Sampling | None:
        section = self.protocol.sampling or self.data.sampling
        return None if section is None else cast(Sampling, make(section))

    def reads(self) -> dict[str, Any]:
        return {"model": self.spec.tree["model"], self.name: self.spec.tree["evaluate"][self.name]}

    def origin(self) -> Stage | str | None:
        """What it starts from: a training, the path of a file of weights (empty while none is named), or None.

        None are random weights.
        """
        if not self.pretrained:
            return None
        if self.spec.origin.stage == FILE:
            return self.spec.origin.path or ""
        if (other := origin_of(self.spec)) is None:
            return Pretraining(self.spec)
        return stage_of(other, self.spec.origin.stage)

    def identity(self) -> dict[str, Any]:
        protocol, data, origin = self.protocol, self.data, self.origin()
        start = (
            origin.fingerprint()
            if isinstance(origin, Stage)
            else None
            if origin is None
            else {"file": file_digest(origin) if origin else None}
        )
        found = {
            **self._common(),
            "from": start,
            "head": self._named(protocol.protocol),
            "augment": self._named(protocol.augment),
            "test_augment": self._named(data.test_augment),
            "sampling": self._named(protocol.sampling or data.sampling),
            "views": dict(protocol.views),
            "repeats": 1 if protocol.repeats == 1 else {"same_frames": protocol.repeats},
            "classes": data.classes,
            "data": self._data_identity(["train", self.spec.tested]),
        }
        if self.head.tests_shifted and data.shifts:
            found["shifts"] = {
                name: {"is": self._name(data.shifts[name]["_target_"]), **shift.identity()}
                for name, shift in shifts_of(data).items()
            }
        if not isinstance(origin, Stage) or start != Pretraining(self.spec).fingerprint():
            found["model"] = self._model()  # otherwise it is a part of the identity that it starts from
        return found

    def sample_flops(self) -> float:
        return self.head.sample_flops(meta_encoder(shapes_of(self.spec)))

    def flops(self) -> float:
        protocol, data = self.protocol, self.data
        samples = {"train": data.samples["train"], "test": data.samples.get(self.spec.tested, data.samples["test"])}
        shifted = sum(_shifted(shift, samples["test"]) for shift in data.shifts.values())
        views = prod(protocol.views.values())
        encoder = meta_encoder(shapes_of(self.spec))
        return self.head.flops(encoder, samples, views, protocol.repeats, shifted)

    def look(self) -> Look:
        protocol = self.protocol
        sampling = self.sampling()
        tested, looks = self.spec.tested, (protocol.repeats, protocol.views)
        return Look(self.data, self.key, self.side, self.augment, tested, sampling, *looks)

    def check(self) -> None:
        seen, made = (
            (data.channels, data.frames, *data.input_size) for data in (self.spec.evaluate_data, self.spec.data)
        )
        if seen != made:
            raise ValueError(
                f"evaluate_data has (channels, frames, height, width) {seen} and data {made}; make them equal"
            )
        self._check_tested()
        if self.head.reads_boxes != self.data_set().boxed:
            raise ValueError(
                f"{self.name} reads boxes, which {self.key} has not: choose evaluate_data=moving_digits_boxes, or ava"
                if self.head.reads_boxes
                else f"{self.name} reads labels, and {self.key} has boxes with actions: choose other data, or the "
                f"stage action_detection"
            )
        origin = self.origin()
        if isinstance(origin, str) and origin:  # one that is not named yet is a need, found with all others
            if not Path(origin).exists():
                raise ValueError(f"origin.path={origin} is no file; name the weights to start from: origin.path=FILE")
            check_weights(origin, file_digest(origin), shapes_of(self.spec))
        if isinstance(origin, Stage) and origin.spec is not self.spec:
            adapt(Weights(meta_encoder(shapes_of(origin.spec)).state_dict()), meta_encoder(shapes_of(self.spec)))
        check_head(shapes_of(self.spec), json.dumps(self.protocol.protocol), self.data.classes)
        self.sampling()
        augment_of(self.augment, self.data)
        augment_of(self.data.test_augment, self.data)
        shifts_of(self.data)
        self._check_samples()

    def _check_tested(self) -> None:
        if self.spec.tested not in ("test", "val"):
            raise ValueError(f"tested={self.spec.tested}: evaluations test on test, or on val")
        if self.spec.tested == "val" and not self.data_set().keeps_validation():
            raise ValueError(
                f"the data keeps nothing for validation, on which whatever is chosen is tested; put files into val/, "
                f"set {self.key}.source.val_share=0.1, or choose built-in data that keeps some: data=digits_validated"
            )

    def check_sharing(self, devices: int, micro_batch: int | None, sharding: str) -> None:
        super().check_sharing(devices, micro_batch, sharding)
        if devices > 1 and sharding == "fsdp" and getattr(self.head, "ema", None) is not None:
            raise ValueError("averaged weights (ema) are kept whole: choose sharding=ddp")

    def parameter_bytes(self) -> int:
        return bytes_of(meta_encoder(shapes_of(self.spec)))

    def footprint(self) -> Footprint:
        head, way, shapes = self.head, Way(self.spec.precision), shapes_of(self.spec)
        classifier = meta_classifier(shapes, json.dumps(self.protocol.protocol), self.data.classes)
        states = head.recipe.states if head.recipe else 0
        state = State.of(classifier, way, states, head.averages)
        return Footprint.of(state, partial(head.activations, meta_encoder(shapes)), way, self._values())

    def batch(self) -> int:
        return super().batch() * self.protocol.repeats

    def run(self, start: Mapping[str, Tensor] | None, cache: Path, runtime: Runtime) -> Outcome:
        encoder = encoder_of(self.spec)
        origin = self.origin()
        if isinstance(origin, Stage) and start is not None:
            tensors = {name.removeprefix(ENCODER): t for name, t in start.items() if name.startswith(ENCODER)}
            load(encoder, adapt(Weights(tensors), encoder))
        elif isinstance(origin, str):
            load(encoder, adapt(read(origin), encoder))
        splits, augment = assembled(self.look(), self.spec.seed, cache, runtime.device)
        results = self.head(encoder, splits, augment, runtime)
        tensors = {ENCODER + name: tensor for name, tensor in encoder.state_dict().items()}
        lost = unreadable(runtime.world, splits.train, *(view.source for view in splits.views))
        return Outcome({**results, **lost}, tensors)


def stage_of(spec: Spec, name: str) -> Stage:
    """The stage of ``spec`` that tables call ``name``."""
    return Pretraining(spec) if name == PRETRAIN else Evaluation(spec, name)


def _shifted(shift: Section, test: int) -> int:
    """Pictures of a shifted test set: its own, or all of the test set for each of its changes."""
    return int(shift["samples"]) if "samples" in shift else len(shift["changes"]) * test
