"""Ablations and measurements for the tests of the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import pytest

from experiments.ablation import Ablation, Column, Figure, Row
from experiments.claim_entry import ClaimEntry
from reports.collect import tidy

Make = Callable[..., Any]


def stated(claim: str | ClaimEntry) -> ClaimEntry:
    """A claim of the paper, unless it says otherwise."""
    return claim if isinstance(claim, ClaimEntry) else ClaimEntry(claim, says="it is so", where="Sec. 4.1")


@pytest.fixture
def make_ablation() -> Make:
    """A factory of ablations: columns as `name -> settings`, rows as `label -> published values`."""

    def make(
        name: str = "mask_sampling",
        columns: Mapping[str, Mapping[str, Any]] | None = None,
        rows: Mapping[str, Mapping[str, float | None]] | None = None,
        **settings: Any,
    ) -> Ablation:
        columns = columns or {"ft": {"metric": "finetune/top1"}, "lin": {"metric": "linear/top1"}}
        rows = rows or {
            "random 75": {"ft": 84.9, "lin": 73.5},
            "block 75": {"ft": 82.8, "lin": 63.9},
            "grid 75": {"ft": 84.0, "lin": None},
        }
        given: dict[str, Any] = {
            "title": "Mask sampling",
            "question": "Which patches should be dropped?",
            "paper": {"arxiv": "2111.06377v2", "where": "Table 1f", "id": "mae/table1f_mask_sampling"},
            "default": next(iter(rows)),
        }
        return Ablation(
            name=name,
            columns={key: Column(**({"label": key} | dict(column))) for key, column in columns.items()},
            rows={label: Row(label, {}, dict(published)) for label, published in rows.items()},
            figure=Figure(**settings.pop("figure", {})),
            claims=tuple(stated(claim) for claim in settings.pop("claims", ())),
            **(given | settings),
        )

    return make


@pytest.fixture
def make_frame() -> Make:
    """A factory of measurements: `(row, metric) -> values of the seeds 0, 1, ...`."""

    def make(
        values: Mapping[tuple[str, str], list[float]],
        scale: str = "desk",
        ablation: str = "mask_sampling",
        variant: str = "",
    ) -> pd.DataFrame:
        return tidy(
            (ablation, variant, row, seed, scale, metric, value, f"f00d-{row}-{metric}-{seed}", f"run{seed}")
            for (row, metric), seeds in values.items()
            for seed, value in enumerate(seeds)
        )

    return make
