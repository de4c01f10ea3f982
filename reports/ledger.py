"""What stands behind each cell of a table: its seeds, its trainings and runs, and what one seed costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from experiments.ablation import Ablation


@dataclass(frozen=True)
class Entry:
    """One cell: minutes of one seed; ``seed=value`` of each seed, fingerprints, and run ids, each joined by `;`.

    The minutes are the mean wall-clock times of its evaluation and of its pre-training, None for what was not timed.
    """

    minutes: float | None = None
    pretraining: float | None = None
    seeds: str = ""
    trainings: str = ""
    runs: str = ""


def ledger(
    ablation: Ablation, frame: pd.DataFrame, measured: pd.DataFrame, scale: str, variant: str = ""
) -> dict[tuple[str, str], Entry]:
    """Return the entry of every cell that was measured, by row and column.

    `measured` is what `reports.verdicts.cells.cells` found in `frame`, the measurements of all tables.
    """
    here = frame[(frame["ablation"] == ablation.name) & (frame["variant"] == variant) & (frame["scale"] == scale)]
    timed = here[here["metric"].str.endswith("/wall_seconds")]
    minutes = (timed.groupby(["row", "metric"])["value"].mean() / 60).to_dict()
    source = {
        key: (join(part["fingerprint"]), join(part["run_id"]))
        for key, part in here.sort_values("seed").groupby(["row", "metric"])
    }
    found = {}
    for (row, name), part in measured.sort_values("seed").groupby(["row", "metric"]):
        stage = ablation.columns[str(name)].stage
        seeds = ";".join(f"{seed}={value:.6g}" for seed, value in zip(part["seed"], part["value"], strict=True))
        found[str(row), str(name)] = Entry(
            None if stage == "pretrain" else minutes.get((row, f"{stage}/wall_seconds")),
            minutes.get((row, "pretrain/wall_seconds")),
            seeds,
            *source.get((row, ablation.columns[str(name)].metric), ("", "")),
        )
    return found


def seeds_of(text: str) -> dict[int, float]:
    """Read the seeds of an entry: value by seed."""
    pairs = (word.partition("=") for word in text.split(";") if word)
    return {int(seed): float(value) for seed, _, value in pairs}


def join(words: pd.Series) -> str:
    """Return the different ones of `words`, in their order, joined by `;`; empty ones are left out."""
    return ";".join(dict.fromkeys(str(word) for word in words if word))
