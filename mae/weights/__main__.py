"""The command ``python -m mae.weights convert FROM TO format=timm|transformers|safetensors``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from mae.errors import UserError
from mae.weights.convert import FORMATS, convert

USAGE = f"usage: python -m mae.weights convert FROM TO format={'|'.join(FORMATS)}"


def main(words: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    if len(words) != 4 or words[0] != "convert" or not words[3].startswith("format="):
        print(USAGE, file=sys.stderr)
        return 2
    try:
        convert(Path(words[1]), Path(words[2]), words[3].removeprefix("format="))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    except OSError as error:
        print(f"error: {words[2]} cannot be written: {error.strerror}; choose another folder", file=sys.stderr)
        return 2
    print(f"written: {words[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
