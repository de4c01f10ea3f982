"""One training on several devices: what its processes say to one another, and how they share a model.

Each process has a device and computes its share of every batch. *Replicated*, each holds the whole model and gradients
are summed once an optimiser step, after the last part: nothing is said before, so a process may repeat its parts in
smaller ones. *Sharded*, each holds its share of parameters, gradients and moments (torch's FSDP2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from timm.models.vision_transformer import Block
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from mae.errors import NotDivisible
from mae.train.checkpoint import pack
from mae.world import World

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

#: ``loss(model, prepared, generator)``, as ``mae.train.parts.Objective`` has it.
Loss = Callable[[nn.Module, Sequence[Tensor], Generator], Tensor]

#: Whether this torch can share a model between CPUs: to do so 2.6 lacks events of their streams.
SHARDS_ON_CPU = hasattr(torch.cpu.Stream, "record_event")

#: How the devices of a training share its model.
SHARDINGS = ("ddp", "fsdp")


class Replicated:
    """The whole of ``model`` on this device. ``scale`` multiplies a loss before its gradients are reduced."""

    scale = 1.0

    def __init__(self, model: nn.Module, loss: Loss, optimizer: Optimizer, world: World) -> None:
        self.model, self.optimizer, self.world, self._loss = model, optimizer, world, loss
        world.equal(model)

    def loss(self, prepared: Sequence[Tensor], generator: Generator) -> Tensor:
        """Return the loss of rows that were prepared, a scalar."""
        return self._loss(self.model, prepared, generator)

    def expect(self, last: bool) -> None:
        """Say whether the next backward pass is the last of the step."""

    def reduce(self) -> None:
        """Sum the gradients of all processes, once a step."""
        if self.world.size > 1:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            for work in [dist.all_reduce(gradient, async_op=True) for gradient in gradients]:
                work.wait()

    def packed(self) -> dict[str, Tensor]:
        """Return model and optimiser as a checkpoint holds them, whatever the number of processes."""
        return pack(self.model, self.optimizer)

    def finish(self) -> None:
        """Leave the trained weights in the model that was given."""


class Sharded(Replicated):
    """A copy of ``model`` of which each process holds a share; block by block the whole is there while it is needed.

    The optimiser is that of the copy from here on: it must name its parameters, as those of ``Recipe.build`` do.
    """

    def __init__(self, model: nn.Module, loss: Loss, optimizer: Optimizer, world: World) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        super().__init__(model, loss, optimizer, world)
        self.given, self.scale = model, float(world.size)  # gradients are averaged
        device = next(model.parameters()).device
        if device.type == "cpu" and not SHARDS_ON_CPU:
            raise NotDivisible(
                f"torch {torch.__version__} shards no model on a CPU: choose sharding=ddp, or a newer one"
            )
        mesh = init_device_mesh(device.type, (world.size,))
        self.model = deepcopy(model)
        for part in self.model.modules():
            if isinstance(part, Block):
                fully_shard(part, mesh=mesh)
        self.root = _Whole(self.model, loss)
        fully_shard(self.root, mesh=mesh)
        self._follow(mesh)

    def _follow(self, mesh: Any) -> None:
        """Give the optimiser the shares in the place of the parameters, with what it knows of them."""
        from torch.distributed.tensor import distribute_tensor

        now, state = dict(self.model.named_parameters()), self.optimizer.state
        for group in self.optimizer.param_groups:
            old, group["params"] = group["params"], [now[name] for name in group["names"]]
            for before, share in zip(old, group["params"], strict=True):
                if before in state:
                    state[share] = {
                        slot: distribute_tensor(value, mesh, share.placements) if value.shape == before.shape else value
                        for slot, value in state.pop(before).items()
                    }

    def loss(self, prepared: Sequence[Tensor], generator: Generator) -> Tensor:
        loss: Tensor = self.root(prepared, generator)
        return loss

    def expect(self, last: bool) -> None:
        cast("FSDPModule", self.root).set_requires_gradient_sync(last)

    def reduce(self) -> None:
        pass  # the last backward pass has done it

    def packed(self) -> dict[str, Tensor]:
        return {name: _whole(tensor) for name, tensor in pack(self.model, self.optimizer).items()}

    def finish(self) -> None:
        self.given.load_state_dict({name: _whole(tensor) for name, tensor in self.model.state_dict().items()})


def shared(
    model: nn.Module, loss: Loss, optimizer: Optimizer, world: World, sharding: str, average: object = None
) -> Replicated:
    """Share ``model`` between the processes of ``world``; NotDivisible if its weights are averaged and sharded."""
    if world.size == 1 or sharding == "ddp":
        return Replicated(model, loss, optimizer, world)
    if average is not None:
        raise NotDivisible("averaged weights (ema) are kept whole: choose sharding=ddp")
    return Sharded(model, loss, optimizer, world)


class _Whole(nn.Module):
    """The loss as a module's forward pass: what belongs to no block is gathered for it."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self._loss = model, loss

    def forward(self, prepared: Sequence[Tensor], generator: Generator) -> Tensor:
        return self._loss(self.model, prepared, generator)


def _whole(tensor: Tensor) -> Tensor:
    """Gather a share from all processes."""
    gathered: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return gathered
