"""The command line of every command: values by the types of a dataclass, refusals in a sentence."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from experiments.ablation import SpecError
from experiments.options import option, read
from experiments.run import Options as Run
from mae.train.compiling import CHOICES
from mae.train.distributed import SHARDINGS


@dataclass(frozen=True)
class Open:
    tables: tuple[str, ...] = ()
    rows: tuple[str, ...] = option((), key="row")
    scale: str = option("desk", choices=("smoke", "desk"))
    seeds: int = option(1, least=1)
    seconds: float = option(2.0, least=0.001)
    again: bool = False
    out: Path | None = None
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Closed:
    shapes: tuple[str, ...] = option((), choices=("vit_b16", "vit_l16"))


def test_every_value_has_the_type_of_its_field(tmp_path: Path) -> None:
    words = ["tables=a, b", "scale=smoke", "seeds=3", "seconds=0.5", "again=True", f"out={tmp_path}/x"]
    assert read(Open, words) == Open(
        tables=("a", "b"), scale="smoke", seeds=3, seconds=0.5, again=True, out=tmp_path / "x"
    )
    assert read(Open, []) == Open()


def test_a_repeated_key_adds_to_several_and_replaces_one() -> None:
    assert read(Open, ["tables=a", "tables=b,c", "seeds=2", "seeds=5"]) == Open(tables=("a", "b", "c"), seeds=5)


def test_commas_separate_names_and_belong_to_rows_and_paths() -> None:
    found = read(Open, ["row=crop, fixed size", "row=8", "tables=/my data, all/mine.yaml"])
    assert found.rows == ("crop, fixed size", "8")
    assert found.tables == ("/my data, all/mine.yaml",)


def test_a_place_is_absolute_and_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert read(Open, ["out=~/runs"]).out == tmp_path / "runs"
    assert read(Open, ["out=a,b"]).out == tmp_path / "a,b"


def test_other_keys_are_for_the_spec_as_they_stand() -> None:
    words = ["mask.ratio=0.5", "mask={_target_: a.B, ratio: 0.5}", "+evaluate/knn=default"]
    assert read(Open, words, lambda: {"mask", "+evaluate/knn"}).overrides == tuple(words)


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("nonsense", "cannot read 'nonsense': write KEY=VALUE"),
        ("sedes=3", "unknown key 'sedes': did you mean seeds"),
        ("scale=dsk", "unknown scale 'dsk': did you mean desk"),
        ("seeds=two", "seeds=two: give a whole number of at least 1"),
        ("seeds=0", "seeds=0: give a whole number of at least 1"),
        ("seeds=1.5", "seeds=1.5: give a whole number"),
        ("seconds=nan", "seconds=nan: give a number of at least 0.001"),
        ("seconds=inf", "seconds=inf: give a number"),
        ("again=yes", "again=yes: give true or false"),
        ("out=", "out= names no place; write out=PATH"),
        ("tables=,", "tables= names nothing; write tables=NAME"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(argument: str, sentence: str) -> None:
    with pytest.raises(SpecError) as refused:
        read(Open, [argument])
    assert str(refused.value).startswith(sentence)
    assert "\n" not in str(refused.value)
    assert refused.value.status == 2


def test_a_command_without_a_spec_takes_its_own_keys_alone() -> None:
    assert read(Closed, ["shapes=vit_l16,vit_b16"]).shapes == ("vit_l16", "vit_b16")
    with pytest.raises(SpecError, match=r"unknown key 'mask\.ratio': valid: shapes"):
        read(Closed, ["mask.ratio=0.5"])
    with pytest.raises(SpecError, match="unknown shapes 'vit': did you mean vit_"):
        read(Closed, ["shapes=vit"])


def test_the_command_offers_the_ways_that_the_core_knows() -> None:
    """They are written twice, since the command must not load torch to read its line."""
    offered = {field.name: field.metadata["option"].choices for field in fields(Run) if "option" in field.metadata}
    assert tuple(offered["sharding"]) == SHARDINGS
    assert tuple(offered["compile"]) == CHOICES
