"""Recipes, parameter groups, schedules and LARS against the papers and against timm."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from timm.models import VisionTransformer
from timm.optim import param_groups_layer_decay
from torch import nn

from mae.grid import Grid
from mae.heads.classifier import Classifier
from mae.model import Encoder, Transformer
from mae.train.optim import LARS, Recipe, parameter_groups

DEPTH = 3
RECIPE = Recipe("adamw", base_lr=1e-3, batch_size=128, epochs=10, warmup_epochs=2, weight_decay=0.05, min_lr=1e-5)

#: Recipe to effective rate: base_lr * batch_size / 256, in the tables' rows.
PUBLISHED = {
    "MAE Table 8": (1.5e-4, 4096, 2.4e-3),
    "MAE Table 9": (1.0e-3, 1024, 4.0e-3),
    "MAE repository, fine-tuning ViT-B": (5.0e-4, 1024, 2.0e-3),
    "MAE Table 10": (0.1, 16384, 6.4),
    "MAE Table 11": (1.0e-4, 4096, 1.6e-3),
    "VideoMAE Table 9": (1.5e-4, 1024, 6.0e-4),
    "VideoMAE repository, pre-training": (1.5e-4, 2048, 1.2e-3),
    "VideoMAE pre-training, UCF101 and HMDB51": (3.0e-4, 192, 2.25e-4),
    "VideoMAE Table 10, SSV2 ViT-B": (5.0e-4, 512, 1.0e-3),
    "VideoMAE Table 10, K400": (1.0e-3, 512, 2.0e-3),
    "VideoMAE fine-tuning, UCF101": (5.0e-4, 128, 2.5e-4),
    "VideoMAE fine-tuning, HMDB51": (1.0e-3, 128, 5.0e-4),
}


def classifier(pooling: str) -> Classifier:
    return Classifier(Encoder(Grid.of(1, (16, 16), (1, 8, 8)), Transformer(16, DEPTH, 2)), 4, pooling=pooling)


def timm_name(name: str) -> str:
    """Our parameter's name in timm's VisionTransformer."""
    renamed = {
        "encoder.positions": "pos_embed",
        "encoder.class_token": "cls_token",
        "encoder.embed.weight": "patch_embed.proj.weight",
        "encoder.embed.bias": "patch_embed.proj.bias",
        "norm.weight": "fc_norm.weight",
        "norm.bias": "fc_norm.bias",
    }
    return renamed.get(name, name.removeprefix("encoder."))


@pytest.mark.parametrize(("pooling", "timm_pooling"), [("mean", "avg"), ("class", "token")])
def test_groups_equal_those_of_timm(pooling: str, timm_pooling: str) -> None:
    """But for a norm before pooling: timm puts it beside the last block, BEiT's and MAE's code beside the head."""
    ours = classifier(pooling)
    found = {
        timm_name(name): (group["weight_decay"], group["lr_scale"])
        for group in parameter_groups(ours, 0.05, 0.75, ours.layer_of, DEPTH + 1)
        for name in group["names"]  # type: ignore[attr-defined]
    }
    twin = VisionTransformer(
        img_size=16, patch_size=8, embed_dim=16, depth=DEPTH, num_heads=2, num_classes=4, global_pool=timm_pooling
    )
    names = {id(parameter): name for name, parameter in twin.named_parameters()}
    groups = param_groups_layer_decay(twin, 0.05, no_weight_decay_list=twin.no_weight_decay(), layer_decay=0.75)
    expected = {names[id(p)]: (group["weight_decay"], group["lr_scale"]) for group in groups for p in group["params"]}
    if pooling == "class":
        expected |= {"norm.weight": expected["head.bias"], "norm.bias": expected["head.bias"]}
    assert found.keys() == expected.keys()
    for name in found:
        assert found[name] == pytest.approx(expected[name]), name


def test_every_trainable_parameter_is_in_one_group_and_no_frozen_one_is() -> None:
    model = classifier("mean")
    model.encoder.embed.requires_grad_(False)
    grouped = [p for group in RECIPE.build(model, model.layer_of, DEPTH + 1).param_groups for p in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped})
    assert {id(p) for p in grouped} == {id(p) for p in model.parameters() if p.requires_grad}


def test_lars_takes_the_published_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(5, 3)
    optimizer = LARS(parameter_groups(model, weight_decay=0.1), momentum=0.9, trust=0.001)
    w, b = (p.detach().double().numpy().copy() for p in (model.weight, model.bias))
    velocity_w, velocity_b = np.zeros_like(w), np.zeros_like(b)
    for step in range(5):
        lr = 0.5 * (step + 1)
        for group in optimizer.param_groups:
            group["lr"] = lr
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
        # You et al., eqs. 5 to 7: a matrix's rate follows |w| / |g + decay w|, a vector has neither
        gradient = model.weight.grad.double().numpy() + 0.1 * w
        velocity_w = 0.9 * velocity_w + 0.001 * np.linalg.norm(w) / np.linalg.norm(gradient) * gradient
        velocity_b = 0.9 * velocity_b + model.bias.grad.double().numpy()
        w, b = w - lr * velocity_w, b - lr * velocity_b
        np.testing.assert_allclose(model.weight.detach().numpy(), w, rtol=1e-5)
        np.testing.assert_allclose(model.bias.detach().numpy(), b, rtol=1e-5)


def test_lars_moves_a_matrix_that_is_zero() -> None:
    model = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = LARS(parameter_groups(model, 0.0))
    optimizer.param_groups[0]["lr"] = 1.0
    model.weight.grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.equal(model.weight, -torch.ones(2, 2))


def test_rate_warms_up_from_zero_peaks_and_falls_to_the_minimum() -> None:
    samples = 128 * 100
    warm, last = 200, RECIPE.steps(samples)
    rates = [RECIPE.lr(step, samples) for step in range(last + 1)]
    assert last == 1000
    assert rates[0] == 0
    assert rates[warm // 2] == pytest.approx(RECIPE.peak_lr / 2)
    assert max(rates) == rates[warm] == pytest.approx(1e-3 * 128 / 256)
    middle = (warm + last) // 2
    assert rates[middle] == pytest.approx((RECIPE.peak_lr + RECIPE.min_lr) / 2)
    quarter = RECIPE.min_lr + (RECIPE.peak_lr - RECIPE.min_lr) * (1 + math.cos(math.pi / 4)) / 2
    assert rates[warm + (last - warm) // 4] == pytest.approx(quarter)
    assert rates[-1] == pytest.approx(RECIPE.min_lr)
    assert (np.diff(rates[: warm + 1]) > 0).all()
    assert (np.diff(rates[warm:]) < 0).all()
    assert rates == [RECIPE.lr(step, samples) for step in range(last + 1)]


def test_schedule_stretches_the_training_but_not_the_warmup() -> None:
    double = Recipe("adamw", 1e-3, 128, 10, 2, 0.05, schedule=2.0)
    assert double.steps(12800) == 2 * RECIPE.steps(12800)
    assert double.lr(200, 12800) == double.peak_lr


@pytest.mark.parametrize("name", PUBLISHED)
def test_effective_rates_are_those_of_the_papers(name: str) -> None:
    base_lr, batch_size, effective = PUBLISHED[name]
    assert Recipe("adamw", base_lr, batch_size, 1, 0, 0.05).peak_lr == pytest.approx(effective)


@pytest.mark.parametrize(
    ("optimizer", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD), ("lars", LARS)]
)
def test_the_optimizer_gets_the_recipes_values(optimizer: str, kind: type) -> None:
    built = Recipe(optimizer, 0.1, 256, 1, 0, 0.01, betas=(0.8, 0.7), momentum=0.6).build(nn.Linear(2, 2))
    assert isinstance(built, kind)
    assert [group["weight_decay"] for group in built.param_groups] == [0.01, 0.0]
    for group in built.param_groups:
        assert group.get("betas", (0.8, 0.7)) == (0.8, 0.7)
        assert group.get("momentum", 0.6) == 0.6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "adam"}, "unknown optimizer 'adam'; choose one of adamw, sgd, lars"),
        ({"batch_size": 0}, "batch_size=0 must be above 0"),
        ({"epochs": -1}, "epochs=-1 must be above 0"),
        ({"warmup_epochs": -1}, "warmup_epochs=-1 is negative"),
    ],
)
def test_a_bad_recipe_is_refused_in_one_sentence(change: dict[str, object], message: str) -> None:
    values = dict(optimizer="adamw", base_lr=1.0, batch_size=1, epochs=1, warmup_epochs=0, weight_decay=0.0)
    with pytest.raises(ValueError, match=message):
        Recipe(**values | change)  # type: ignore[arg-type]
