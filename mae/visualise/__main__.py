"""The papers' figures of pictures or clips, from weights.

Usage: python -m mae.visualise FILE_OR_FOLDER ... weights=PATH to=FOLDER [KEY=VALUE ...]

  FILE_OR_FOLDER  pictures, or clips, as the weights read them: files, folders, or lists
  weights         a run's folder (out/weights/FINGERPRINT), a file, or a folder of transformers
  to              a folder without files in it
  show            reconstructions (original, masked, predicted), attention (of the last block), components (the first
                  three principal ones of patch features); several joined by commas (default: all)
  masks           random, block, grid of pictures; tube, random, frame of clips (default: those that the grid can have)
  ratios          how much is masked (default: 0.5,0.75,0.9; grid masks 0.75)
  files           how many files are drawn at most (default: 8)
  normalised      whether the decoder predicts normalised pixels, where a file does not tell: true or false
  model           what a file is that does not tell: vit_b16, vit_l16, vit_h14, videomae_vit_b16, ...
  size, frames    height and width in pixels and number of frames (default: those of the weights)
  seed            of the masks (default: 0)
  device          auto, cpu, cuda, cuda:1, mps (default: auto)

The test view is drawn: of a picture the centre, of a clip frames from its middle. Exit status: 0 done, 2 what was asked
for cannot be done.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Generator, Tensor

from mae.data.files.listing import Listing
from mae.errors import DataError, SpecError
from mae.inputs import Files, Reading, files_at
from mae.masking import BlockWise, Frame, GridWise, Random, Strategy, Tube
from mae.methods.masked_autoencoder import MaskedAutoencoder
from mae.model import Encoder
from mae.options import answer, asks_for_help, expanded, option, read
from mae.targets import ChannelNormalisedPixels, PatchNormalisedPixels, Pixels, Target
from mae.train.machine import device_of
from mae.visualise.reading import attention, components, spread
from mae.visualise.sheet import noted, save_sheet, strip
from mae.weights.architecture import Architecture
from mae.weights.trained import trained

SHOWN = ("reconstructions", "attention", "components")
OF_PICTURES = {"random": Random, "block": BlockWise, "grid": GridWise}
OF_CLIPS = {"tube": Tube, "random": Random, "frame": Frame}


@dataclass(frozen=True)
class Options:
    """What the command line asks for, but for the files."""

    weights: Path | None = None
    to: Path | None = None
    show: tuple[str, ...] = option(SHOWN, choices=SHOWN)
    masks: tuple[str, ...] = option((), choices=(*OF_PICTURES, "tube", "frame"))
    ratios: tuple[str, ...] = ("0.5", "0.75", "0.9")
    files: int = option(8, least=1)
    normalised: bool | None = None
    model: str = ""
    size: int | None = option(None, least=1)
    frames: int | None = option(None, least=1)
    seed: int = option(0, least=0)
    device: str = "auto"


@dataclass(frozen=True)
class Inputs:
    """What is drawn: ``names`` and normalised ``clips: (B, C, [T,] H, W)``."""

    names: tuple[str, ...]
    clips: Tensor


def main(words: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    if not words or asks_for_help(words):
        print(__doc__)
        return 0
    logging.basicConfig(format="%(message)s")
    return answer(lambda: run(words), stopped="pictures that were drawn are kept")


def run(words: Sequence[str]) -> int:
    """Read weights and files, draw, and say what was written."""
    given = [word for word in words if "=" not in word]
    options = read(Options, [word for word in words if "=" in word])
    if not given:
        raise SpecError("give files or folders first: python -m mae.visualise FILE_OR_FOLDER weights=PATH to=FOLDER")
    if options.weights is None or options.to is None:
        raise SpecError(f"{'weights' if options.weights is None else 'to'}= is missing; --help shows the keys")
    if options.to.exists() and (not options.to.is_dir() or any(options.to.iterdir())):
        raise DataError(f"{options.to} exists and is not empty; name a folder that does not")
    found = trained(options.weights, options.model, size=options.size, frames=options.frames)
    if options.normalised is not None:
        found = replace(found, architecture=_predicting(found.architecture, options.normalised))
    masks = masks_of(found.architecture, options.masks, options.ratios)
    device = device_of(options.device)
    if "reconstructions" in options.show:
        try:
            model = found.autoencoder().to(device)
        except DataError as error:
            raise DataError(f"{error}; show=attention,components needs no decoder") from error
        encoder = model.encoder
    else:
        encoder = found.encoder().to(device)
    inputs = inputs_of([Path(expanded(word)) for word in given], found.architecture, options.files, device)
    print(*found.notes, sep="\n", file=sys.stderr)
    written = []
    if "reconstructions" in options.show:
        written += reconstructions(model, found.architecture, inputs, masks, options.seed, options.to)
    if "attention" in options.show:
        written += attentions(encoder, found.architecture, inputs, options.to)
    if "components" in options.show:
        written += [components_of(encoder, found.architecture, inputs, options.to)]
    print(f"written: {options.to}: {len(written)} pictures of {len(inputs.names)} files")
    return 0


def _predicting(architecture: Architecture, normalised: bool) -> Architecture:
    """The architecture whose decoder predicts pixels, or normalised ones, because a user says so."""
    target: Target = Pixels()
    if normalised:
        target = ChannelNormalisedPixels(architecture.std) if architecture.clips else PatchNormalisedPixels()
    told = tuple(words for words in architecture.assumed if "predicts" not in words)
    return replace(architecture, target=target, assumed=told)


def masks_of(architecture: Architecture, names: Sequence[str], ratios: Sequence[str]) -> dict[str, Strategy]:
    """The strategies by what stands beside their row; DataError for one that this grid cannot have.

    Without ``names`` those that it can have are taken.
    """
    known = OF_CLIPS if architecture.clips else OF_PICTURES
    for ratio in ratios:
        if not re.fullmatch(r"0?\.\d*[1-9]\d*", ratio):
            raise DataError(f"ratios={ratio}: choose numbers between 0 and 1, such as 0.75")
    found: dict[str, Strategy] = {}
    for name in names or known:
        if name not in known:
            what = "clips" if architecture.clips else "pictures"
            raise DataError(f"masks={name} does not mask {what}; choose of {', '.join(known)}")
        for ratio in ("0.75",) if name == "grid" else ratios:
            try:
                strategy: Strategy = known[name](float(ratio))
                strategy.visible(architecture.grid)
            except ValueError as error:
                if names:
                    raise DataError(f"masks={name} ratios={ratio}: {error}") from error
                continue
            found[f"{name} {100 * float(ratio):g}%"] = strategy
    if not found:
        raise DataError(f"ratios={','.join(ratios)}: none leaves a patch of this grid, and drops one; choose others")
    return found


def inputs_of(paths: Sequence[Path], architecture: Architecture, most: int, device: torch.device) -> Inputs:
    """The first ``most`` files at ``paths``, as the model reads them; DataError where one cannot be read."""
    files = [place for path in paths for place in _places(path, architecture.clips)][:most]
    if not architecture.clips:
        for file in files:
            _check_size(file, architecture)
    root = Path(files[0].anchor)
    names = tuple(str(file.relative_to(root)) for file in files)
    listed = Files(Listing(root, names, (-1,) * len(files), ()), ("",) * len(files))
    read = [clips for clips, _ in Reading.of(listed, architecture).batches(len(files), device)]
    return Inputs(tuple(file.stem for file in files), torch.cat(read))


def _places(path: Path, clips: bool) -> list[Path]:
    listing = files_at(path, clips).listing
    return [listing.path(row).resolve() for row in range(len(listing))]


def _check_size(file: Path, architecture: Architecture) -> None:
    """DataError for a picture of which less than a patch would be enlarged to a whole input."""
    try:
        with Image.open(file) as picture:
            size = picture.size
    except Exception:  # whatever is wrong is said where it is read
        return
    patch = max(architecture.grid.patch[1:])
    if min(size) < patch:
        raise DataError(
            f"{file} is too small: it has {size[0]} x {size[1]} pixels, less than a patch of {patch}; give a larger one"
        )


def reconstructions(
    model: MaskedAutoencoder,
    architecture: Architecture,
    inputs: Inputs,
    masks: dict[str, Strategy],
    seed: int,
    to: Path,
) -> list[Path]:
    """A sheet for each file: a row for each mask, of original, masked, reconstruction and pasted."""
    generators = {name: Generator(inputs.clips.device) for name in masks}
    note = "pixels as predicted: nothing of the original is used"
    if model.note:
        note = f"un-normalised by the {model.note}"
    written = []
    for number, name in enumerate(inputs.names):
        clip = inputs.clips[number : number + 1]
        drawn: dict[str, list[Tensor]] = {}
        for label, strategy in masks.items():
            mask = strategy(1, architecture.grid, generators[label].manual_seed(seed))
            for column, shown in model.drawn(clip, mask).items():
                drawn.setdefault(column, []).append(strip(shown, architecture.mean, architecture.std))
        columns = noted({column: torch.cat(parts) for column, parts in drawn.items()}, note)
        path = to / f"{number + 1:03}-{name}-reconstructions.png"
        written.append(save_sheet(columns, path, rows=list(masks), notes=(f"* {note}", _colours(architecture))))
    return written


def attentions(encoder: Encoder, architecture: Architecture, inputs: Inputs, to: Path) -> list[Path]:
    """A sheet for each file: what it is, the mean of the heads, and each head, as bright as it looks at a patch."""
    maps = attention(encoder, architecture.grid.patchify(inputs.clips))
    maps = torch.cat([maps.mean(1, keepdim=True), maps], 1)  # (B, 1 + heads, N)
    rows = ["input", "mean of heads", *(f"head {head}" for head in range(1, maps.shape[1]))]
    who = "the class token" if encoder.prefix else "all patches"
    note = f"attention of {who} to each patch in the last block; white is the largest of a row"
    written = []
    for number, name in enumerate(inputs.names):
        own = maps[number] / maps[number].amax(1, keepdim=True)
        shown = spread(own.unsqueeze(2), architecture.grid)
        original = _clip(inputs.clips[number : number + 1])
        parts = [strip(original, architecture.mean, architecture.std), strip(shown, (0.0,), (1.0,))]
        path = to / f"{number + 1:03}-{name}-attention.png"
        written.append(save_sheet({name: torch.cat(parts)}, path, rows=rows, notes=(note,)))
    return written


@torch.no_grad()
def components_of(encoder: Encoder, architecture: Architecture, inputs: Inputs, to: Path) -> Path:
    """One sheet of all files, whose patch features share their components: red, green and blue."""
    features = encoder(architecture.grid.patchify(inputs.clips))[:, encoder.prefix :].float().cpu()
    found, share = components(features)
    columns = {
        "input": strip(_clip(inputs.clips), architecture.mean, architecture.std),
        "components": strip(spread(found, architecture.grid), (0.0,) * 3, (1.0,) * 3),
    }
    note = f"three principal components of the patch features of all files here: {100 * share:.0f}% of their variance"
    return save_sheet(columns, to / "components.png", rows=inputs.names, notes=(note,))


def _clip(inputs: Tensor) -> Tensor:
    return inputs.unsqueeze(2) if inputs.ndim == 4 else inputs


def _colours(architecture: Architecture) -> str:
    mean, std = ([round(value, 3) for value in values] for values in (architecture.mean, architecture.std))
    return f"colours were normalised by the mean {mean} and the deviation {std}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
