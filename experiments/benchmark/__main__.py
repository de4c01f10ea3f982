"""Measure how fast a step is beside transformers' model of the same shape, and whether the data keeps up with it.

Usage: python experiments/benchmark [shapes=NAME,...] [pipelines=NAME,...] [rounds=N] [seconds=S] [threads=N]
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
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
if __name__ == "__main__":
    # as a script, Python looks into this folder first: the packages of the repository are two folders up
    sys.path[0] = str(ROOT)

import torch  # noqa: E402

from experiments.benchmark import pipelines  # noqa: E402
from experiments.benchmark.pipelines import PIPELINES  # noqa: E402
from experiments.benchmark.steps import DEFAULT_SHAPES, PRECISIONS, SHAPES, figures, measure, parts, table  # noqa: E402
from experiments.command import answer  # noqa: E402
from experiments.options import asks_for_help, option, read  # noqa: E402
from mae.data.files.workers import processors  # noqa: E402
from mae.train.machine import (  # noqa: E402
    device_of,
    environment,
    matmul_peak,
)


@dataclass(frozen=True)
class Options:
    """What the command line asks for. ``threads=0`` leaves their number to torch; ``seconds`` are those of a turn."""

    shapes: tuple[str, ...] = option((), choices=SHAPES)
    pipelines: tuple[str, ...] = option((), choices=PIPELINES)
    rounds: int = option(5, least=1)
    seconds: float = option(2.0, least=0.001)
    threads: int = option(0, least=0)
    device: str = "auto"
    out: Path | None = None


def parse(arguments: Sequence[str]) -> Options:
    """Read KEY=VALUE arguments; SpecError says in one sentence what is wrong and what is near it."""
    options = read(Options, arguments)
    return options if options.shapes or options.pipelines else replace(options, shapes=DEFAULT_SHAPES)


def run(options: Options) -> int:
    """Time what is asked for; print and write the figures."""
    if options.threads:
        torch.set_num_threads(options.threads)
    device = device_of(options.device)
    peaks = {precision: matmul_peak(device, precision) for precision in PRECISIONS} if options.shapes else {}
    report: dict[str, Any] = {
        "environment": environment(device),
        "matmul_peak_gflops": {name: round(peak / 1e9, 1) for name, peak in peaks.items()},
        "loader_workers": processors(),
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
            found = pipelines.measure(PIPELINES[name], Path(folder), device, options.rounds, options.seconds)
        report["pipelines"][name] = found
        print(table({"shapes": {}, "pipelines": {name: found}}), flush=True)
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(table(report) + "\n")
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return its exit status."""
    if asks_for_help(arguments):
        print(__doc__)
        print("Shapes:", ", ".join(SHAPES))
        print("Pipelines:", ", ".join(PIPELINES))
        return 0
    return answer(lambda: run(parse(arguments)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
