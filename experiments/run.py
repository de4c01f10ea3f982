"""Run one published table (or all of them) and print it, the published number beside the measured one.

Usage: python experiments/run.py ablation=NAME [scale=smoke|desk|gpu|paper] [seeds=N] [plan_only=true] [KEY=VALUE ...]

  ablation      a table by name, several joined by commas, or all
  scale         smoke: seconds, proves the plumbing; desk: minutes on two cores (default); gpu: hours on one card;
                paper: the published recipe to the letter
  seeds         seeds 0 .. N-1 of every row (default: 1); finished ones are not run again
  row           only this row; may be given several times
  plan_only     true: say what would be run and how long it would take, and run nothing
  rerun         true: run again what is finished
  reuse         committed: count results in reports/results as finished, too (default: only runs under out)
  out           the one folder that runs write to: database, artifacts, checkpoints, cache (default: outputs)
  report_dir    where tables/ and figures/ go (default: reports)
  workers       processes side by side (default: one a core at smoke and desk scale on a CPU, else one)
  device        auto, cpu, cuda, cuda:1, mps (default: auto)
  KEY=VALUE     any key of the spec, for instance mask.ratio=0.6, pretrain.epochs=6, data.samples.train=1000,
                or an option of a group, for instance model=vit_b16; `plan_only=true` checks it without training

A run that was stopped, however it was, goes on with the same command. Exit status: 0 done, 1 a run failed,
2 what was asked for cannot be run, 130 stopped by the keyboard.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    # as a script, Python looks into this folder first: the packages of the repository are one folder up
    sys.path[0] = str(ROOT)

from experiments.command import (  # noqa: E402
    Pace,
    answer,
    count,
    flag,
    folder,
    make_out,
    one_of,
    pace_of,
    pending,
    place,
    read,
)
from experiments.plan import PRETRAIN, Cell, Job, plan, table_name, variant_of  # noqa: E402
from experiments.spec import (  # noqa: E402
    SCALES,
    Ablation,
    SpecError,
    ablation_names,
    kept_specs,
    load_ablation,
    nearest,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Options:
    """What the command line asks for, but for the keys of the spec."""

    ablation: str = ""
    scale: str = "desk"
    seeds: int = 1
    plan_only: bool = False
    rerun: bool = False
    reuse: str = "runs"
    out: Path = ROOT / "outputs"
    report_dir: Path = ROOT / "reports"
    device: str = "auto"
    workers: int = 0
    rows: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


def parse(arguments: Sequence[str]) -> Options:
    """Read KEY=VALUE arguments; SpecError says in one sentence what is wrong and what is near it."""
    own = set(Options.__dataclass_fields__) - {"rows", "overrides"} | {"row"}
    given, overrides = read(arguments, own)
    if "ablation" not in given:
        raise SpecError(f"say which table: ablation=NAME, one of all, {', '.join(ablation_names())}")
    return Options(
        ablation=given["ablation"][-1],
        scale=one_of("scale", SCALES, given, "desk"),
        seeds=count("seeds", given, 1),
        plan_only=flag("plan_only", given),
        rerun=flag("rerun", given),
        reuse=one_of("reuse", ["runs", "committed"], given, "runs"),
        out=folder("out", given, Options.out),
        report_dir=folder("report_dir", given, Options.report_dir),
        device=given.get("device", ["auto"])[-1],
        workers=count("workers", given, 1) if "workers" in given else 0,
        rows=tuple(given.get("row", [])),
        overrides=overrides,
    )


def chosen(options: Options) -> list[Ablation]:
    """The ablations asked for; SpecError on an unknown name or a row that none of them has."""
    names = ablation_names() if options.ablation == "all" else options.ablation.split(",")
    ablations = [load_ablation(name) for name in names]
    labels = {label for ablation in ablations for label in ablation.rows}
    for row in options.rows:
        if row not in labels:
            raise SpecError(f"unknown row {row!r} of {options.ablation}: {nearest(row, labels)}")
    return ablations


def describe(jobs: Sequence[Job], todo: Sequence[Job], pace: Pace) -> str:
    """What the plan holds and what is left of it, in words a person can check."""
    cells = {(c.table, c.row, c.seed) for job in jobs for c in job.cells}
    pretrainings = sum(job.stage == PRETRAIN for job in jobs)
    lines = [
        f"{len(cells)} rows need {pretrainings} pre-trainings and {len(jobs) - pretrainings} evaluations "
        f"(shared ones counted once); {len(todo)} of {len(jobs)} are still to run",
    ]
    lines += [
        f"  {job.fingerprint}  {pace.seconds([job]) / 60:6.1f} min  {job.name}{_shared(job.cells)}" for job in todo
    ]
    if todo:
        lines.append(pace.describe(todo))
    return "\n".join(lines)


def _shared(cells: Sequence[Cell]) -> str:
    return f" (+ {len(cells) - 1} more rows)" if len(cells) > 1 else ""


def main(arguments: Sequence[str]) -> int:
    if not arguments or any(argument in ("-h", "--help", "help") for argument in arguments):
        print(__doc__)
        print(f"Tables: {', '.join(ablation_names())}")
        return 0
    return answer(lambda: run(parse(arguments)))


def run(options: Options) -> int:
    """Plan, run what is missing, and print the tables."""
    from experiments.tracking import Tracker, measurements, tracking_uri

    started = time.monotonic()
    ablations = chosen(options)
    make_out(options.out)
    with kept_specs(options.out / "cache"):
        jobs = plan(ablations, options.scale, options.seeds, options.overrides, options.rows)
    tracker = Tracker(tracking_uri(options.out), options.out)
    finished = tracker.finished()
    place(jobs, finished, tracker)
    done = set() if options.rerun else set(finished)
    if options.reuse == "committed":
        done |= committed()
    todo = pending(jobs, done, options.out)
    if options.plan_only and not todo:
        print(describe(jobs, todo, Pace({}, 1.0)))
    if todo:
        from experiments.assemble import parts_used
        from experiments.execute import execute, machine_of, preflight, workers_for

        machine = machine_of(options.out, options.device, options.scale)
        workers = options.workers or workers_for(todo, machine)
        print(describe(jobs, todo, pace_of(finished, options.scale, workers)), flush=True)
        preflight(todo, machine)
        for line in parts_used(todo):
            print(line)
        if not options.plan_only:
            execute(todo, tracker, machine, workers, again=options.rerun)
    if not options.plan_only:
        local = measurements(tracker.uri, [ablation.name for ablation in ablations])
        show(ablations, options, local, time.monotonic() - started)
    return 0


def committed() -> set[str]:
    """Fingerprints of the results in reports/results."""
    from reports.collect import EVIDENCE, collect

    return set(collect(EVIDENCE)["fingerprint"])


def show(ablations: Sequence[Ablation], options: Options, local: pd.DataFrame, elapsed: float) -> None:
    """Print each table and write its files."""
    from reports.build import build
    from reports.collect import EVIDENCE, collect
    from reports.tables import render_text

    variant = variant_of(options.overrides)
    merged = up_to_date(collect(EVIDENCE, local), ablations, options)
    for ablation in ablations:
        print(render_text(ablation, merged, options.scale, variant, elapsed))
    build([ablation.name for ablation in ablations], merged, options.report_dir, redraw=False)
    names = ", ".join(table_name(ablation.name, variant) for ablation in ablations)
    print(f"\nwritten: {options.report_dir}/tables and figures ({names}); index: {options.report_dir}/index.html")
    print(f"runs: mlflow ui --backend-store-uri {_uri(options.out)}")


def up_to_date(merged: pd.DataFrame, ablations: Sequence[Ablation], options: Options) -> pd.DataFrame:
    """``merged`` without what earlier specs measured in these tables, so that no table mixes two versions of a row."""
    if merged.empty:
        return merged
    seeds = max(options.seeds, int(merged["seed"].max()) + 1)
    now = {job.fingerprint for job in plan(ablations, options.scale, seeds, options.overrides)}
    here = merged["ablation"].isin([ablation.name for ablation in ablations]) & (merged["scale"] == options.scale)
    here &= merged["variant"] == variant_of(options.overrides)
    return merged[~here | merged["fingerprint"].isin(now)]


def _uri(out: Path) -> str:
    from experiments.tracking import tracking_uri

    return tracking_uri(out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
