"""What README and docs quote is what the committed results give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from reports import build as command
from reports import quoted
from reports.collect import EVIDENCE, collect, save_evidence
from reports.tables import ReportError

ROOT = Path(__file__).resolve().parents[2]
TEXT = """Before 12.3.
<!-- generated: table mask_sampling desk -->
anything
<!-- end -->
It reaches <!-- generated: cell mask_sampling desk 'random 75' ft -->1.0<!-- end --> percent.
<!-- generated: figure mask_sampling -->
![a picture](docs/picture.png)
<!-- end -->
"""


@pytest.fixture
def project(tmp_path: Path, make_ablation: Any, make_frame: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a README that quotes one table, and the evidence for it."""
    monkeypatch.setattr(quoted, "load_ablation", lambda name: make_ablation())
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(command, "EVIDENCE", tmp_path / "results")
    save_evidence(make_frame({("random 75", "finetune/top1"): [47.0, 49.0]}), tmp_path / "results")
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(TEXT)
    return tmp_path


def test_readme_and_docs_quote_what_the_committed_results_give() -> None:
    assert quoted.stale(ROOT, collect(EVIDENCE)) == []
    assert sum(path.read_text().count("<!-- generated:") for path in quoted.documents(ROOT)) >= 4


def test_quotes_are_written_once_and_one_changed_digit_on_either_side_fails_the_check(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["check=true"]) == 1
    assert command.main(["save_docs=true"]) == 0
    written = (project / "README.md").read_text()
    assert "random 75 *  84.9   48.00 ± 1.41 (2)" in written
    assert "ft -->48.00 ± 1.41 (2)<!-- end --> percent" in written
    assert written.startswith("Before 12.3.\n")
    before = {path: path.read_bytes() for path in project.rglob("*.*")}
    assert command.main(["save_docs=true"]) == command.main(["check=true"]) == 0
    assert {path: path.read_bytes() for path in project.rglob("*.*")} == before

    (project / "README.md").write_text(written.replace("48.00", "48.01", 1))
    capsys.readouterr()
    assert command.main(["check=true"]) == 1
    assert "README.md, line 7, is not what the evidence gives: random 75 *" in capsys.readouterr().err
    (project / "README.md").write_text(written)
    results = project / "results" / "mask_sampling.csv"
    results.write_text(results.read_text().replace(",47,", ",46,"))
    assert command.main(["check=true"]) == 1
    error = capsys.readouterr().err
    assert "README.md" in error
    assert "picture.png was not drawn from the evidence at hand" in error


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ("<!-- generated: table mask_sampling -->x<!-- end -->", "write table NAME SCALE"),
        ("<!-- generated: cell mask_sampling desk row ft -->x<!-- end -->", r"no cell ft\[row\]"),
        ("<!-- generated: table mask_sampling desk -->", "without its <!-- end -->"),
    ],
)
def test_a_mark_that_cannot_be_read_is_named(
    mark: str, said: str, make_ablation: Any, make_frame: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quoted, "load_ablation", lambda name: make_ablation())
    with pytest.raises(ReportError, match=said):
        quoted.requoted(mark, make_frame({}), Path("README.md"))
    assert quoted.requoted("no mark, 3.4", pd.DataFrame(), Path("README.md")) == "no mark, 3.4"


def test_claims_and_counts_of_verdicts_are_quoted_from_the_evidence(make_frame: Any) -> None:
    seeds = {("random 75", "finetune/top1"): [83.0, 83.1, 83.2], ("block 75", "finetune/top1"): [70.0, 70.2, 70.1]}
    frame = make_frame(seeds, scale="study")
    claims, counts = (
        quoted.requoted(f"<!-- generated: {what} --><!-- end -->", frame, Path("docs/findings.md"))
        for what in ("claims mask_sampling study", "verdicts")
    )
    assert "| ft\\[random 75\\] \\> ft\\[block 75\\] |" in claims
    assert "| holds | difference +13.00, as claimed" in claims
    assert "| study | pictures | paper | 1 | 1 | 0 | 0 | 1 | 0 | 0 |" in counts
    assert len([line for line in counts.splitlines() if line.startswith("|")]) == 3
