"""The loop: exact resume, a pure learning rate, a guard against numbers that are not finite."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from mae.data.source import Batch, Images
from mae.errors import CheckpointError, NotFinite
from mae.train import stop as stopping
from mae.train.checkpoint import Checkpoints
from mae.train.loop import Fitted, Runtime, fit, order, seed_of
from mae.train.optim import Recipe
from mae.train.parts import Objective

SOURCE = Images(torch.randint(0, 256, (40, 3, 4, 4), dtype=torch.uint8), torch.arange(40) % 4, tuple("abcd"))
RECIPE = Recipe("adamw", base_lr=0.1, batch_size=8, epochs=4, warmup_epochs=1, weight_decay=0.05)


class Stop(Exception):
    """Stands for a kill between two steps."""


def train(runtime: Runtime, recipe: Recipe = RECIPE) -> tuple[nn.Module, Fitted]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Linear(16, 4))

    def loss_fn(batch: Batch, generator: Generator) -> Tensor:
        noise = torch.rand(batch.images.shape, generator=generator)
        return F.cross_entropy(model(batch.images / 255 + noise), batch.labels)

    return model, fit(model, recipe.build(model), Objective.of(loss_fn, "it is a test"), SOURCE, recipe, runtime)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lars"])
@pytest.mark.parametrize("stop_at", [1, 7, 19])
def test_a_stopped_training_goes_on_to_the_same_numbers(tmp_path: Path, optimizer: str, stop_at: int) -> None:
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer)
    model, fitted = train(Runtime(seed=3, log_every=1), recipe)
    checkpoints = Checkpoints(tmp_path, every=0.0)

    def observe(step: int, values: dict[str, float]) -> None:
        if step == stop_at + 1:
            raise Stop

    with pytest.raises(Stop):
        train(Runtime(seed=3, log_every=1, checkpoints=checkpoints, observe=observe), recipe)
    again, resumed = train(Runtime(seed=3, log_every=1, checkpoints=checkpoints), recipe)
    assert resumed.loss == fitted.loss
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_a_resumed_training_repeats_no_step(tmp_path: Path) -> None:
    checkpoints, steps = Checkpoints(tmp_path, every=0.0), []

    def observe(step: int, values: dict[str, float]) -> None:
        steps.append(step)
        if steps == list(range(1, 8)):
            raise Stop

    with pytest.raises(Stop):
        train(Runtime(seed=0, log_every=1, checkpoints=checkpoints, observe=observe))
    train(Runtime(seed=0, log_every=1, checkpoints=checkpoints, observe=observe))
    assert steps == [1, 2, 3, 4, 5, 6, 7, *range(7, 21)]  # step 7 was done, but its checkpoint was not written


@pytest.mark.parametrize("at", [5, 6, 20])
def test_a_training_that_is_asked_to_stop_leaves_a_checkpoint_of_that_step_and_goes_on_to_the_same_curve(
    tmp_path: Path, at: int
) -> None:
    curves: list[list[float]] = [[], []]
    _, fitted = train(Runtime(seed=3, log_every=4, observe=lambda _, values: curves[0].append(values["loss"])))
    stop, done = Asked(), [0]
    runtime = Runtime(
        seed=3,
        log_every=4,
        checkpoints=Checkpoints(tmp_path),
        observe=lambda _, values: curves[1].append(values["loss"]),
    )
    stop.at = at
    if at < 20:
        with pytest.raises(KeyboardInterrupt):
            train(dataclasses.replace(runtime, stop=stop))
        found = Checkpoints(tmp_path).load(torch.device("cpu"))
        assert found is not None
        assert found[1]["step"] == at
    _, resumed = train(dataclasses.replace(runtime, advance=done.append))
    assert resumed.loss == fitted.loss
    assert curves[1] == curves[0]
    assert sum(done) == 20


class Asked(stopping.Stop):
    """It is asked while step ``at`` is looked at."""

    at = 0

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def __getattribute__(self, name: str) -> object:
        if name == "asked":
            self.looks += 1
            return self.looks >= self.at
        return super().__getattribute__(name)


def test_whoever_asks_where_no_training_looks_interrupts_at_once() -> None:
    stop = stopping.Stop()
    with stop.heeded():
        stop.ask()
        with pytest.raises(KeyboardInterrupt):  # a second time: it is urgent
            stop.ask()
    with pytest.raises(KeyboardInterrupt):
        stopping.Stop().ask()


def test_a_checkpoint_of_another_training_is_refused_with_what_differs(tmp_path: Path) -> None:
    one, other = ({"seed": 0, "recipe": {"epochs": epochs}} for epochs in (4, 8))
    Checkpoints(tmp_path, of=one).save({"x": torch.ones(3)}, {"step": 1})
    with pytest.raises(CheckpointError, match=r"wrong checkpoint in .*recipe.epochs is 4 there and 8 here.*delete"):
        Checkpoints(tmp_path, of=other).load(torch.device("cpu"))
    assert Checkpoints(tmp_path, of=one).load(torch.device("cpu")) is not None
    assert Checkpoints(tmp_path).load(torch.device("cpu")) is not None


def test_the_share_of_time_spent_waiting_for_batches_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now, shares = 0.0, []

    class Slow(Images):
        def batches(self, order: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
            nonlocal now
            for batch in super().batches(order, device):
                now += 3.0
                yield batch

    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))

    def loss_fn(batch: Batch, generator: Generator) -> Tensor:
        nonlocal now
        now += 1.0
        return F.cross_entropy(model(batch.images / 255), batch.labels)

    monkeypatch.setattr("mae.train.loop.time.perf_counter", lambda: now)
    runtime = Runtime(seed=0, log_every=4, observe=lambda step, values: shares.append(values["data_share"]))
    slow = Slow(SOURCE.pixels, SOURCE.labels, SOURCE.classes)
    fit(model, RECIPE.build(model), Objective.of(loss_fn, "it is a test"), slow, RECIPE, runtime)
    assert shares == [0.75] * 5


@pytest.mark.parametrize("damage", ["truncate", "flip", "garbage index", "missing"])
def test_a_damaged_checkpoint_is_named_and_never_trained_from(tmp_path: Path, damage: str) -> None:
    checkpoints = Checkpoints(tmp_path, every=0.0)
    checkpoints.save({"model.x": torch.arange(1000.0)}, {"step": 5, "seconds": 1.0})
    file = next(tmp_path.glob("*.safetensors"))
    if damage == "truncate":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "flip":
        content = bytearray(file.read_bytes())
        content[-50] ^= 1
        file.write_bytes(bytes(content))
    elif damage == "garbage index":
        checkpoints.index.write_text("{not json")
    else:
        file.unlink()
    with pytest.raises(CheckpointError, match=r"damaged checkpoint in .*delete that folder"):
        train(Runtime(seed=0, checkpoints=checkpoints))


def test_the_last_good_checkpoint_survives_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path, every=0.0)
    checkpoints.save({"x": torch.ones(3)}, {"step": 1})

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mae.train.checkpoint.save_file", full)
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoints.save({"x": torch.zeros(3)}, {"step": 2})
    found = checkpoints.load(torch.device("cpu"))
    assert found is not None
    assert found[1]["step"] == 1
    assert torch.equal(found[0]["x"], torch.ones(3))


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step() -> None:
    recipe = dataclasses.replace(RECIPE, base_lr=float("1e30"))
    with pytest.raises(NotFinite, match=r"at step \d+ \(samples .* seed 0\); last good checkpoint: none"):
        train(Runtime(seed=0), recipe)


def test_every_epoch_sees_every_sample_once_in_another_order() -> None:
    first, second = torch.cat(list(order(40, 8, 0, 0, 5))), torch.cat(list(order(40, 8, 0, 5, 10)))
    assert torch.equal(first.sort().values, torch.arange(40))
    assert torch.equal(second.sort().values, torch.arange(40))
    assert not torch.equal(first, second)


def test_the_order_is_a_function_of_the_step() -> None:
    whole = list(order(40, 8, 0, 0, 12))
    assert all(torch.equal(a, b) for a, b in zip(order(40, 8, 0, 7, 12), whole[7:], strict=True))


def test_seeds_of_different_streams_and_steps_differ() -> None:
    seeds = {seed_of(s, stream, i) for s in range(3) for stream in ("order", "step") for i in range(100)}
    assert len(seeds) == 600


def test_a_checkpoint_replaced_while_it_is_read_is_read_in_its_new_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = Checkpoints(tmp_path, every=0.0), Checkpoints(tmp_path, every=0.0)
    writer.save({"x": torch.ones(3)}, {"step": 1})
    read = Checkpoints._read
    replaced = []

    def slow_read(self: Checkpoints, index: bytes, device: torch.device) -> object:
        if not replaced:
            replaced.append(True)
            writer.save({"x": torch.zeros(3)}, {"step": 2})
        return read(self, index, device)

    monkeypatch.setattr(Checkpoints, "_read", slow_read)
    found = reader.load(torch.device("cpu"))
    assert found is not None
    assert found[1]["step"] == 2
