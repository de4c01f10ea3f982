"""Records: files are the truth, written whole, and tracking stores show what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from experiments import sync
from experiments.record import ATTEMPT, CURVES, RECORD, Journal, Record, RecordError, Records, measurements
from experiments.tracking import EXPERIMENT, Tracker, tracking_uri
from experiments.view import View, records_of, shown

CURVE = {"step": [1, 2], "time": [1.5, 2.5], "loss": [0.5, 0.25], "utilisation": [None, 0.75]}


def made(name: str = "f00d", **more: object) -> Record:
    facts = (name, f"row {name}", "finetune", "smoke", 0, {"decoder_depth": "1"})
    record = Record(*facts, tags={"ablation": "decoder_depth"}, parameters={"steps": 2}, spec={"a": {"b": 1}})
    finished = replace(
        record,
        run_id="r",
        started=0.5,
        ended=3.5,
        results={"finetune/top1": 50.0},
        environment={"torch": "2"},
        curves=CURVE,
    )
    return replace(finished, **more)  # type: ignore[arg-type]


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    Records(tmp_path).write(made())
    assert Records(tmp_path).finished() == {"f00d": made()}


@pytest.mark.parametrize(("text", "says"), [("{", "delete that file"), ('{"format": 99}', "use the newer code")])
def test_a_record_that_cannot_be_read_is_named_in_a_sentence(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "runs" / "f00d" / RECORD
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(RecordError, match=f"f00d/{RECORD} cannot be read: .*{says}"):
        Records(tmp_path).finished()


def test_a_journal_cut_off_anywhere_goes_on_as_one_run_without_a_point_twice(tmp_path: Path) -> None:
    first = Journal(tmp_path, made())
    for step in (1, 2, 3):
        first.point(step, step / 4, {"loss": float(step)})
    whole = (tmp_path / CURVES).read_bytes()
    (tmp_path / CURVES).write_bytes(whole[:-5])  # a kill in the middle of a line
    again = Journal(tmp_path, made(run_id="another"))
    for step in (2, 3, 4):  # from the last checkpoint
        again.point(step, step / 4, {"loss": float(step)})
    record = again.finish({"finetune/top1": 1.0}, {})
    assert record.run_id == first.record.run_id
    assert (record.curves["step"], record.curves["loss"]) == ([1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0])
    assert [path.name for path in tmp_path.iterdir()] == [RECORD]


def test_a_failure_is_known_to_its_command_alone_and_forgotten_by_the_next_attempt(tmp_path: Path) -> None:
    records = Records(tmp_path)
    Journal(records.of("f00d"), made(launch="one"))
    records.fail("f00d", "NotFinite", "the loss is nan", "the loss is nan")
    assert list(records.failures(["one"])) == ["f00d"]
    assert not records.failures(["two"])
    assert "the loss is nan" in Path(records.failures(["one"])["f00d"].log).read_text()
    Journal(records.of("f00d"), made(launch="two"))
    assert records.failure("f00d") is None


def test_a_run_serves_the_tables_it_is_placed_in_and_leaves_cells_whose_spec_has_changed(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.write(made())
    records.place({"f00d": {"masking_ratio": "75"}}, {("decoder_depth", "1", 0, "finetune", "smoke"): "beef"})
    found = measurements(records)
    assert [tuple(line) for line in found[["ablation", "row", "value"]].to_numpy()] == [("masking_ratio", "75", 50.0)]
    assert measurements(records, ["decoder_depth"]).empty


def entries(uri: str) -> dict[str, dict[str, object]]:
    """What a store shows of each fingerprint, read by MLflow's own client."""
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(EXPERIMENT)
    return {
        run.data.tags["fingerprint"]: {
            "status": run.info.status,
            "top1": run.data.metrics.get("finetune/top1"),
            "row": run.data.tags.get("table.decoder_depth"),
            "loss": [(m.step, m.value, m.timestamp) for m in client.get_metric_history(run.info.run_id, "loss")],
        }
        for run in client.search_runs([found.experiment_id])
        if "fingerprint" in run.data.tags  # the others stand for tables
    }


def test_a_store_shows_records_once_and_again_only_when_they_change(out: Path) -> None:
    records, uri = Records(out), tracking_uri(out)
    records.write(made())
    assert View(records, uri).push() == 1
    assert View(records, uri).push() == 0
    assert entries(uri) == {
        "f00d": {"status": "FINISHED", "top1": 50.0, "row": "1", "loss": [(1, 0.5, 1500), (2, 0.25, 2500)]}
    }
    records.place({"f00d": {}}, {("decoder_depth", "1", 0, "finetune", "smoke"): "beef"})
    assert View(records, uri).push() == 1
    assert entries(uri)["f00d"]["row"] is None
    (out / "mlflow.db").unlink()  # the database may go: it is made anew
    assert View(records, uri).left() == ["f00d"]


def test_trainings_under_way_are_shown_and_none_stays_running_that_nobody_works_on(out: Path) -> None:
    records, uri = Records(out), tracking_uri(out)
    journal = Journal(records.of("f00d"), made())
    journal.point(1, 0.5, {"loss": 1.0})
    view = View(records, uri)
    view.follow()
    assert entries(uri)["f00d"]["status"] == "RUNNING"
    journal.point(2, 1.0, {"loss": 0.5})
    with records.locks.hold("f00d"):
        view.follow(last=True)
    assert entries(uri)["f00d"]["status"] == "RUNNING"
    assert [step for step, *_ in entries(uri)["f00d"]["loss"]] == [1, 2]  # type: ignore[attr-defined]
    view.follow(last=True)
    assert entries(uri)["f00d"]["status"] == "KILLED"
    records.fail("f00d", "NotFinite", "the loss is nan", "")
    view.follow(last=True)
    assert entries(uri)["f00d"]["status"] == "FAILED"


def test_a_server_that_is_away_is_said_once_and_loses_nothing(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.view.PASS", 0.01)
    monkeypatch.setattr("experiments.view.PATIENCE", 1.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    records = Records(out)
    records.write(made())
    with View(records, "http://name:secret@127.0.0.1:9").kept_up():
        pass
    said = capsys.readouterr().err
    assert "the tracking store lacks 1 records" in said
    assert "secret" not in said
    assert View(records, tracking_uri(out)).push() == 1


def test_an_address_is_shown_without_its_password() -> None:
    assert shown("postgresql://me:secret@host/name") == "postgresql://...@host/name"
    assert shown("sqlite:////a@b/c.db") == "sqlite:////a@b/c.db"


def test_finished_runs_of_an_earlier_store_become_records_once(out: Path) -> None:
    client = Tracker(tracking_uri(out), out).client
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    for name, status in (("f00d", "FINISHED"), ("beef", "FAILED")):
        tags = {"fingerprint": name, "stage": "finetune", "seed": "1", "scale": "desk", "table.decoder_depth": "8",
                "torch": "2.6", "paper": "arXiv"}  # fmt: skip
        run = client.create_run(experiment, tags=tags).info.run_id
        client.log_param(run, "epochs", 3)
        for step, loss in ((1, 0.5), (2, 0.25)):
            client.log_metric(run, "loss", loss, timestamp=1000 * step, step=step)
        client.log_metric(run, "finetune/top1", 50.0)
        client.log_dict(run, {"a": 1}, "spec.yaml")
        client.set_terminated(run, status)
    assert list(records_of(out).finished()) == ["f00d"]
    record = records_of(out).finished()["f00d"]
    assert (record.seed, record.scale, record.tables) == (1, "desk", {"decoder_depth": "8"})
    assert (record.results, record.environment) == ({"finetune/top1": 50.0}, {"torch": "2.6"})
    assert (record.parameters, record.spec) == ({"epochs": "3"}, {"a": 1})
    assert record.curves == {"step": [1, 2], "time": [1.0, 2.0], "loss": [0.5, 0.25]}
    assert View(records_of(out), tracking_uri(out)).push() == 0


def test_records_of_another_machine_are_taken_in_and_pushed_to_a_store(
    out: Path, tmp_path: Path, template: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    Records(other).write(made("beef"))
    Records(other).write(made("f00d", results={"finetune/top1": 0.0}))
    Records(out).write(made("f00d"))
    (tmp_path / "far.db").write_bytes(template.read_bytes())
    assert sync.main([f"out={out}", f"from={other}", f"to=sqlite:///{tmp_path / 'far.db'}"]) == 0
    found = Records(out).finished()
    assert found.keys() == {"beef", "f00d"}
    assert found["f00d"].results == {"finetune/top1": 50.0}  # what is here stays
    assert entries(f"sqlite:///{tmp_path / 'far.db'}").keys() == {"beef", "f00d"}
    assert "1 records taken in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [("from=/nowhere", "is no output folder"), ("form=/x", "did you mean from"), ("from=sqlite:////no.db", "no such")],
)
def test_what_cannot_be_brought_together_is_one_sentence(
    out: Path, words: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sync.main([f"out={out}", words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.splitlines()) == 1


def test_an_attempt_that_was_damaged_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / ATTEMPT).write_text("{")
    assert json.loads((Journal(tmp_path, made()).folder / ATTEMPT).read_text())["fingerprint"] == "f00d"
