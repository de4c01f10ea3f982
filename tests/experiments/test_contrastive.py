"""What the command promises of contrastive methods: a collapse is named, a kill is survived, parts are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.ablation import load_ablation
from experiments.record import Records, measurements
from experiments.run import main
from experiments.spec import spec_of
from experiments.stages.pretraining import Pretraining
from tests.experiments.test_run import kill_at

TABLE = """
title: Centring
question: Does DINO collapse without centring?
columns:
  loss: {metric: pretrain/loss, label: loss, unit: ""}
base: {all: [method=dino_desk, augment=none]}
rows:
  centred: {set: [SETTINGS]}
  not centred: {set: [SETTINGS, method.centre_momentum=1.0]}
"""
#: Sharp and fast enough for a collapse within 120 steps.
SETTINGS = (
    "method.local_views=0, method.prototypes=32, method.hidden=24, method.bottleneck=8, method.wait=0.0, "
    "method.teacher_temperature=0.04, method.momentum=0.9, pretrain.base_lr=0.048, pretrain.epochs=15"
)


def run(table: Path | str, out: Path, *words: str) -> None:
    given = [f"ablation={table}", "scale=smoke", "precision=fp32", *words]
    assert main([*given, "workers=1", f"out={out}", f"report_dir={out / 'report'}"]) == 0


def test_dino_without_centring_is_named_under_its_table(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "centring.yaml"
    path.write_text(TABLE.replace("SETTINGS", SETTINGS))
    run(path, out)
    said = capsys.readouterr().out
    assert "Pre-training collapsed, so that all samples got nearly the same features: not centred (1 seeds)." in said
    found = measurements(Records(out)).set_index(["metric", "row"])["value"]
    assert found["pretrain/feature_std", "centred"] > 10 * found["pretrain/feature_std", "not centred"]
    assert found["pretrain/feature_rank", "centred"] > 1


def test_a_killed_teacher_with_small_crops_goes_on_to_the_same_numbers(
    tmp_path: Path, out: Path, template: Path
) -> None:
    path, other = tmp_path / "dino.yaml", tmp_path / "undisturbed"
    columns = "{std: {metric: pretrain/feature_std, label: spread}}"
    path.write_text(f"title: t\nquestion: q\ncolumns: {columns}\nrows: {{DINO: {{set: [method=dino_desk]}}}}\n")
    other.mkdir()
    (other / "mlflow.db").write_bytes(template.read_bytes())
    run(path, other)
    kill_at(out, [f"ablation={path}", "scale=smoke", "precision=fp32"], "pretrain")
    run(path, out)
    names = ["pretrain/loss", "pretrain/feature_std", "pretrain/feature_rank"]
    expected, found = (measurements(Records(o)).set_index("metric")["value"][names] for o in (other, out))
    assert found.equals(expected)


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("moco_v3_desk", "because each sample is told from all others of the batch"),
        ("dino_desk", "because outputs are centred by the mean of the batch"),
        ("simmim", ""),
        ("beit", ""),
    ],
)
def test_micro_batches_are_refused_with_the_reason_where_a_loss_has_no_parts(method: str, why: str) -> None:
    table = load_ablation("decoder_depth")
    stage = Pretraining(spec_of(table, table.rows["8"], "smoke", 0, [f"method={method}"]))
    if why:
        with pytest.raises(ValueError, match=why):
            stage.check_sharing(1, 8, "ddp")
    else:
        stage.check_sharing(1, 8, "ddp")
