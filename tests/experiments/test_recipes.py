"""The recipes that rows resolve to at scale=paper, against the paper field by field."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from experiments.ablation import SpecError, load_ablation
from experiments.assemble import augment_of, encoder_of, make, method_of
from experiments.compose import compose
from experiments.spec import Spec, spec_of
from experiments.stages.evaluation import Evaluation, stage_of
from experiments.stages.pretraining import Pretraining
from mae.data.augment.compose import Compose
from mae.data.augment.crops import CentreOfResized, RandomResizedCrop
from mae.data.augment.rand_augment import RandAugment
from mae.data.source import Augment
from mae.heads.classifier import Classifier
from mae.heads.linear_probe import LinearProbe
from mae.masking import num_keep
from mae.methods.masked_autoencoder import MaskedAutoencoder
from mae.targets import PatchNormalisedPixels, Pixels
from mae.train.optim import parameter_groups

FACTS = yaml.safe_load((Path(__file__).parent / "paper_facts.yaml").read_text(encoding="utf-8"))

#: Rows that show a protocol for a model: (protocol of the facts, model) to (ablation, row, stage).
ROWS = {
    ("finetune", "vit_b16"): ("transfer", "iNat 2017 ViT-B", "finetune"),
    ("finetune", "vit_l16"): ("decoder_depth", "8", "finetune"),
    ("finetune", "vit_h14"): ("wall_clock", "ViT-H, dec 8", "finetune"),
    ("repo", "vit_b16"): ("model_size", "MAE ViT-B", "finetune"),
    ("repo", "vit_l16"): ("model_size", "MAE ViT-L", "finetune"),
    ("repo", "vit_h14"): ("model_size", "MAE ViT-H", "finetune"),
    ("scratch", "vit_b16"): ("model_size", "scratch ViT-B", "finetune"),
    ("scratch", "vit_l16"): ("scratch", "scratch, our impl.", "finetune"),
    ("scratch", "vit_h14"): ("scratch_ema", "ViT-H with EMA", "finetune"),
    ("partial", "vit_l16"): ("partial_finetuning", "4", "partial"),
}


@cache
def row(ablation: str, label: str) -> Spec:
    table = load_ablation(ablation)
    return spec_of(table, table.rows[label], "paper", seed=0)


def method(spec: Spec) -> MaskedAutoencoder:
    """The masked autoencoder of a row, without memory."""
    with torch.device("meta"):
        found = method_of(spec)
    assert isinstance(found, MaskedAutoencoder)
    return found


def of(facts: dict[str, Any], model: str) -> dict[str, Any]:
    return {**facts["all"], **facts[model]}


def differences(found: object, facts: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Fields of ``found`` that are not as ``facts`` say: (found, stated)."""
    values = {key: getattr(found, key) for key in facts}
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    return {key: (values[key], facts[key]) for key in facts if values[key] != pytest.approx(facts[key])}


def crops(augment: Augment) -> list[Augment]:
    if isinstance(augment, Compose):
        return [part for step in augment.steps for part in crops(step)]
    return [augment]


@pytest.mark.parametrize(("protocol", "model"), list(ROWS))
def test_recipe_of_a_protocol_is_the_published_one(protocol: str, model: str) -> None:
    ablation, label, stage = ROWS[protocol, model]
    spec = row(ablation, label)
    evaluation = Evaluation(spec, stage)
    assert evaluation.recipe is not None
    assert differences(evaluation.recipe, of(FACTS["recipes"][protocol], model)) == {}
    assert differences(evaluation.head, of(FACTS["protocols"][protocol], model)) == {}
    assert evaluation.protocol.init == ("random" if protocol == "scratch" else "pretrained")


@pytest.mark.parametrize(("protocol", "model"), list(ROWS))
def test_rows_train_the_model_that_they_name(protocol: str, model: str) -> None:
    ablation, label, _ = ROWS[protocol, model]
    facts, spec = FACTS["architecture"][model], row(ablation, label)
    with torch.device("meta"):
        encoder = encoder_of(spec)
    shape = encoder.shape
    assert (shape.width, shape.depth, shape.heads) == (facts["width"], facts["depth"], facts["heads"])
    assert encoder.grid.patch == (1, facts["patch"], facts["patch"])
    # the paper counts the head of 1000 classes and the positions in
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(facts["params_m"], rel=5e-3)


@pytest.mark.parametrize("model", ["vit_b16", "vit_l16", "vit_h14"])
def test_every_encoder_has_the_same_decoder(model: str) -> None:
    shape = method(row(*ROWS["repo", model][:2])).decoder.shape
    assert {"width": shape.width, "depth": shape.depth, "heads": shape.heads} == FACTS["decoder"]


def test_smallest_autoencoder_has_as_many_parameters_as_the_released_one() -> None:
    parameters = method(row("model_size", "MAE ViT-B")).parameters()
    assert sum(p.numel() for p in parameters if p.requires_grad) == 111_655_680


def test_pretraining_recipe_is_the_published_one() -> None:
    recipe, longer = (Pretraining(row(*of)).recipe for of in (("decoder_depth", "8"), ("model_size", "MAE ViT-L")))
    assert differences(recipe, FACTS["recipes"]["pretrain"]) == {}
    assert longer.epochs * 2 == 1600
    assert longer.schedule == 2


#: Peak rate, batch, epochs, warm-up and decay: moco-v3's CONFIG.md, DINO's Sec. 3.2, BEiT's README.
OTHERS: dict[str, tuple[float, int, int, int, float]] = {
    "moco_v3": (2.4e-3, 4096, 300, 40, 0.1),
    "dino": (2e-3, 1024, 400, 10, (0.04 + 0.4) / 2),
    "beit": (1.5e-3, 2048, 800, 10, 0.05),
}


@pytest.mark.parametrize("name", OTHERS)
def test_recipes_of_other_methods_are_those_of_their_papers(name: str) -> None:
    table = load_ablation("decoder_depth")
    augment = [] if name == "beit" else ["augment=contrastive"]
    words = [f"method={name}", f"pretrain={name}", "data=imagenet_decoded", *augment]
    stage = Pretraining(spec_of(table, table.rows["8"], "paper", 0, words))
    recipe = stage.recipe
    found = (recipe.peak_lr, recipe.batch_size, recipe.epochs, recipe.warmup_epochs, recipe.weight_decay)
    assert found == pytest.approx(OTHERS[name])
    assert (recipe.optimizer, recipe.betas, recipe.min_lr) == ("adamw", (0.9, 0.999), 0)
    assert stage.footprint().plain.saved > 0


def test_probe_is_the_published_one() -> None:
    probe = Evaluation(row("decoder_depth", "8"), "linear").head
    assert isinstance(probe, LinearProbe)
    assert differences(probe.recipe, FACTS["recipes"]["linear"]) == {}
    assert (probe.pooling, probe.cached) == ("class", False)


@pytest.mark.parametrize("epochs", ["100", "200", "400", "800", "1600"])
def test_schedule_row_trains_the_epochs_of_its_label(epochs: str) -> None:
    overrides = [*load_ablation("schedule").rows[epochs].set["all"]]
    multiple = float(overrides[0].partition("=")[2])
    assert Pretraining(row("decoder_depth", "8")).recipe.epochs * multiple == int(epochs)


@pytest.mark.parametrize("stage", ["pretrain", "linear", "finetune"])
def test_rate_rises_over_the_published_warm_up_and_falls_to_zero(stage: str) -> None:
    spec = row("decoder_depth", "8")
    recipe = stage_of(spec, stage).recipe
    assert recipe is not None
    facts = FACTS["recipes"][stage]
    warmup = facts["warmup_epochs"] if "warmup_epochs" in facts else facts["all"]["warmup_epochs"]
    samples, peak = spec.data.samples["train"], recipe.peak_lr
    first = warmup * recipe.steps_per_epoch(samples)
    assert recipe.lr(0, samples) == 0
    assert recipe.lr(first // 2, samples) == pytest.approx(peak / 2, rel=1e-3)
    assert recipe.lr(first, samples) == pytest.approx(peak)
    assert recipe.lr(recipe.steps(samples), samples) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("model", ["vit_b16", "vit_l16", "vit_h14"])
def test_layers_of_a_fine_tuned_encoder_decay_as_published(model: str) -> None:
    spec = row(*ROWS["repo", model][:2])
    head = Evaluation(spec, "finetune").head
    depth, facts = FACTS["architecture"][model]["depth"], of(FACTS["recipes"]["repo"], model)
    with torch.device("meta"):
        classifier = head.classifier(encoder_of(spec), 1000)
    assert isinstance(classifier, Classifier)
    assert head.recipe is not None
    settings = (head.recipe.weight_decay, head.recipe.layer_decay)
    groups = parameter_groups(classifier, *settings, classifier.layer_of, depth + 1)
    scale = {name: group["lr_scale"] for group in groups for name in group["names"]}  # type: ignore[attr-defined]
    expected = {"encoder.embed.weight": depth + 1, "head.weight": 0}
    expected |= {f"encoder.blocks.{i}.mlp.fc1.weight": depth - i for i in range(depth)}
    assert {n: scale[n] for n in expected} == pytest.approx({n: facts["layer_decay"] ** k for n, k in expected.items()})


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "linear"])
def test_training_crop_is_the_published_one(stage: str) -> None:
    spec, facts = row("decoder_depth", "8"), FACTS["crop"]
    crop, *rest = crops(augment_of(stage_of(spec, stage).augment, spec.data))
    assert isinstance(crop, RandomResizedCrop)
    assert (list(crop.scale), crop.flip, crop.interpolation) == (facts[stage], facts["flip"], "bicubic")
    assert list(crop.size) == [facts["size"]] * 2  # type: ignore[arg-type]
    policies = [step for step in rest if isinstance(step, RandAugment)]
    if stage == "finetune":
        assert [differences(policy, FACTS["rand_augment"]) for policy in policies] == [{}]
    else:
        assert policies == []


def test_pictures_are_tested_on_the_centre_of_a_resized_view() -> None:
    spec, facts = row("decoder_depth", "8"), FACTS["crop"]
    view = make(spec.data.test_augment)
    assert view == CentreOfResized([facts["size"]] * 2, [facts["resize"]] * 2)


def test_every_masking_ratio_leaves_the_published_number_of_patches() -> None:
    mask = method(row("decoder_depth", "8")).strategy
    assert (mask.ratio, mask.rounding) == (0.75, "mae")  # type: ignore[attr-defined]
    found = {ratio: num_keep(14 * 14, float(ratio), "mae") for ratio in FACTS["visible"]}
    assert found == FACTS["visible"]


def test_first_table_pretrains_on_unnormalised_pixels_and_the_large_study_on_normalised_ones() -> None:
    first, large = (method(row(*of)).target for of in (("decoder_depth", "8"), ("model_size", "MAE ViT-L")))
    assert isinstance(first, Pixels)
    assert isinstance(large, PatchNormalisedPixels)


@pytest.mark.parametrize("scale", ["smoke", "desk", "gpu", "paper"])
def test_a_scale_states_its_name(scale: str) -> None:
    assert compose(scale, ())["scale"] == scale


def test_epochs_may_be_fractions_and_other_whole_numbers_may_not() -> None:
    key = "evaluate.finetune.protocol.recipe"
    ablation = load_ablation("decoder_depth")
    spec = spec_of(ablation, ablation.rows["8"], "desk", 0, [f"{key}.epochs=0.5"])
    assert spec.evaluate["finetune"].protocol["recipe"]["epochs"] == 0.5
    with pytest.raises(SpecError, match="expected a whole number"):
        spec_of(ablation, ablation.rows["8"], "desk", 0, [f"{key}.batch_size=0.5"])
