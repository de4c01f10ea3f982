"""How fast a step is beside transformers' model of the same shape."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Generator, Tensor, nn

from experiments.ablation import SpecError
from experiments.benchmark import pipelines
from mae.data.augment.color import Normalise
from mae.data.source import Batch, Images
from mae.grid import Grid
from mae.heads.classifier import Classifier
from mae.masking import Random, Strategy, Tube
from mae.memory import keep_freed_memory
from mae.methods.masked_autoencoder import DecoderShape, MaskedAutoencoder
from mae.model import Encoder, Transformer, choose_attention
from mae.targets import Pixels
from mae.train.loop import Runtime, fit
from mae.train.machine import (
    peak_memory_gb,
    reset_peak_memory,
)
from mae.train.optim import Recipe
from mae.train.parts import Objective

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CLASSES = 1000
PRECISIONS = ("fp32", "bf16")

#: One turn: does a number of steps.
Turn = Callable[[int], None]


@dataclass(frozen=True)
class Shape:
    """What is trained: a grid, an encoder, a decoder, a batch. Clips have more than one frame.

    Without a decoder it is fine-tuned, or with ``frozen`` a classifier is trained on what it gives for each batch.
    """

    batch: int
    size: int
    patch: tuple[int, int, int]
    encoder: Transformer
    decoder: Transformer | None
    frames: int = 1
    ratio: float = 0.75
    frozen: bool = False

    @property
    def grid(self) -> Grid:
        return Grid.of(self.frames, (self.size, self.size), self.patch)

    @property
    def mask(self) -> Strategy:
        return Random(self.ratio) if self.frames == 1 else Tube(self.ratio)

    def fresh_encoder(self) -> Encoder:
        """MAE has a class token, VideoMAE has none."""
        clips = self.frames > 1
        positions = "sincos_1d" if clips else "sincos_2d"
        return Encoder(self.grid, self.encoder, class_token=not clips, positions=positions)

    def method(self) -> MaskedAutoencoder:
        """A fresh masked autoencoder that predicts pixels."""
        assert self.decoder is not None
        share = self.decoder.width / self.encoder.width
        positions = "sincos_2d" if self.frames == 1 else "sincos_1d"
        decoder = DecoderShape(share, self.decoder.depth, self.decoder.heads, positions=positions)
        return MaskedAutoencoder(self.fresh_encoder(), decoder=decoder, mask=self.mask, target=Pixels())

    def flops(self) -> float:
        """Of one step: the backward pass costs twice the forward pass, that of a frozen encoder nothing."""
        with torch.device("meta"):
            forward = self.fresh_encoder().flops() if self.decoder is None else self.method().flops()
        return (1.0 if self.frozen else 3.0) * forward * self.batch


VIT_S, VIT_B, VIT_L = Transformer(128, 4, 4), Transformer(768, 12, 12), Transformer(1024, 24, 16)
SHAPES = {
    "desk_images": Shape(256, 32, (1, 4, 4), VIT_S, Transformer(64, 8, 4)),
    "desk_clips": Shape(32, 32, (2, 8, 8), Transformer(96, 4, 3), Transformer(48, 4, 3), frames=16, ratio=0.9),
    "vit_b16": Shape(16, 224, (1, 16, 16), VIT_B, Transformer(512, 8, 16)),
    "vit_l16": Shape(8, 224, (1, 16, 16), VIT_L, Transformer(512, 8, 16)),
    "videomae_b": Shape(2, 224, (2, 16, 16), VIT_B, Transformer(384, 4, 6), frames=16, ratio=0.9),
    "vit_b16_finetune": Shape(16, 224, (1, 16, 16), VIT_B, None),
    "vit_b16_probe": Shape(16, 224, (1, 16, 16), VIT_B, None, frozen=True),
}
DEFAULT_SHAPES = ("desk_images", "desk_clips", "vit_b16", "videomae_b", "vit_b16_finetune", "vit_b16_probe")


def pictures(shape: Shape) -> Images:
    """A few batches of noise with labels, uint8."""
    time_axis = () if shape.frames == 1 else (shape.frames,)
    size = (4 * shape.batch, 3, *time_axis, shape.size, shape.size)
    pixels = torch.randint(256, size, generator=Generator().manual_seed(0), dtype=torch.uint8)
    return Images(pixels, torch.arange(len(pixels)) % CLASSES, ())


class Stopwatch:
    """Seconds that the parts of a step take. It waits for the device at the end of each, so steps are slower."""

    PARTS = ("data", "forward", "backward", "optimiser")

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(self.PARTS, 0.0)
        self._since: float | None = None

    def follow(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Time the steps of a training: what lies between an optimiser's step and the next forward pass is data."""
        self._since = None
        model.register_forward_pre_hook(lambda *_: self._end("data"))
        model.register_forward_hook(lambda *_: self._end("forward"))
        optimizer.register_step_pre_hook(lambda *_: self._end("backward"))
        optimizer.register_step_post_hook(lambda *_: self._end("optimiser"))

    def _end(self, part: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        if self._since is not None:  # None before the first batch, which waits for everything to start
            self.seconds[part] += now - self._since
        self._since = now

    def shares(self) -> dict[str, float]:
        """Each part as a share of the whole."""
        whole = sum(self.seconds.values())
        return {part: seconds / whole for part, seconds in self.seconds.items()}


def ours(shape: Shape, precision: str, device: torch.device, watch: Stopwatch | None = None) -> Turn:
    """Steps of this project, by the loop of every run, their parts timed by ``watch``."""
    torch.manual_seed(0)
    normalise = Normalise(MEAN, STD)
    model: nn.Module
    if shape.decoder is None:
        encoder = shape.fresh_encoder()
        model = Classifier(encoder, CLASSES, tuned_blocks=0 if shape.frozen else None, norm_groups=int(shape.frozen))
        model.to(device)

        def loss_fn(batch: Batch, generator: Generator) -> Tensor:
            return nn.functional.cross_entropy(model(normalise(batch.images, generator)).float(), batch.labels)
    else:
        method = shape.method().to(device)
        model, encoder = method, method.encoder

        def loss_fn(batch: Batch, generator: Generator) -> Tensor:
            return method.loss([normalise(batch.images, generator)], generator)

    choose_attention(model, device, encoder.length(), precision)
    source = pictures(shape).to(device)

    def turn(steps: int) -> None:
        keep_freed_memory(device.type == "cpu")  # as a run does
        recipe = Recipe("adamw", 1e-4, shape.batch, steps * shape.batch / len(source), 0, 0.05)
        optimizer = recipe.build(model)
        if watch:
            watch.follow(model, optimizer)
        objective = Objective.of(loss_fn, "it is timed as a whole")
        fit(model, optimizer, objective, source, recipe, Runtime(0, device, precision, log_every=steps))

    return turn


def reference(shape: Shape, precision: str, device: torch.device) -> Turn:
    """Steps of transformers' model in the loop of its own examples: forward, backward, AdamW, zero the gradients."""
    torch.manual_seed(0)
    model, inputs, extra = _reference_model(shape, device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.05)
    model.train()

    def turn(steps: int) -> None:
        keep_freed_memory(False)
        for _ in range(steps):
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                loss = model(inputs, **extra()).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return turn


def _reference_model(shape: Shape, device: torch.device) -> tuple[nn.Module, Tensor, Callable[[], dict[str, Tensor]]]:
    """The model, a float batch, and what else a step hands over (labels, a mask)."""
    try:
        transformers: Any = import_module("transformers")
    except ImportError as error:
        raise SpecError("the benchmark compares with transformers; install it: pip install -e '.[dev]'") from error
    data, grid = pictures(shape), shape.grid
    inputs = Normalise(MEAN, STD)(data.pixels[: shape.batch], Generator())
    labels = data.labels[: shape.batch].to(device)
    sizes: dict[str, Any] = {
        "image_size": shape.size,
        "patch_size": shape.patch[1],
        "hidden_size": shape.encoder.width,
        "num_hidden_layers": shape.encoder.depth,
        "num_attention_heads": shape.encoder.heads,
        "intermediate_size": 4 * shape.encoder.width,
    }
    if shape.decoder is None:
        config = transformers.ViTConfig(**sizes, num_labels=CLASSES)
        model = transformers.ViTForImageClassification(config)
        model.vit.requires_grad_(not shape.frozen)
        return model.to(device), inputs.to(device), lambda: {"labels": labels}
    sizes |= {
        "decoder_hidden_size": shape.decoder.width,
        "decoder_num_hidden_layers": shape.decoder.depth,
        "decoder_num_attention_heads": shape.decoder.heads,
        "decoder_intermediate_size": 4 * shape.decoder.width,
        "norm_pix_loss": False,
    }
    if shape.frames == 1:
        mae = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**sizes, mask_ratio=shape.ratio))
        return mae.to(device), inputs.to(device), dict
    config = transformers.VideoMAEConfig(**sizes, num_frames=shape.frames, tubelet_size=shape.patch[0])
    video = transformers.VideoMAEForPreTraining(config).to(device)

    def masks() -> dict[str, Tensor]:
        return {"bool_masked_pos": shape.mask(shape.batch, grid, Generator(device)).dropped()}

    return video, inputs.transpose(1, 2).contiguous().to(device), masks


@dataclass(frozen=True)
class Side:
    """Seconds for a step, one number for each round, and the most memory held."""

    seconds: tuple[float, ...]
    memory_gb: float


def measure(shape: Shape, device: torch.device, rounds: int, least: float) -> dict[str, Side]:
    """Let the sides take turns; each turn has as many steps as take ``least`` seconds."""
    sides: dict[str, Side] = {}
    makers = {"ours": ours, "reference": reference}
    turns: dict[str, tuple[Turn, int]] = {}
    memory: dict[str, float] = {}
    for precision in PRECISIONS:
        for name, maker in makers.items():
            reset_peak_memory(device)
            turn = maker(shape, precision, device)
            turn(1)
            first = _timed(turn, 1)
            memory[f"{name} {precision}"] = peak_memory_gb(device)
            turns[f"{name} {precision}"] = turn, max(1, round(least / first))
    spent: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, (turn, steps) in turns.items():
            spent[name].append(_timed(turn, steps) / steps)
    for name, seconds in spent.items():
        sides[name] = Side(tuple(seconds), memory[name])
    return sides


def _timed(turn: Turn, steps: int) -> float:
    begun = time.perf_counter()
    turn(steps)
    return time.perf_counter() - begun


def parts(shape: Shape, precision: str, device: torch.device, steps: int = 4) -> dict[str, float]:
    """Shares of a step's time: data (batch, normalisation, mask), forward, backward, optimiser."""
    watch = Stopwatch(device)
    ours(shape, precision, device, watch)(steps)
    return {part: round(share, 3) for part, share in watch.shares().items()}


def figures(shape: Shape, sides: Mapping[str, Side], peaks: Mapping[str, float]) -> dict[str, Any]:
    """Samples per second, utilisation, and for each precision the ratio to the reference: median, least, most."""
    found: dict[str, Any] = {"batch": shape.batch, "gflops_per_sample": shape.flops() / shape.batch / 1e9}
    for name, side in sides.items():
        second = statistics.median(side.seconds)
        found[name] = {
            "samples_per_second": round(shape.batch / second, 2),
            "utilisation": round(shape.flops() / second / peaks[name.split()[1]], 3),
            "memory_gb": round(side.memory_gb, 2),
        }
    for precision in PRECISIONS:
        for against in PRECISIONS:
            ratios = [
                theirs / mine
                for mine, theirs in zip(
                    sides[f"ours {precision}"].seconds, sides[f"reference {against}"].seconds, strict=True
                )
            ]
            found[f"ours {precision} over reference {against}"] = {
                "ratio": round(statistics.median(ratios), 2),
                "least": round(min(ratios), 2),
                "most": round(max(ratios), 2),
            }
    return found


def table(report: Mapping[str, Any]) -> str:
    """The figures as Markdown: a table of shapes, a table of pipelines, each where there are some."""
    lines = [
        "| shape | ours fp32 | ours bf16 | reference fp32 | reference bf16 | fp32 ratio | bf16 ratio "
        "| bf16 over reference fp32 | utilisation bf16 | data / forward / backward / optimiser (bf16) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in report["shapes"].items():
        speeds = [found[side]["samples_per_second"] for side in _SIDES]
        ratios = [found[f"ours {a} over reference {b}"] for a, b in _PAIRS]
        words = [f"{r['ratio']:.2f} ({r['least']:.2f} to {r['most']:.2f})" for r in ratios]
        share = f"{100 * found['ours bf16']['utilisation']:.0f}%"
        spent = " / ".join(f"{100 * part:.0f}%" for part in found["parts"]["bf16"].values())
        lines.append(f"| {name} | {' | '.join(f'{s:.1f}' for s in speeds)} | {' | '.join(words)} | {share} | {spent} |")
    shapes = ["\n".join(lines)] if report["shapes"] else []
    feeds = [pipelines.table(report["pipelines"])] if report["pipelines"] else []
    return "\n\n".join(shapes + feeds)


_SIDES = ("ours fp32", "ours bf16", "reference fp32", "reference bf16")
_PAIRS = (("fp32", "fp32"), ("bf16", "bf16"), ("bf16", "fp32"))
