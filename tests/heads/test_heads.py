"""The evaluation protocols: what they measure, what they leave alone, and that each switch does something."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Generator, Tensor, nn

from mae.data.augment.color import Normalise
from mae.data.augment.compose import Compose
from mae.data.augment.crops import CenterCrop
from mae.data.augment.rand_augment import rand_augmented_crop
from mae.data.source import Augment, Images, Shifted, Splits, View
from mae.grid import Grid
from mae.heads.attentive import AttentiveProbe
from mae.heads.classifier import Classifier
from mae.heads.features import features
from mae.heads.fine_tuning import FineTune
from mae.heads.linear_probe import LinearProbe
from mae.heads.nearest_neighbours import NearestNeighbours
from mae.heads.probe import Probe
from mae.model import Encoder, Transformer
from mae.train.checkpoint import Checkpoints
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
    return Splits(train, train, test, views=(View(test, (VIEW,)),))


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
    mean, std = train.values.mean(0), train.values.std(0)
    reference = LogisticRegression(max_iter=2000).fit((train.values - mean) / std, train.labels)
    theirs = 100 * reference.score((test.values - mean) / std, test.labels)
    assert 50 < theirs < 99.5
    assert ours == pytest.approx(theirs, abs=2.0)


def test_a_batch_of_the_whole_set_is_one_of_all_that_could_be_read() -> None:
    count = len(SPLITS.train)
    probes = [LinearProbe(replace(RECIPE, batch_size=size), cached=True) for size in (count, count + 1)]
    whole, lacking = (probe(encoder(), SPLITS, VIEW, runtime())["top1"] for probe in probes)
    assert whole == lacking


@pytest.mark.parametrize("kind", [LinearProbe, AttentiveProbe])
@pytest.mark.parametrize("cached", [True, False])
def test_a_probe_leaves_the_encoder_as_it_was_and_in_eval_mode(kind: type[Probe], cached: bool) -> None:
    probed = encoder()
    before = copy.deepcopy(probed.state_dict())
    modes: list[bool] = []
    probed.blocks[0].register_forward_hook(lambda module, *_: modes.append(module.training))
    kind(RECIPE, cached=cached)(probed, SPLITS, VIEW, runtime())  # type: ignore[call-arg]
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

    monkeypatch.setattr("mae.heads.fine_tuning.accuracy", spy)
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

    monkeypatch.setattr("mae.heads.fine_tuning.accuracy", spy)
    run()
    with pytest.raises(Killed):
        run(checkpoints=Checkpoints(tmp_path, every=0.0), observe=kill)
    steps: list[int] = []
    run(checkpoints=Checkpoints(tmp_path, every=0.0), observe=lambda step, values: steps.append(step))
    assert steps[0] == 8
    whole, resumed = tested
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_an_attentive_probe_reads_what_the_mean_of_the_tokens_hides() -> None:
    """A marked token holds the label in one channel, and the others its opposite, so that their mean is zero there."""
    model = AttentiveProbe(RECIPE).classifier(encoder(class_token=False), 2).train()
    labels = torch.arange(64) % 2
    tokens = torch.randn(64, 4, 16, generator=Generator().manual_seed(0))
    tokens[:, :, 0] = torch.tensor([4.0, 0, 0, 0])  # the mark
    tokens[:, 0, 1] = 3.0 * (2 * labels - 1)
    tokens[:, 1:, 1] = -tokens[:, :1, 1] / 3
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.classify(tokens), labels).backward()
        optimizer.step()
    assert tokens.mean(1)[:, 1].abs().max() < 1e-5
    assert (model.classify(tokens).argmax(1) == labels).float().mean() > 0.95


def test_neighbours_vote_as_a_brute_force_count_says() -> None:
    protocol = NearestNeighbours(k=7, temperature=0.07)
    model = protocol.classifier(encoder(), 4)
    bank, queries = (features(model, source, VIEW, runtime()).values.double().numpy() for source in (TRAIN, TEST))
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
        AttentiveProbe(replace(RECIPE, epochs=20), cached=True),
    ):
        torch.manual_seed(0)
        video = Encoder(grid, Transformer(16, 2, 2), class_token=False, positions="sincos_1d")
        assert protocol(video, splits, VIEW, runtime())["top1"] > 35
