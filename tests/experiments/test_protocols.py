"""Each entry of docs/protocols.md against values computed from what the papers and the released codes describe."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from experiments.ablation import at_scale, load_ablation
from experiments.assemble import augment_of, data_set, make
from experiments.effects import check_effects
from experiments.spec import Spec, spec_of
from experiments.stages.evaluation import Evaluation
from experiments.stages.pretraining import Pretraining
from mae.data.augment.clip_crops import crops
from mae.data.augment.crops import CenterCrop, RandomResizedCrop
from mae.data.augment.rand_augment import OPERATIONS, WholeFrameCrop, operate
from mae.data.clips.sampling import Dense, Span, Uniform
from mae.data.pictures.geometry import RandomView, geometry_of
from mae.errors import DataError
from mae.frames import SAME_FRAMES
from mae.grid import Grid
from mae.masking import Tube
from mae.methods.masked_autoencoder import DecoderShape, MaskedAutoencoder
from mae.model import Encoder, Transformer
from mae.targets import ChannelNormalisedPixels
from mae.train.optim import parameter_groups


@cache
def row(table: str, label: str, column: str | None = None, *overrides: str, scale: str = "paper") -> Spec:
    ablation = load_ablation(table)
    changes = at_scale(ablation.columns[column].set, scale) if column else ()
    return spec_of(ablation, ablation.rows[label], scale, 0, overrides, changes=changes)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


# The crop of MAE's linear probe


def mean_area(rows: int, columns: int) -> float:
    """Expected share of a picture of one box of uniform area and log-uniform aspect, its sides cut: by quadrature."""
    low = math.log(3 / 4)

    def share(log_aspect: float, area: float) -> float:
        width, height = (math.sqrt(area * rows * columns * math.exp(sign * log_aspect)) for sign in (1, -1))
        return min(width, columns) * min(height, rows) / (rows * columns)

    total, _ = integrate.dblquad(share, 0.08, 1, low, -low)
    return total / (1 - 0.08) / (-2 * low)


def test_the_probes_crop_keeps_large_boxes_as_frequent_as_they_are_drawn() -> None:
    expected = mean_area(375, 500)
    assert expected == pytest.approx(0.5186, abs=1e-4)
    pictures = torch.zeros(1, 1, 1, 1).expand(40_000, 1, 375, 500)
    found = {}
    for one_draw in (True, False):
        boxes = RandomResizedCrop(224, (0.08, 1.0), one_draw=one_draw).boxes(pictures, seeded())
        assert (boxes.top + boxes.height).max() <= 375
        assert (boxes.left + boxes.width).max() <= 500
        found[one_draw] = float((boxes.height * boxes.width).mean() / (375 * 500))
    assert found[True] == pytest.approx(expected, abs=0.005)
    assert found[False] == pytest.approx(0.427, abs=0.02)


def test_pictures_that_are_streamed_are_cropped_for_the_probe_by_the_same_rule() -> None:
    spec = row("decoder_depth", "8")
    crop = make(Evaluation(spec, "linear").augment)
    assert isinstance(crop, RandomResizedCrop)
    assert crop.one_draw
    view = geometry_of(crop)
    assert isinstance(view, RandomView)
    generator = seeded()
    areas = [w * h / (375 * 500) for _, _, w, h in (view.box(500, 375, generator) for _ in range(5000))]
    assert np.mean(areas) == pytest.approx(mean_area(375, 500), abs=0.01)
    fine_tuned = make(Evaluation(spec, "finetune").augment).steps[0]
    assert not fine_tuned.one_draw


# RandAugment of clips


def clip(rows: int = 30, columns: int = 44) -> Tensor:
    smooth = F.interpolate(torch.rand(2, 3, 5, 6, generator=seeded()), size=(rows, columns), mode="bilinear")
    return (smooth[:, :, None] * 255).round().to(torch.uint8).expand(-1, -1, 3, -1, -1)


def test_rand_augment_of_clips_sees_whole_frames_and_the_crop_is_plain_bilinear() -> None:
    crop = WholeFrameCrop((16, 16), flip=False)
    policy, after = crop.steps().steps
    generator = seeded(3)
    frames = policy(clip(), generator)
    assert frames.shape == (2, 3, 3, 30, 44)
    boxes = [[int(side[i]) for side in after.boxes(frames, generator)] for i in range(1)]  # type: ignore[attr-defined]
    (top, left, height, width) = boxes[0]
    part = frames[0, :, :, top : top + height, left : left + width]
    expected = F.interpolate(part, size=(16, 16), mode="bilinear", align_corners=False)
    assert torch.allclose(crop(clip(), seeded(3))[0], expected, atol=1e-5)


def test_what_a_shift_of_a_frame_uncovers_is_level_128() -> None:
    levels = torch.full((1, 3, 20, 20), 7.0)
    shift = torch.tensor([OPERATIONS.index("TranslateX")])
    found = operate(levels, shift, torch.tensor([10.0]), torch.tensor([1.0]), WholeFrameCrop(16).fill)
    assert set(found.unique().tolist()) == {7.0, 128.0}
    assert (found == 128).float().mean() == pytest.approx(0.45, abs=0.05)


@pytest.mark.parametrize("column", ["ssv2", "k400"])
def test_clips_are_augmented_so_at_paper_scale(column: str) -> None:
    spec = row("video_decoder_depth", "4", column)
    assert isinstance(make(Evaluation(spec, column).augment), WholeFrameCrop)


# Which frames


@pytest.mark.parametrize("length", [1, 3, 10, 40, 63, 64, 65, 90, 300])
def test_kinetics_trains_on_sixteen_frames_spread_over_sixty_four(length: int) -> None:
    """The released rule, written out: a stretch of 64 frames by linspace, or all of a shorter clip at the stride."""
    if length <= 64:
        count = length // 4
        places = [length * i / max(1, count - 1) for i in range(count)] + [length] * (16 - count)
        allowed = {tuple(min(int(place), length - 1) for place in places)}
    else:
        spread = [min(int(64 * i / 15), 63) for i in range(16)]
        allowed = {tuple(start + place for place in spread) for start in range(length - 64)}
    if length == 1:
        return  # a single frame says nothing about time and is refused
    generator = seeded()
    found = {tuple(Span(16, 4).train(length, generator).tolist()) for _ in range(20 * len(allowed))}
    assert found == allowed
    assert Dense(16, 4).train(300, generator).diff().unique().tolist() == [4]


def test_short_kinetics_clips_are_filled_up_with_the_last_strided_frame_in_tests() -> None:
    assert Span(16, 4).test(50, 0, 5).tolist() == [*range(0, 49, 4), 48, 48, 48]
    long = [Span(16, 4).test(300, view, 5).tolist() for view in range(5)]
    assert long == [Dense(16, 4).test(300, view, 5).tolist() for view in range(5)]


def test_clips_with_fewer_frames_than_segments_are_used() -> None:
    sampling = Uniform(16, shorter=True)
    assert sampling.train(9, seeded()).tolist() == [0] * 16
    tick = 9 / 16
    both = sorted([int(tick / 2 + tick * n) for n in range(16)] + [int(tick * n) for n in range(16)])
    assert [sampling.test(9, view, 2).tolist() for view in range(2)] == [both[::2], both[1::2]]
    assert torch.equal(sampling.train(50, seeded(1)), Uniform(16).train(50, seeded(1)))


@pytest.mark.parametrize(("column", "kind"), [("ssv2", Uniform(16, shorter=True)), ("k400", Span(16, 4))])
def test_frames_are_taken_so_at_paper_scale_and_pre_training_is_dense(column: str, kind: object) -> None:
    spec = row("video_decoder_depth", "4", column)
    assert Evaluation(spec, column).sampling() == kind
    assert type(Pretraining(spec).sampling()) is Dense


# Tests


def test_test_crops_of_clips_come_from_one_plain_bilinear_resize() -> None:
    frames = clip(30, 51)[:1].float() / 255

    def taps(source: int, target: int) -> Tensor:
        """Two taps around (i + 0.5) source / target - 0.5, the ends repeated: OpenCV's linear resize."""
        weights = torch.zeros(target, source)
        for i in range(target):
            place = min(max((i + 0.5) * source / target - 0.5, 0), source - 1)
            first = min(int(place), source - 2)
            weights[i, first] += 1 - (place - first)
            weights[i, first + 1] += place - first
        return weights

    columns = int(20 * 51 / 30)
    resized = taps(30, 20) @ frames @ taps(51, columns).T
    centre = CenterCrop(20, interpolation="bilinear", antialias=False)
    for index, crop in enumerate(crops(centre, 3)):
        left = int(index * (columns - 20) / 2)
        assert torch.allclose(crop(frames, seeded()), resized[..., left : left + 20], atol=1e-5)


@pytest.mark.parametrize("column", ["ssv2", "k400"])
def test_clips_are_tested_so_at_paper_scale(column: str) -> None:
    centre = make(row("video_decoder_depth", "4", column).evaluate_data.test_augment)
    assert centre == CenterCrop([224, 224], interpolation="bilinear", antialias=False)


# Rates, and the recipe `released`


def test_ucf101_ends_at_the_scripts_rate() -> None:
    recipe = Evaluation(row("video_transfer", "own clips", "ucf101"), "ucf101").recipe
    assert recipe is not None
    assert recipe.min_lr == pytest.approx(1e-5 * recipe.batch_size / 256)


RELEASED = ("method=videomae_released", "pretrain=videomae_released")


def test_released_recipe_is_that_of_the_scripts() -> None:
    stated, released = (Pretraining(row("video_decoder_depth", "4", "ssv2", *words)).recipe for words in ((), RELEASED))
    assert (stated.batch_size, stated.min_lr) == (1024, 0.0)
    assert released.batch_size == 64 * 32
    assert released.min_lr == pytest.approx(1e-5 * released.batch_size / 256)
    assert released.peak_lr == pytest.approx(1.5e-4 * released.batch_size / 256)


def autoencoder(as_released: bool) -> MaskedAutoencoder:
    torch.manual_seed(0)
    encoder = Encoder(
        Grid.of(4, (32, 32), (2, 16, 16)), Transformer(64, 1, 4), class_token=False, positions="sincos_1d"
    )
    decoder = DecoderShape(4.0, 1, 4, embed_bias=False, positions="sincos_1d")
    target = ChannelNormalisedPixels([0.2, 0.2, 0.2])
    return MaskedAutoencoder(
        encoder, decoder=decoder, mask=Tube(0.75), target=target, frames=SAME_FRAMES, as_released=as_released
    )


@pytest.mark.parametrize("as_released", [True, False])
def test_released_initialisation_is_pytorchs_where_the_code_leaves_it(as_released: bool) -> None:
    model = autoencoder(as_released)
    for layer in (model.encoder.embed, model.decoder.embed):
        default = 1 / math.sqrt(layer.in_features)
        xavier = math.sqrt(6 / (layer.in_features + layer.out_features))
        bound = default if as_released else xavier
        sample = layer.weight.detach().flatten().numpy()[::7]
        assert stats.kstest(sample, "uniform", args=(-bound, 2 * bound)).pvalue > 1e-3
    assert bool((model.encoder.embed.bias != 0).any()) == as_released
    assert isinstance(model.decoder.mask_token, nn.Parameter)
    token = model.decoder.mask_token.detach()
    cut = stats.truncnorm(-1, 1, scale=0.02).std()
    assert float(token.std()) == pytest.approx(cut if as_released else 0.02, rel=0.15)
    assert (float(token.abs().max()) <= 0.02) == as_released
    for block in model.decoder.blocks:  # everything else begins as the paper of MAE says
        bound = math.sqrt(6 / (256 + 4 * 256))
        assert float(block.mlp.fc1.weight.detach().abs().max()) == pytest.approx(bound, rel=0.01)


@pytest.mark.parametrize("as_released", [True, False])
def test_released_recipe_leaves_the_mask_token_undecayed(as_released: bool) -> None:
    groups = parameter_groups(autoencoder(as_released), 0.05)
    (group,) = (group for group in groups if "decoder.mask_token" in group["names"])  # type: ignore[operator]
    assert group["weight_decay"] == (0.0 if as_released else 0.05)
    # absent elsewhere, so that no other fingerprint knows it
    assert "as_released" not in row("video_decoder_depth", "4", "ssv2").method


@pytest.mark.parametrize("column", ["ssv2", "k400", "ucf101"])
def test_small_scales_do_as_before(column: str) -> None:
    table = "video_transfer" if column == "ucf101" else "video_decoder_depth"
    label = "own clips" if column == "ucf101" else "4"
    evaluation = Evaluation(row(table, label, column, scale="desk"), column)
    assert isinstance(augment_of(evaluation.augment, evaluation.data).steps[0], CenterCrop)  # type: ignore[attr-defined]
    assert evaluation.protocol.repeats == 1
    assert type(evaluation.sampling()) in (Dense, Uniform)
    assert evaluation.data.test_augment.keys() == {"_target_", "size"}


def test_the_number_of_reading_processes_renames_nothing_and_may_be_set() -> None:
    words = "data.source.workers=24"
    found = {Pretraining(row("decoder_depth", "8", None, *more)).fingerprint() for more in ((), (words,))}
    assert len(found) == 1
    check_effects([load_ablation("decoder_depth")], "paper", [words], ["8"], "bf16")
    with pytest.raises(DataError, match="workers=-1 is negative"):
        data_set({**row("decoder_depth", "8").data.source, "root": "/", "workers": -1}).holds()


@pytest.mark.parametrize("table", ["schedule", "video_schedule"])
@pytest.mark.parametrize("scale", ["smoke", "desk", "study", "gpu", "paper"])
def test_the_warm_up_of_a_schedule_row_follows_it_at_small_scales(table: str, scale: str) -> None:
    rows = load_ablation(table).rows
    usual = Pretraining(row(table, "800", scale=scale)).recipe
    for label in rows:
        recipe = Pretraining(row(table, label, scale=scale)).recipe
        assert recipe.schedule == int(label) / 800
        share = 1.0 if scale in ("gpu", "paper") else recipe.schedule
        assert recipe.warmup_epochs == pytest.approx(usual.warmup_epochs * share)
