"""The evaluation protocols: what they measure, what they leave alone, and that each switch does something."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Generator, Tensor, nn

from mae.classifier import Classifier
from mae.data.augment.color import Normalise
from mae.data.augment.compose import Compose
from mae.data.augment.crops import CenterCrop
from mae.data.augment.rand_augment import rand_augmented_crop
from mae.data.source import Augment, Batch, Images, Shifted, Splits, View
from mae.errors import DataError
from mae.grid import Grid
from mae.model import Encoder, Transformer
from mae.train.accuracy import accuracy, features, robustness
from mae.train.checkpoint import Checkpoints
from mae.train.evaluate import FineTune, LinearProbe, NearestNeighbours
from mae.train.loop import Runtime
from mae.train.optim import Recipe

GRID = Grid.of(1, (16, 16), (1, 8, 8))
VIEW: Augment = Compose((CenterCrop(16), Normalise((0.5,) * 3, (0.25,) * 3)))
RECIPE = Recipe("adamw", base_lr=0.01, batch_size=16, epochs=2, warmup_epochs=0.5, weight_decay=0.05)
FINE_TUNE = FineTune(RECIPE, head_std=0.02)


def encoder(class_token: bool = True) -> Encoder:
    torch.manual_seed(0)
    return Encoder(GRID, Transformer(16, 2, 2), class_token=class_token)


def pictures(samples: int, seed: int, noise: float = 0.6) -> Images:
    """Four classes: which quarter of the picture is tinted, and how, under noise."""
    generator = Generator().manual_seed(seed)
    labels = torch.arange(samples) % 4
    values = noise * torch.randn(samples, 3, 16, 16, generator=generator)
    for index, label in enumerate(labels.tolist()):
        values[index, label % 3, 8 * (label // 2) :, 8 * (label % 2) :] += 0.7
    return Images((values * 40 + 110).clamp(0, 255).to(torch.uint8), labels, ("a", "b", "c", "d"))


TRAIN, TEST = pictures(96, 1), pictures(64, 2)


def splits_of(train: Images, test: Images) -> Splits:
    return Splits(train, train, test, "test", views=(View(test, (VIEW,)),))


SPLITS = splits_of(TRAIN, TEST)


def runtime(**options: object) -> Runtime:
    return Runtime(seed=0, log_every=1, **options)  # type: ignore[arg-type]


def losses(protocol: FineTune, augment: Augment = VIEW) -> list[float]:
    """The loss of each step of a short fine-tuning."""
    found: list[float] = []
    torch.manual_seed(1)
    protocol(encoder(), SPLITS, augment, runtime(observe=lambda step, values: found.append(values["loss"])))
    return found


def test_the_probe_reaches_what_logistic_regression_reaches_on_the_same_features() -> None:
    splits = splits_of(pictures(400, 3), pictures(400, 4))
    recipe = Recipe("lars", base_lr=20.0, batch_size=100, epochs=100, warmup_epochs=4, weight_decay=0.0)
    probe = LinearProbe(recipe, cached=True)
    ours = probe(encoder(), splits, VIEW, runtime())["top1"]
    model = probe.classifier(encoder(), 4)
    train, test = (features(model, source, VIEW, runtime()) for source in (splits.train, splits.test))
    mean, std = train.pixels.mean(0), train.pixels.std(0)
    reference = LogisticRegression(max_iter=2000).fit((train.pixels - mean) / std, train.labels)
    theirs = 100 * reference.score((test.pixels - mean) / std, test.labels)
    assert 50 < theirs < 99.5
    assert ours == pytest.approx(theirs, abs=2.0)


@pytest.mark.parametrize("cached", [True, False])
def test_a_probe_leaves_the_encoder_as_it_was_and_in_eval_mode(cached: bool) -> None:
    probed = encoder()
    before = copy.deepcopy(probed.state_dict())
    modes: list[bool] = []
    probed.blocks[0].register_forward_hook(lambda module, *_: modes.append(module.training))
    LinearProbe(RECIPE, cached=cached)(probed, SPLITS, VIEW, runtime())
    assert all(torch.equal(tensor, before[name]) for name, tensor in probed.state_dict().items())
    assert modes
    assert not any(modes)


def test_a_fine_tuned_model_is_tested_on_the_test_set_alone() -> None:
    wrong = replace(TEST, labels=(TEST.labels + 1) % 4)
    long = replace(FINE_TUNE, recipe=replace(RECIPE, epochs=20))
    right = long(encoder(), SPLITS, VIEW, runtime())["top1"]
    shifted = long(encoder(), splits_of(TRAIN, wrong), VIEW, runtime())["top1"]
    assert right > 80
    assert shifted < 20


def test_shifted_sets_are_tested_and_change_nothing_else() -> None:
    wrong = replace(TEST, labels=(TEST.labels + 1) % 4)
    shifts = {"same": (Shifted(TEST, VIEW),), "half": (Shifted(TEST, VIEW), Shifted(wrong, VIEW))}
    found = []
    for splits in (SPLITS, replace(SPLITS, shifts=shifts)):
        torch.manual_seed(1)
        found.append(replace(FINE_TUNE, ema=0.5)(encoder(), splits, VIEW, runtime()))
    plain, shifted = found
    assert shifted["top1"] == shifted["top1_same"] == plain["top1"]
    assert shifted.keys() - plain.keys() == {"top1_same", "error_same", "top1_half", "error_half"}
    assert shifted["top1_half"] < shifted["top1_same"]
    assert shifted["error_half"] == 100 - shifted["top1_half"]


class Constant(nn.Module):
    """Gives every picture the same scores."""

    def __init__(self, *scores: float) -> None:
        super().__init__()
        self.scores = torch.tensor(scores)

    def forward(self, images: Tensor) -> Tensor:
        return self.scores.expand(len(images), -1)


def test_predictions_are_made_among_the_classes_that_a_set_has() -> None:
    some = Images(TEST.pixels[:4], torch.tensor([1, 3, 3, 3]), TEST.classes)
    model = Constant(9.0, 1.0, 8.0, 2.0)
    assert accuracy(model, (View(some, (VIEW,)),), runtime()) == 0
    assert accuracy(model, (View(some, (VIEW,)),), runtime(), among=torch.tensor([1, 3])) == 75


def test_the_parts_of_a_shifted_set_count_alike_whatever_their_sizes() -> None:
    big = Images(TEST.pixels[:8], torch.zeros(8, dtype=torch.int64), TEST.classes)
    small = Images(TEST.pixels[:2], torch.ones(2, dtype=torch.int64), TEST.classes)
    parts = {"fog": (Shifted(big, VIEW), Shifted(small, VIEW))}
    assert robustness(Constant(1.0, 0.0, 0.0, 0.0), parts, runtime()) == {"top1_fog": 50.0, "error_fog": 50.0}


@pytest.mark.parametrize(
    "switch",
    [
        {"label_smoothing": 0.1},
        {"drop_path": 0.9},
        {"mixup": 0.8},
        {"cutmix": 1.0},
        {"mixup": 0.8, "cutmix": 1.0},
        {"erasing": 0.9},
        {"pooling": "class"},
        {"head_std": 0.5},
        {"tuned_blocks": 1},
        {"dropout": 0.5},
        {"tune_positions": False},
    ],
    ids=str,
)
def test_each_switch_changes_the_losses(switch: dict[str, float | str]) -> None:
    changed = losses(replace(FINE_TUNE, **switch))  # type: ignore[arg-type]
    assert changed[-6:] != losses(FINE_TUNE)[-6:]


def test_switches_are_all_different() -> None:
    runs = [losses(replace(FINE_TUNE, mixup=m, cutmix=c)) for m, c in ((0.8, 0), (0, 1.0), (0.8, 1.0), (0.2, 0))]
    assert len({tuple(run) for run in runs}) == len(runs)


def test_rand_augment_changes_the_losses() -> None:
    def view(policy: str) -> Augment:
        return Compose((rand_augmented_crop(16, rand_augment=policy), Normalise((0.5,) * 3, (0.25,) * 3)))

    runs = [losses(FINE_TUNE, view(f"rand-{policy}-inc1")) for policy in ("m9-p0", "m9-mstd0.5", "m9-mstd0", "m3")]
    assert len({tuple(run) for run in runs}) == len(runs)


def test_smoothed_and_mixed_targets_give_the_soft_cross_entropy() -> None:
    """The loss of the first step, written out from timm's targets: on 1 - s + s / K, off s / K."""
    protocol = replace(FINE_TUNE, label_smoothing=0.1, recipe=replace(RECIPE, epochs=1 / 6))
    found = losses(protocol)
    torch.manual_seed(1)
    model = protocol.classifier(encoder(), 4)
    first: list[Tensor] = []

    class Spy:
        """The training set, noting the labels it gives out."""

        classes = TRAIN.classes

        def __len__(self) -> int:
            return len(TRAIN)

        def batches(self, order: Iterator[Tensor], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in TRAIN.batches(order, device):
                with torch.no_grad():
                    logits = model(VIEW(batch.images, Generator()))
                smoothed = torch.full((len(logits), 4), 0.1 / 4)
                smoothed[torch.arange(len(logits)), batch.labels] = 1 - 0.1 + 0.1 / 4
                first.append(-(smoothed * logits.log_softmax(1)).sum(1).mean())
                yield batch

    torch.manual_seed(1)
    protocol(encoder(), replace(SPLITS, train=Spy()), VIEW, runtime())  # type: ignore[arg-type]
    assert found == [pytest.approx(first[0].item(), rel=1e-5)]


def test_averaged_weights_follow_the_recursion_and_are_the_ones_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    tested: list[dict[str, Tensor]] = []

    def spy(model: nn.Module, *rest: object) -> float:
        tested.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return 0.0

    monkeypatch.setattr("mae.train.evaluate.accuracy", spy)
    trained: list[Classifier] = []
    build = FineTune.classifier
    monkeypatch.setattr(FineTune, "classifier", lambda self, enc, n: trained.append(build(self, enc, n)) or trained[-1])
    expected: dict[str, Tensor] = {}

    def follow(step: int, values: dict[str, float]) -> None:
        for name, tensor in trained[0].state_dict().items():
            expected[name] = 0.8 * expected[name] + 0.2 * tensor

    torch.manual_seed(1)
    start = FINE_TUNE.classifier(encoder(), 4)
    expected.update({name: tensor.clone() for name, tensor in start.state_dict().items()})
    trained.clear()
    torch.manual_seed(1)
    replace(FINE_TUNE, ema=0.8)(encoder(), SPLITS, VIEW, runtime(observe=follow))
    for name, tensor in tested[0].items():
        torch.testing.assert_close(tensor, expected[name])
    assert not torch.equal(tested[0]["head.weight"], trained[0].head.weight)


class Killed(Exception):
    """Stands for the process being killed."""


@pytest.mark.parametrize("ema", [None, 0.7])
def test_a_killed_fine_tuning_resumes_to_the_same_bits(
    ema: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = replace(FINE_TUNE, ema=ema, mixup=0.8, cutmix=1.0, erasing=0.5, drop_path=0.5, label_smoothing=0.1)
    tested: list[dict[str, Tensor]] = []

    def spy(model: nn.Module, *rest: object) -> float:
        tested.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return 0.0

    def kill(step: int, values: dict[str, float]) -> None:
        if step == 8:
            raise Killed

    def run(**options: object) -> None:
        torch.manual_seed(1)
        protocol(encoder(), SPLITS, VIEW, runtime(**options))

    monkeypatch.setattr("mae.train.evaluate.accuracy", spy)
    run()
    with pytest.raises(Killed):
        run(checkpoints=Checkpoints(tmp_path, every=0.0), observe=kill)
    steps: list[int] = []
    run(checkpoints=Checkpoints(tmp_path, every=0.0), observe=lambda step, values: steps.append(step))
    assert steps[0] == 8
    whole, resumed = tested
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_neighbours_vote_as_a_brute_force_count_says() -> None:
    protocol = NearestNeighbours(k=7, temperature=0.07)
    model = protocol.classifier(encoder(), 4)
    bank, queries = (features(model, source, VIEW, runtime()).pixels.double().numpy() for source in (TRAIN, TEST))
    hits = 0
    for query, label in zip(queries, TEST.labels.tolist(), strict=True):
        similarity = [query @ row / np.linalg.norm(query) / np.linalg.norm(row) for row in bank]
        votes = [0.0] * 4
        for neighbour in sorted(range(len(bank)), key=lambda row: -similarity[row])[:7]:
            votes[TRAIN.labels[neighbour]] += math.exp(similarity[neighbour] / 0.07)
        hits += int(np.argmax(votes)) == label
    found = protocol(encoder(), SPLITS, VIEW, runtime())["top1"]
    assert found == pytest.approx(100 * hits / len(TEST))
    assert 30 < found < 100


def test_temperature_decides_between_one_near_neighbour_and_many_far_ones() -> None:
    bank = nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]]))
    labels = torch.tensor([0, 1, 1])
    query = torch.tensor([[1.0, 0.0]])
    sharp = NearestNeighbours(k=3, temperature=0.07).votes(query, bank, labels, 2)
    flat = NearestNeighbours(k=3, temperature=10.0).votes(query, bank, labels, 2)
    torch.testing.assert_close(sharp, torch.tensor([[math.exp(1 / 0.07), 2 * math.exp(0.6 / 0.07)]]))
    assert (sharp.argmax().item(), flat.argmax().item()) == (0, 1)


def test_neighbours_train_nothing_and_read_mean_features_too() -> None:
    probed = encoder(class_token=False)
    before = copy.deepcopy(probed.state_dict())
    protocol = NearestNeighbours(pooling="mean")
    assert protocol.recipe is None
    assert 0 <= protocol(probed, SPLITS, VIEW, runtime())["top1"] <= 100
    assert all(torch.equal(tensor, before[name]) for name, tensor in probed.state_dict().items())


def test_accuracy_counts_every_picture_once() -> None:
    class First(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(len(images), 4)

    assert accuracy(First(), (View(pictures(1002, 0), (VIEW,)),), runtime()) == pytest.approx(100 * 251 / 1002)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mixup": -1.0}, "mixup=-1.0 is negative"),
        ({"erasing": 2.0}, r"erasing=2.0 is outside \[0, 1\]"),
        ({"drop_path": -0.1}, r"drop_path=-0.1 is outside \[0, 1\]"),
        ({"ema": 1.0}, r"ema=1.0 is outside \(0, 1\)"),
    ],
)
def test_a_bad_value_is_refused_before_anything_is_built(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FineTune(RECIPE, **values)  # type: ignore[arg-type]


def test_more_neighbours_than_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="k=97 neighbours among 96 training pictures; choose k up to 96"):
        NearestNeighbours(k=97)(encoder(), SPLITS, VIEW, runtime())
    with pytest.raises(ValueError, match="must be above 0"):
        NearestNeighbours(k=0)


def test_a_protocol_that_does_not_fit_the_encoder_is_refused_without_weights() -> None:
    with torch.device("meta"):
        bare = encoder(class_token=False)
        for protocol in (LinearProbe(RECIPE), NearestNeighbours(), replace(FINE_TUNE, pooling="class")):
            with pytest.raises(ValueError, match="needs an encoder with a class token"):
                protocol.classifier(bare, 4)
        with pytest.raises(ValueError, match="tuned_blocks=3 of an encoder with 2 blocks"):
            replace(FINE_TUNE, tuned_blocks=3).classifier(encoder(), 4)
        replace(FINE_TUNE, tuned_blocks=2, drop_path=0.1).classifier(encoder(), 4)


class Readings(nn.Module):
    """Gives each picture the scores written in its first pixels, times 10."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0, 0, :2] * 10


class Lossy:
    """A source that cannot read some of its items."""

    def __init__(self, whole: Images, missing: set[int]) -> None:
        self.whole, self.missing, self.classes = whole, missing, whole.classes

    def __len__(self) -> int:
        return len(self.whole)

    def batches(self, order: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        found = (torch.tensor([row for row in rows.tolist() if row not in self.missing]) for rows in order)
        return self.whole.batches((rows.long() for rows in found), device)


def readings(*scores: tuple[float, float]) -> Images:
    pixels = torch.zeros(len(scores), 3, 1, 2)
    pixels[:, 0, 0] = torch.tensor(scores)
    return Images(pixels, torch.zeros(len(scores), dtype=torch.int64), ("a", "b"))


def plain(images: Tensor, generator: Generator) -> Tensor:
    return images


def swapped(images: Tensor, generator: Generator) -> Tensor:
    return images.flip(-1)


def test_the_softmax_is_taken_before_the_mean_over_views() -> None:
    """One view is certain of b by its logits, two lean to a: their mean probability says a, their mean logit b."""
    leaning, certain = readings((0.2, 0.0)), readings((0.0, 3.0))
    views = (View(leaning, (plain,)), View(certain, (plain,)), View(leaning, (plain,)), View(leaning, (plain,)))
    logits = torch.stack([Readings()(view.source.pixels.float())[0] for view in views])  # type: ignore[attr-defined]
    assert (logits.mean(0).argmax(), logits.softmax(1).mean(0).argmax()) == (1, 0)
    assert accuracy(Readings(), views, runtime()) == 100


def test_all_crops_of_all_clips_are_counted() -> None:
    source = readings((1.0, 0.0), (0.0, 1.0), (0.6, 0.0))
    assert accuracy(Readings(), (View(source, (plain,)),), runtime()) == pytest.approx(200 / 3)
    assert accuracy(Readings(), (View(source, (swapped,)),), runtime()) == pytest.approx(100 / 3)
    stronger = (View(source, (plain, swapped, swapped)), View(source, (swapped,)))
    assert accuracy(Readings(), stronger, runtime()) == pytest.approx(100 / 3)


@pytest.mark.parametrize("at_once", [1, 2, 500])
def test_items_that_no_view_can_read_do_not_count_and_rows_stay_together(at_once: int) -> None:
    source = readings((1.0, 0.0), (0.0, 1.0), (1.0, 0.0), (0.0, 1.0))
    views = (View(Lossy(source, {0, 3}), (plain,)), View(Lossy(source, {3}), (plain,)))
    assert accuracy(Readings(), views, runtime(), at_once) == pytest.approx(200 / 3)


def test_a_test_set_of_which_nothing_can_be_read_is_refused() -> None:
    source = Lossy(readings((1.0, 0.0)), {0})
    with pytest.raises(DataError, match="none of the 1 items to test on can be read"):
        accuracy(Readings(), (View(source, (plain,)),), runtime())
    for nothing in ((), (View(source, ()),)):
        with pytest.raises(ValueError, match=r"splits.views needs a view, and each view an augmentation"):
            accuracy(Readings(), nothing, runtime())


def test_clips_are_fine_tuned_probed_and_voted_on_as_pictures_are() -> None:
    """The same stills as clips of four frames, through a model of clips."""
    grid = Grid.of(4, (16, 16), (2, 8, 8))
    pixels = (part.pixels.unsqueeze(2).expand(-1, -1, 4, -1, -1) for part in (TRAIN, TEST))
    train, test = (Images(clips, part.labels, part.classes) for clips, part in zip(pixels, (TRAIN, TEST), strict=True))
    splits = splits_of(train, test)
    for protocol in (
        replace(
            FINE_TUNE, recipe=replace(RECIPE, epochs=15), mixup=0.8, cutmix=1.0, erasing=0.25, tune_positions=False
        ),
        LinearProbe(replace(RECIPE, epochs=20), pooling="mean", cached=True),
        NearestNeighbours(pooling="mean"),
    ):
        torch.manual_seed(0)
        video = Encoder(grid, Transformer(16, 2, 2), class_token=False, positions="sincos_1d")
        assert protocol(video, splits, VIEW, runtime())["top1"] > 35
