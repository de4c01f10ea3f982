"""Tiny trainings that draw all that trainings draw, and what is seen of them: losses and gradients of each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from mae.data.augment.clip_crops import MultiScaleCrop
from mae.data.augment.color import ColorJitter, Normalise
from mae.data.augment.compose import Compose
from mae.data.augment.crops import CenterCrop, RandomResizedCrop
from mae.data.augment.rand_augment import rand_augmented_crop
from mae.data.clips.sampling import Around, Dense
from mae.data.clips.source import DecodedClips
from mae.data.keyframes.source import DecodedKeyframes, Timing
from mae.data.keyframes.table import Key, Keyframes, Task
from mae.data.source import Images, Splits, View
from mae.grid import Grid
from mae.heads import Head
from mae.heads.action_detection import ActionDetection
from mae.heads.attentive import AttentiveProbe
from mae.heads.fine_tuning import FineTune
from mae.heads.linear_probe import LinearProbe
from mae.heads.nearest_neighbours import NearestNeighbours
from mae.masking import BlockWise, Random, Strategy, Tube
from mae.methods.masked_autoencoder import DecoderShape, MaskedAutoencoder
from mae.methods.simmim import SimMIM
from mae.model import Encoder, Transformer
from mae.targets import ChannelNormalisedPixels, PatchNormalisedPixels, Pixels
from mae.train.loop import Runtime
from mae.train.optim import Recipe
from mae.train.pretrain import pretrain

MEAN, STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]
NORMALISE = Normalise(MEAN, STD)
#: Two steps of 16 items.
RECIPE = Recipe("adamw", 8e-3, 16, 0.5, 0, 0.05)
LARGE = Recipe("lars", 0.1, 16, 0.5, 0, 0.0)

Training = Callable[[Runtime], Any]


def noise(*shape: int) -> Images:
    """64 pictures or clips of noise in four classes."""
    pixels = torch.randint(256, (64, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Images(pixels, torch.arange(64) % 4, tuple("abcd"))


def encoder(grid: Grid, clips: bool = False) -> Encoder:
    torch.manual_seed(0)
    positions = "sincos_1d" if clips else "sincos_2d"
    return Encoder(grid, Transformer(32, 2, 4), class_token=not clips, positions=positions)


def pictures() -> Encoder:
    return encoder(Grid.of(1, (16, 16), (1, 4, 4)))


def mae(mask: Strategy) -> Training:
    def train(runtime: Runtime) -> None:
        decoder = DecoderShape(0.5, 2, 4)
        method = MaskedAutoencoder(pictures(), decoder=decoder, mask=mask, target=PatchNormalisedPixels())
        augment = Compose((RandomResizedCrop(16), ColorJitter(), NORMALISE))
        pretrain(method.to(runtime.device), noise(3, 20, 20), augment, RECIPE, runtime)

    return train


def simmim(runtime: Runtime) -> None:
    method = SimMIM(pictures(), mask=Random(0.5), target=Pixels())
    augment = Compose((RandomResizedCrop(16), NORMALISE))
    pretrain(method.to(runtime.device), noise(3, 20, 20), augment, RECIPE, runtime)


def videomae(runtime: Runtime) -> None:
    decoder = DecoderShape(0.5, 2, 4, positions="sincos_1d")
    method = MaskedAutoencoder(
        encoder(Grid.of(4, (16, 16), (2, 4, 4)), clips=True),
        decoder=decoder, mask=Tube(0.9), target=ChannelNormalisedPixels(STD),
    )  # fmt: skip
    augment = Compose((MultiScaleCrop(16, flip=True), NORMALISE))
    pretrain(method.to(runtime.device), noise(3, 4, 20, 20), augment, RECIPE, runtime)


def evaluation(head: Head, augmented: bool = True) -> Training:
    """Train ``head``; what it returns is what it measures."""

    def train(runtime: Runtime) -> dict[str, float]:
        data = noise(3, 16, 16)
        splits = Splits(data, data, data, views=(View(data, (Compose((CenterCrop(16), NORMALISE)),)),))
        augment = Compose((rand_augmented_crop(16) if augmented else CenterCrop(16), NORMALISE))
        return head(pictures(), splits, augment, runtime)

    return train


def repeated(runtime: Runtime) -> dict[str, float]:
    """Fine-tune on clips of which each is taken twice, from other frames, and mixed in four groups."""
    frames = torch.randint(256, (64 * 8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    clips = DecodedClips(frames, torch.arange(65) * 8, torch.arange(64) % 4, tuple("abcd"))
    train = clips.taking(Dense(4, 1), repeats=2, seed=7)
    test = clips.taking(Dense(4, 1), view=0)
    splits = Splits(train, train, test, views=(View(test, (Compose((CenterCrop(16), NORMALISE)),)),))
    augment = Compose((MultiScaleCrop(16, flip=True), NORMALISE))
    seen = encoder(Grid.of(4, (16, 16), (2, 4, 4)), clips=True)
    return FineTune(RECIPE, mix_draws=4, **REGULARISED)(seen, splits, augment, runtime)


def boxed(runtime: Runtime) -> dict[str, float]:
    """Detect actions in one to three boxes of clips of noise."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(256, (64 * 8, 3, 20, 20), dtype=torch.uint8, generator=generator)
    films = DecodedClips(frames, torch.arange(65) * 8, torch.arange(64) % 4, ())
    counts = torch.arange(64) % 3 + 1
    corner = torch.rand(int(counts.sum()), 2, generator=generator).double() / 2
    boxes = torch.cat([corner, corner + 0.4], 1)
    actions = torch.rand(len(boxes), 4, generator=generator) < 0.4
    keys = tuple(Key(f"{film:02}", 4.0) for film in range(64))
    offsets, scores = torch.tensor([0, *counts]).cumsum(0), torch.ones(len(boxes), dtype=torch.float64)
    table = Keyframes(keys, offsets, boxes, actions, scores, ("",) * 64)
    task = Task(table, table, (0, 1, 3))
    train, test = (
        DecodedKeyframes(films, torch.arange(64), table, tuple("abcd"), Timing(1.0), task).taking(Around(4, 1))
        for _ in range(2)
    )
    splits = Splits(train, train, test, views=(View(test, (Compose((CenterCrop(16), NORMALISE)),)),))
    augment = Compose((MultiScaleCrop(16, flip=True), NORMALISE))
    seen = encoder(Grid.of(4, (16, 16), (2, 4, 4)), clips=True)
    return ActionDetection(RECIPE, drop_path=0.3)(seen, splits, augment, runtime)


REGULARISED: dict[str, Any] = {
    "drop_path": 0.3,
    "mixup": 0.8,
    "cutmix": 1.0,
    "erasing": 0.25,
    "dropout": 0.2,
    "label_smoothing": 0.1,
}

TRAININGS: dict[str, Training] = {
    "MAE": mae(Random(0.75)),
    "MAE, block-wise": mae(BlockWise(0.5)),
    "SimMIM": simmim,
    "VideoMAE": videomae,
    "fine-tuning": evaluation(FineTune(RECIPE, **REGULARISED)),
    "fine-tuning, mixed in 8 groups": evaluation(FineTune(RECIPE, mix_draws=8, **REGULARISED)),
    "fine-tuning with averaged weights": evaluation(FineTune(RECIPE, ema=0.9, **REGULARISED)),
    "fine-tuning on clips used twice": repeated,
    "linear probe": evaluation(LinearProbe(LARGE)),
    "linear probe, normalised in 4 groups": evaluation(LinearProbe(LARGE, norm_groups=4)),
    "linear probe on cached features": evaluation(LinearProbe(LARGE, cached=True), augmented=False),
    "attentive probe": evaluation(AttentiveProbe(RECIPE)),
    "nearest neighbours": evaluation(NearestNeighbours(k=3)),
    "action detection": boxed,
}


class Seen:
    """What is seen of a training: ``losses`` by step, ``gradients`` of each step by name, what it ``measures``."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.gradients: list[dict[str, Tensor]] = []
        self.measures: dict[str, float] = {}


@contextmanager
def watched(seen: Seen) -> Iterator[None]:
    """Note the gradients of every step of any optimiser."""

    def note(optimizer: torch.optim.Optimizer, *_: object) -> None:
        found = {}
        for group in optimizer.param_groups:
            for name, parameter in zip(group["names"], group["params"], strict=True):
                if parameter.grad is not None:
                    grad = parameter.grad
                    found[name] = (grad.full_tensor() if hasattr(grad, "full_tensor") else grad).detach().cpu().clone()
        seen.gradients.append(found)

    hook = register_optimizer_step_pre_hook(note)
    try:
        yield
    finally:
        hook.remove()


class Stop(Exception):
    """Stands for a kill between two steps."""


def see(name: str, stop: bool = False, **how: Any) -> Seen:
    """Run a training with the fields ``how`` of its runtime; ``stop`` ends it as the second step is done."""
    seen = Seen()

    def observe(step: int, values: dict[str, float]) -> None:
        seen.losses.append(values["loss"])
        if stop and step == 2:
            raise Stop

    found = None
    with watched(seen), suppress(Stop):
        found = TRAININGS[name](Runtime(seed=5, log_every=1, observe=observe, **how))
    times = ("seconds", "samples_per_second")
    seen.measures = {key: value for key, value in (found or {}).items() if key not in times}
    return seen


def furthest(seen: Seen, other: Seen) -> float:
    """The largest difference of two trainings: of losses, and of all gradients, each by the size of its tensor."""
    assert len(seen.losses) == len(other.losses)
    assert len(seen.gradients) == len(other.gradients)
    apart = [abs(a - b) / max(1.0, abs(a)) for a, b in zip(seen.losses, other.losses, strict=True)]
    for before, after in zip(seen.gradients, other.gradients, strict=True):
        assert before.keys() == after.keys()
        for name, gradient in before.items():
            scale = max(float(gradient.abs().max()), 1e-3)
            apart.append(float((gradient - after[name]).abs().max()) / scale)
    return max(apart, default=0.0)
