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

from experiments.record import STRIP as PICTURE
from experiments.record import Record, Records
from reports.files import write_atomically

if TYPE_CHECKING:
    from experiments.ablation import Ablation

SHOWN_COLUMNS = ("scale", "row", "stage", "seed", "training", "run")
FOLDER = "trainings"
#: What is told of a training, and its name in a record's environment.
_FACTS = {
    "commit": "mlflow.source.git.commit",
    "changed since": "mlflow.source.git.dirty",
    "torch": "torch",
    "timm": "timm",
    "Python": "python",
    "device": "device_name",
    "precision": "precision",
}
#: Points of a curve that are kept.
_POINTS = 50


@dataclass(frozen=True)
class Picture:
    """The bytes of a picture, and its width and height in pixels."""

    data: bytes
    width: int
    height: int


@dataclass(frozen=True)
class Strip:
    """A picture of reconstructions: its columns, how predictions were un-normalised, and the animation of clips."""

    png: Picture
    columns: str
    note: str
    webp: Picture | None = None


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


def gather(lines: pd.DataFrame, records: Records, report_dir: Path) -> list[Path]:
    """Keep in `report_dir` what `records` tell of trainings that are not kept yet; return the files."""
    folder = report_dir / FOLDER
    names = dict.fromkeys(name for name in lines["training"].astype(str) if name.isalnum())
    written = []
    for name in names:
        record = None if (folder / f"{name}.json").exists() else records.get(name)
        if record is None:
            continue
        text = json.dumps({"facts": _facts(record), "curve": _thinned(_losses(record))}, ensure_ascii=False)
        for end in (".png", ".webp"):
            strip = (records.of(name) / PICTURE).with_suffix(end)
            if strip.exists():
                folder.mkdir(parents=True, exist_ok=True)
                written.append(Path(shutil.copyfile(strip, folder / f"{name}{end}")))
        written.append(write_atomically(folder / f"{name}.json", text + "\n"))
    return written


def _facts(record: Record) -> dict[str, str]:
    """What is told of a training: the commit, versions, the device, and the data with a digest."""
    facts = {key: record.environment[name] for key, name in _FACTS.items() if record.environment.get(name)}
    data = {"data": f"{record.data['name']} {record.data['digest']} ({record.data['use']})"} if record.data else {}
    return {**facts, **data}


def _losses(record: Record) -> list[tuple[int, float]]:
    """The points of its loss as (step, loss)."""
    steps, losses = (record.curves.get(name, ()) for name in ("step", "loss"))
    return [
        (int(step), loss) for step, loss in zip(steps, losses, strict=False) if step is not None and loss is not None
    ]


def training(report_dir: Path, name: str) -> Training:
    """Return what `report_dir` keeps of a training: no facts, curve and pictures where it keeps nothing."""
    path = report_dir / FOLDER / f"{name}.json"
    if not name.isalnum() or not path.exists():  # names of trainings are hexadecimal
        return Training(name, {}, ())
    kept = json.loads(path.read_text(encoding="utf-8"))
    return Training(name, kept["facts"], [(int(step), float(loss)) for step, loss in kept["curve"]], _strip(path))


def _strip(path: Path) -> Strip | None:
    still, film = path.with_suffix(".png"), path.with_suffix(".webp")
    if not still.exists():
        return None
    picture, texts = _picture(still)
    return Strip(picture, texts.get("columns", ""), texts.get("note", ""), _picture(film)[0] if film.exists() else None)


def _picture(path: Path) -> tuple[Picture, dict[str, str]]:
    """A picture with its texts."""
    from PIL import Image

    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        return Picture(data, *picture.size), dict(getattr(picture, "text", {}))


def _thinned(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most `_POINTS` points, the first and the last among them, with six significant digits."""
    last = len(curve) - 1
    places = sorted({round(place * last / (_POINTS - 1)) for place in range(_POINTS)}) if last >= 0 else []
    return [(curve[place][0], float(f"{curve[place][1]:.6g}")) for place in places]
