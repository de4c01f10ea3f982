"""Write docs/paper_scale.md: what every training of the tables at the papers' scale asks of one card and of eight.

Usage: python experiments/paper_scale.py

Nothing is trained, and no data is needed. The page holds what `scale=paper plan_only=true` tells.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    # as a script, Python looks into this folder first: the packages of the repository are one folder up
    sys.path[0] = str(ROOT)

from experiments.ablation import Ablation, ablation_names, load_ablation  # noqa: E402
from experiments.hardware import CARD, accelerators, cells, demands_of, heading  # noqa: E402
from experiments.plan import Job, plan  # noqa: E402

PAGE = ROOT / "docs" / "paper_scale.md"

#: How many cards share a training, on the left and on the right of the table.
DEVICES = (1, 8)
COLUMNS = (
    "training",
    "card-hours",
    "published",
    *(f"{devices}: {head}" for devices in DEVICES for head in ("GB a card", "micro-batch", "samples/s")),
    "weights GB",
)

INTRODUCTION = """# The papers' scale on cards

`python experiments/paper_scale.py` writes this page. Nothing on it has been run; all of it is counted. For another
card, for more of them, or for one table, ask a plan: `python experiments/run.py ablation=wall_clock scale=paper
plan_only=true accelerator=h100 devices=8`. A plan also lists the data and weights that are missing, and where they
are had.

*Card-hours* are counted FLOPs over a share of the card's peak. The share is that of the published runs: MAE Table 2
gives hours on 128 TPU-v3 cores (123 TFLOP/s a chip of two), and by the same count these are 30% to 34% of the peak.
Reading and decoding, testing through a slow network and compiling come on top. *Published* hours are wall-clock hours
of the paper on its own hardware.

*GB a card* is what a step holds at its fullest: weights, gradients and two moments in fp32, bf16 copies of matrices,
activations that the backward pass reads, and one block more for gradients on their way. A tenth of the card is left
free. Tests hold the activations to what autograd saves, within 5%. What the DALL-E encoder needs while it makes codes
is not counted. The *micro-batch* is the largest that fits, times the number of parts in which one card does its share
of the published batch. `ckpt` says that activation checkpointing is needed, `FSDP` that the state must be shared.
*samples/s* is what data must deliver for the hours to hold, all cards together; each is decoded and cropped anew.
*Weights GB* is what a training leaves on the disk for others to start from; while it runs, its checkpoints take six
times as much.
"""


def page(jobs: Sequence[Job], tables: Sequence[Ablation]) -> str:
    """The page in Markdown, of these trainings."""
    card = accelerators()[CARD]
    one, many = (demands_of(jobs, card, devices, tables) for devices in DEVICES)
    lines = [COLUMNS, ("---",) + ("---:",) * (len(COLUMNS) - 1)]
    for demand, shared in zip(one, many, strict=True):
        hours, published, held, micro, rate, written, name = cells(demand)
        lines.append((name.replace(" seed 0", ""), hours, published, held, micro, rate, *cells(shared)[2:5], written))
    total = sum(demand.card_hours for demand in one)
    parts = [
        INTRODUCTION,
        f"## {' and '.join(map(str, DEVICES))} x {card.name}",
        f"A training is shared by all rows that need it, and stands under the first. They run {heading(card, 1)}",
        "\n".join(f"| {' | '.join(line)} |" for line in lines),
        f"Together: {total:,.0f} card-hours.",
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def paper_page() -> str:
    """The page of all tables of the project."""
    tables = [load_ablation(name) for name in ablation_names()]
    return page(plan(tables, "paper", 1, precision=accelerators()[CARD].precision), tables)


if __name__ == "__main__":
    PAGE.write_text(paper_page(), encoding="utf-8")
    print(f"written: {PAGE}")
