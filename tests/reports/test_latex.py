"""The tables of LaTeX in a minimal document. A machine without a TeX says so and skips."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from reports.tables import write_tables

TEX = shutil.which("pdflatex")
DOCUMENT = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage{booktabs}
\begin{document}
\input{mask_sampling.tex}
\end{document}
"""


@pytest.mark.skipif(TEX is None, reason="LaTeX was NOT run: install texlive-latex-base and -recommended")
def test_a_table_compiles_whatever_its_labels_hold(tmp_path: Path, make_ablation: Any, make_frame: Any) -> None:
    label = "[M] 50% & a_b | <i>x</i> $1 #2 {y} ~^\\ größer ×"
    claims = (f"ft[{label}] > ft[plain]", "|ft[plain]| < 100")
    ablation = make_ablation(rows={label: {"ft": 84.9}, "plain": {"ft": 80.0, "lin": 70.0}}, claims=claims)
    frame = make_frame({(label, "finetune/top1"): [50.0, 51.0], ("plain", "finetune/top1"): [40.0]})
    write_tables(ablation, frame, tmp_path)
    (tmp_path / "document.tex").write_text(DOCUMENT, encoding="utf-8")
    words = [str(TEX), "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "document.pdf").stat().st_size > 10_000
