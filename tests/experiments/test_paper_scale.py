"""docs/paper_scale.md is what the command that it names writes."""

from __future__ import annotations

import pytest

from experiments.ablation import load_ablation
from experiments.paper_scale import COLUMNS, PAGE, page, paper_page
from experiments.plan import plan


def rows_of(text: str) -> dict[str, list[str]]:
    """The cells of the table of a page, by training."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert lines[0] == list(COLUMNS)
    return {line[0]: line[1:] for line in lines[2:]}


def test_the_page_says_of_a_training_what_its_plan_says() -> None:
    table = load_ablation("robustness")
    jobs = plan([table], "paper", 1, rows=["scratch ViT-H"], precision="bf16")
    found, shown = rows_of(page(jobs, [table])), rows_of(PAGE.read_text(encoding="utf-8"))
    assert list(found) == ["robustness [scratch ViT-H] finetune"]
    assert found.items() <= shown.items()


@pytest.mark.slow
def test_the_page_is_what_its_command_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == paper_page()
