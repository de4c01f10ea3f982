"""Composition: the fast way gives what Hydra gives, for rows that choose every option of every group."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import hydra
import pytest
import yaml
from omegaconf import OmegaConf

from experiments.ablation import (
    CONF,
    INPUTS,
    SCALES,
    SpecError,
    ablation_names,
    at_scale,
    has_scale,
    load_ablation,
    scale_option,
)
from experiments.compose import compose, groups, order
from experiments.spec import spec_of

#: Groups that conf/config.yaml lists, but for the scale.
LISTED = {
    group
    for entry in yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
    if isinstance(entry, dict)
    for group in entry
} - {"scale"}

#: How the options begin that refer to what only clips have.
OF_CLIPS = ("clip", "moving_digits", "multi_scale", "videomae")

#: A file of ``conf/scale``, and overrides.
Row = tuple[str, tuple[str, ...]]


def choices() -> dict[str, dict[str, list[str]]]:
    """Every option once, by scale and group: where a row chooses it, or else at the smoke scale of its inputs."""
    found: dict[str, dict[str, list[str]]] = {}
    seen: set[str] = set()

    def note(scale: str, override: str) -> None:
        group, _, _ = override.partition("=")
        if group in order() and override not in seen:
            seen.add(override)
            found.setdefault(scale, {}).setdefault(group, []).append(override)

    for table in map(load_ablation, ablation_names()):
        for scale in [scale for scale in SCALES if has_scale(table, scale)]:
            columns = [override for column in table.columns.values() for override in at_scale(column.set, scale)]
            rows = [override for row in table.rows.values() for override in at_scale(row.set, scale)]
            for override in (*at_scale(table.base, scale), *rows, *columns):
                note(scale_option(table.inputs, scale), override)
    for group, options in groups().items():
        for option in options:
            if group in LISTED and not option.endswith("base"):  # others build on those, which are none themselves
                note(
                    "clips_smoke" if group == "sampling" or option.startswith(OF_CLIPS) else "smoke",
                    f"{group}={option}",
                )
    return found


def covering() -> list[Row]:
    """Few compositions that choose every option of every group, and every scale."""
    packed = []
    for scale, by_group in choices().items():
        apart = [(scale, (override,)) for override in by_group.pop("evaluate_data", ())]  # it refers to its data
        together = (tuple(filter(None, overrides)) for overrides in zip_longest(*by_group.values()))
        packed += [*apart, *((scale, overrides) for overrides in together)]
    options = {scale_option(inputs, scale) for inputs in INPUTS for scale in SCALES} & set(groups()["scale"])
    untouched = options - {scale for scale, _ in packed}
    return [*packed, *((scale, ()) for scale in sorted(untouched))]


def by_hydra(scale: str, overrides: tuple[str, ...]) -> Any:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("config", [f"scale={scale}", *overrides])
    return OmegaConf.to_container(config, resolve=True)


def stated(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A tree without its null sections."""
    return {
        key: stated(value) if isinstance(value, Mapping) else value
        for key, value in tree.items()
        if value is not None and value != {}
    }


@pytest.mark.parametrize("row", covering(), ids=lambda row: f"{row[0]} {' '.join(row[1])}"[:80])
def test_a_row_is_composed_as_hydra_composes_it(row: Row) -> None:
    expected = stated(by_hydra(*row))
    found = stated(compose(*row))
    found["evaluate"] = {name: section for name, section in found["evaluate"].items() if name in expected["evaluate"]}
    assert found == expected


def test_the_evaluations_asked_for_are_composed_alone_as_among_all() -> None:
    table = load_ablation("decoder_depth")
    alone, among_all = (spec_of(table, table.rows["8"], "desk", 0, stages=s) for s in (["partial"], None))
    assert set(alone.evaluate) < set(among_all.evaluate)
    assert alone.evaluate["partial"] == among_all.evaluate["partial"]
    assert alone.data == among_all.data


def test_an_evaluation_that_no_list_names_has_its_default_option() -> None:
    assert compose("smoke", ())["evaluate"]["attentive"]["protocol"]["_target_"].endswith(".AttentiveProbe")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("mask=rendom", "unknown mask 'rendom': did you mean random"),
        ("nonsense", "cannot read 'nonsense': write KEY=VALUE"),
        ("mask.ratio=[0.5", "cannot read mask.ratio="),
        ("data.smaples.train=3", "unknown key 'data.smaples.train': did you mean data.samples.train"),
    ],
)
def test_an_override_that_does_not_fit_is_refused_in_a_sentence(override: str, sentence: str) -> None:
    with pytest.raises(SpecError) as refused:
        compose("smoke", [override])
    assert str(refused.value).startswith(sentence)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data.flip=${data.flap}"], "refers to ${data.flap}, which does not exist"),
        (["data.flip=${data.flip}"], "refers to ${data.flip}, which leads back to itself"),
        (["data.classes=${evaluate_data.classes}"], "evaluate_data refers to ${data}, which leads back to itself"),
    ],
)
def test_a_reference_to_nothing_and_one_to_itself_are_refused(overrides: list[str], sentence: str) -> None:
    with pytest.raises(SpecError) as refused:
        compose("smoke", overrides)
    assert sentence in str(refused.value)


def test_a_key_of_the_method_of_a_row_can_be_set_where_that_method_is() -> None:
    table = load_ablation("ssl_comparison")
    rows = table.rows
    assert spec_of(table, rows["DINO"], "smoke", 0, ["method.momentum=0.9"]).method["momentum"] == 0.9
    with pytest.raises(SpecError, match=r"unknown key 'method\.momentum'"):
        spec_of(table, rows["MAE"], "smoke", 0, ["method.momentum=0.9"])
    with pytest.raises(SpecError, match="wrong type: expected a number"):
        spec_of(table, rows["DINO"], "smoke", 0, ["method.momentum=high"])


def test_a_value_that_a_class_takes_and_no_file_states_can_be_set() -> None:
    table = load_ablation("mask_sampling")
    stated = spec_of(table, table.rows["random 75"], "smoke", 0)
    given = spec_of(table, table.rows["random 75"], "smoke", 0, ["pretrain.min_lr=1e-5"])
    assert "min_lr" not in stated.pretrain
    assert given.pretrain["min_lr"] == 1e-5
    with pytest.raises(SpecError, match=r"unknown key 'pretrain\.min_rl': did you mean pretrain\.min_lr"):
        spec_of(table, table.rows["random 75"], "smoke", 0, ["pretrain.min_rl=1e-5"])
