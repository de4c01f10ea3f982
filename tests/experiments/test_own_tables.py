"""Tables and parts outside the repository: CONTRIBUTING's recipes as they stand there, and what is refused of them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Generator

from experiments.ablation import load_ablation
from experiments.assemble import method_of
from experiments.plan import Job, plan
from experiments.run import main
from experiments.spec import PRETRAIN, spec_of
from experiments.stages.evaluation import Evaluation
from experiments.stages.pretraining import Pretraining
from mae.grid import Grid
from mae.methods import Method
from tests.experiments.fresh import forget

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RECIPES = dict(BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))


def lay_out(folder: Path) -> Path:
    """Every recipe's files in ``folder``; the path of the table."""
    for name, text in RECIPES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder / "my_table.yaml"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The table of the recipes in a folder of its own; this process can import its modules meanwhile."""
    known = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    forget()
    yield lay_out(tmp_path)
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    forget()


def test_every_recipe_has_a_python_file_and_a_yaml_file() -> None:
    options = {name.partition("/")[0] for name in RECIPES if "/" in name}
    assert options == {"mask", "target", "method", "evaluate", "data"}
    assert sum(name.endswith(".py") for name in RECIPES) == len(options)
    assert "my_table.yaml" in RECIPES


def test_a_table_of_ones_own_runs_to_its_printed_table(tmp_path: Path, out: Path) -> None:
    mine = tmp_path / "my parts, and a table"
    mine.mkdir()
    words = [f"ablation={lay_out(mine)}", "scale=smoke", "workers=1", f"out={out}", f"report_dir={out / 'report'}"]
    done = subprocess.run(
        [sys.executable, "experiments/run.py", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "My parts" in done.stdout
    found = pd.read_csv(out / "report" / "tables" / "my_table.csv")
    assert set(found["row"]) == {"usual", "mask", "target", "method", "data"}
    assert set(found["metric"]) == {"ft", "max"}
    assert (found["n"] == 1).all()
    assert found["paper"].isna().all()


@pytest.mark.parametrize("scale", ["smoke", "desk", "paper"])
def test_parts_of_ones_own_give_finite_losses_and_planned_flops(table: Path, scale: str) -> None:
    ablation = load_ablation(str(table))
    for row in ablation.rows.values():
        if scale == "paper" and row.label == "data":
            continue  # its pictures are small
        spec = spec_of(ablation, row, scale, 0)
        with torch.device("meta"):
            assert isinstance(method_of(spec), Method)
        assert Pretraining(spec).flops() > 0
        assert Evaluation(spec, "max_pooled").flops() > 0
        if scale == "smoke":
            clips = torch.randn(2, 3, *spec.data.input_size)
            assert method_of(spec).loss([clips], Generator().manual_seed(0)).isfinite()


def test_a_mask_without_a_ratio_is_planned_by_what_it_leaves_visible(table: Path) -> None:
    ablation = load_ablation(str(table))
    mine = spec_of(ablation, ablation.rows["mask"], "smoke", 0)
    grid = Grid.of(1, mine.data.input_size, mine.model.patch)
    with torch.device("meta"):
        assert method_of(mine).visible == (grid.h - 2) * (grid.w - 2)


def names(jobs: list[Job], row: str) -> dict[str, str]:
    return {job.stage: job.fingerprint for job in jobs if row in {cell.row for cell in job.cells}}


def test_a_registered_class_may_move_and_another_may_not(table: Path) -> None:
    folder = table.parent
    (folder / "names.yaml").write_text("mask/middle: my_masks.Middle\n")
    before = plan([load_ablation(str(table))], "smoke", 1)
    for name in ("my_masks", "my_targets"):
        (folder / f"moved_{name}.py").write_text(RECIPES[f"{name}.py"])
    for name, module in (("mask/middle", "my_masks"), ("target/contrast", "my_targets")):
        text = RECIPES[f"{name}.yaml"].replace(module, f"moved_{module}")
        (folder / f"{name}.yaml").write_text(text)
    (folder / "names.yaml").write_text("mask/middle: moved_my_masks.Middle\n")
    forget()
    after = plan([load_ablation(str(table))], "smoke", 1)
    assert names(after, "mask") == names(before, "mask")
    assert set(names(after, "target").values()).isdisjoint(names(before, "target").values())


def test_a_raised_version_of_ones_own_data_reruns_the_row_on_it_alone(table: Path) -> None:
    before = plan([load_ablation(str(table))], "smoke", 1)
    sys.modules["my_data"].Stripes.version = 2  # type: ignore[attr-defined]
    forget()
    after = plan([load_ablation(str(table))], "smoke", 1)
    changed = {job.fingerprint for job in before} - {job.fingerprint for job in after}
    assert changed == set(names(before, "data").values())
    assert len(changed) == 3


def test_rows_without_anything_of_ones_own_are_those_of_the_project(table: Path) -> None:
    own = names(plan([load_ablation(str(table))], "smoke", 1), "usual")
    project = names(plan([load_ablation("mask_sampling")], "smoke", 1), "random 75")
    assert {stage: own[stage] for stage in (PRETRAIN, "finetune")} == {
        stage: project[stage] for stage in (PRETRAIN, "finetune")
    }


@pytest.mark.parametrize("method", ["beit", "simmim"])
def test_masking_ratios_of_another_method_are_a_table_without_python(
    method: str, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, ratios = tmp_path / "sweep.yaml", (0.2, 0.4, 0.6, 0.8)
    rows = "".join(f'  "{ratio}": {{set: [method={method}, mask.ratio={ratio}]}}\n' for ratio in ratios)
    path.write_text(f"title: t\nquestion: q\ncolumns: {{lin: {{metric: linear/top1, label: lin}}}}\nrows:\n{rows}")
    assert main([f"ablation={path}", "scale=smoke", "plan_only=true", f"out={out}"]) == 0
    assert "4 rows need 4 pre-trainings and 4 evaluations" in capsys.readouterr().out
    table = load_ablation(str(path))
    with torch.device("meta"):
        methods = [method_of(spec_of(table, row, "smoke", 0)) for row in table.rows.values()]
    assert [one.visible for one in methods] == [28, 21, 14, 7]
    assert [one.asked for one in methods] == [8, 15, 22, 29]


@dataclass(frozen=True)
class Damage:
    """A text of a recipe's file, what stands in its place, and words of the sentence that refuses it."""

    file: str
    old: str
    new: str
    says: tuple[str, ...]


DAMAGES = {
    "key of the table": Damage("my_table.yaml", "question:", "qestion:", ("my_table.yaml", "'qestion'", "question")),
    "key of a column": Damage("my_table.yaml", "metric: finetune", "metrik: finetune", ("'ft'", "'metrik'", "metric")),
    "key of a row": Damage(
        "my_table.yaml", "{set: [mask", "{sett: [mask", ("row 'mask'", "'sett'", "did you mean set")
    ),
    "column of a published value": Damage(
        "my_table.yaml",
        "usual: {set: []}",
        "usual: {set: [], paper: {fft: 84.9}}",
        ("row 'usual'", "'fft'", "did you mean ft"),
    ),
    "scale of a row": Damage(
        "my_table.yaml", "[mask=middle]", "{dsk: [mask=middle]}", ("row 'mask'", "'dsk'", "did you mean desk")
    ),
    "default row": Damage(
        "my_table.yaml", "default: usual", "default: usuall", ("my_table.yaml", "'usuall'", "did you mean usual")
    ),
    "option of a row": Damage(
        "my_table.yaml", "mask=middle", "mask=midle", ("my_table.yaml", "row 'mask'", "'midle'", "did you mean middle")
    ),
    "value of a row": Damage(
        "my_table.yaml", "mask=middle", "mask.ratoi=0.5", ("my_table.yaml", "row 'mask'", "ratoi", "ratio")
    ),
    "stage of a column": Damage(
        "my_table.yaml", "max_pooled/top1", "max_poled/top1", ("max_poled", "did you mean max_pooled")
    ),
    "rows that compute the same": Damage(
        "my_table.yaml", "[mask=middle]", "[mask=random]", ("'usual' and 'mask' compute the same",)
    ),
    "no rows": Damage("my_table.yaml", "rows:", "claims: []\nnotes:", ("my_table.yaml", "rows")),
    "no YAML": Damage("my_table.yaml", "rows:", "rows: [", ("my_table.yaml", "not YAML")),
    "mask without visible": Damage("my_masks.py", "def visible", "def seen", ("Middle", "visible")),
    "mask that is not there": Damage("mask/middle.yaml", "Middle", "Midle", ("my_masks", "Midle")),
    "key of a mask": Damage("mask/middle.yaml", "border: 1", "boarder: 1", ("boarder",)),
    "method that is no Method": Damage(
        "my_methods.py", "Denoising(Method)", "Denoising(nn.Module)", ("Denoising", "mae.methods.Method")
    ),
    "method without loss": Damage("my_methods.py", "def loss", "def error", ("Denoising", "loss")),
    "head that is no Head": Damage(
        "my_heads.py", "MaxPooledProbe(Probe)", "MaxPooledProbe", ("MaxPooledProbe", "mae.heads.Head")
    ),
    "data set that is no DataSet": Damage("my_data.py", "Stripes(DataSet)", "Stripes", ("Stripes", "DataSet")),
    "data set without version": Damage("my_data.py", "    version: ClassVar[int] = 1\n", "", ("Stripes", "version")),
    "key of an evaluation": Damage(
        "evaluate/max_pooled/default.yaml", "augment:", "augmnt:", ("max_pooled", "'augmnt'", "augment")
    ),
    "key of data": Damage("data/stripes.yaml", "classes:", "clases:", ("'clases'", "classes")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_what_cannot_be_run_is_refused_in_a_sentence_before_training(
    table: Path, damage: Damage, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table.parent / damage.file
    assert damage.old in path.read_text()
    path.write_text(path.read_text().replace(damage.old, damage.new))
    assert main([f"ablation={table}", "scale=smoke", f"out={out}", "workers=1"]) == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    assert [words for words in damage.says if words not in said] == [], said
    assert not (out / "cache").exists() or not list((out / "cache").glob("stripes*"))


def test_a_name_registered_twice_is_refused_in_a_sentence(
    table: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (table.parent / "names.yaml").write_text("mask/random: my_masks.Middle\n")
    assert main([f"ablation={table}", "scale=smoke", f"out={out}"]) == 2
    said = capsys.readouterr().err.strip()
    assert "names.yaml: the name 'mask/random' is registered twice; choose another for my_masks.Middle" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("name", ["nowhere/my_table.yaml", "decoder_depth.yaml"])
def test_a_file_that_is_not_there_or_has_a_name_of_the_project_is_refused(
    name: str, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "decoder_depth.yaml").write_text("title: t\n")
    assert main([f"ablation={tmp_path / name}", "scale=smoke", f"out={out}"]) == 2
    said = capsys.readouterr().err.strip()
    assert name.rpartition("/")[2] in said
    assert len(said.splitlines()) == 1
