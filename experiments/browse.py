"""What a person sees who browses the runs in MLflow's UI: the list's columns, descriptions, the command of a run."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from experiments.ablation import CONF, Ablation, ablation_names

#: Where ``mlflow ui`` serves what it is told to, unless it is given another port.
SERVED = "http://127.0.0.1:5000"

#: The metric of the run list: the stage's top-1 accuracy in percent, whatever the stage.
ACCURACY = "accuracy"

#: The tag that MLflow's UI shows as the description of an experiment or a run.
NOTE = "mlflow.note.content"

#: The experiment's tag in which MLflow's UI looks for the view that a link names by ``viewStateShareKey``.
VIEW = "tables"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"

#: The columns of the run list after the name, and their widths in pixels: the UI cuts names at 190.
_NAME = "attributes.`Run Name`"
_COLUMNS = {
    f"metrics.`{ACCURACY}`": 90,
    "tags.`row`": 110,
    "tags.`seed`": 60,
    "tags.`stage`": 90,
    "tags.`scale`": 70,
    "tags.`verdicts`": 220,
    "attributes.`Dataset`": 220,
}


def view_state() -> str:
    """The columns of the run list, in their order, as MLflow's UI keeps a view that is shared."""
    widths = {_NAME: 340, **_COLUMNS}
    return json.dumps({"selectedColumns": list(_COLUMNS), "columnOrder": list(widths), "columnWidths": widths})


def link(experiment: str) -> str:
    """The address of the run list with these columns; MLflow's UI opens on its side for language models otherwise."""
    return f"{SERVED}/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}"


def experiment_note(experiment: str) -> str:
    """The description of the experiment, for those who come from MLflow's start page."""
    address = link(experiment).removeprefix(SERVED)
    return (
        f"The trainings behind the tables of MAE and VideoMAE. Open [the list with accuracy, row and seed]({address})."
    )


def command_of(table: str, row: str, seed: int, scale: str) -> str:
    """The command that trains a row of a table for the seeds up to ``seed``; finished seeds are not run again."""
    ablation, _, variant = table.partition("--")
    words = [f"ablation={ablation}", f"scale={scale}", f"row={row}", f"seeds={seed + 1}", *overrides_of(variant)]
    return shlex.join(["python", "experiments/run.py", *words])


def overrides_of(variant: str) -> list[str]:
    """Read the user's overrides back from the name of a variant."""
    found = []
    for override in filter(None, variant.split("+")):
        key, equals, value = override.partition("=")
        found.append(key.replace("-", "/") + equals + value)  # a group such as evaluate/linear
    return found


def training_note(table: str, row: str, seed: int, scale: str, served: Sequence[str]) -> str:
    """The description of a training: what it belongs to, and for a table of the project the command that repeats it."""
    lines = [f"Row **{row}** of {table}, seed {seed}."]
    if table.partition("--")[0] in ablation_names():
        lines.append(f"```\n{command_of(table, row, seed, scale)}\n```")
    if len(served) > 1:
        lines.append(f"It serves {len(served)} tables and lies under the first: {', '.join(served)}.")
    return "\n\n".join(lines)


def table_note(ablation: Ablation, scale: str, filter_key: str, facts: Sequence[str] = ()) -> str:
    """The description of a table's run: its question, its place in the paper, and how to list all that it rests on.

    ``filter_key`` is the tag that its trainings carry, ``facts`` are sentences of what was measured.
    """
    place: Mapping[str, str] = ablation.paper
    where = (
        f"[arXiv {place['arxiv']}](https://arxiv.org/abs/{place['arxiv']}), {place['where']}"
        if {"arxiv", "where"} <= set(place)
        else "A table of no paper"
    )
    lines = [
        f"**{ablation.title}** ({where}), at {scale} scale.",
        ablation.question,
        "\n".join(f"- {fact}" for fact in facts),
        f"Its trainings lie under it. One that several tables share lies under the first that asked for it; the search "
        f"``tags.`{filter_key}` LIKE '%' AND tags.scale = '{scale}'`` lists all that this table rests on.",
    ]
    return "\n\n".join(filter(None, lines))


@lru_cache(maxsize=1)
def source_tags() -> dict[str, str]:
    """The tags in which MLflow keeps where a run comes from, with the state of the source where git can tell it."""

    def git(*words: str) -> str:
        if shutil.which("git") is None:
            return ""
        done = subprocess.run(["git", *words], cwd=CONF.parent, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    command = {"mlflow.source.type": "LOCAL", "mlflow.source.name": Path(sys.argv[0]).name}
    if not (commit := git("rev-parse", "HEAD")):
        return command
    dirty = str(bool(git("status", "--porcelain"))).lower()
    return {**command, "mlflow.source.git.commit": commit, "mlflow.source.git.dirty": dirty}
