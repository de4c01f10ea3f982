"""A table of the report as it was built: its cells, its claims, its deviations, and the command that measures it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from experiments.browse import overrides_of
from reports.collect import stem
from reports.render.phrases import place

if TYPE_CHECKING:
    from experiments.ablation import Ablation
    from reports.trainings import Training

#: What a paper is called, by its number.
PAPERS = {"2111.06377": "MAE", "2203.12602": "VideoMAE"}
NO_PAPER = "no paper"


@dataclass(frozen=True)
class Part:
    """One ablation in one variant: frames as `reports.tables` makes them; `svg` is None where no figure was drawn.

    `shown` names the trainings that stand for each row, `trainings` is what is known of them, by name.
    """

    ablation: Ablation
    variant: str
    values: pd.DataFrame
    claims: pd.DataFrame
    deviations: pd.DataFrame
    advice: pd.DataFrame
    svg: bytes | None = None
    shown: pd.DataFrame = field(default_factory=pd.DataFrame)
    trainings: Mapping[str, Training] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """File name, without suffix, of the generated files."""
        return stem(self.ablation.name, self.variant)

    @property
    def scales(self) -> list[str]:
        """Scales of the table, least first."""
        return [str(scale) for scale in self.values["scale"].unique()]

    @property
    def where(self) -> str:
        """Place in the paper."""
        return place(self.ablation)

    @property
    def paper(self) -> str:
        """Name of the paper."""
        arxiv = self.ablation.paper.get("arxiv", "")
        return next((name for number, name in PAPERS.items() if arxiv.startswith(number)), arxiv or NO_PAPER)

    def title(self) -> str:
        """Title with the variant."""
        return self.ablation.title + (f" ({self.variant})" if self.variant else "")

    def command(self, scale: str, row: str = "", seeds: int = 1) -> str:
        """Command that measures the table again, or one of its rows."""
        words = ["python", "experiments/run.py", f"ablation={self.ablation.name}", f"scale={scale}"]
        words += [f"row={row}"] if row else []
        words += [f"seeds={seeds}"] if seeds > 1 else []
        return shlex.join([*words, *overrides_of(self.variant)])


def wide(parts: Sequence[Part]) -> pd.DataFrame:
    """Return the cells of all `parts` in one frame: those of `reports.tables.table`, with `part`, its name, before."""
    frames = [part.values.assign(part=part.name) for part in parts]
    everything: pd.DataFrame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    return everything
