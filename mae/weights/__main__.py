"""Weights of a run, or a file of weights, as a folder that another library opens.

Usage: python -m mae.weights convert FROM TO format=timm|transformers|safetensors [KEY=VALUE ...]

  FROM          a run's folder of weights (out/weights/FINGERPRINT), a folder that this or transformers wrote, or a file
  TO            a folder that does not exist
  format        which library is to open it; safetensors: this project
  model         what a file is that does not tell: vit_b16, vit_l16, vit_h14, videomae_vit_b16, ...
  size, frames  height and width in pixels and number of frames, where a file does not tell
  report, row   the JSON of a table (report_dir/tables/NAME.json) and the row that the weights are of: metrics with
                intervals and verdicts then stand in the model card and in the manifest
  push_to_hub   OWNER/NAME: put the folder on the Hugging Face hub, too, where you have a token; new ones are private

Exit status: 0 done, 1 the hub did not take it, 2 what was asked for cannot be done.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mae.errors import SpecError
from mae.options import answer, asks_for_help, expanded, option, read
from mae.weights.card import measured
from mae.weights.convert import FORMATS, convert
from mae.weights.hub import check_hub, push
from mae.weights.trained import trained


@dataclass(frozen=True)
class Options:
    """What the command line asks for, but for what is converted and where to."""

    format: str = option("", choices=FORMATS)
    model: str = ""
    size: int | None = option(None, least=1)
    frames: int | None = option(None, least=1)
    report: Path | None = None
    row: str = ""
    push_to_hub: str = ""


def main(words: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    if not words or asks_for_help(words):
        print(__doc__)
        return 0
    return answer(lambda: run(words), stopped="nothing is kept")


def run(words: Sequence[str]) -> int:
    """Read, convert, and say how the weights were taken."""
    if len(words) < 3 or words[0] != "convert" or any("=" in word for word in words[1:3]):
        raise SpecError("write: python -m mae.weights convert FROM TO format=NAME; --help shows the keys")
    options = read(Options, words[3:])
    if not options.format:
        raise SpecError(f"say which library is to open it: format=NAME, one of {', '.join(FORMATS)}")
    if (options.report is None) != (not options.row):
        raise SpecError("report= and row= go together: the JSON of a table, and the row that the weights are of")
    if options.push_to_hub:
        check_hub(options.push_to_hub)
    to = Path(expanded(words[2]))
    found = trained(Path(expanded(words[1])), options.model, size=options.size, frames=options.frames)
    results = measured(options.report, options.row, found) if options.report else None
    convert(found, to, options.format, results)
    print(*found.notes, f"written: {to}", sep="\n")
    if options.push_to_hub:
        print(f"pushed: {push(to, options.push_to_hub)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
