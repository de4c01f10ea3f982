"""What a row is planned to cost is what torch counts, for every shape that any row has, on tensors without memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from experiments.ablation import ablation_names, at_scale, exists, last_wins, load_ablation
from experiments.assemble import encoder_of, grid_of, method_of
from experiments.spec import Spec, spec_of
from experiments.stages.evaluation import Evaluation
from experiments.stages.pretraining import Pretraining
from mae.masking import Mask
from mae.methods.masked_prediction import MaskedPrediction, PartlyPredicted
from mae.model import Encoder
from tests.experiments.fresh import files_are_there

SAMPLES = 2
#: How the overrides begin that shapes depend on.
OF_SHAPE = ("model", "mask", "target", "tokenizer", "method", "data")


@pytest.fixture(autouse=True, scope="module")
def _files(surroundings: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    weights = tmp_path_factory.mktemp("weights") / "encoder.pth"
    weights.write_bytes(b"stand-in")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DALLE_ENCODER", "VIT_B_IN21K"):
            patch.setenv(name, str(weights))
        with files_are_there():
            yield


def specs(scale: str) -> list[Spec]:
    """One spec for every shape of encoder and method that a row has at a scale."""
    composed: set[str] = set()
    found: dict[str, Spec] = {}
    for table in map(load_ablation, ablation_names()):
        for row in table.rows.values():
            for column in table.columns.values() if exists(row, scale) else ():
                changes = at_scale(column.set, scale)
                overrides = [*at_scale(table.base, scale), *at_scale(row.set, scale), *changes]
                of_shape = last_wins([override for override in overrides if override.startswith(OF_SHAPE)])
                if (asked := f"{table.inputs} {sorted(of_shape)}") in composed:
                    continue
                composed.add(asked)
                spec = spec_of(table, row, scale, 0, changes=changes, stages=())
                method = {key: value for key, value in spec.method.items() if key != "loss"}
                shape = [asdict(spec.model), method, spec.data.channels, spec.data.frames, spec.data.input_size]
                found.setdefault(json.dumps(shape), spec)
    return list(found.values())


def counted(forward: Callable[[], Tensor]) -> float:
    """FLOPs of a forward pass by torch."""
    # of the kernels of attention, torch counts only the one that is written in products of matrices on every machine
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        forward()
    return counter.get_total_flops() / SAMPLES


def pixels_of(encoder: Encoder) -> Tensor:
    """All patches of some samples, without memory."""
    return torch.empty(SAMPLES, encoder.grid.num_patches, encoder.grid.patch_dim, device="meta")


def predicted(method: MaskedPrediction, spec: Spec) -> Tensor:
    """The prediction of a method for masks that keep as many patches as its strategy does, without memory."""
    grid = grid_of(spec)
    ids = torch.arange(grid.num_patches, device="meta").expand(SAMPLES, -1)
    mask = Mask(ids[:, : method.visible], ids[:, method.visible :])
    slots, _ = method.frames.predicted(mask, grid)
    if isinstance(method, PartlyPredicted):
        slots = slice(0, method.few)
    return method.predict(pixels_of(method.encoder), mask, slots)


@pytest.mark.parametrize("scale", ["smoke", "desk", "paper"])
def test_a_row_is_planned_to_cost_what_torch_counts(scale: str) -> None:
    wrong = {}
    encoded: dict[str, float] = {}
    found = specs(scale)
    assert len(found) > 10
    for spec in found:
        with torch.device("meta"):
            method, encoder = method_of(spec), encoder_of(spec)
        if not isinstance(method, MaskedPrediction):  # methods with teachers are counted in tests/methods
            continue
        # what the target costs is held to torch's count where targets are tested
        planned = method.flops() - method.target_flops, encoder.flops()
        key = f"{encoder.shape} {encoder.grid} {encoder.prefix}"
        if key not in encoded:
            encoded[key] = counted(partial(encoder, pixels_of(encoder)))
        torchs = counted(partial(predicted, method, spec)), encoded[key]
        if planned != pytest.approx(torchs, rel=0.01):
            wrong[json.dumps([spec.method, asdict(spec.model)])] = (planned, torchs)
    assert wrong == {}


def test_a_pretraining_costs_its_epochs_and_an_evaluation_its_epochs_and_its_tests() -> None:
    table = load_ablation("decoder_depth")
    spec = spec_of(table, table.rows["8"], "desk", 0)
    with torch.device("meta"):
        method, encoder = method_of(spec), encoder_of(spec)
    pretraining, tuning = Pretraining(spec), Evaluation(spec, "finetune")
    seen = pretraining.recipe.epochs * spec.data.samples["pretrain"]
    assert pretraining.flops() == pytest.approx(method.sample_flops() * seen * pretraining.recipe.schedule, rel=0.01)
    assert tuning.recipe is not None
    trained = tuning.recipe.epochs * spec.data.samples["train"] * tuning.head.sample_flops(encoder)
    assert tuning.flops() == pytest.approx(trained + spec.data.samples["test"] * encoder.flops(), rel=0.01)
