"""Checkpoints that survive a kill at any moment: tensors as safetensors, the rest as JSON, both replaced atomically."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from mae.disk import replacing, write_text
from mae.errors import CheckpointError


def _digest(path: Path) -> str:
    digest = hashlib.blake2b()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


class OtherTraining(CheckpointError):
    """A checkpoint is of another training than the one that would go on from it."""


def _differences(there: Any, here: Any, key: str = "") -> list[str]:
    """What differs between two nested mappings, by key, in words."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = dict.fromkeys([*there, *here])
        return [
            word
            for name in keys
            for word in _differences(there.get(name), here.get(name), f"{key}.{name}" if key else str(name))
        ]
    return [] if there == here else [f"{key} is {there} there and {here} here"]


@dataclass
class Checkpoints:
    """The checkpoints of one training: ``checkpoint.json`` names the one good tensor file beside it.

    ``every`` is the least time between two checkpoints in seconds. A new one is complete before the old one goes.
    ``of`` is what the training computes, as JSON holds it: a checkpoint of another one is refused.
    """

    folder: Path
    every: float = 30.0
    of: Mapping[str, Any] | None = None
    _last: float = field(default_factory=time.monotonic)

    @property
    def index(self) -> Path:
        return self.folder / "checkpoint.json"

    def due(self) -> bool:
        return time.monotonic() - self._last >= self.every

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Write ``tensors`` and JSON-able ``state``; raises CheckpointError when the disk will not take them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"checkpoint-{state['step']}.safetensors"
        try:
            with replacing(path) as draft:
                save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, draft)
            index = {"file": path.name, "digest": _digest(path), "state": dict(state), "of": self.of}
            write_text(self.index, json.dumps(index))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"cannot write a checkpoint to {self.folder}: {error}; free some space or choose another out=PATH, "
                f"then run the same command again: it goes on from the last checkpoint"
            ) from error
        for old in self.folder.glob("*checkpoint-*.safetensors"):  # drafts of a stopped process, too
            if old != path:
                old.unlink(missing_ok=True)
        self._last = time.monotonic()

    def load(self, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last good checkpoint, None if there is none; CheckpointError if what is there is damaged.

        Another process may replace a checkpoint while it is read: what the index names by then is read instead.
        """
        while True:
            try:
                index = self.index.read_bytes()
            except FileNotFoundError:
                return None
            try:
                return self._read(index, device)
            except (OSError, KeyError, TypeError, ValueError, SafetensorError, CheckpointError) as error:
                if self.index.exists() and self.index.read_bytes() == index:
                    what = "wrong" if isinstance(error, OtherTraining) else "damaged"
                    raise CheckpointError(
                        f"{what} checkpoint in {self.folder}: {error}; delete that folder to train this run again "
                        f"from its beginning (no other run is touched)"
                    ) from error

    def _read(self, index: bytes, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
        stated = json.loads(index)
        other = stated.get("of")
        if self.of is not None and other is not None and (found := _differences(other, dict(self.of))):
            raise OtherTraining(f"it is of another training ({'; '.join(found[:5])})")
        path = self.folder / stated["file"]
        if _digest(path) != stated["digest"]:
            raise CheckpointError(f"{path.name} does not have the digest that {self.index.name} states")
        return load_file(path, device=str(device)), stated["state"]

    def clear(self) -> None:
        """Remove the checkpoints of a training whose result is safe."""
        self.index.unlink(missing_ok=True)
        for path in self.folder.glob("*checkpoint*"):
            path.unlink(missing_ok=True)


def pack(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Model and optimiser as one flat dict of tensors: ``model.<name>`` and ``optimizer.<index>.<slot>``."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{slot}": value for slot, value in slots.items()}
    return tensors


def unpack(tensors: Mapping[str, Tensor], model: nn.Module, optimizer: Optimizer) -> None:
    """Put what ``pack`` returned back into a model and an optimiser of the same shape."""
    model.load_state_dict({name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")})
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, slot = name.split(".", 2)
            state.setdefault(int(index), {})[slot] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
