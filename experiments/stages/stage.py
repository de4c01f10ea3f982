"""A stage: one training of a spec, as an object that can name, cost, check and run itself."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.assemble import Look, augment_of
from experiments.identity import named, names
from experiments.remember import fingerprint
from experiments.spec import PRETRAIN, SUPERVISED, Data, Section, Spec
from experiments.stages.sketch import data_set_of, holding_of, source_identity
from mae import NUMERICS
from mae.data.clips.sampling import Sampling
from mae.data.clips.sets import ClipSet
from mae.data.files.folders import check_tested
from mae.data.source import DataSet, Holding, Source, Use
from mae.footprint import Footprint
from mae.train.loop import Runtime
from mae.train.optim import Recipe
from mae.train.parts import check_shares
from mae.world import World


@dataclass(frozen=True)
class Outcome:
    """What a stage leaves: results by name, the tensors that others may start from, pictures with a note on them."""

    results: Mapping[str, float]
    tensors: Mapping[str, Tensor] | None = None
    pictures: Mapping[str, Tensor] | None = None
    note: str = ""


@dataclass(frozen=True)
class Stage(ABC):
    """One training of ``spec``. ``name`` is what the columns of tables call it."""

    spec: Spec
    name: str

    @property
    @abstractmethod
    def data(self) -> Data:
        """The data that it trains and tests on."""

    @property
    @abstractmethod
    def side(self) -> str:
        """What of the data it trains on: ``pretrain`` or ``train``."""

    @property
    @abstractmethod
    def recipe(self) -> Recipe | None:
        """How it trains, None if it does not."""

    @property
    @abstractmethod
    def augment(self) -> Section:
        """What is done to training samples."""

    @abstractmethod
    def sampling(self) -> Sampling | None:
        """How frames are taken from clips, None for pictures."""

    @abstractmethod
    def reads(self) -> dict[str, Any]:
        """The sections of the spec that it reads, as they stand there: what a run shows of itself."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything that its result depends on, and nothing else."""

    @abstractmethod
    def sample_flops(self) -> float:
        """FLOPs of one training sample; 0 where the steps leave the encoder alone."""

    @abstractmethod
    def flops(self) -> float:
        """FLOPs of all that it does."""

    @abstractmethod
    def check(self) -> None:
        """ValueError, before anything is trained, if its parts do not fit."""

    def check_sharing(self, devices: int, micro_batch: int | None, sharding: str) -> None:
        """ValueError, before anything is trained, if its batches cannot be shared so."""
        if self.recipe is not None:
            check_shares(self.recipe.batch_size, devices, micro_batch)

    @abstractmethod
    def parameter_bytes(self) -> int:
        """Bytes of the fp32 parameters that a checkpoint of it holds, about."""

    @abstractmethod
    def footprint(self) -> Footprint:
        """What a step keeps in a device's memory, with attention fused as on every card."""

    def batch(self) -> int:
        """How many samples an optimiser step looks at, 0 where nothing is trained."""
        return self.recipe.batch_size if self.recipe else 0

    @abstractmethod
    def run(self, start: Mapping[str, Tensor] | None, cache: Path, runtime: Runtime) -> Outcome:
        """Train and test, from the tensors of the training that it starts from, if there is one."""

    @property
    def key(self) -> str:
        """The section that a user sets to change the data."""
        return "data" if self.data.source == self.spec.data.source else "evaluate_data"

    @property
    def leaves_weights(self) -> bool:
        """Whether others may start from its weights."""
        return self.name in (PRETRAIN, SUPERVISED)

    @property
    def recipe_key(self) -> str:
        """The section that a user sets to change the recipe."""
        return PRETRAIN if self.name == PRETRAIN else f"evaluate.{self.name}.protocol.recipe"

    @property
    def _augment_key(self) -> str:
        return "augment" if self.name == PRETRAIN else f"evaluate.{self.name}.augment"

    def fingerprint(self) -> str:
        """The name of the training: the hash of its identity."""
        return fingerprint(self.identity())

    def data_set(self) -> DataSet:
        """The data set that it reads, before anything of it is loaded."""
        return data_set_of(json.dumps(self.data.source, sort_keys=True))

    @property
    def alone(self) -> bool:
        """Whether it pre-trains on data that holds nothing to test on, which no evaluation can follow."""
        held = holding_of(json.dumps(self.data.source, sort_keys=True))
        return self.side == PRETRAIN and held is not None and not held.sizes.get("test", 1)

    def _check_samples(self) -> None:
        """The data has what the spec asks for, as far as no file is opened to find out."""
        data, held = self.data, holding_of(json.dumps(self.data.source, sort_keys=True))
        if len(data.mean) != data.channels or len(data.std) != data.channels:
            raise ValueError(
                f"{self.key}.mean={list(data.mean)} and {self.key}.std={list(data.std)} are not for "
                f"{self.key}.channels={data.channels}: give one number for each channel"
            )
        augments = ((self._augment_key, self.augment), (f"{self.key}.test_augment", data.test_augment))
        for key, section in augments:
            size = section.get("size", data.input_size)
            if tuple([size] * 2 if isinstance(size, int) else size) != data.input_size:
                raise ValueError(
                    f"{key}.size={size} is not what the model sees, {self.key}.input_size={list(data.input_size)}: "
                    f"set that, which both follow"
                )
        if data.channels != 3:  # what changes colours refuses others, which a blank sample tells
            frames = () if self.sampling() is None else (data.frames,)
            blank = torch.zeros(1, data.channels, *frames, *data.input_size, dtype=torch.uint8)
            augment_of(self.augment, data)(blank, torch.Generator())
        if held is not None:
            self._check_held(held)
        if self.recipe is not None and self.recipe.batch_size > data.samples[self.side]:
            raise ValueError(
                f"{self.recipe_key}.batch_size={self.recipe.batch_size} is more than the "
                f"{data.samples[self.side]} samples of {self.key}.samples.{self.side}: choose a smaller batch"
            )

    def _check_held(self, held: Holding) -> None:
        """A data set holds what the spec asks for; one with nothing to test on is asked for what it pre-trains on."""
        data, found = self.data, self.data_set()
        if self.side != PRETRAIN:
            if not held.classes:
                raise ValueError(
                    f"{held.where} has no labels, which {self.name} trains on: add them, in a list as a column, or "
                    f"pre-train alone (ablation=pretraining, of clips video_pretraining)"
                )
            check_tested(held.sizes.get("test", 1), held.where)
        asked = {PRETRAIN: data.samples[PRETRAIN]} if self.alone else data.samples
        for side in ("train",) if self.alone else ("train", "test"):
            if isinstance(found, ClipSet) and getattr(found, side) != held.sizes[side]:
                raise ValueError(
                    f"{held.where} has {held.sizes[side]} clips for {side}, the spec says {getattr(found, side)}: "
                    f"set {self.key}.source.{side}={held.sizes[side]}"
                )
        wrong = [
            f"{self.key}.samples.{side} from 1 to {held.sizes[side]}"
            for side, count in asked.items()
            if side in held.sizes and not 1 <= count <= held.sizes[side]
        ]
        if wrong:
            raise ValueError(f"{held.where} has not as many samples as are asked for: choose {', '.join(wrong)}")
        if held.classes and data.classes != held.classes and not self.alone:
            raise ValueError(
                f"{held.where} has {held.classes} classes, the spec says {data.classes}: "
                f"set {self.key}.classes={held.classes}"
            )
        if held.channels is not None and data.channels != held.channels:
            raise ValueError(
                f"{held.where} has {held.channels} channels, the spec says {data.channels}: "
                f"set {self.key}.channels={held.channels}"
            )
        self._check_length(held.frames)

    def _check_length(self, frames: int | None) -> None:
        """Clips of a known length are long enough for what is taken from them."""
        if (sampling := self.sampling()) is not None and frames is not None:
            try:
                sampling.test(frames, 0, 1)
            except ValueError as error:
                raise ValueError(f"a clip of {self.key} {error}: lower data.frames") from error

    def steps(self) -> int:
        """Optimiser steps; one, for a progress bar, where nothing is trained."""
        return self.recipe.steps(self.data.samples[self.side]) if self.recipe else 1

    def look(self) -> Look:
        """How it looks at its data."""
        return Look(self.data, self.key, self.side, self.augment, sampling=self.sampling())

    def _values(self) -> int:
        """How many values a sample has, as many frames of a clip as are read."""
        data, sampling = self.data, self.sampling()
        return data.channels * (sampling.frames if sampling else data.frames) * prod(data.input_size)

    def _data_identity(self, sides: Iterable[str]) -> dict[str, Any]:
        """What of the data the stage reads: the set's own identity, how much of each side, and what is seen of it."""
        data = self.data
        return {
            "source": self._source_identity(),
            "samples": {side: data.samples.get(side) for side in sides},
            "input": [data.channels, data.frames, *data.input_size],
            "mean": list(data.mean),
            "std": list(data.std),
        }

    def _source_identity(self) -> dict[str, object]:
        """The name of the data set, and what this stage depends on of it."""
        section = self.data.source
        use: Use = "pretrain" if self.side == PRETRAIN else "evaluate"
        return {"name": self._name(section["_target_"]), **source_identity(json.dumps(section, sort_keys=True), use)}

    def _common(self) -> dict[str, Any]:
        return {"numerics": NUMERICS, "stage": self.name, "seed": self.spec.seed, "precision": self.spec.precision}

    def _named(self, value: Any) -> Any:
        return named(value, self.spec.own)

    def _name(self, path: str) -> str:
        return names(self.spec.own).get(path, path)

    def _model(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self.spec.model).items() if key != "decoder"}


def unreadable(world: World, *sources: Source) -> dict[str, float]:
    """How many items of ``sources`` could not be read, if any, by any process."""
    reports = [source.report for source in sources if hasattr(source, "report")]
    here = {name for report in reports for name, _ in report.failed}
    lost = set().union(*world.gathered(here))
    return {"unreadable": float(len(lost))} if lost else {}
