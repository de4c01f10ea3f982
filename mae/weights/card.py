"""What stands beside converted weights: a manifest for programs and a model card for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mae.errors import DataError
from mae.options import nearest
from mae.weights.architecture import stated
from mae.weights.trained import Trained

LICENSE = "MIT"

#: What of a spec says how weights were made.
KEPT = ("model", "data", "method", "pretrain", "augment", "scale", "seed")

OPENED = {
    "timm": "timm.create_model(NAME, num_classes=0, checkpoint_path='model.safetensors')",
    "transformers": "transformers.AutoModel.from_pretrained(FOLDER)",
    "safetensors": "mae.encoder(weights=FOLDER)",
}

#: What of a report is kept of a metric, and of a claim.
OF_METRIC = ("metric", "mean", "std", "n", "ci_low", "ci_high", "verdict")
OF_CLAIM = ("claim", "whose", "verdict", "corrected", "difference", "ci_low", "ci_high", "level", "n")


@dataclass(frozen=True)
class Measured:
    """What a report says of the ``row`` of a ``table``: its metrics, and the claims in which it stands."""

    table: str
    row: str
    metrics: Sequence[Mapping[str, Any]]
    claims: Sequence[Mapping[str, Any]]


def measured(report: Path, row: str, found: Trained) -> Measured:
    """What ``report``, the JSON of a table (report_dir/tables/NAME.json), says of the row that ``found`` is of.

    DataError when it has no such row at the scale and with the seed of ``found``.
    """
    try:
        told = json.loads(report.read_text(encoding="utf-8"))
        cells, claims, table = told["cells"], told["claims"], told["table"]
        here = [cell for cell in cells if cell["scale"] == found.spec.get("scale")]
        rows = {cell["row"] for cell in here}
        own = [cell for cell in here if cell["row"] == row and f"{found.spec.get('seed')}=" in (cell["seeds"] or "")]
    except OSError as error:
        raise DataError(f"{report} cannot be read: {error.strerror}; give report_dir/tables/NAME.json") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{report} is no table of a report ({error}); give report_dir/tables/NAME.json") from error
    if row not in rows:
        words = nearest(row, rows) if rows else "the report has no other scale; build it anew"
        raise DataError(f"{report} has no row {row!r} at the scale of the weights, {found.spec.get('scale')}: {words}")
    if not own:
        raise DataError(
            f"{report} has no measurement of the row {row!r} with the seed {found.spec.get('seed')} of the weights; "
            "build the report anew"
        )
    about = [claim for claim in claims if claim["scale"] == found.spec["scale"] and f"[{row}]" in claim["claim"]]
    return Measured(
        table,
        row,
        [{key: cell[key] for key in OF_METRIC} for cell in own],
        [{key: claim[key] for key in OF_CLAIM} for claim in about],
    )


def manifest(found: Trained, kind: str, results: Measured | None) -> dict[str, Any]:
    """What a program reads: spec, shape, colours, metrics with intervals, verdicts, license."""
    made = found.architecture
    told: dict[str, Any] = {"format": kind, "license": LICENSE, "source": found.path.name, "architecture": stated(made)}
    if found.spec:
        told["spec"] = {key: found.spec[key] for key in KEPT if key in found.spec}
    if made.assumed:
        told["assumed"] = list(made.assumed)
    if results is not None:
        told["results"] = {
            "table": results.table, "row": results.row,
            "metrics": list(results.metrics), "claims": list(results.claims),
        }  # fmt: skip
    return told


def card(found: Trained, kind: str, results: Measured | None) -> str:
    """The model card: what was trained on what, what it is worth, and how the folder is opened."""
    made = found.architecture
    count = sum(math.prod(tensor.shape) for name, tensor in found.fit.state.items() if name != "positions")
    height, width = made.size
    decoder = "with" if found.decoder is not None else "without"
    lines = [
        f"The encoder is a ViT of width {made.encoder.width} and depth {made.encoder.depth} with {count:,} parameters, "
        f"{decoder} a decoder beside it.",
        f"It reads {made.frames} x {height} x {width} pixels in patches of {made.grid.patch}.",
        f"Inputs are normalised by the mean {list(made.mean)} and the deviation {list(made.std)}.",
        *(f"Nothing says so, but it is assumed that {words}." for words in made.assumed),
    ]
    if found.spec:
        source = found.spec["data"]["source"].get("_target_", "unknown")
        lines.append(
            f"It was pre-trained on `{source}` at the scale `{found.spec.get('scale')}`, with the seed "
            f"{found.spec.get('seed')}. `manifest.json` holds the whole spec."
        )
    else:
        lines.append(f"It was converted from `{found.path.name}`; how it was trained is not recorded there.")
    parts = ["---\nlicense: mit\n---\n# A masked autoencoder\n", "\n".join(lines), "", *_results(results)]
    return "\n".join([*parts, "## Use", "", f"`{OPENED[kind]}` opens it.", ""])


def _results(results: Measured | None) -> list[str]:
    """Metrics and verdicts as Markdown."""
    if results is None:
        return ["## Results", "", "Metrics are not recorded here.", ""]
    lines = [
        "## Results", "",
        f"The row `{results.row}` of the table `{results.table}` gave:", "",
        "| metric | mean | interval | seeds | verdict |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for cell in results.metrics:
        lines.append(f"| {cell['metric']} | {cell['mean']:.2f} | {_interval(cell)} | {cell['n']} | {cell['verdict']} |")
    lines.append("")
    for claim in results.claims:
        lines.append(f"- `{claim['claim']}` ({claim['whose']}): {claim['verdict']}; corrected: {claim['corrected']}.")
    return [*lines, ""] if results.claims else lines


def _interval(cell: Mapping[str, Any]) -> str:
    if cell["ci_low"] is None:
        return "none with one seed"
    return f"{cell['ci_low']:.2f} to {cell['ci_high']:.2f}"
