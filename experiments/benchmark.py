"""Measure how fast a step is beside transformers' model of the same shape, and whether the data keeps up with it.

Usage: python experiments/benchmark.py [shapes=NAME,...] [pipelines=NAME,...] [rounds=N] [seconds=S] [threads=N]
                                       [device=NAME] [out=FILE]

  shapes    which of the shapes below, joined by commas (default, unless pipelines are named: all that take no more
            than a few minutes on a CPU)
  pipelines which of the pipelines below, joined by commas (default: none)
  rounds    how often the sides take turns; ratios are formed round by round (default: 5)
  seconds   least time of one turn (default: 2)
  threads   CPU threads, 0 for all cores (default: 0)
  device    auto, cpu, cuda (default: auto)
  out       also write the figures to this JSON file and, beside it, as a table (.md)

Both sides take fp32 and bf16 turns on pictures in memory: this project by the loop that every run uses, normalising
uint8 pictures and drawing masks in the step; the reference on ready-made float pictures. Utilisation is the model's
FLOPs (dropped patches cost none) over time, as a share of the machine's own largest matmul rate in that precision.
On a CPU this project keeps freed memory, as its runs do, and the reference has the C library's defaults.

A pipeline is the training of a table's row at desk scale as a run does it (which takes threads=1), data included,
against the same steps on a batch that is ready; and what its data can deliver when nothing is trained. Its data are
built-in, and made in a temporary folder: files are read from the system's memory, not from a disk.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

import torch  # noqa: E402
from torch import Generator, Tensor, nn  # noqa: E402

from experiments import benchmark_pipelines  # noqa: E402
from experiments.benchmark_pipelines import PIPELINES  # noqa: E402
from experiments.command import answer, count, read  # noqa: E402
from experiments.execute import device_of  # noqa: E402
from experiments.spec import SpecError, nearest  # noqa: E402
from mae.classifier import Classifier  # noqa: E402
from mae.data.augment.color import Normalise  # noqa: E402
from mae.data.files.workers import default_workers  # noqa: E402
from mae.data.source import Batch, Images  # noqa: E402
from mae.flops import classify_flops, pretrain_flops  # noqa: E402
from mae.grid import Grid  # noqa: E402
from mae.masking import Random, Strategy, Tube  # noqa: E402
from mae.memory import keep_freed_memory  # noqa: E402
from mae.model import Decoder, Encoder, MaskedAutoencoder, Transformer, choose_attention  # noqa: E402
from mae.targets import Pixels  # noqa: E402
from mae.train.loop import Runtime, fit  # noqa: E402
from mae.train.machine import (  # noqa: E402
    environment,
    matmul_peak,
    peak_memory_gb,
    reset_peak_memory,
)
from mae.train.optim import Recipe  # noqa: E402

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

    @property
    def prefix(self) -> int:
        """MAE has a class token, VideoMAE has none."""
        return 1 if self.frames == 1 else 0

    def flops(self) -> float:
        """Of one step: the backward pass costs twice the forward pass, that of a frozen encoder nothing."""
        grid = self.grid
        model: dict[str, Any] = {
            "encoder": asdict(self.encoder),
            "class_token": self.prefix > 0,
            "mask_tokens": False,
        }
        if self.decoder is None:
            forward = classify_flops(model, grid.num_patches, grid.patch_dim)
        else:
            model["decoder"] = {"width_share": self.decoder.width / self.encoder.width, "depth": self.decoder.depth}
            forward = pretrain_flops(model, grid.num_patches, self.mask.visible(grid), grid.patch_dim)
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
    grid, normalise = shape.grid, Normalise(MEAN, STD)
    encoder = Encoder(
        grid, shape.encoder, class_token=shape.prefix > 0, positions="sincos_2d" if shape.frames == 1 else "sincos_1d"
    )
    model: nn.Module
    if shape.decoder is None:
        model = Classifier(encoder, CLASSES, tuned_blocks=0 if shape.frozen else None, batch_norm=shape.frozen)
        model.to(device)

        def loss_fn(batch: Batch, generator: Generator) -> Tensor:
            return nn.functional.cross_entropy(model(normalise(batch.images, generator)).float(), batch.labels)
    else:
        positions = "sincos_2d" if shape.frames == 1 else "sincos_1d"
        decoder = Decoder(grid, encoder, shape.decoder, Pixels().width(grid), positions=positions)
        model, mask = MaskedAutoencoder(encoder, decoder, Pixels()).to(device), shape.mask

        def loss_fn(batch: Batch, generator: Generator) -> Tensor:
            clips = normalise(batch.images, generator)
            loss: Tensor = model(clips, mask(len(clips), grid, generator))
            return loss

    choose_attention(model, device, grid.num_patches + shape.prefix, precision)
    source = pictures(shape).to(device)

    def turn(steps: int) -> None:
        keep_freed_memory(device.type == "cpu")  # as a run does
        recipe = Recipe("adamw", 1e-4, shape.batch, steps * shape.batch / len(source), 0, 0.05)
        optimizer = recipe.build(model)
        if watch:
            watch.follow(model, optimizer)
        fit(model, optimizer, loss_fn, source, recipe, Runtime(0, device, precision, log_every=steps))

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
    pipelines = [benchmark_pipelines.table(report["pipelines"])] if report["pipelines"] else []
    return "\n\n".join(shapes + pipelines)


_SIDES = ("ours fp32", "ours bf16", "reference fp32", "reference bf16")
_PAIRS = (("fp32", "fp32"), ("bf16", "bf16"), ("bf16", "fp32"))


@dataclass(frozen=True)
class Options:
    """What the command line asks for. ``threads=0`` leaves their number to torch; ``seconds`` are those of a turn."""

    shapes: tuple[str, ...] = ()
    pipelines: tuple[str, ...] = ()
    rounds: int = 5
    seconds: float = 2.0
    threads: int = 0
    device: str = "auto"
    out: Path | None = None


def parse(arguments: Sequence[str]) -> Options:
    """Read KEY=VALUE arguments; SpecError says in one sentence what is wrong and what is near it."""
    own = set(Options.__dataclass_fields__)
    given, others = read(arguments, own)
    if others:
        key = others[0].partition("=")[0]
        raise SpecError(f"unknown key {key!r}: {nearest(key, own)}")
    return Options(
        shapes=_names("shapes", SHAPES, given, () if "pipelines" in given else DEFAULT_SHAPES),
        pipelines=_names("pipelines", PIPELINES, given, ()),
        rounds=count("rounds", given, Options.rounds),
        seconds=_seconds(given.get("seconds", [str(Options.seconds)])[-1]),
        threads=0 if given.get("threads", ["0"])[-1] == "0" else count("threads", given, 1),
        device=given.get("device", [Options.device])[-1],
        out=Path(given["out"][-1]) if "out" in given else None,
    )


def _names(
    key: str, valid: Collection[str], given: Mapping[str, list[str]], default: tuple[str, ...]
) -> tuple[str, ...]:
    names = tuple(given[key][-1].split(",")) if key in given else default
    for name in names:
        if name not in valid:
            raise SpecError(f"unknown {key[:-1]} {name!r}: {nearest(name, valid)}")
    return names


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise SpecError(f"seconds={value}: give a number above 0")
    return seconds


def run(options: Options) -> int:
    if options.threads:
        torch.set_num_threads(options.threads)
    device = device_of(options.device)
    peaks = {precision: matmul_peak(device, precision) for precision in PRECISIONS} if options.shapes else {}
    report: dict[str, Any] = {
        "environment": environment(device),
        "matmul_peak_gflops": {name: round(peak / 1e9, 1) for name, peak in peaks.items()},
        "loader_workers": default_workers(),
        "rounds": options.rounds,
        "shapes": {},
        "pipelines": {},
    }
    for name in options.shapes:
        sides = measure(SHAPES[name], device, options.rounds, options.seconds)
        shares = {precision: parts(SHAPES[name], precision, device) for precision in PRECISIONS}
        report["shapes"][name] = {**figures(SHAPES[name], sides, peaks), "parts": shares}
        print(table({"shapes": {name: report["shapes"][name]}, "pipelines": {}}), flush=True)
    for name in options.pipelines:
        with TemporaryDirectory() as folder:
            found = benchmark_pipelines.measure(PIPELINES[name], Path(folder), device, options.rounds, options.seconds)
        report["pipelines"][name] = found
        print(table({"shapes": {}, "pipelines": {name: found}}), flush=True)
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(table(report) + "\n")
    return 0


def main(arguments: Sequence[str]) -> int:
    if any(argument in ("-h", "--help", "help") for argument in arguments):
        print(__doc__)
        print("Shapes:", ", ".join(SHAPES))
        print("Pipelines:", ", ".join(PIPELINES))
        return 0
    return answer(lambda: run(parse(arguments)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
