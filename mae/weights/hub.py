"""A folder of converted weights on the Hugging Face hub, for a user who has a token there."""

from __future__ import annotations

import re
from pathlib import Path

from mae.errors import CheckpointError, DataError


def check_hub(name: str) -> None:
    """DataError before anything is converted for a name that is none of the hub, or without a token."""
    import huggingface_hub

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name, re.ASCII):
        raise DataError(f"push_to_hub={name} is no name of the hub; write OWNER/NAME")
    if huggingface_hub.get_token() is None:
        raise DataError("push_to_hub needs a token of the hub; log in with `hf auth login`, or set HF_TOKEN")


def push(folder: Path, name: str) -> str:
    """Upload ``folder`` as the model ``name``, which is made private where it is new; return its address.

    CheckpointError when the hub does not take it: the folder stays.
    """
    import huggingface_hub

    api = huggingface_hub.HfApi()
    try:
        address = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder)
    except Exception as error:  # the hub's and the network's, of many kinds
        words = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{folder} was written, and the hub did not take it: {words}; push it again") from error
    return str(address)
