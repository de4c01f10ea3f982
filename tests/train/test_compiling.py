"""How blocks run is chosen by time, and changes nothing but the time."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from torch import nn

from mae.errors import CannotCompile
from mae.model import Transformer
from mae.train.compiling import SETTLING, TIMED, WAYS, Compiling

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What blocks are told to compile by, in the place of compiling them; a card that does not wait."""
    told: list[dict[str, object]] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, **options: told.append(options))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    return told


class Card:
    """A clock that goes on by what a step takes in the way of ``compiling``."""

    def __init__(self, **seconds: float) -> None:
        self.seconds, self.now = seconds, 0.0

    def __call__(self) -> float:
        return self.now

    def step(self, compiling: Compiling, fails: str = "") -> Callable[[], str]:
        def step() -> str:
            if compiling.way == fails:
                raise RuntimeError("no compiler\nand more")
            self.now += self.seconds[compiling.way]
            return compiling.way

        return step


def ways(card: Card, steps: int, choice: str = "auto", device: torch.device = CUDA, fails: str = "") -> list[str]:
    """The way of each of ``steps`` steps."""
    compiling = Compiling(Transformer(8, 2, 2).blocks(), choice, device, steps, clock=card)
    found = []
    for _ in range(steps):
        found.append(compiling.run(card.step(compiling, fails)))
        compiling.end()
    return found


@pytest.mark.parametrize("fastest", WAYS)
def test_the_first_steps_go_each_way_and_the_rest_the_fastest(fastest: str, compiled: list[dict[str, object]]) -> None:
    card = Card(**{way: 1.0 if way == fastest else 2.0 for way in WAYS})
    each = SETTLING + TIMED
    found = ways(card, 30 * each)
    assert found[: 3 * each] == [way for way in WAYS for _ in range(each)]
    assert set(found[3 * each :]) == {fastest}
    assert {"mode": "reduce-overhead"} in compiled


def test_a_gain_that_is_not_worth_it_leaves_blocks_plain(compiled: list[dict[str, object]]) -> None:
    assert ways(Card(off=1.0, blocks=0.98, graphs=1.5), 400)[-1] == "off"


@pytest.mark.parametrize("fails", ["blocks", "graphs"])
def test_a_way_that_fails_is_left_out_and_its_step_is_done_again(
    fails: str, compiled: list[dict[str, object]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = ways(Card(off=2.0, blocks=1.0, graphs=1.0), 400, fails=fails)
    assert len(found) == 400
    assert fails not in found
    assert found[-1] == ({"blocks", "graphs"} - {fails}).pop()
    assert f"compile={fails} fails here (no compiler), and is left out" in caplog.text


def test_a_way_that_was_asked_for_and_fails_is_told(compiled: list[dict[str, object]]) -> None:
    with pytest.raises(CannotCompile, match=r"compile=graphs fails here \(no compiler\): choose compile=off"):
        ways(Card(), 1, "graphs", fails="graphs")


def test_what_fails_once_a_way_has_settled_is_no_fault_of_the_way(compiled: list[dict[str, object]]) -> None:
    card = Card(graphs=1.0)
    compiling = Compiling(Transformer(8, 2, 2).blocks(), "graphs", CUDA, 400, clock=card)
    for _ in range(SETTLING):
        compiling.run(card.step(compiling))
        compiling.end()
    with pytest.raises(RuntimeError, match="no compiler") as failed:
        compiling.run(card.step(compiling, fails="graphs"))
    assert not isinstance(failed.value, CannotCompile)


@pytest.mark.parametrize(("device", "steps"), [(CPU, 1000), (CUDA, 20)])
def test_nothing_is_tried_on_a_cpu_or_in_a_short_training(
    device: torch.device, steps: int, compiled: list[dict[str, object]]
) -> None:
    assert set(ways(Card(off=1.0), steps, device=device)) == {"off"}
    assert compiled == []


@pytest.mark.slow
def test_compiled_blocks_give_the_losses_and_gradients_of_plain_ones_and_are_plain_afterwards() -> None:
    torch.manual_seed(0)
    blocks, tokens = Transformer(16, 2, 2).blocks(), torch.randn(2, 5, 16)
    found = {}
    for way in ("off", "blocks"):
        compiling = Compiling(blocks, way, CPU, 1)
        blocks.zero_grad()
        loss = compiling.run(lambda: blocks(tokens).square().mean())
        loss.backward()
        found[way] = [loss.detach(), *(parameter.grad.clone() for parameter in blocks.parameters())]
        assert all((block._compiled_call_impl is None) == (way == "off") for block in blocks)
        compiling.finish()
        assert all(block._compiled_call_impl is None for block in blocks)
    for plain, fast in zip(*found.values(), strict=True):
        torch.testing.assert_close(fast, plain, atol=1e-6, rtol=1e-5)
