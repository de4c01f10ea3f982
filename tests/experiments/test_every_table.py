"""Every table, trained end to end at smoke scale by the command: the suite's one long test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd

from experiments.ablation import ablation_names, exists, load_ablation

ROOT = Path(__file__).resolve().parents[2]


def test_every_table_runs_at_smoke_scale(out: Path) -> None:
    words = ["ablation=all", "scale=smoke", f"out={out}", f"report_dir={out / 'report'}"]
    done = subprocess.run([sys.executable, "experiments/run.py", *words], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    for name in ablation_names():
        table = pd.read_csv(out / "report" / "tables" / f"{name}.csv", dtype={"row": str})
        for row in load_ablation(name).rows.values():
            cells = table[(table["row"] == row.label) & (table["scale"] == "smoke")]
            assert (cells["n"] > 0).any() == exists(row, "smoke"), (name, row.label)
