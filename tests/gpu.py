"""All that a card must show, by one command: ``python -m tests.gpu [out=FILE.json]``.

It runs the tests marked ``gpu`` and the benchmark of steps beside transformers' models on CUDA, and writes one JSON
file and, beside it, one table (.md). Exit status: 0 all is well, 1 a test failed, 2 there is no card.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

import torch

from mae.disk import write_text

ROOT = Path(__file__).resolve().parent.parent


def outcomes(report: Path) -> list[dict[str, Any]]:
    """Name, outcome and seconds of every test of a JUnit report that pytest wrote."""
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        ended = [part.tag for part in case if part.tag in ("failure", "error", "skipped")]
        name = f"{case.get('classname')}::{case.get('name')}"
        found.append({"test": name, "outcome": ended[0] if ended else "passed", "seconds": float(case.get("time", 0))})
    return found


def table(tests: Sequence[dict[str, Any]], speed: str) -> str:
    """What was found, in Markdown."""
    lines = ["| test | outcome | s |", "|---|---|---|"]
    lines += [f"| {found['test']} | {found['outcome']} | {found['seconds']:.1f} |" for found in tests]
    return "\n".join([*lines, "", speed])


def main(arguments: Sequence[str]) -> int:
    out = Path("gpu.json")
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key != "out" or not value:
            print(f"error: unknown argument {argument!r}: write out=FILE.json", file=sys.stderr)
            return 2
        out = Path(value)
    if not torch.cuda.is_available():
        print("error: there is no CUDA device here, so nothing was checked", file=sys.stderr)
        return 2
    with TemporaryDirectory() as folder:
        report, speed = Path(folder) / "tests.xml", Path(folder) / "speed.json"
        words = [sys.executable, "-m", "pytest", "-n", "0", "-m", "gpu", f"--junitxml={report}"]
        failed = subprocess.run(words, cwd=ROOT, check=False).returncode
        words = [sys.executable, "experiments/benchmark", "device=cuda", f"out={speed}"]
        subprocess.run(words, cwd=ROOT, check=True)
        tests = outcomes(report)
        found = {"card": torch.cuda.get_device_name(), "tests": tests, "steps": json.loads(speed.read_text())}
        write_text(out, json.dumps(found, indent=1) + "\n")
        write_text(out.with_suffix(".md"), table(tests, speed.with_suffix(".md").read_text()))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
