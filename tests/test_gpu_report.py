"""The report of a card: every test with its outcome, and no report where there is no card."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import gpu


def test_a_report_tells_how_every_test_ended(tmp_path: Path) -> None:
    (tmp_path / "tests.xml").write_text(
        '<testsuites><testsuite><testcase classname="a" name="x" time="1.5"/>'
        '<testcase classname="a" name="y" time="0"><skipped/></testcase>'
        '<testcase classname="b" name="z" time="2"><failure/></testcase></testsuite></testsuites>'
    )
    found = gpu.outcomes(tmp_path / "tests.xml")
    assert [case["outcome"] for case in found] == ["passed", "skipped", "failure"]
    lines = gpu.table(found, "speed").splitlines()
    assert "| a::x | passed | 1.5 |" in lines
    assert lines[-1] == "speed"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_nothing_is_reported(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert gpu.main([f"out={tmp_path / 'gpu.json'}"]) == 2
    assert "nothing was checked" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
