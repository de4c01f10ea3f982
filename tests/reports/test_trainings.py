"""What the page keeps of trainings: curves, reconstructions and provenance of the first seed of each row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from experiments.record import Record, Records
from reports import trainings
from reports.build import build
from reports.collect import tidy
from reports.render import html

ENVIRONMENT = {"mlflow.source.git.commit": "c0ffee", "mlflow.source.git.dirty": "true", "torch": "2.14"}
STEPS: list[float | None] = [float(step) for step in range(1, 201)]


def recorded(name: str) -> Record:
    """A finished training with a loss of 1 / step."""
    losses: list[float | None] = [1 / step for step in range(1, 201)]
    return Record(
        name, name, "pretrain", "desk", 0, {}, {}, {}, {}, ended=1.0, environment=ENVIRONMENT,
        curves={"step": STEPS, "loss": losses}, data={"name": "digits", "digest": "63af", "use": "train"},
    )  # fmt: skip


def measured() -> Any:
    """Two rows with two seeds each; the one that the paper has first was measured last."""
    lines = [
        (row, seed, metric, f"{row}{stage}{seed}")
        for row in ("b", "a")
        for seed in (1, 0)
        for stage, metric in (("f", "finetune/top1"), ("f", "finetune/seconds"), ("p", "pretrain/loss"))
    ]
    return tidy(
        ("mask_sampling", "", row, seed, "desk", metric, 50.0, name, f"run{name}") for row, seed, metric, name in lines
    )


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs of which row `a` has a strip of two samples of 8x8 pixels and an animation."""
    records = Records(tmp_path / "out")
    for name in ("af0", "ap0", "bf0", "bp0"):
        records.of(name).mkdir(parents=True)
        records.write(recorded(name))
    folder = records.of("ap0")
    texts = PngInfo()
    texts.add_itxt("columns", "original, masked")
    texts.add_itxt("note", "mean and std of <visible> patches")
    frames = [Image.new("RGB", (18, 18), shade) for shade in ("red", "blue")]
    frames[0].save(folder / "strip.png", pnginfo=texts)
    frames[0].save(folder / "strip.webp", save_all=True, append_images=frames[1:], lossless=True)
    monkeypatch.setattr("reports.build.ablation_names", lambda: [])
    return tmp_path / "out"


def test_the_first_seed_of_each_stage_stands_for_a_row_in_the_order_of_the_paper(make_ablation: Any) -> None:
    found = trainings.shown(make_ablation(rows={"a": {}, "b": {}, "c": {}}), measured(), "desk")
    assert list(found.columns) == list(trainings.SHOWN_COLUMNS)
    assert found["training"].tolist() == ["af0", "ap0", "bf0", "bp0"]
    assert found["stage"].tolist() == ["finetune", "pretrain"] * 2
    assert trainings.shown(make_ablation(), measured(), "paper").empty


def test_a_page_keeps_what_runs_told_when_the_runs_are_gone(out: Path, tmp_path: Path, make_ablation: Any) -> None:
    table = make_ablation(rows={"a": {"ft": 84.0}, "b": {"ft": 83.0}})
    report = tmp_path / "report"
    build([table], measured(), report, out=out)
    first = (report / "index.html").read_text()
    for words in (
        "data:image/png;base64,", "data:image/webp;base64,", "original, masked", "commit: c0ffee, with changes",
        "Predictions are un-normalised by the mean and std of &lt;visible&gt; patches.", "data: digits 63af (train)",
        "loss 1 to 0.005 in 200 steps", "img-src data:;",
    ):  # fmt: skip
        assert words in first, words
    assert first.count('class="strip"') == 2  # of the one row that has pictures
    assert len(trainings.training(report, "ap0").curve) == 50
    build([table], measured(), report, out=tmp_path / "elsewhere")
    assert (report / "index.html").read_text() == first


def test_without_runs_the_page_says_where_pictures_and_provenance_come_from(
    tmp_path: Path, make_ablation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reports.build.ablation_names", lambda: [])
    build([make_ablation(rows={"a": {}, "b": {}})], measured(), tmp_path)
    found = (tmp_path / "index.html").read_text()
    assert "No pictures are here: the committed results hold numbers only" in found
    assert "git log reports/results/mask_sampling.csv" in found
    assert 'class="strip"' not in found


def test_large_pictures_lie_beside_the_page(
    out: Path, tmp_path: Path, make_ablation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "MOST", 10)
    report = tmp_path / "report"
    build([make_ablation(rows={"a": {}, "b": {}})], measured(), report, out=out)
    found = (report / "index.html").read_text()
    assert 'src="trainings/ap0.png"' in found
    assert "img-src data: 'self' file:;" in found
    assert (report / "trainings" / "ap0.png").read_bytes() == (out / "runs" / "ap0" / "strip.png").read_bytes()


@pytest.mark.parametrize("name", ["../secret", "a/b", ""])
def test_a_name_that_is_no_training_reads_no_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "trainings").mkdir()
    (tmp_path / "secret.json").write_text('{"facts": {"a": "b"}, "curve": []}')
    assert trainings.training(tmp_path, name) == trainings.Training(name, {}, ())
