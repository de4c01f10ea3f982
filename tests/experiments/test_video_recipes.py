"""The recipes that rows of VideoMAE's tables resolve to at scale=paper, against the paper field by field."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from experiments.ablation import at_scale, load_ablation
from experiments.assemble import augment_of, encoder_of, grid_of, method_of
from experiments.spec import Spec, spec_of
from experiments.stages.evaluation import Evaluation
from experiments.stages.pretraining import Pretraining
from mae.data.augment.clip_crops import MultiScaleCrop
from mae.data.augment.compose import Compose
from mae.data.augment.crops import FixedSizeCrop, RandomResizedCrop
from mae.data.augment.rand_augment import RandAugment, WholeFrameCrop
from mae.data.clips.sampling import Around, Dense, Span, Uniform
from mae.data.source import Augment
from mae.heads.action_detection import ActionDetection
from mae.heads.classifier import Classifier
from mae.heads.fine_tuning import FineTune
from mae.heads.linear_probe import LinearProbe
from mae.masking import Tube
from mae.methods.masked_autoencoder import MaskedAutoencoder
from mae.targets import ChannelNormalisedPixels

FACTS = yaml.safe_load((Path(__file__).parent / "paper_facts.yaml").read_text(encoding="utf-8"))["videomae"]
SETS = ("ssv2", "k400", "ucf101", "hmdb51")
#: A row and a column that pre-train and fine-tune on a data set, and the stage that does the latter.
ROWS = {
    "ssv2": ("video_decoder_depth", "4", "ssv2"),
    "k400": ("video_decoder_depth", "4", "k400"),
    "ucf101": ("video_transfer", "own clips", "ucf101"),
    "hmdb51": ("video_transfer", "own clips", "hmdb51"),
}
SIZES = {
    "vit_s16": "VideoMAE ViT-S",
    "vit_b16": "VideoMAE ViT-B",
    "vit_l16": "VideoMAE ViT-L",
    "vit_h16": "VideoMAE ViT-H",
}
TABLE10 = [(data, model) for data in ("ssv2", "k400") for model in FACTS["table10"][data] if model != "all"]


@cache
def row(ablation: str, label: str, column: str) -> Spec:
    table = load_ablation(ablation)
    return spec_of(table, table.rows[label], "paper", 0, changes=at_scale(table.columns[column].set, "paper"))


def method(spec: Spec) -> MaskedAutoencoder:
    """The masked autoencoder of a row, without memory."""
    with torch.device("meta"):
        found = method_of(spec)
    assert isinstance(found, MaskedAutoencoder)
    return found


def of(facts: dict[str, Any], key: str) -> dict[str, Any]:
    return {**facts["all"], **facts[key]}


def differences(found: object, facts: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Fields of ``found`` that are not as ``facts`` say: (found, stated)."""
    values = {key: getattr(found, key) for key in facts}
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    return {key: (values[key], facts[key]) for key in facts if values[key] != pytest.approx(facts[key])}


def steps(augment: Augment) -> list[Augment]:
    if isinstance(augment, Compose):
        return [part for step in augment.steps for part in steps(step)]
    return [augment]


def fine_tuning_augment(evaluation: Evaluation) -> tuple[RandAugment, RandomResizedCrop]:
    """The policy that sees whole frames, and the crop after it."""
    first = steps(augment_of(evaluation.augment, evaluation.data))[0]
    assert isinstance(first, WholeFrameCrop)
    policy, crop = first.steps().steps
    assert isinstance(policy, RandAugment)
    assert isinstance(crop, RandomResizedCrop)
    return policy, crop


@pytest.mark.parametrize("data", SETS)
def test_pretraining_is_the_published_one(data: str) -> None:
    spec = row(*ROWS[data])
    mask = method(spec).strategy
    assert differences(Pretraining(spec).recipe, of(FACTS["pretrain"], data)) == {}
    assert isinstance(mask, Tube)
    assert mask.ratio == FACTS["mask_ratio"][data]
    assert Pretraining(spec).sampling() == Dense(FACTS["clip"]["frames"], FACTS["stride"][data])


@pytest.mark.parametrize("data", SETS)
def test_data_has_the_size_that_the_paper_rounds(data: str) -> None:
    samples = row(*ROWS[data]).data.samples
    assert samples["pretrain"] == samples["train"] == pytest.approx(FACTS["train_videos"][data], rel=0.03)


@pytest.mark.parametrize("data", list(FACTS["flip"]))
def test_pretraining_crop_is_the_published_one(data: str) -> None:
    spec = row(*ROWS[data])
    crop = steps(augment_of(spec.augment, spec.data))[0]
    assert isinstance(crop, MultiScaleCrop)
    assert (list(crop.scales), crop.flip) == (FACTS["crop_scales"], FACTS["flip"][data])
    assert list(crop.size) == FACTS["clip"]["size"]  # type: ignore[arg-type]


@pytest.mark.parametrize("data", SETS)
def test_fine_tuning_is_that_of_the_released_scripts_or_of_the_appendix(data: str) -> None:
    spec, stage = row(*ROWS[data]), ROWS[data][2]
    evaluation = Evaluation(spec, stage)
    head, protocol = evaluation.head, evaluation.protocol
    assert isinstance(head, FineTune)
    assert differences(head.recipe, of(FACTS["finetune"], data)) == {}
    assert differences(head, of(FACTS["protocol"], data)) == {}
    assert not head.tune_positions
    assert (protocol.repeats, [*protocol.views.values()]) == (FACTS["repeats"][data], FACTS["views"][data])


@pytest.mark.parametrize("data", SETS)
def test_fine_tuning_samples_segments_on_ssv2_and_stretches_elsewhere(data: str) -> None:
    frames, stride = FACTS["clip"]["frames"], FACTS["stride"][data]
    expected = Uniform(frames, shorter=True) if data == "ssv2" else Span(frames, stride)
    assert Evaluation(row(*ROWS[data]), ROWS[data][2]).sampling() == expected


@pytest.mark.parametrize("data", list(FACTS["flip"]))
def test_fine_tuning_crop_is_the_published_one(data: str) -> None:
    spec = row(*ROWS[data])
    policy, crop = fine_tuning_augment(Evaluation(spec, data))
    assert (tuple(crop.scale), crop.flip, crop.interpolation) == ((0.08, 1.0), FACTS["flip"][data], "bilinear")
    assert differences(policy, FACTS["rand_augment"]) == {}


@pytest.mark.parametrize(("data", "model"), TABLE10)
def test_larger_study_fine_tunes_by_table_10(data: str, model: str) -> None:
    spec, facts = row("video_model_size", SIZES[model], data), FACTS["table10"]
    evaluation = Evaluation(spec, data)
    protocol = evaluation.protocol
    assert differences(evaluation.recipe, of(facts[data], model)) == {}
    assert differences(evaluation.head, of(facts["protocol"], model)) == {}
    assert (protocol.repeats, [*protocol.views.values()]) == (facts["repeats"], FACTS["views"][data])
    assert differences(fine_tuning_augment(evaluation)[0], facts["rand_augment"]) == {}


@pytest.mark.parametrize(("data", "epochs"), [("ssv2", 2400), ("k400", 1600)])
def test_larger_study_pretrains_as_long_as_the_released_models(data: str, epochs: int) -> None:
    recipe = Pretraining(row("video_model_size", "VideoMAE ViT-B", data)).recipe
    assert recipe.epochs * recipe.schedule == epochs


@pytest.mark.parametrize("model", list(SIZES))
def test_rows_train_the_model_that_they_name(model: str) -> None:
    facts, spec = FACTS["architecture"][model], row("video_model_size", SIZES[model], "k400")
    with torch.device("meta"):
        classifier = Classifier(encoder_of(spec), 400, tune_positions=False)
    autoencoder = method(spec)
    encoder, decoder = autoencoder.encoder, autoencoder.decoder
    assert (encoder.shape.width, encoder.shape.depth, encoder.shape.heads) == tuple(
        facts[key] for key in ("width", "depth", "heads")
    )
    assert (decoder.shape.width, decoder.shape.depth, decoder.shape.heads) == tuple(
        facts[f"decoder_{key}"] for key in ("width", "depth", "heads")
    )
    assert encoder.prefix == 0
    assert [name for name, _ in decoder.embed.named_parameters()] == ["weight"]
    assert sum(p.numel() for p in classifier.parameters()) / 1e6 == pytest.approx(facts["params_m"], rel=1.5e-2)


def test_a_clip_is_cut_and_hidden_as_published() -> None:
    spec, clip = row(*ROWS["ssv2"]), FACTS["clip"]
    grid = grid_of(spec)
    assert list(grid.patch) == FACTS["cube"]
    assert (grid.num_patches, method(spec).visible) == (clip["tokens"], clip["visible"])


@pytest.mark.parametrize("label", ["50", "75", "90", "95"])
def test_every_masking_ratio_leaves_the_published_number_of_tokens(label: str) -> None:
    spec = row("video_masking_ratio", label, "ssv2")
    assert method(spec).visible / grid_of(spec).t == FACTS["visible"][str(int(label) / 100)]


def test_cubes_are_normalised_by_channel_in_units_of_the_pixels() -> None:
    spec = row(*ROWS["ssv2"])
    target = method(spec).target
    assert isinstance(target, ChannelNormalisedPixels)
    assert list(target.std) == spec.data.std


def test_probe_is_the_published_one() -> None:
    probe = Evaluation(row("video_efficiency", "VideoMAE", "lin"), "linear").head
    assert isinstance(probe, LinearProbe)
    assert differences(probe.recipe, FACTS["linear"]) == {}
    assert (probe.pooling, probe.cached) == ("mean", False)


@pytest.mark.parametrize("data", list(FACTS["scratch"]))
def test_training_from_scratch_lasts_as_long_as_published(data: str) -> None:
    spec = row("video_pretraining_strategy", "from scratch", data)
    evaluation = Evaluation(spec, data)
    assert evaluation.recipe is not None
    assert (evaluation.recipe.epochs, evaluation.recipe.layer_decay) == (FACTS["scratch"][data], 1.0)
    assert not evaluation.pretrained
    assert evaluation.sampling() == Evaluation(row(*ROWS[data]), data).sampling()


@pytest.mark.parametrize(
    ("data", "label"), [("k400", "K400"), ("ssv2", "Sth-Sth V2"), ("ucf101", "UCF101"), ("hmdb51", "HMDB51")]
)
def test_small_data_rows_pretrain_and_fine_tune_as_their_data_set_does(data: str, label: str) -> None:
    spec = row("video_small_data", label, "videomae")
    other = row(*ROWS[data])
    assert spec.pretrain == other.pretrain
    assert spec.method["mask"] == other.method["mask"]
    assert spec.evaluate["finetune"] == other.evaluate[ROWS[data][2]]


def test_a_quarter_of_the_clips_is_seen_for_as_many_steps_as_all_of_them() -> None:
    specs = [row("video_data_efficiency", label, "ssv2") for label in ("SSV2 169k", "SSV2 42k, same time budget")]
    steps_of = [Pretraining(spec).steps() for spec in specs]
    assert steps_of[1] == pytest.approx(steps_of[0], rel=1e-3)


@pytest.mark.parametrize("model", list(SIZES))
@pytest.mark.parametrize(("start", "words"), [("pretrained_only", "K400"), ("after_k400_labels", "K400+labels")])
def test_actions_are_detected_by_table_12(model: str, start: str, words: str) -> None:
    spec, facts = row("video_action_detection", f"{SIZES[model]} {words}", "map"), FACTS["table12"]
    evaluation, seen = Evaluation(spec, "action_detection"), facts["input"]
    head, source = evaluation.head, spec.evaluate_data.source
    assert isinstance(head, ActionDetection)
    assert differences(head.recipe, {**facts["all"], **facts[start][model]}) == {}
    assert (head.drop_path, evaluation.protocol.repeats) == (facts["drop_path"], seen["repeats"])
    assert evaluation.sampling() == Around(seen["frames"], seen["stride"])
    assert (source["short_side"], source["least_score"]) == (seen["short_side"], seen["least_score"])
    crop = steps(augment_of(evaluation.augment, spec.evaluate_data))[0]
    assert isinstance(crop, FixedSizeCrop)
    assert (list(crop.size), crop.padding, crop.flip) == ([seen["crop"]] * 2, None, seen["flip"])  # type: ignore[arg-type]
    encoder, classes = grid_of(spec), spec.evaluate_data.classes
    assert (encoder.h * 16, encoder.w * 16, classes) == (seen["crop"], seen["crop"], 80)


@pytest.mark.parametrize("model", list(SIZES))
def test_detection_starts_from_kinetics_with_labels_or_without(model: str) -> None:
    specs = [row("video_action_detection", f"{SIZES[model]} {words}", "map") for words in ("K400", "K400+labels")]
    starts = [Evaluation(spec, "action_detection").origin() for spec in specs]
    pretraining, supervised = starts
    assert isinstance(pretraining, Pretraining)
    assert isinstance(supervised, Evaluation)
    larger = Evaluation(row("video_model_size", SIZES[model], "k400"), "k400")
    assert supervised.head == larger.head
    assert supervised.origin() is not None
    found = {start.fingerprint() for start in (pretraining, supervised.origin(), larger.origin())}  # type: ignore[union-attr]
    assert len(found) == 1
