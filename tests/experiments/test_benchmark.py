"""The benchmark's arguments, and its pipelines: what they train on, what counts as a turn. Nothing here is timed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator

from experiments.benchmark import __main__ as command
from experiments.benchmark import pipelines, steps
from experiments.benchmark.__main__ import main, parse
from experiments.benchmark.pipelines import PIPELINES, SIDES, Side, measure, most_ahead, ready, sides_of
from experiments.benchmark.steps import DEFAULT_SHAPES
from experiments.stages.evaluation import stage_of
from mae.data.augment.color import Normalise
from mae.data.augment.compose import Compose
from mae.data.source import Images
from mae.model import Transformer
from mae.train.loop import Runtime, order

CPU = torch.device("cpu")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """As little data as a batch needs, and no memory held back from the tests that follow."""
    monkeypatch.setattr(pipelines, "CLIPS", {"train": 8, "test": 8})
    monkeypatch.setattr(pipelines, "PICTURES", {"train": 64, "test": 13})
    monkeypatch.setattr(pipelines, "keep_freed_memory", lambda: None)
    for name in ("pictures.stream.processors", "clips.stream.processors", "clips.cache.default_workers"):
        monkeypatch.setattr(f"mae.data.{name}", lambda: 1)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("pipelines=desk_image", "unknown pipelines 'desk_image': did you mean desk_images"),
        ("pipelines=,", "pipelines= names nothing; write pipelines=NAME"),
        ("shapes=vit", "unknown shapes 'vit': did you mean vit_"),
        ("threads=x", "threads=x: give a whole number"),
        ("threads=-1", "threads=-1: give a whole number"),
        ("seconds=x", "seconds=x: give a number of at least 0.001"),
        ("seconds=0", "seconds=0: give a number of at least 0.001"),
        ("seconds=nan", "seconds=nan: give a number"),
        ("seconds=inf", "seconds=inf: give a number"),
        ("rounds=0", "rounds=0: give a whole number"),
        ("mask.ratio=0.5", "unknown key 'mask.ratio'"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(
    argument: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {words}")
    assert said.count("\n") == 1


def test_naming_pipelines_or_shapes_alone_measures_only_those() -> None:
    assert parse([]).shapes == DEFAULT_SHAPES
    assert parse([]).pipelines == ()
    assert parse(["pipelines=desk_clips,jpeg_folder"]).shapes == ()
    assert parse(["pipelines=desk_clips,jpeg_folder"]).pipelines == ("desk_clips", "jpeg_folder")
    assert parse(["shapes=vit_b16"]).pipelines == ()
    both = parse(["shapes=vit_b16", "pipelines=desk_clips"])
    assert (both.shapes, both.pipelines) == (("vit_b16",), ("desk_clips",))


def test_numbers_are_taken_as_given() -> None:
    options = parse(["rounds=3", "seconds=0.5", "threads=2"])
    assert (options.rounds, options.seconds, options.threads) == (3, 0.5, 2)
    assert parse(["threads=0"]).threads == 0


def test_a_report_holds_pipelines_without_shapes(
    few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PIPELINES, "desk_images", replace(PIPELINES["desk_images"], scale="smoke"))
    out = tmp_path / "report.json"
    assert main(["pipelines=desk_images", "rounds=2", "seconds=0.01", "device=cpu", f"out={out}"]) == 0
    report = json.loads(out.read_text())
    assert report["shapes"] == {}
    assert list(report["pipelines"]) == ["desk_images"]
    _check(report["pipelines"]["desk_images"]["in memory"])
    written = out.with_suffix(".md").read_text()
    assert "| desk_images: in memory | 16 |" in written
    assert written.strip() == capsys.readouterr().out.strip()


def test_pictures_in_files_are_measured_streamed_and_decoded_once(few: None, tmp_path: Path) -> None:
    found = measure(replace(PIPELINES["jpeg_folder"], scale="smoke"), tmp_path, CPU, rounds=1, least=0.01)
    assert set(found) == {"files", "decoded once"}
    for feed in found.values():
        _check(feed)


def test_clips_are_measured_with_repeats_in_fine_tuning(few: None, tmp_path: Path) -> None:
    twice = "decoded cache, each twice"
    pipeline = PIPELINES["desk_clips_files"]
    pipeline = replace(pipeline, scale="smoke", feeds={twice: pipeline.feeds[twice]})
    found = measure(pipeline, tmp_path, CPU, rounds=1, least=0.01)[twice]
    _check(found)
    assert found["batch"] == 16  # eight clips are all there are


def _check(found: Mapping[str, Any]) -> None:
    """Speeds and ratios are positive and finite, and the median lies in the spread."""
    ratio = found["end to end over ready batches"]
    for value in (*ratio.values(), *(found[side]["samples_per_second"] for side in SIDES)):
        assert value > 0
        assert math.isfinite(value)
    assert ratio["least"] <= ratio["ratio"] <= ratio["most"]


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_every_feed_gives_the_desk_recipe_batches_of_one_shape(name: str, few: None, tmp_path: Path) -> None:
    pipeline = PIPELINES[name]
    made = pipeline.material(tmp_path)
    shapes = set()
    for feed, overrides in pipeline.feeds.items():
        stage = stage_of(pipeline.spec((*made, *overrides, *_small(name))), pipeline.stage)
        assert stage.spec.scale == "desk"
        sides = sides_of(stage, tmp_path / "cache", CPU)
        images = sides["ready batches"].source.batch.images  # type: ignore[attr-defined]
        assert images.dtype == torch.float32
        assert len(images) == sides["end to end"].batch
        assert (most_ahead(sides["end to end"].source) > 0) == feed.startswith("files")
        shapes.add(tuple(images.shape[1:]))
    assert len(shapes) == 1


def _small(name: str) -> tuple[str, ...]:
    return (
        ("data.samples.pretrain=64", "data.samples.train=64", "data.samples.test=64") if name == "desk_images" else ()
    )


def test_a_ready_batch_is_the_first_of_the_training_and_never_changes() -> None:
    pictures = torch.randint(256, (12, 3, 4, 4), generator=Generator().manual_seed(0), dtype=torch.uint8)
    source, augment = Images(pictures, torch.arange(12), ()), Normalise([0.5] * 3, [0.25] * 3)
    made = ready(source, augment, 4, CPU)
    (first,) = source.batches(order(12, 4, 0, 0, 1), CPU)
    assert len(made) == len(source)
    for batch in made.batches(order(12, 4, 1, 0, 3), CPU):
        assert batch is made.batch
        assert torch.equal(batch.images, augment(first.images, Generator()))
        assert torch.equal(batch.labels, first.labels)


def test_a_turn_counts_neither_its_first_nor_its_last_stretch() -> None:
    steps_asked = []

    def training(source: object, augment: object, steps: int, runtime: Runtime) -> None:
        steps_asked.append((steps, runtime.log_every))
        for stretch, rate in enumerate((1.0, 10.0, 30.0, 1000.0)):
            runtime.observe(stretch, {"samples_per_second": rate})

    source = Images(torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), ())
    side = Side(training, source, Compose(()), Runtime(0), batch=2)
    assert side.rate(stretches=2) == pytest.approx(15.0)  # equally many samples at 10 and at 30 a second
    assert steps_asked == [(4, 1)]


@pytest.mark.parametrize(("decoder", "frozen"), [(Transformer(16, 1, 2), False), (None, False), (None, True)])
def test_a_shape_has_ratios_and_the_parts_of_its_step_make_a_whole(
    decoder: Transformer | None, frozen: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shape = steps.Shape(2, 16, (1, 8, 8), Transformer(16, 1, 2), decoder, frozen=frozen)
    monkeypatch.setitem(steps.SHAPES, "tiny", shape)
    monkeypatch.setattr(command, "matmul_peak", lambda device, precision: 1e9)
    monkeypatch.setattr(steps, "keep_freed_memory", lambda keep: None)
    assert main(["shapes=tiny", "rounds=2", "seconds=0.001", "device=cpu", f"out={tmp_path / 'found.json'}"]) == 0
    found = json.loads((tmp_path / "found.json").read_text())["shapes"]["tiny"]
    for precision in ("fp32", "bf16"):
        ratio = found[f"ours {precision} over reference {precision}"]
        assert 0 < ratio["least"] <= ratio["ratio"] <= ratio["most"] < math.inf
        assert set(found["parts"][precision]) == {"data", "forward", "backward", "optimiser"}
        assert sum(found["parts"][precision].values()) == pytest.approx(1, abs=0.01)
    assert (tmp_path / "found.md").read_text().count("| tiny |") == 1
