"""Whether the data keeps up: trainings of real recipes, fed by their loaders, against the same steps on a ready batch.

A ready batch is one that was loaded, augmented and normalised beforehand and lies on the device: its step is all that
is left to do. So a ratio below 1 is what loading and augmenting cost the training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import harmonic_mean, median
from typing import Any, cast

import torch
from PIL import Image
from torch import Generator, Tensor, nn

from experiments.ablation import load_ablation
from experiments.assemble import assembled, encoder_of, method_of
from experiments.spec import PRETRAIN, Spec, spec_of
from experiments.stages.evaluation import Evaluation, stage_of
from experiments.stages.stage import Stage
from mae.data.augment.compose import Compose
from mae.data.builtin.motions import MOTIONS
from mae.data.builtin.moving_digits import MovingDigits
from mae.data.builtin.photographs import WhichPhotograph
from mae.data.clips.source import DecodedClips
from mae.data.source import Augment, Batch, Images, Source, Splits, View
from mae.heads.fine_tuning import FineTune
from mae.memory import keep_freed_memory
from mae.train.loop import Runtime, fit, order
from mae.train.machine import best_precision
from mae.train.optim import Recipe
from mae.train.parts import Objective
from mae.train.pretrain import pretrain

#: Trains on a source through an augmentation for a number of steps; the runtime is told how fast.
Training = Callable[[Source, Augment, int, Runtime], object]
#: What is timed of each feed, in the order of a round.
SIDES = ("end to end", "ready batches", "data alone")
#: What is left to do to a batch that is ready.
NOTHING = Compose(())
#: Sizes of the sets that are made: a few epochs of batches, and too few to start processes that would make them.
CLIPS = {"train": 240, "test": 16}
PICTURES = {"train": 480, "test": 26}
JPEG_SIDE, JPEG_QUALITY = 96, 90


@dataclass(frozen=True)
class Pipeline:
    """The training of one row of a table: its ``stage``, and the ways in which data reaches it.

    ``feeds`` are these ways by name, each as overrides of the row's spec. ``material`` makes what they all need in a
    folder, and returns further overrides.
    """

    ablation: str
    row: str
    stage: str
    feeds: Mapping[str, tuple[str, ...]]
    material: Callable[[Path], tuple[str, ...]] = lambda folder: ()
    scale: str = "desk"

    def spec(self, overrides: tuple[str, ...]) -> Spec:
        """The resolved spec of the row under ``overrides``."""
        ablation = load_ablation(self.ablation)
        return spec_of(ablation, ablation.rows[self.row], self.scale, 0, overrides)


def few_clips(folder: Path) -> tuple[str, ...]:
    """Built-in clips, so few that they are filmed in seconds."""
    counts = {"pretrain": CLIPS["train"], **CLIPS}
    return tuple(f"data.source.{split}={count}" for split, count in counts.items())


def clip_files(folder: Path) -> tuple[str, ...]:
    """Built-in clips as a user's would lie there: MP4 files in folders by motion, and lists of them."""
    filmed, root = folder / "filmed", folder / "clips"
    splits = MovingDigits(pretrain=1, train=CLIPS["train"], test=CLIPS["test"])(filmed)
    for split, clips, name in (("train", splits.train, "train.csv"), ("test", splits.test, "val.csv")):
        files = sorted(filmed.glob(f"moving_digits-*-{split}-*/*.mp4"))
        lines = []
        for file, label in zip(files, cast(DecodedClips, clips).labels.tolist(), strict=True):
            target = root / split / MOTIONS[label] / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)
            lines.append(f"{target.relative_to(root).as_posix()},{label}\n")
        (root / name).write_text("".join(lines))
    return (
        f"data.source.root={root}", f"data.classes={len(MOTIONS)}", "evaluate_data=same",
        *(f"data.source.{split}={count}" for split, count in CLIPS.items()),
        "data.input_size=[24,24]", "data.flip=false", "data.mean=[0.5,0.5,0.5]", "data.std=[0.25,0.25,0.25]",
    )  # fmt: skip


def jpeg_files(folder: Path) -> tuple[str, ...]:
    """Crops of the built-in photographs as JPEG files in folders by photograph, seen as 64 patches of 8x8 pixels."""
    root = folder / "pictures"
    splits = WhichPhotograph(train=PICTURES["train"], test=PICTURES["test"], size=JPEG_SIDE)(folder)
    for split, source in (("train", splits.train), ("test", splits.test)):
        pictures = cast(Images, source)
        for row, (pixels, label) in enumerate(zip(pictures.pixels, pictures.labels.tolist(), strict=True)):
            target = root / split / pictures.classes[label] / f"{row:06}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(target, quality=JPEG_QUALITY)
    counts = {"pretrain": PICTURES["train"], **PICTURES}
    return (
        f"data.source.root={root}", f"data.classes={len(splits.train.classes)}", "data.input_size=[64,64]",
        "model.patch=[1,8,8]", *(f"data.samples.{split}={count}" for split, count in counts.items()),
    )  # fmt: skip


_STREAMED, _DECODED = ("data=k400", "data.source.short_side=24"), ("data=clip_folder", "data.decoded=[24,24]")
_TWICE = ("evaluate.ssv2.repeats=2", "evaluate.ssv2.protocol.recipe.batch_size=16")  # as many clips, half the files
PIPELINES = {
    "desk_images": Pipeline("decoder_depth", "8", PRETRAIN, {"in memory": ()}),
    "desk_clips": Pipeline("video_masking", "tube 90", PRETRAIN, {"decoded cache": ()}, few_clips),
    "desk_clips_files": Pipeline(
        "video_masking",
        "tube 90",
        "ssv2",
        {
            "files": _STREAMED,
            "files, each twice": (*_STREAMED, *_TWICE),
            "decoded cache": _DECODED,
            "decoded cache, each twice": (*_DECODED, *_TWICE),
        },
        clip_files,
    ),
    "jpeg_folder": Pipeline(
        "decoder_depth",
        "8",
        PRETRAIN,
        {"files": ("data=imagenet",), "decoded once": ("data=image_folder",)},
        jpeg_files,
    ),
}


@dataclass(frozen=True)
class Ready:
    """A source that yields one batch over and over, without touching it; ``length`` is that of the source it is of."""

    batch: Batch
    classes: tuple[str, ...]
    length: int

    def __len__(self) -> int:
        return self.length

    def batches(self, order: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        for _ in order:
            yield self.batch


def ready(source: Source, augment: Augment, batch_size: int, device: torch.device) -> Ready:
    """The first batch of a training on ``source``, augmented, on the device."""
    (batch,) = source.batches(order(len(source), batch_size, 0, 0, 1), device)
    images = augment(batch.images, Generator(device).manual_seed(0))
    return Ready(batch._replace(images=images), source.classes, len(source))


def pretraining(stage: Stage, recipe: Recipe, device: torch.device) -> Training:
    """A pre-training, as a run does it."""
    method = method_of(stage.spec).to(device)

    def train(source: Source, augment: Augment, steps: int, runtime: Runtime) -> None:
        pretrain(method, source, augment, _for_steps(recipe, steps, source), runtime)

    return train


def fine_tuning(stage: Evaluation, splits: Splits, tested: Ready) -> Training:
    """A fine-tuning, as a run does it, from random weights; it is tested on one ready sample."""
    encoder, protocol = encoder_of(stage.spec), cast(FineTune, stage.head)
    sample = Images(tested.batch.images[:1], tested.batch.labels[:1], tested.classes)
    views = (View(sample, (NOTHING,)),)

    def train(source: Source, augment: Augment, steps: int, runtime: Runtime) -> None:
        shortened = replace(protocol, recipe=_for_steps(protocol.recipe, steps, source))
        shortened(encoder, replace(splits, train=source, views=views), augment, runtime)

    return train


def loading(recipe: Recipe, device: torch.device) -> Training:
    """The loop of every training with nothing to train: batches are loaded and augmented."""
    model = nn.Linear(1, 1, bias=False).to(device)

    def train(source: Source, augment: Augment, steps: int, runtime: Runtime) -> None:
        def loss_fn(batch: Batch, generator: Generator) -> Tensor:
            augment(batch.images, generator)
            return model.weight.sum()

        short = _for_steps(recipe, steps, source)
        objective = Objective.of(loss_fn, "it is timed as a whole")
        fit(model, short.build(model), objective, source, short, runtime)

    return train


def _for_steps(recipe: Recipe, steps: int, source: Source) -> Recipe:
    batch = min(recipe.batch_size, len(source))
    return replace(recipe, batch_size=batch, epochs=steps / (len(source) // batch), schedule=1.0)


def most_ahead(source: Source) -> int:
    """Batches that worker processes may have loaded ahead of a step, 0 where there are none."""
    workers: int = getattr(source, "workers", 0)
    return 2 * workers


@dataclass(frozen=True)
class Side:
    """What takes turns with others: a training on a source through an augmentation, timed by its own loop.

    Of a turn the first and the last stretch of steps do not count: workers start in the one, and have nothing left to
    load in the other. ``batch`` is the number of samples in a step.
    """

    training: Training
    source: Source
    augment: Augment
    runtime: Runtime
    batch: int

    @property
    def stretch(self) -> int:
        least = 1 if self.runtime.device.type == "cpu" else 8  # the loop waits for the device at the end of each
        return max(least, most_ahead(self.source))

    def rate(self, stretches: int = 1) -> float:
        """Samples per second over so many stretches."""
        rates: list[float] = []
        runtime = replace(
            self.runtime,
            log_every=self.stretch,
            observe=lambda step, values: rates.append(values["samples_per_second"]),
        )
        self.training(self.source, self.augment, (stretches + 2) * self.stretch, runtime)
        return harmonic_mean(rates[1:-1])

    def stretches(self, seconds: float) -> int:
        """How many of them take ``seconds``, by a turn that also warms up."""
        return max(1, round(seconds * self.rate() / (self.stretch * self.batch)))


def sides_of(stage: Stage, cache: Path, device: torch.device) -> dict[str, Side]:
    """The sides of the training of ``stage``, by the names in ``SIDES``."""
    spec = stage.spec
    splits, augment = assembled(stage.look(), spec.seed, cache, device)
    precision = best_precision(device) if spec.precision == "auto" else spec.precision
    runtime = Runtime(spec.seed, device, precision)
    recipe, source = cast(Recipe, stage.recipe), splits.train
    at_hand = ready(source, augment, recipe.batch_size, device)
    training = (
        fine_tuning(stage, splits, at_hand) if isinstance(stage, Evaluation) else pretraining(stage, recipe, device)
    )
    batch = len(at_hand.batch.labels)
    found = (
        Side(training, source, augment, runtime, batch),
        Side(training, at_hand, NOTHING, runtime, batch),
        Side(loading(recipe, device), source, augment, runtime, batch),
    )
    return dict(zip(SIDES, found, strict=True))


def measure(pipeline: Pipeline, folder: Path, device: torch.device, rounds: int, least: float) -> dict[str, Any]:
    """Figures of each feed, whose sides take turns of about ``least`` seconds; data is made and kept in ``folder``."""
    if device.type == "cpu":
        keep_freed_memory()  # as a run does
    made = pipeline.material(folder)
    specs = {feed: pipeline.spec((*made, *overrides)) for feed, overrides in pipeline.feeds.items()}
    stages = {feed: stage_of(spec, pipeline.stage) for feed, spec in specs.items()}
    sides = {feed: sides_of(stage, folder / "cache", device) for feed, stage in stages.items()}
    turns = {(feed, name): side for feed, found in sides.items() for name, side in found.items()}
    lengths = {key: side.stretches(least) for key, side in turns.items()}
    rates: dict[tuple[str, str], list[float]] = {key: [] for key in turns}
    for _ in range(rounds):
        for key, side in turns.items():
            rates[key].append(side.rate(lengths[key]))
    return {
        feed: {"batch": found[SIDES[0]].batch, **figures({name: rates[feed, name] for name in SIDES})}
        for feed, found in sides.items()
    }


def figures(rates: Mapping[str, list[float]]) -> dict[str, Any]:
    """Samples per second of each side, and the ratio of training to training on ready batches: median, least, most."""
    ratios = [whole / step for whole, step in zip(rates[SIDES[0]], rates[SIDES[1]], strict=True)]
    found: dict[str, Any] = {name: {"samples_per_second": round(median(rates[name]), 1)} for name in SIDES}
    spread = {"ratio": median(ratios), "least": min(ratios), "most": max(ratios)}
    return found | {f"{SIDES[0]} over {SIDES[1]}": {key: round(value, 3) for key, value in spread.items()}}


def table(report: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures of pipelines as Markdown; speeds are samples per second."""
    lines = [f"| pipeline | batch | {' | '.join(SIDES)} | ratio |", "|---|---|---|---|---|---|"]
    for name, feeds in report.items():
        for feed, found in feeds.items():
            speeds = " | ".join(f"{found[side]['samples_per_second']:.0f}" for side in SIDES)
            ratio = found[f"{SIDES[0]} over {SIDES[1]}"]
            words = f"{ratio['ratio']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})"
            lines.append(f"| {name}: {feed} | {found['batch']} | {speeds} | {words} |")
    return "\n".join(lines)
