"""The only training loop. Everything in it is a function of the step, so that a run can be resumed exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import tee
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import Generator, Tensor, nn

from mae.data.source import Batch, Source, reading
from mae.draws import Draws
from mae.errors import DataError, NotFinite
from mae.model import recompute
from mae.train.checkpoint import Checkpoints, unpack
from mae.train.compiling import AUTO, Compiling
from mae.train.distributed import shared
from mae.train.optim import Recipe
from mae.train.parts import Objective, Parts
from mae.train.stop import Stop
from mae.world import ALONE, World

#: Called after each logged stretch of steps with (step, values): ``loss``, ``lr``, ``samples_per_second``, and
#: ``data_share``, the share of the time in which the loop waited for batches.
Observer = Callable[[int, dict[str, float]], None]

#: Called while a method trains with (step, pictures by name ``(B, C, T, H, W)``, the note on them).
Sketcher = Callable[[int, Mapping[str, Tensor], str], None]

#: Before the names of averaged weights in a checkpoint, and the losses since the last logged step.
AVERAGE, LOSSES = "average.", "losses"


@dataclass
class Runtime:
    """It says where and how a phase runs, apart from what it computes: only the seed is part of a run's identity.

    ``precision`` is ``fp32`` or ``bf16``. ``checkpoints=None`` trains without a net. ``observe`` gets the curves,
    ``advance`` the number of steps just done, ``sketch`` what a method predicts after epochs 1, 2, 4, 8 and so on,
    ``keep`` the files that are left besides, by name. On several devices every process has its rank in ``world``, and
    the first one observes and writes. ``micro_batch`` items go forward and backward at a time on each device, None for
    as many as fit. ``sharding`` is ``ddp`` or ``fsdp``; ``recompute`` keeps no activations inside the blocks of
    transformers. ``compile`` is one of ``mae.train.compiling.CHOICES``, and is off where a model is sharded.
    ``stop`` is how one asks from outside for a checkpoint and an end: after the step under way, on several devices
    after the logged stretch under way.
    """

    seed: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "fp32"
    checkpoints: Checkpoints | None = None
    log_every: int = 10
    observe: Observer = lambda step, values: None
    advance: Callable[[int], None] = lambda steps: None
    sketch: Sketcher | None = None
    keep: Callable[[str, bytes], None] = lambda name, content: None
    world: World = ALONE
    micro_batch: int | None = None
    sharding: str = "ddp"
    recompute: bool = False
    compile: str = AUTO
    stop: Stop = field(default_factory=Stop)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


@dataclass(frozen=True)
class Fitted:
    """A finished training leaves the number of its steps, the seconds spent in them, and the last logged mean loss."""

    steps: int
    seconds: float
    samples_per_second: float
    loss: float


@dataclass
class Waited(Iterator[Batch]):
    """It passes on ``batches``, and counts the seconds spent waiting for them."""

    batches: Iterator[Batch]
    seconds: float = 0.0

    def __next__(self) -> Batch:
        asked = time.perf_counter()
        try:
            return next(self.batches)
        finally:
            self.seconds += time.perf_counter() - asked


def seed_of(seed: int, stream: str, index: int) -> int:
    """Derive a 63-bit seed that depends on all three arguments and on nothing else."""
    words = np.random.SeedSequence([seed, index, *stream.encode()]).generate_state(2, np.uint32)
    return int(words[0]) << 31 | int(words[1]) >> 1


def order(samples: int, batch_size: int, seed: int, start: int, stop: int) -> Iterator[Tensor]:
    """Yield indices ``(batch_size,)`` of steps ``start`` to ``stop - 1``; (seed, epoch) permutes each epoch."""
    per_epoch = max(1, samples // batch_size)
    generator = Generator()
    permutation, epoch = torch.empty(0), -1
    for step in range(start, stop):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            permutation = torch.randperm(samples, generator=generator.manual_seed(seed_of(seed, "order", epoch)))
        first = step % per_epoch * batch_size
        yield permutation[first : first + batch_size]


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    source: Source,
    recipe: Recipe,
    runtime: Runtime,
    average: ModelEmaV3 | None = None,
    after_step: Callable[[Any, float], None] = lambda model, done: None,
) -> Fitted:
    """Train ``model`` by ``objective`` for the steps of ``recipe`` over ``source``.

    The draws are seeded by (seed, step) and live on the device; the global generator, which drop path reads, likewise.
    ``average`` follows the weights after each step (MAE Table 11) and is part of a checkpoint. ``after_step`` is given
    after each step what was trained, and which share of the training, in (0, 1], is done.
    With checkpoints, a second call with the same arguments goes on where the first was stopped, to the same numbers;
    it may have other devices or parts, and the numbers are then the same to rounding.
    Raises NotFinite on a loss that is not finite, CheckpointError when a checkpoint is damaged or cannot be written,
    NotDivisible when a batch cannot be shared out as asked, TooLarge when a step does not fit into memory,
    CannotCompile when blocks cannot be compiled as asked, KeyboardInterrupt when it was asked to stop.
    """
    steps, device, world = recipe.steps(len(source)), runtime.device, runtime.world
    start, seconds = 0, 0.0
    losses: list[Tensor] = []
    if recipe.batch_size > len(source):
        raise DataError(f"batch_size={recipe.batch_size} is more than the {len(source)} samples there are; lower it")
    if runtime.checkpoints and (found := runtime.checkpoints.load(device)):
        tensors, state = found
        unpack(tensors, model, optimizer)
        if average is not None:
            average.module.load_state_dict(
                {name.removeprefix(AVERAGE): t for name, t in tensors.items() if name.startswith(AVERAGE)}
            )
        start, seconds = state["step"], state["seconds"]
        losses = [loss * (world.rank == 0) for loss in tensors.get(LOSSES, ())]  # they are summed over processes
        runtime.advance(start - len(losses))
    model.train()
    recompute(model, runtime.recompute)
    trained = shared(model, objective.loss, optimizer, world, runtime.sharding, average)
    parts = Parts(objective, trained, recipe.batch_size, runtime.micro_batch, world, runtime.autocast)
    compiling = Compiling(model, runtime.compile if trained.model is model else "off", device, steps - start)
    draws = Draws(device)
    asked, read = tee(order(len(source), recipe.batch_size, runtime.seed, start, steps))
    batches = Waited(reading(source, parts.needed).batches(read, device))
    mean, clock, seen = math.nan, time.perf_counter(), 0

    def save(done: int) -> None:
        tensors = trained.packed()
        if average is not None:
            tensors |= {AVERAGE + name: tensor for name, tensor in average.module.state_dict().items()}
        if losses:
            tensors[LOSSES] = torch.stack(losses)
        if runtime.checkpoints and world.rank == 0:
            runtime.checkpoints.save(tensors, {"step": done, "seconds": seconds})

    with runtime.stop.heeded():
        for step, (batch, ids) in enumerate(zip(batches, asked, strict=True), start):
            lr = recipe.lr(step, len(source))
            for group in optimizer.param_groups:
                group["lr"] = lr * group["lr_scale"]
            backward = partial(parts.backward, batch, ids, seed_of(runtime.seed, "step", step), draws)
            losses.append(compiling.run(backward))
            trained.reduce()
            optimizer.step()
            if average is not None:
                average.update(model)
            done = step + 1
            after_step(trained.model, done / steps)
            compiling.end()
            seen += len(batch.labels)
            logged = done % runtime.log_every == 0 or done == steps
            if logged:
                mean = _finite_mean(world.sum(torch.stack(losses)), done, recipe.batch_size, runtime)
                spent = time.perf_counter() - clock
                speed = {"samples_per_second": seen * world.size / spent, "data_share": batches.seconds / spent}
                runtime.observe(done, {"loss": mean, "lr": lr, **speed})
                runtime.advance(len(losses))
                seconds += spent
                losses, seen, batches.seconds = [], 0, 0.0
            # several processes look at the same step, which is where they wait for each other anyway
            if (logged or world.size == 1) and done < steps and world.says_first(runtime.stop.asked):
                if losses:  # a stretch is under way, and what it has come to must be sound
                    _finite_mean(torch.stack(losses), done, recipe.batch_size, runtime)
                    seconds += time.perf_counter() - clock
                save(done)
                raise KeyboardInterrupt
            if logged:
                if runtime.checkpoints and done < steps and world.says_first(runtime.checkpoints.due()):
                    save(done)
                clock = time.perf_counter()
    trained.finish()
    compiling.finish()
    model.eval()
    return Fitted(steps, seconds, steps * recipe.batch_size / max(seconds, 1e-9), mean)


def _finite_mean(losses: Tensor, done: int, batch_size: int, runtime: Runtime) -> float:
    """Average the losses of the last steps: this is the loop's one look at the device in a logged stretch."""
    values: list[float] = losses.tolist()
    for offset, value in enumerate(values):
        if not math.isfinite(value):
            step = done - len(values) + offset
            net = runtime.checkpoints.index if runtime.checkpoints and runtime.checkpoints.index.exists() else "none"
            raise NotFinite(
                f"loss is {value} at step {step} (samples {step * batch_size} to {(step + 1) * batch_size - 1} of the "
                f"run's order, seed {runtime.seed}); last good checkpoint: {net}; lower base_lr or use precision=fp32"
            )
    return sum(values) / len(values)
