"""What a training step keeps in a device's memory: state that stays, and activations that the backward pass reads.

Bytes are counted by formula, as ``mae.flops`` counts products; a test holds them to what autograd really saves. A plan
that is known already reads these classes, so torch is loaded only where modules are counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import nn

#: The share of a device's memory that is left to the context, to kernels' workspaces, and to gaps in the allocator.
RESERVE = 0.1

#: Bytes of a number in fp32: of weights, their gradients, the optimiser's state, and what norms read and add up.
WORD = 4


@dataclass(frozen=True)
class Way:
    """It says how a step computes, as far as memory depends on it.

    ``precision`` is ``fp32`` or ``bf16`` (autocast: matrices are multiplied in bf16, the residual stream stays fp32).
    ``fused`` attention never holds the matrix of weights; all cards use it. ``checkpointing`` keeps the input of each
    block alone, and computes the block again in the backward pass.
    """

    precision: str = "bf16"
    fused: bool = True
    checkpointing: bool = False

    @property
    def element(self) -> int:
        """Count the bytes of a number that enters a product of matrices."""
        return 2 if self.precision == "bf16" else WORD


class Activations(NamedTuple):
    """Bytes of one sample: ``saved`` for the backward pass, and ``working``, the most that comes and goes besides.

    The gradients of a block's activations are as large as these are, so ``working`` is one block more; where the
    encoder is frozen, it is the block that is at work.
    """

    saved: float
    working: float


def linear_saved(rows: float, inputs: int, way: Way) -> float:
    """A linear layer keeps its ``rows`` input vectors, for the gradient of its weights."""
    return float(rows * inputs * way.element)


def norm_saved(rows: float, width: int) -> float:
    """A layer norm keeps its input, and of each vector the mean and the inverse deviation, all in fp32."""
    return float(rows * (width + 2) * WORD)


def attention_saved(tokens: int, width: int, heads: int, way: Way) -> float:
    """Attention keeps queries, keys, values and, if ``fused``, its output and the logarithm of each row's sum (fp32).

    Otherwise it keeps the matrix of weights. The output is there in any case, for the projection that reads it.
    """
    kept = heads * tokens * WORD if way.fused else heads * tokens * tokens * way.element
    return float(4 * tokens * width * way.element + kept)


def mlp_saved(tokens: float, width: int, hidden: int, way: Way) -> float:
    """An MLP keeps its input and, before and after the GELU, its hidden vectors."""
    return float(tokens * (width + 2 * hidden) * way.element)


def block_saved(tokens: int, width: int, hidden: int, heads: int, way: Way) -> float:
    """A pre-norm block keeps what its two norms, its attention and its MLP keep."""
    attention = linear_saved(tokens, width, way) + attention_saved(tokens, width, heads, way)
    return 2 * norm_saved(tokens, width) + attention + mlp_saved(tokens, width, hidden, way)


def compared_saved(patches: int, outputs: int, codes: bool) -> float:
    """A loss keeps prediction and target, or the logarithms of probabilities and the codes (int64)."""
    return float(patches * (outputs * WORD + 8 if codes else 2 * outputs * WORD))


@dataclass(frozen=True)
class State:
    """Bytes that stay while a module trains, of all its parts together.

    ``weights`` and, of those that are trained, ``gradients`` and the ``optimiser``'s state are fp32; ``average`` is a
    moving average of the weights; ``copies`` are the bf16 copies of matrices that autocast makes and keeps until
    the backward pass is done. ``unit`` is what must be whole at once where the rest is shared: the largest block, or
    all that is no block, with its copy.
    """

    weights: int
    gradients: int
    optimiser: int
    average: int
    copies: int
    unit: int

    @classmethod
    def of(cls, module: nn.Module, way: Way, states: int, average: bool = False) -> State:
        """Count ``module``, on a meta device too, under an optimiser that keeps ``states`` numbers of a parameter."""
        from torch import nn

        trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
        every = sum(p.numel() for p in module.parameters())
        blocks = [part for stack in module.modules() if isinstance(stack, nn.ModuleList) for part in stack]
        inside = [sum(p.numel() for p in block.parameters()) for block in blocks]
        largest = max([*inside, every - sum(inside)])
        copied = 2 if way.precision == "bf16" else 0
        matrices = sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Linear))
        return cls(
            weights=WORD * every,
            gradients=WORD * trained,
            optimiser=WORD * states * trained,
            average=WORD * every if average else 0,
            copies=copied * matrices,
            unit=(WORD + copied) * largest,
        )

    def bytes(self, shards: int = 1) -> float:
        """Add up what one of ``shards`` devices holds that share the state evenly (FSDP), one holding all of it.

        Two units are whole at a time: the one at work, and the next on its way.
        """
        total = self.weights + self.gradients + self.optimiser + self.average
        return float(total + self.copies) if shards == 1 else total / shards + 2 * self.unit


@dataclass(frozen=True)
class Footprint:
    """What a training keeps: its state, and the activations of one sample without and with checkpointing.

    ``pixels`` are the bytes of a sample on its way in: as it is read, augmented (fp32), and cut into patches (fp32).
    """

    state: State
    plain: Activations
    checkpointed: Activations
    pixels: float = 0.0

    @classmethod
    def of(cls, state: State, activations: Callable[[Way], Activations], way: Way, values: int) -> Footprint:
        """Count a step that computes in this ``way`` on samples of so many ``values``."""
        again = replace(way, checkpointing=True)
        return cls(state, activations(way), activations(again), float(values * (1 + 2 * WORD)))

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Footprint:
        """Read what ``dataclasses.asdict`` made of one, and JSON of that."""
        without, again = (Activations(*plain[name]) for name in ("plain", "checkpointed"))
        return cls(State(**plain["state"]), without, again, plain["pixels"])

    def sample(self, checkpointing: bool = False) -> float:
        """Count the bytes that each sample of a micro-batch adds."""
        return sum(self.checkpointed if checkpointing else self.plain) + self.pixels

    def bytes(self, micro_batch: int, checkpointing: bool = False, shards: int = 1) -> float:
        """Count what one device holds at its fullest."""
        return self.state.bytes(shards) + micro_batch * self.sample(checkpointing)


@dataclass(frozen=True)
class Fit:
    """A step of a batch on ``devices``: each does ``parts`` micro-batches of up to ``micro_batch`` samples.

    ``checkpointing`` and ``sharded`` (FSDP in the place of DDP) are chosen only where it does not fit without;
    ``bytes`` is what a device then holds.
    """

    micro_batch: int
    parts: int
    devices: int
    checkpointing: bool
    sharded: bool
    bytes: float


def micro_batch_that_fits(footprint: Footprint, batch: int, memory: float, devices: int = 1) -> Fit | None:
    """Find the largest micro-batch of a global ``batch`` on ``devices`` with ``memory`` bytes each, less ``RESERVE``.

    Tried in this order, and the first in which one sample fits is taken: neither, activation checkpointing, sharding,
    both. Its parts are as equal as they can be. None where not one sample fits in any way.
    """
    share = math.ceil(batch / devices)
    for sharded in (False, True) if devices > 1 else (False,):
        for checkpointing in (False, True):
            shards = devices if sharded else 1
            left = memory * (1 - RESERVE) - footprint.state.bytes(shards)
            most = math.floor(left / footprint.sample(checkpointing))
            if most >= 1:
                parts = math.ceil(share / most)
                micro = math.ceil(share / parts)
                held = footprint.bytes(micro, checkpointing, shards)
                return Fit(micro, parts, devices, checkpointing, sharded, held)
    return None


#: So many devices at the most are proposed where fewer do not hold a model.
MOST_DEVICES = 1024


def devices_that_fit(footprint: Footprint, memory: float) -> int | None:
    """Find the smallest number of devices with ``memory`` bytes each on which one sample fits; None for none."""
    numbers = range(1, MOST_DEVICES + 1)
    return next((n for n in numbers if micro_batch_that_fits(footprint, n, memory, n)), None)


def memory_that_fits(footprint: Footprint, devices: int = 1) -> float:
    """Count the bytes that each of ``devices`` needs for one sample, ``RESERVE`` included."""
    ways = [(checkpointing, shards) for checkpointing in (False, True) for shards in {1, devices}]
    return min(footprint.bytes(1, checkpointing, shards) for checkpointing, shards in ways) / (1 - RESERVE)
