"""The trainings that the page shows of each row: the first seed of each stage, with its curve, pictures and provenance.

They are kept in the report's folder by the name of the training, so that a page can be built again without the runs.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from experiments.tracking import behind, tracking_uri
from reports.files import write_atomically

if TYPE_CHECKING:
    from experiments.ablation import Ablation

SHOWN_COLUMNS = ("scale", "row", "stage", "seed", "training", "run")
FOLDER = "trainings"
#: Points of a curve that are kept.
_POINTS = 50


@dataclass(frozen=True)
class Strip:
    """A picture of reconstructions: its columns, how predictions were un-normalised, and the animation of clips."""

    png: bytes
    columns: str
    note: str
    size: tuple[int, int]
    webp: bytes | None = None


@dataclass(frozen=True)
class Training:
    """What is known of a training: facts of it by name, points (step, loss), and its pictures."""

    name: str
    facts: Mapping[str, str]
    curve: Sequence[tuple[int, float]]
    strip: Strip | None = None


def shown(ablation: Ablation, frame: pd.DataFrame, scale: str, variant: str = "") -> pd.DataFrame:
    """Return one line for each row and stage of a table, with the columns `SHOWN_COLUMNS`: its first seed."""
    here = frame[(frame["ablation"] == ablation.name) & (frame["variant"] == variant) & (frame["scale"] == scale)]
    here = here[here["row"].isin(ablation.rows) & (here["fingerprint"] != "")].sort_values("seed", kind="stable")
    stages = here["metric"].str.split("/").str[0]
    first = here.assign(stage=stages).drop_duplicates(["row", "stage"])
    places = {row: place for place, row in enumerate(ablation.rows)}
    order = first["row"].map(places)
    first = first.assign(order=order).sort_values(["order", "stage"], kind="stable")
    named = first.rename(columns={"fingerprint": "training", "run_id": "run"})[list(SHOWN_COLUMNS)]
    found: pd.DataFrame = named.astype("str").reset_index(drop=True)
    return found


def gather(lines: pd.DataFrame, out: Path, report_dir: Path) -> list[Path]:
    """Keep in `report_dir` what runs of the folder `out` tell of trainings that are not kept yet; return the files."""
    folder = report_dir / FOLDER
    wanted = {
        str(line.run): str(line.training)
        for line in lines.itertuples()
        if line.run and str(line.training).isalnum() and not (folder / f"{line.training}.json").exists()
    }
    written = []
    for run, found in behind(tracking_uri(out), list(wanted)).items():
        name = wanted[run]
        text = json.dumps({"facts": dict(found.facts), "curve": _thinned(found.curve)}, ensure_ascii=False)
        for end in (".png", ".webp"):
            strip = out / "pictures" / name / f"strip{end}"
            if strip.exists():
                folder.mkdir(parents=True, exist_ok=True)
                written.append(Path(shutil.copyfile(strip, folder / f"{name}{end}")))
        written.append(write_atomically(folder / f"{name}.json", text + "\n"))
    return written


def training(report_dir: Path, name: str) -> Training:
    """Return what `report_dir` keeps of a training: no facts, curve and pictures where it keeps nothing."""
    path = report_dir / FOLDER / f"{name}.json"
    if not name.isalnum() or not path.exists():  # names of trainings are hexadecimal
        return Training(name, {}, ())
    kept = json.loads(path.read_text(encoding="utf-8"))
    return Training(name, kept["facts"], [(int(step), float(loss)) for step, loss in kept["curve"]], _strip(path))


def _strip(path: Path) -> Strip | None:
    from PIL import Image

    if not path.with_suffix(".png").exists():
        return None
    data, film = path.with_suffix(".png").read_bytes(), path.with_suffix(".webp")
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        texts, size = dict(getattr(picture, "text", {})), picture.size
    return Strip(
        data, texts.get("columns", ""), texts.get("note", ""), size, film.read_bytes() if film.exists() else None
    )


def _thinned(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most `_POINTS` points, the first and the last among them, with six significant digits."""
    last = len(curve) - 1
    places = sorted({round(place * last / (_POINTS - 1)) for place in range(_POINTS)}) if last >= 0 else []
    return [(curve[place][0], float(f"{curve[place][1]:.6g}")) for place in places]
