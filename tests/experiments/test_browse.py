"""What a person finds who browses the runs: tables with their trainings, the list's columns, pictures by epoch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
import torch

from experiments import browse
from experiments.ablation import load_ablation
from experiments.options import read
from experiments.pictures import save_strips
from experiments.plan import plan
from experiments.record import Record, Records, measurements
from experiments.run import Options
from experiments.spec import spec_of
from experiments.stages.pretraining import SKETCHED
from experiments.tracking import EXPERIMENT, PARENT, Tracker, table_tag, tracking_uri
from experiments.view import View
from mae.train.loop import Runtime

FACTS = {"seed": "0", "stage": "finetune", "scale": "smoke"}


def open_run(tracker: Tracker, fingerprint: str, tables: dict[str, str]) -> str:
    placed = {table_tag(table): row for table, row in tables.items()}
    entry = tracker.open(fingerprint, {**FACTS, **placed, "fingerprint": fingerprint}, {}, 0.0, None)
    entry.results({"finetune/top1": 50.0}, 1.0)
    entry.close("FINISHED", 1.0)
    return entry.run_id


def test_a_shared_training_lies_under_the_table_that_asked_first_and_carries_all(out: Path) -> None:
    tracker = Tracker(tracking_uri(out), out)
    first, second = tracker.group("decoder_depth", "smoke"), tracker.group("mask_sampling", "smoke")
    shared = open_run(tracker, "a", {"decoder_depth": "8", "mask_sampling": "random 75"})
    own = open_run(tracker, "b", {"mask_sampling": "grid 75"})
    children = {run.info.run_id: run.data.tags[PARENT] for run in tracker.runs("")}
    assert children == {shared: first, own: second}
    query = f"tags.`{table_tag('mask_sampling')}` LIKE '%' AND tags.scale = 'smoke'"
    assert query in browse.table_note(load_ablation("mask_sampling"), "smoke", table_tag("mask_sampling"))
    assert {run.info.run_id for run in tracker.runs(query)} == {shared, own}
    assert Tracker(tracking_uri(out), out).group("mask_sampling", "smoke") == second
    assert tracker.group("mask_sampling", "desk") != second


def test_runs_of_tables_are_no_trainings_and_measure_nothing(out: Path) -> None:
    tracker = Tracker(tracking_uri(out), out)
    open_run(tracker, "a", {"decoder_depth": "8"})
    tracker.describe("decoder_depth", "smoke", {}, {"best/finetune/top1": 99.0})
    assert View(Records(out), tracking_uri(out)).take_in() == 1
    assert measurements(Records(out))["value"].tolist() == [50.0]
    assert tracker.client.get_run(tracker.group("decoder_depth", "smoke")).info.status == "FINISHED"


def test_runs_of_earlier_versions_come_under_a_table_and_out_of_one_that_changed(out: Path) -> None:
    tracker = Tracker(tracking_uri(out), out)
    run = open_run(tracker, "a", {"decoder_depth": "8"})
    tracker.client.delete_tag(run, PARENT)
    open_run(tracker, "a", {"decoder_depth": "8"})
    placed = tracker.client.get_run(run)
    assert placed.data.tags[PARENT] == tracker.group("decoder_depth", "smoke")
    open_run(tracker, "a", {})
    assert PARENT not in tracker.client.get_run(run).data.tags


def test_a_table_tells_again_only_what_is_new(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, float]] = []
    monkeypatch.setattr(Tracker, "describe", lambda self, table, scale, tags, numbers, files: told.append(numbers))
    for number in (1.0, 1.0, 2.0):
        view = View(Records(out), tracking_uri(out))
        with view.kept_up():
            view.describe("decoder_depth", "smoke", {"verdicts": "-"}, {"best": number}, ())
    assert told == [{"best": 1.0}, {"best": 2.0}]
    assert view.experiment == view.tracker.experiment


def test_the_view_of_the_link_is_one_that_the_installed_ui_reads(out: Path) -> None:
    tracker = Tracker(tracking_uri(out), out)
    tracker.client.set_experiment_tag(tracker.experiment, browse.VIEW_TAG, "{}")  # of an earlier version
    tags = Tracker(tracking_uri(out), out).client.get_experiment_by_name(EXPERIMENT).tags
    assert "viewStateShareKey=tables" in tags[browse.NOTE]
    view, link = json.loads(tags[browse.VIEW_TAG]), browse.link(tracker.experiment)
    assert {"metrics.`accuracy`", "tags.`row`", "tags.`seed`"} < set(view["selectedColumns"])
    scripts = (Path(mlflow.__file__).parent / "server/js/build/static/js").glob("main.*.js")
    served = "".join(path.read_text() for path in scripts)
    prefix = browse.VIEW_TAG.removesuffix(browse.VIEW)
    for word in (prefix, *view, "viewStateShareKey", "workflowType", "machine_learning"):
        assert f'"{word}"' in served, word
    assert all(word in link for word in ("viewStateShareKey=tables", "workflowType=machine_learning"))
    assert f"/#/experiments/{tracker.experiment}/runs?" in link


@pytest.mark.parametrize("table", ["decoder_depth", "decoder_depth--evaluate-linear=desk+pretrain.epochs=3"])
def test_the_command_of_a_training_asks_for_its_row_and_seed(table: str) -> None:
    import shlex

    words = shlex.split(browse.command_of(table, "8 (default)", 2, "desk"))
    options = read(Options, words[2:], lambda: {"evaluate/linear", "pretrain.epochs"})
    assert (options.ablation, options.rows, options.seeds) == (("decoder_depth",), ("8 (default)",), "3")
    assert len(options.overrides) == table.count("=")


def test_pictures_are_drawn_after_doubling_epochs_and_change_no_number(tmp_path: Path) -> None:
    overrides = ["pretrain.epochs=5", "pretrain.warmup_epochs=0"]
    job = plan([load_ablation("decoder_depth")], "smoke", 1, overrides, rows=["1"])[0]
    per_epoch, drawn = job.facts.steps // 5, {}
    plain = Runtime(seed=0, log_every=1)
    watched = replace(plain, sketch=lambda step, pictures, note: drawn.update({step: (dict(pictures), note)}))
    found = []
    for runtime in (plain, watched):
        torch.manual_seed(0)
        found.append(job.made().run(None, tmp_path, runtime))
    assert list(drawn) == [per_epoch, 2 * per_epoch, 4 * per_epoch]
    pictures, note = drawn[per_epoch]
    assert set(pictures) == {"original", "masked", "reconstruction", "pasted"}
    assert len(pictures["original"]) == SKETCHED
    assert note == found[0].note
    assert not torch.equal(pictures["reconstruction"], drawn[4 * per_epoch][0]["reconstruction"])
    assert found[0].results["loss"] == found[1].results["loss"]
    assert all(torch.equal(tensor, found[1].tensors[name]) for name, tensor in found[0].tensors.items())


def test_strips_show_samples_below_one_another_and_clips_frame_by_frame(tmp_path: Path) -> None:
    from PIL import Image

    data = spec_of(load_ablation("decoder_depth"), load_ablation("decoder_depth").rows["1"], "smoke", 0).data
    values = torch.linspace(0, 1, 3 * 6).view(3, 1, 6, 1, 1)  # one grey for each sample and frame
    mean, std = (torch.tensor(part).view(1, 3, 1, 1, 1) for part in (data.mean, data.std))
    clips = ((values - mean) / std).expand(3, 3, 6, 8, 8)
    save_strips({"original": clips, "masked": clips}, data, "a note", tmp_path / "strip.png")
    with Image.open(tmp_path / "strip.png") as strip:
        strip.load()
        assert strip.text == {"columns": "original, masked", "note": "a note"}
        assert strip.size == (2 * (4 * 8) + 2, 2 * 8 + 2)
        shades = [strip.getpixel((8 * place, 0))[0] for place in range(4)]
        assert shades == [round(255 * frame / 17) for frame in (0, 2, 3, 5)]
        assert strip.getpixel((0, 10))[0] == round(255 * 6 / 17)  # the second sample
        assert strip.getpixel((33, 0))[0] == 255
    with Image.open(tmp_path / "strip.webp") as film:
        assert film.n_frames == 6
        film.seek(5)
        assert film.convert("RGB").getpixel((0, 0))[0] == round(255 * 5 / 17)
    save_strips({"original": clips[:, :, :1]}, data, "", tmp_path / "picture.png")
    assert not (tmp_path / "picture.webp").exists()


def test_a_run_that_is_taken_up_again_keeps_each_picture_once(out: Path) -> None:
    from PIL import Image

    records, view = Records(out), View(Records(out), tracking_uri(out))
    for steps in ((2, 4), (4, 8)):
        for step in steps:
            path = records.of("a") / "sketches" / f"{step}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(path)
        records.write(Record("a", "a", "finetune", "smoke", 0, {}, {}, {}, {}, ended=1.0 * len(steps)))
        view.push()
    (run,) = view.tracker.runs("")
    names = [file.path for file in view.tracker.client.list_artifacts(run.info.run_id, "images")]
    assert sorted(int(name.split("+")[2]) for name in names if name.endswith(".png")) == [2, 4, 8]
