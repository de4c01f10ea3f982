"""What names a training: what it computes, and neither where its code or its files lie nor what it does not read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hydra.utils import get_object

from experiments import identity
from experiments.ablation import CONF, SpecError, load_ablation
from experiments.identity import named, names
from experiments.plan import plan, row_jobs
from experiments.spec import PRETRAIN, Spec, spec_of
from experiments.stages.evaluation import Evaluation, stage_of
from experiments.stages.pretraining import Pretraining
from mae.data.builtin.digits_on_photos import DigitsOnPhotos
from mae.masking import Random
from tests.experiments.fresh import forget

STAGES = (PRETRAIN, "finetune", "linear")


def spec(table: str = "decoder_depth", label: str = "8", scale: str = "smoke", *overrides: str) -> Spec:
    ablation = load_ablation(table)
    return spec_of(ablation, ablation.rows[label], scale, 0, overrides)


def fingerprints(of: Spec, stages: Sequence[str] = STAGES) -> dict[str, str]:
    return {stage: stage_of(of, stage).fingerprint() for stage in stages}


def changed(override: str, *, since: str = "") -> set[str]:
    """The stages that an override renames."""
    before, after = (fingerprints(spec("decoder_depth", "8", "smoke", *words)) for words in (since.split(), [override]))
    return {stage for stage in before if before[stage] != after[stage]}


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Put another text in the place of conf/names.yaml."""

    def register(text: str) -> None:
        (tmp_path / "names.yaml").write_text(text)
        monkeypatch.setattr(identity, "CONF", tmp_path)
        forget()

    yield register
    forget()


def test_a_module_that_moves_renames_nothing(
    registered: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = spec()
    before = fingerprints(usual)
    monkeypatch.setattr("mae.grid.Moved", Random, raising=False)  # the strategy, at another import path
    moved = replace(usual, method={**usual.method, "mask": {**usual.method["mask"], "_target_": "mae.grid.Moved"}})
    assert set(fingerprints(moved).values()).isdisjoint(before.values())
    registered((CONF / "names.yaml").read_text().replace("mae.masking.Random", "mae.grid.Moved"))
    assert fingerprints(moved) == before


@pytest.mark.parametrize(
    ("override", "changes"),
    [
        ("data.samples.train=100", {"finetune", "linear"}),
        ("data.samples.test=100", {"finetune", "linear"}),
        ("data.samples.pretrain=100", set(STAGES)),
        ("mask.ratio=0.6", set(STAGES)),
        ("precision=fp32", set(STAGES)),
        ("data.mean=[0.4,0.5,0.5]", set(STAGES)),
        ("evaluate.linear.protocol.recipe.epochs=7", {"linear"}),
        ("evaluate.finetune.protocol.recipe.epochs=7", {"finetune"}),
        ("evaluate_data=corrupted", {"finetune"}),
        ("tokenizer=dalle", set()),
        ("target=normalised_pixels", set(STAGES)),
    ],
)
def test_a_fingerprint_changes_with_what_its_stage_computes_and_with_nothing_else(
    override: str, changes: set[str]
) -> None:
    assert changed(override) == changes


def test_an_evaluation_from_scratch_does_not_know_the_decoder() -> None:
    scratch, decoder = "init=random", "model.decoder.depth=3"
    usual, other = (spec("decoder_depth", "8", "smoke", *words) for words in ([scratch], [scratch, decoder]))
    assert Pretraining(usual).fingerprint() != Pretraining(other).fingerprint()
    assert Evaluation(usual, "finetune").fingerprint() == Evaluation(other, "finetune").fingerprint()


def test_an_evaluation_knows_the_weights_that_it_starts_from(tmp_path: Path) -> None:
    found = []
    for name, content in (("a", b"weights"), ("b", b"weights"), ("c", b"others")):
        (tmp_path / name).write_bytes(content)
        started = spec("decoder_depth", "8", "smoke", "origin=file", f"origin.path={tmp_path / name}")
        found.append(Evaluation(started, "finetune").fingerprint())
    assert found[0] == found[1] != found[2]


def test_numerics_rename_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprints(spec())
    monkeypatch.setattr("experiments.stages.stage.NUMERICS", 999)
    assert set(fingerprints(spec()).values()).isdisjoint(before.values())


def test_a_raised_version_of_a_data_set_renames_exactly_what_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [load_ablation(name) for name in ("decoder_depth", "transfer", "video_masking")]
    before = plan(tables, "smoke", 1)
    monkeypatch.setattr(DigitsOnPhotos, "version", DigitsOnPhotos.version + 1)
    forget()
    after = plan(tables, "smoke", 1)
    of_digits = {job.fingerprint for job in before if _starts_on(job.spec.tree, "DigitsOnPhotos")}
    kept = {job.fingerprint for job in after}
    assert 0 < len(of_digits) < len(before)
    assert {job.fingerprint for job in before} - kept == of_digits


def _starts_on(tree: object, name: str) -> bool:
    """Whether pre-training, and with it all that starts from it, is on the data set called ``name``."""
    assert isinstance(tree, dict)
    return str(tree["data"]["source"]["_target_"]).endswith(name)


@pytest.mark.usefixtures("no_files")
def test_data_sets_with_the_same_fields_are_told_apart(tmp_path: Path) -> None:
    found = set()
    for name in ("UCF101", "HMDB51"):
        source = {"_target_": f"mae.data.clips.sets.{name}"}
        of = spec("video_masking", "tube 90", "paper", "data=ucf101", f"data.source.root={tmp_path}")
        found.add(Pretraining(replace(of, data=replace(of.data, source={**of.data.source, **source}))).fingerprint())
    assert len(found) == 2


def targets(tree: object) -> Iterator[str]:
    """Every ``_target_`` in a tree."""
    if isinstance(tree, dict):
        yield from (str(value) for key, value in tree.items() if key == "_target_" and "$" not in str(value))
        for value in tree.values():
            yield from targets(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from targets(value)


def test_every_class_that_conf_names_has_a_name_that_stays() -> None:
    used = {target for path in CONF.rglob("*.yaml") for target in targets(yaml.safe_load(path.read_text()))}
    assert len(used) > 40
    assert used - set(names()) == set()


def test_every_name_belongs_to_a_class_that_there_is() -> None:
    assert all(callable(get_object(target)) for target in names())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mask/random: a.B\nmask/random: a.C\n", "the name 'mask/random' is registered twice; choose another for a.C"),
        ("mask/one: a.B\nmask/two: a.B\n", "a.B is registered twice, as 'mask/one' and 'mask/two'; keep the first"),
    ],
)
def test_a_name_or_a_class_registered_twice_is_refused(
    registered: Callable[[str], None], text: str, sentence: str
) -> None:
    registered(text)
    with pytest.raises(SpecError, match=re.escape(sentence)) as refused:
        names()
    assert "names.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_name_of_the_project_is_refused_in_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "names.yaml").write_text("mask/random: mine.Strategy\n")
    with pytest.raises(SpecError, match=r"'mask/random' is registered twice; choose another for mine\.Strategy"):
        names(tmp_path)


def test_identity_names_the_content_of_a_file_and_not_its_place(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"other" if name == "c" else b"weights")
    a, b, c = (named([{"path": str(tmp_path / name)}]) for name in ("a", "b", "c"))
    assert a == b != c


def test_a_class_without_a_name_is_named_by_its_import_path() -> None:
    assert named({"_target_": "mine.Strategy", "ratio": 0.5}) == {"_target_": "mine.Strategy", "ratio": 0.5}
    assert named({"mask": {"_target_": "mae.masking.Random"}}) == {"mask": {"_target_": "mask/random"}}


def test_fingerprints_are_the_same_in_another_process() -> None:
    code = (
        "from experiments.ablation import load_ablation; from experiments.spec import spec_of;"
        "from experiments.plan import row_jobs; a = load_ablation('mask_sampling');"
        "s = spec_of(a, a.rows['block 50'], 'desk', 0);"
        "print(*(j.fingerprint for j in row_jobs(s, ['finetune', 'linear'])))"
    )
    root, words = Path(__file__).parents[2], [sys.executable, "-c", code]
    elsewhere = {**os.environ, "PYTHONHASHSEED": "7"}
    ran = subprocess.run(words, capture_output=True, text=True, check=True, cwd=root, env=elsewhere)
    here = row_jobs(spec("mask_sampling", "block 50", "desk"), ["finetune", "linear"])
    assert ran.stdout.split() == [job.fingerprint for job in here]
