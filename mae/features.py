"""Features of pictures or clips from weights, in a file.

Usage: python -m mae.features FOLDER_OR_LIST weights=PATH to=FILE.parquet|FILE.npz [KEY=VALUE ...]

  FOLDER_OR_LIST  a folder or a list as a training reads it: train/<class>/*, <class>/*, *, or path,label lines
  weights         a run's folder (out/weights/FINGERPRINT), a file, or a folder of transformers
  to              a file that does not exist: path, label, split and features of each picture or clip
  model           what a file is that does not tell: vit_b16, vit_l16, vit_h14, videomae_vit_b16, ...
  size, frames    height and width in pixels and number of frames (default: those of the weights)
  pooling         mean of the patch tokens (default), or the class token
  batch           how many go through the model at a time (default: 32)
  device          auto, cpu, cuda, cuda:1, mps (default: auto)
  workers         processes that read files (default: one a core for many files)

The test view is taken: of a picture the centre, of a clip frames from its middle. A file that cannot be read is named
and left out; more than 5% of them stop the command. Exit status: 0 done, 2 what was asked for cannot be done.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mae.disk import replacing
from mae.errors import DataError, SpecError
from mae.inputs import Files, Reading, files_at
from mae.model import choose_attention
from mae.options import answer, asks_for_help, expanded, option, read
from mae.train.machine import device_of
from mae.weights.trained import Trained, trained

POOLINGS = ("mean", "class")
SUFFIXES = (".parquet", ".npz")


@dataclass(frozen=True)
class Table:
    """A row of ``values: (n, D)`` float32 for each file that was read, its path, its label and split ("" for none).

    ``about`` says where the features are from, ``left_out`` which files could not be read, and why.
    """

    values: NDArray[np.float32]
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...]
    about: dict[str, str]
    left_out: tuple[tuple[str, str], ...] = ()

    def save(self, path: Path | str) -> None:
        """Write a ``.parquet`` or an ``.npz`` file; DataError on another suffix, or where the file exists."""
        path = Path(path)
        check_target(path)
        with replacing(path) as draft:
            if path.suffix == ".npz":
                with open(draft, "wb") as file:
                    np.savez(
                        file, features=self.values, paths=np.array(self.paths), labels=np.array(self.labels),
                        splits=np.array(self.splits), about=np.array(json.dumps(self.about)),
                    )  # fmt: skip
            else:
                _parquet(self, draft)


def _parquet(table: Table, path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    values = pa.FixedSizeListArray.from_arrays(pa.array(table.values.ravel()), table.values.shape[1])
    columns = {
        "path": pa.array(table.paths, pa.string()),
        "label": pa.array(table.labels, pa.string()),
        "split": pa.array(table.splits, pa.string()),
        "features": values,
    }
    parquet.write_table(pa.table(columns).replace_schema_metadata(table.about), path)


def check_target(path: Path) -> None:
    """DataError for a file that features cannot be written to."""
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path} ends in neither {' nor '.join(SUFFIXES)}; name such a file")
    if path.exists():
        raise DataError(f"{path} exists; name a file that does not")


def features_of(
    files: Path | str | Files,
    weights: Path | str | Trained,
    *,
    model: str = "",
    size: int | None = None,
    frames: int | None = None,
    pooling: str = "mean",
    batch: int = 32,
    device: str = "auto",
    workers: int | None = None,
    progress: bool = False,
) -> Table:
    """Features of the pictures or clips in a folder or a list, from weights, by the encoder's final norm.

    The weights say whether they read pictures or clips. ``pooling`` is ``mean`` over the patch tokens or ``class``, the
    class token. DataError where weights or files cannot be used, SpecError on a device that is not there.
    """
    found = weights if isinstance(weights, Trained) else trained(weights, model, size=size, frames=frames)
    made = found.architecture
    if pooling not in POOLINGS:
        raise DataError(f"pooling={pooling} is unknown; choose one of {', '.join(POOLINGS)}")
    if pooling == "class" and not made.class_token:
        raise DataError(f"{found.path} has no class token; choose pooling=mean")
    given = files if isinstance(files, Files) else files_at(Path(files), made.clips)
    reading, where = Reading.of(given, made, workers), device_of(device)
    encoder = found.encoder().to(where)
    choose_attention(encoder, where, encoder.length(), "fp32")
    values: list[NDArray[np.float32]] = []
    rows: list[int] = []
    with tqdm(total=len(given), unit="file", desc="features", disable=not progress) as bar, torch.inference_mode():
        for inputs, read_rows in reading.batches(batch, where):
            latent = encoder(made.grid.patchify(inputs))
            pooled = latent[:, 0] if pooling == "class" else latent[:, encoder.prefix :].mean(1)
            values.append(pooled.float().cpu().numpy())
            rows += read_rows.tolist()
            bar.update(len(read_rows))
    about = {
        "weights": str(found.path), "pooling": pooling, "size": "x".join(map(str, made.size)),
        "frames": str(made.frames), "mean": str(list(made.mean)), "std": str(list(made.std)),
    }  # fmt: skip
    names = given.listing.names
    return Table(
        np.concatenate(values),
        tuple(names[row] for row in rows),
        tuple(given.label(row) for row in rows),
        tuple(given.splits[row] for row in rows),
        about,
        reading.tally.report.failed,
    )


@dataclass(frozen=True)
class Options:
    """What the command line asks for, but for the files."""

    weights: Path | None = None
    to: Path | None = None
    model: str = ""
    size: int | None = option(None, least=1)
    frames: int | None = option(None, least=1)
    pooling: str = option("mean", choices=POOLINGS)
    batch: int = option(32, least=1)
    device: str = "auto"
    workers: int | None = option(None, least=0)


def main(words: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    if not words or asks_for_help(words):
        print(__doc__)
        return 0
    logging.basicConfig(format="%(message)s")
    return answer(lambda: run(words), stopped="nothing was written")


def run(words: Sequence[str]) -> int:
    """Read, compute, write, and say what was written."""
    if "=" in words[0]:
        raise SpecError("give the folder or the list first: python -m mae.features FOLDER_OR_LIST weights=PATH to=FILE")
    options = read(Options, words[1:])
    if options.weights is None or options.to is None:
        raise SpecError(f"{'weights' if options.weights is None else 'to'}= is missing; --help shows the keys")
    check_target(options.to)
    found = trained(options.weights, options.model, size=options.size, frames=options.frames)
    print(*found.notes, sep="\n", file=sys.stderr)
    chosen = {key: value for key, value in asdict(options).items() if key in ("pooling", "batch", "device", "workers")}
    table = features_of(Path(expanded(words[0])), found, **chosen, progress=sys.stderr.isatty())
    table.save(options.to)
    left = f", {len(table.left_out)} left out" if table.left_out else ""
    print(f"written: {options.to}: {len(table.values)} rows of {table.values.shape[1]} features{left}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
