"""Measurements: committed evidence and local runs, merged into one tidy frame.

A measurement is one number: `value` of `metric` for one `(ablation, variant, row, seed, scale)`. `variant` is
empty for the ablation as declared, otherwise a slug of the user's overrides. Accuracies are in percent, times
in seconds.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import pandas as pd

from reports.files import write_atomically

COLUMNS = ("ablation", "variant", "row", "seed", "scale", "metric", "value", "fingerprint", "run_id")
KEY = ["ablation", "variant", "row", "seed", "scale", "metric"]
#: From the least to the most that a measurement can claim; unknown scales come after these.
SCALES = ("smoke", "desk", "study", "gpu", "day", "paper")
#: Committed evidence of this repository.
EVIDENCE = Path(__file__).resolve().parent / "results"


def stem(ablation: str, variant: str = "") -> str:
    """Return the file name, without suffix, of everything generated for one ablation and variant."""
    return f"{ablation}--{quote(variant, safe='=,+')}" if variant else ablation


def variant_of(file_stem: str) -> str:
    """Return the variant that `stem` wrote into a file name."""
    return unquote(file_stem.partition("--")[2])


def tidy(rows: Iterable[Sequence[object]] = ()) -> pd.DataFrame:
    """Return a frame of measurements with the columns `COLUMNS` and their types, without checks."""
    frame = pd.DataFrame(list(rows), columns=list(COLUMNS))
    types = {name: "int64" if name == "seed" else "float64" if name == "value" else "str" for name in COLUMNS}
    typed: pd.DataFrame = frame.astype(types)
    return typed


def validate(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """Return `frame` with exactly `COLUMNS`, typed; ValueError if it is not a frame of finite measurements.

    `source` names the origin in the message: a file, the runs of a folder.
    """
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise ValueError(f"{source} lacks the column {', '.join(missing)}; expected {', '.join(COLUMNS)}.")
    try:
        checked = tidy(frame[list(COLUMNS)].to_numpy(dtype=object))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source} holds a seed or value that is not a number ({error}); correct it.") from error
    bad = checked[~np.isfinite(checked["value"])]
    if len(bad):
        first = bad.iloc[0]
        raise ValueError(
            f"{source} holds {first['value']} for {first['metric']} of row {first['row']!r}, "
            f"seed {first['seed']} (run {first['run_id'] or 'unknown'}); "
            "run that row again or remove the measurement."
        )
    return checked


def read_evidence(folder: Path) -> pd.DataFrame:
    """Return all committed measurements: every CSV file of `folder`, in order of name; none if it is absent.

    A damaged file raises ValueError with its name, line and the remedy.
    """
    parts = [_read_csv(path) for path in sorted(folder.glob("*.csv"))]
    everything: pd.DataFrame = pd.concat(parts, ignore_index=True) if parts else tidy()
    return everything


def merge(committed: pd.DataFrame, local: pd.DataFrame) -> pd.DataFrame:
    """Return both, where a local measurement replaces the committed one of the same key.

    Within `local` the later of two equal keys wins, so rows are expected in the order in which runs finished.
    """
    parts = [part for part in (committed, local) if len(part)]
    if not parts:
        return tidy()
    both = pd.concat(parts, ignore_index=True)
    merged: pd.DataFrame = both.drop_duplicates(KEY, keep="last").sort_values(KEY, ignore_index=True)
    return merged


def collect(evidence: Path, local: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the measurements of the folder `evidence`, superseded by `local`, those of this machine."""
    runs = tidy() if local is None or local.empty else validate(local, "the runs here")
    return merge(read_evidence(evidence), runs)


def save_evidence(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """Merge `frame` into the evidence of `folder` and return the files written, one per ablation and variant.

    Lines are sorted by key and values have six significant digits: a changed line is a changed measurement.
    """
    checked = validate(frame, "the frame to save")
    touched = {stem(str(a), str(v)) for a, v in zip(checked["ablation"], checked["variant"], strict=True)}
    everything = merge(read_evidence(folder), checked)
    written = []
    for (ablation, variant), part in everything.groupby(["ablation", "variant"], sort=True):
        name = stem(str(ablation), str(variant))
        if name in touched:
            text = part[list(COLUMNS)].to_csv(index=False, float_format="%.6g", lineterminator="\n")
            written.append(write_atomically(folder / f"{name}.csv", text))
    return written


def scales_of(frame: pd.DataFrame, ablation: str, variant: str = "") -> list[str]:
    """Return the scales measured for an ablation, least first; the default, `["desk"]`, if there is none."""
    found = set(frame.loc[(frame["ablation"] == ablation) & (frame["variant"] == variant), "scale"])
    return sorted(found, key=scale_rank) or ["desk"]


def scale_rank(scale: str) -> tuple[int, str]:
    """Return a sort key that follows `SCALES`, then the alphabet."""
    return (SCALES.index(scale) if scale in SCALES else len(SCALES), scale)


def variants_in(frame: pd.DataFrame, ablation: str) -> list[str]:
    """Return the variants of an ablation: the declared one, measured or not, then the measured others."""
    return ["", *sorted(set(frame.loc[frame["ablation"] == ablation, "variant"]) - {""})]


def _read_csv(path: Path) -> pd.DataFrame:
    # The csv module rather than pandas: labels such as "none" or "8" stay text, and an error can name its
    # line.
    remedy = "restore it from version control or delete it"
    try:
        reader = csv.reader(io.StringIO(path.read_bytes().decode("utf-8"), newline=""), strict=True)
        lines = [(reader.line_num, fields) for fields in reader if fields]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a readable CSV file ({error}); {remedy}.") from error
    if not lines or tuple(lines[0][1]) != COLUMNS:
        raise ValueError(f"{path} does not begin with the header {','.join(COLUMNS)}; {remedy}.")
    for number, fields in lines[1:]:
        if len(fields) != len(COLUMNS):
            raise ValueError(f"{path}, line {number}, has {len(fields)} fields, not {len(COLUMNS)}; {remedy}.")
        try:
            int(fields[3]), float(fields[6])
        except ValueError:
            raise ValueError(
                f"{path}, line {number}, has seed {fields[3]!r} and value {fields[6]!r}, "
                f"which must be a whole number and a number; {remedy}."
            ) from None
    frame = validate(pd.DataFrame([fields for _, fields in lines[1:]], columns=list(COLUMNS)), str(path))
    repeated = frame[frame.duplicated(KEY)]
    if len(repeated):
        first = repeated.iloc[0]
        raise ValueError(
            f"{path} measures {first['metric']} of row {first['row']!r}, seed {first['seed']}, "
            f"scale {first['scale']} twice; {remedy}."
        )
    return frame
