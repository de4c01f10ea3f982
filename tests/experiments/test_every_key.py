"""Every key of a spec, changed alone to another valid value, changes what is computed, or is refused in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from experiments.ablation import Ablation, Column, SpecError, at_scale, load_ablation, scale_option
from experiments.compose import compose, flatten
from experiments.effects import check_effects
from experiments.identity import names
from experiments.plan import plan

#: A table of pictures and one of clips, and a row of each.
TABLES = {"pictures": ("decoder_depth", "8"), "clips": ("video_masking", "tube 90")}

#: What is set to make evaluations fit that are made for another encoder.
FITTING = {
    "pictures": (),
    "clips": ("evaluate.knn.protocol.pooling=mean", "evaluate.attentive.protocol.recipe.batch_size=16"),
}

#: Keys that name no computation, and why.
APART = {"scale": "an option of the command, which says at which scale everything else is composed"}

#: How many keys change the computation and how many refuse every other value.
EXPECTED = {"pictures": {"changes": 129, "refuses": 70}, "clips": {"changes": 233, "refuses": 134}}


def others(key: str, value: Any) -> Iterator[str]:
    """Values of the same type as ``value`` and other than it, the likeliest to be possible first."""
    last = key.rpartition(".")[2]
    words = {
        "positions": ["sincos_2d", "sincos_1d"],
        "pooling": ["mean", "class"],
        "rounding": ["mae", "videomae"],
        "init": ["pretrained", "random"],
        "loss": ["mse", "l1"],
        "optimizer": ["adamw", "sgd"],
        "precision": ["bf16"],
        "labels": ["motion", "appearance"],
        "rand_augment": ["rand-m5-mstd0.5-inc1"],
    }
    candidates: list[Any]
    if last == "_target_":
        group = names().get(value, "").partition("/")[0]
        candidates = [target for target, name in names().items() if name.partition("/")[0] == group]
    elif isinstance(value, bool):
        candidates = [not value]
    elif isinstance(value, int):
        candidates = [value + 1, 2 * value, value - 1, value // 2]
    elif isinstance(value, float):
        candidates = [value / 2, value + 0.1]
    elif isinstance(value, list):
        candidates = [[item / 2 if isinstance(item, float) else 2 * item for item in value]]
    elif value is None:
        candidates = ["something", 1]
    else:
        candidates = words.get(last, [f"{value}-other"])
    for candidate in candidates:
        if candidate != value:
            yield f"{str(candidate).lower() if isinstance(candidate, bool) else candidate}".replace(" ", "")


def outcome(table: Ablation, key: str, value: Any) -> str:
    """``changes``, or ``refuses`` where no other value is possible; an assertion fails where neither is true."""
    before = {job.fingerprint for job in plan([table], "smoke", 1)}
    for text in others(key, value):
        override, sentence = f"{key}={text}", ""
        try:
            after = {job.fingerprint for job in plan([table], "smoke", 1, [override])}
            if after != before:
                return "changes"
            check_effects([table], "smoke", [override], (), "fp32")
        except SpecError as error:
            sentence = str(error)
        assert sentence, f"{override} is accepted without effect"
        assert "\n" not in sentence
        assert len(sentence) > 30
    return "refuses"


@pytest.mark.slow
@pytest.mark.parametrize("inputs", TABLES)
def test_a_changed_key_changes_a_training_or_is_refused_in_a_sentence(inputs: str) -> None:
    name, row = TABLES[inputs]
    found = load_ablation(name)
    base = [*at_scale(found.base, "smoke"), *FITTING[inputs]]
    tree = compose(scale_option(found.inputs, "smoke"), [*base, *at_scale(found.rows[row].set, "smoke")])
    stages = [stage for stage, section in tree["evaluate"].items() if section]

    def table(*stages: str) -> Ablation:
        columns = {stage: Column(f"{stage}/top1", stage) for stage in stages}
        rows = {row: found.rows[row]}
        return replace(found, base={"all": tuple(base)}, columns=columns, rows=rows, default=row, claims=())

    counts = {"changes": 0, "refuses": 0}
    for key, value in flatten(tree).items():
        section, _, rest = key.partition(".")
        stage = rest.partition(".")[0]
        if key not in APART:
            asked = table(stage) if section == "evaluate" and stage in stages else table("finetune", "scratch")
            counts[outcome(asked, key, value)] += 1
    assert counts == EXPECTED[inputs]
