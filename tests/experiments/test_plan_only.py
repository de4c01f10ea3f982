"""A plan that is known already is told at once: the libraries that take seconds to load are left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "mlflow", "hydra", "omegaconf", "pandas", "timm")


def planned(out: Path, *words: str) -> tuple[list[str], str]:
    """The heavy modules that ``plan_only`` loads in a process of its own, and what it prints but for times."""
    code = (
        "import sys, experiments.run as r; status = r.main(sys.argv[1:]);"
        f"print('loaded', *(name for name in {HEAVY!r} if name in sys.modules)); sys.exit(status)"
    )
    arguments = ["ablation=decoder_depth,video_target", "scale=smoke", "plan_only=true", "workers=1", f"out={out}"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *lines, loaded = done.stdout.splitlines()
    return loaded.split()[1:], "\n".join(line for line in lines if "GFLOP/s" not in line)


def test_the_second_plan_loads_nothing_heavy_and_says_the_same(tmp_path: Path) -> None:
    first_loaded, first = planned(tmp_path)
    second_loaded, second = planned(tmp_path)
    assert "torch" in first_loaded
    assert second_loaded == []
    assert second == first
    assert "still to run" in first


def test_a_plan_is_made_anew_where_something_else_is_asked_for(tmp_path: Path) -> None:
    _, usual = planned(tmp_path)
    loaded, other = planned(tmp_path, "pretrain.epochs=3")
    assert "torch" in loaded
    fingerprints = [{line.split()[0] for line in text.splitlines() if "seed 0" in line} for text in (usual, other)]
    assert fingerprints[0].isdisjoint(fingerprints[1])
    assert len(fingerprints[0]) == len(fingerprints[1]) > 10
