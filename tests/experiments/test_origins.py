"""Trainings that start from others: chains of jobs, columns with data of their own, and what is run again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from experiments import work
from experiments.ablation import SpecError, load_ablation
from experiments.assemble import encoder_of, method_of
from experiments.command import pending
from experiments.execute import critical_first, workplace
from experiments.plan import Job, plan
from experiments.preflight import Offer, workers_for
from experiments.record import Records
from experiments.spec import PRETRAIN, SUPERVISED, Spec, origin_of
from experiments.stages import evaluation
from mae.data.source import Images, Splits
from mae.train.checkpoint import Checkpoints
from mae.train.stop import Stop
from tests.experiments.fresh import forget

Jobs = Callable[..., list[Job]]


@pytest.fixture
def jobs(no_files: None) -> Jobs:
    """The jobs of one row of a table, for one seed."""

    def found(table: str, row: str, scale: str = "smoke", *overrides: str) -> list[Job]:
        return plan([load_ablation(table)], scale, 1, overrides, [row])

    return found


def costing(job: Job, flops: float) -> Job:
    return replace(job, facts=replace(job.facts, flops=flops))


BOTH = ("video_pretraining_strategy", "IN-21k+K400 sup.")


def test_a_chain_is_planned_in_the_order_of_what_needs_what(jobs: Jobs) -> None:
    pictures, clips, *evaluations = jobs(*BOTH)
    assert [job.stage for job in (pictures, clips)] == [SUPERVISED, SUPERVISED]
    assert (pictures.needs, clips.needs) == (None, pictures.fingerprint)
    assert {job.needs for job in evaluations} == {clips.fingerprint}
    assert [job.stage for job in evaluations] == ["ssv2", "k400"]
    assert not pictures.reported
    assert pictures.shown == clips.shown == []


def test_a_change_at_the_root_of_a_chain_renames_all_of_it(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    before = jobs(*BOTH)

    def other(spec: Spec) -> Spec | None:
        found = origin_of(spec)
        if found is None or found.data.frames > 1:
            return found
        tree = copy.deepcopy(found.tree)
        tree["evaluate"][SUPERVISED]["protocol"]["recipe"]["weight_decay"] = 0.0
        return Spec.of(tree)

    forget()
    monkeypatch.setattr("experiments.plan.origin_of", other)
    monkeypatch.setattr("experiments.stages.evaluation.origin_of", other)
    after = jobs(*BOTH)
    assert len({job.fingerprint for job in [*before, *after]}) == 2 * len(before)


def test_an_origin_that_is_the_default_pretraining_is_trained_once(jobs: Jobs) -> None:
    table = load_ablation("video_pretraining_data")
    own = {job.fingerprint for job in jobs("video_decoder_depth", "4", "paper")}
    by_origin = plan([table], "paper", 1, rows=["SSV2 VideoMAE", "K400 VideoMAE"])
    assert own <= {job.fingerprint for job in by_origin}
    assert sum(job.stage == PRETRAIN for job in by_origin) == 2  # each serves both columns
    assert len(by_origin) == 6


def test_columns_with_data_of_their_own_have_a_pretraining_each_and_one_is_shown(jobs: Jobs) -> None:
    found = jobs("video_decoder_depth", "4", "paper")
    pretrainings = [job for job in found if job.stage == PRETRAIN]
    assert len({job.fingerprint for job in pretrainings}) == 2
    assert [len(job.shown) for job in pretrainings] == [1, 0]
    assert pretrainings[0].spec.data.classes == 174
    assert {job.stage: job.spec.data.classes for job in found if job.stage != PRETRAIN} == {
        "ssv2": 174,
        "k400": 400,
    }


def test_columns_on_the_same_clips_share_a_pretraining(jobs: Jobs) -> None:
    pretraining, *evaluations = jobs("video_decoder_depth", "4", "desk")
    assert {job.needs for job in evaluations} == {pretraining.fingerprint}
    assert len({job.fingerprint for job in evaluations}) == len(evaluations) == 2
    assert len(pretraining.cells) == len(pretraining.shown) == 1


def test_a_chain_whose_weights_are_gone_is_run_again_as_far_as_it_is_needed(jobs: Jobs, tmp_path: Path) -> None:
    pictures, clips, first, second = chain = jobs(*BOTH)
    done = {job.fingerprint for job in chain}
    assert pending(chain, done, tmp_path) == []
    assert pending(chain, done - {first.fingerprint}, tmp_path) == [pictures, clips, first]
    workplace(tmp_path, "cpu", "smoke").weights(clips.fingerprint).save({"encoder.x": torch.zeros(1)}, {"step": 1})
    assert pending(chain, done - {first.fingerprint}, tmp_path) == [first]
    assert pending(chain, set(), tmp_path) == [pictures, clips, first, second]


def test_jobs_come_by_the_longest_path_that_begins_with_them(jobs: Jobs) -> None:
    chain = jobs(*BOTH)
    other = jobs("video_pretraining_strategy", "VideoMAE")
    mixed = [*other, *chain]
    ordered = critical_first(mixed)
    places = {job.fingerprint: place for place, job in enumerate(ordered)}
    assert all(job.needs is None or places[job.needs] < places[job.fingerprint] for job in mixed)
    pictures, clips, first, second = chain
    heavy = [costing(job, 1e15 if job is second else 1.0) for job in chain]
    light = [costing(job, 10.0) for job in other]
    ordered = critical_first([*light, *heavy])
    assert [job.fingerprint for job in ordered[:3]] == [job.fingerprint for job in (pictures, clips, second)]
    assert ordered[-1].fingerprint == first.fingerprint


@pytest.mark.parametrize(
    ("cores", "scale", "workers"), [(1, "desk", 1), (2, "desk", 2), (64, "desk", 4), (64, "gpu", 1)]
)
def test_as_many_processes_as_can_be_busy(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, cores: int, scale: str, workers: int
) -> None:
    monkeypatch.setattr("experiments.preflight.cores", lambda: cores)
    mixed = [*jobs("video_pretraining_strategy", "VideoMAE"), *jobs(*BOTH)]
    assert workers_for(mixed, scale, Offer("cpu", "fp32")) == workers  # two rows of two columns


def test_a_file_of_weights_that_is_not_there_is_refused_before_training(jobs: Jobs) -> None:
    with pytest.raises(SpecError, match=r"origin\.path=/nowhere\.pth is no file; name the weights to start from"):
        jobs("video_pretraining_strategy", "ImageNet-21k sup.", "paper", "origin.path=/nowhere.pth")


def test_an_origin_of_another_shape_is_refused_before_training(jobs: Jobs) -> None:
    with pytest.raises(SpecError, match="choose a model of their width and patch size"):
        jobs("video_pretraining_data", "IN-1K ImageMAE", "smoke", "model.encoder.width=16")


def test_an_evaluation_starts_from_the_weights_of_a_file(
    jobs: Jobs, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    path = out / "weights.safetensors"
    model = method_of(jobs("video_masking", "tube 90")[0].spec)
    save_file(dict(model.state_dict()), path)
    job, *_ = jobs("video_masking", "tube 90", "smoke", "origin=file", f"origin.path={path}")
    assert (job.stage, job.needs) == ("ssv2", None)
    seen = []

    def look(self: object, encoder: torch.nn.Module, *_: object) -> dict[str, float]:
        seen.append({name: tensor.clone() for name, tensor in encoder.state_dict().items()})
        return {"top1": 0.0}

    monkeypatch.setattr("mae.heads.fine_tuning.FineTune.__call__", look)
    nothing = Images(torch.zeros(1, 3, 1, 1), torch.zeros(1, dtype=torch.int64), ("a",))
    splits = Splits(nothing, nothing, nothing)
    monkeypatch.setattr(evaluation, "assembled", lambda *_: (splits, None))
    run(job, out)
    expected = model.encoder.state_dict()
    assert seen[0].keys() == expected.keys() == encoder_of(job.spec).state_dict().keys()
    assert all(torch.equal(seen[0][name], expected[name]) for name in expected)


def test_a_supervised_training_leaves_an_encoder_that_the_next_one_inflates(jobs: Jobs, out: Path) -> None:
    pictures, clips, *_ = jobs(*BOTH)
    here = workplace(out, "cpu", "smoke")
    for job in (pictures, clips):
        run(job, out)
    left = [_weights(here.weights(job.fingerprint)) for job in (pictures, clips)]
    frames = clips.spec.model.patch[0]
    assert left[1]["encoder.embed.weight"].shape[1] == frames * left[0]["encoder.embed.weight"].shape[1]
    assert left[1].keys() - {"encoder.class_token"} == left[0].keys() - {"encoder.class_token"}


def run(job: Job, out: Path) -> None:
    records, stop = Records(out), Stop()
    with records.locks.hold(job.fingerprint) as held:
        assert held is not None
        assert work.run_job(job, records, workplace(out, "cpu", "smoke"), stop, held)


def _weights(kept: Checkpoints) -> dict[str, torch.Tensor]:
    found = kept.load(torch.device("cpu"))
    assert found is not None
    return found[0]
