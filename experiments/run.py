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

from experiments.plan import PRETRAIN, Cell, Job, plan, table_name, variant_of  # noqa: E402
from experiments.spec import Ablation, SpecError, ablation_names, groups, load_ablation, nearest  # noqa: E402

if TYPE_CHECKING:
    from mlflow.entities import Run

    from experiments.tracking import Tracker


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
    rows: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


def parse(arguments: Sequence[str]) -> Options:
    """Read KEY=VALUE arguments; SpecError says in one sentence what is wrong and what is near it."""
    given: dict[str, str] = {}
    rows: list[str] = []
    overrides: list[str] = []
    own = set(Options.__dataclass_fields__) - {"rows", "overrides"}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise SpecError(f"cannot read {argument!r}: write KEY=VALUE; --help shows the keys")
        if key == "row":
            rows.append(value)
        elif key in own:
            given[key] = value
        else:
            overrides.append(argument)
    if "ablation" not in given:
        raise SpecError(f"say which table: ablation=NAME, one of all, {', '.join(ablation_names())}")
    scales = groups()["scale"]
    scale = given.get("scale", "desk")
    if scale not in scales:
        raise SpecError(f"unknown scale {scale!r}: {nearest(scale, scales)}")
    seeds = given.get("seeds", "1")
    if not seeds.isdecimal() or int(seeds) < 1:
        raise SpecError(f"seeds={seeds}: give a whole number of at least 1")
    reuse = given.get("reuse", "runs")
    if reuse not in ("runs", "committed"):
        raise SpecError(f"unknown reuse {reuse!r}: {nearest(reuse, ['runs', 'committed'])}")
    return Options(
        ablation=given["ablation"],
        scale=scale,
        seeds=int(seeds),
        plan_only=_flag("plan_only", given),
        rerun=_flag("rerun", given),
        reuse=reuse,
        out=Path(given.get("out", Options.out)).expanduser().resolve(),
        report_dir=Path(given.get("report_dir", Options.report_dir)).expanduser().resolve(),
        device=given.get("device", "auto"),
        rows=tuple(rows),
        overrides=tuple(overrides),
    )


def _flag(key: str, given: dict[str, str]) -> bool:
    value = given.get(key, "false").lower()
    if value not in ("true", "false"):
        raise SpecError(f"{key}={given[key]}: give true or false")
    return value == "true"


def chosen(options: Options) -> list[Ablation]:
    """The ablations asked for; SpecError on an unknown name or a row that none of them has."""
    names = ablation_names() if options.ablation == "all" else options.ablation.split(",")
    ablations = [load_ablation(name) for name in names]
    labels = {label for ablation in ablations for label in ablation.rows}
    for row in options.rows:
        if row not in labels:
            raise SpecError(f"unknown row {row!r} of {options.ablation}: {nearest(row, labels)}")
    return ablations


def make_out(out: Path) -> None:
    """Create the output folder and prove that it can be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
    except OSError as error:
        raise SpecError(f"out={out} cannot be written: {error.strerror}; choose another out=PATH") from error


def pending(jobs: Sequence[Job], done: set[str], out: Path) -> list[Job]:
    """The jobs still to run. A finished pre-training runs again only if its weights are gone and someone needs them."""
    open_jobs = [job for job in jobs if job.fingerprint not in done]
    needed = {job.needs for job in open_jobs if job.needs}
    columns = {job.fingerprint for job in jobs if job.stage == PRETRAIN and not _served(job, jobs)}

    def wanted(job: Job) -> bool:
        if job.stage != PRETRAIN:
            return job.fingerprint not in done
        gone = not (out / "weights" / job.fingerprint / "checkpoint.json").exists()
        return (job.fingerprint in needed and gone) or (job.fingerprint in columns and job.fingerprint not in done)

    return [job for job in jobs if wanted(job)]


def _served(job: Job, jobs: Sequence[Job]) -> bool:
    return any(other.needs == job.fingerprint for other in jobs)


def place(jobs: Sequence[Job], finished: dict[str, Run], tracker: Tracker) -> None:
    """Tag finished runs with every cell they serve, and take the tags off runs whose spec has changed since."""
    for job in jobs:
        if run := finished.get(job.fingerprint):
            tracker.place(run, {cell.table: cell.row for cell in job.cells})
        for cell in job.cells:
            tracker.displace(cell.table, cell.row, cell.seed, job.stage, job.spec["scale"], job.fingerprint)


def describe(jobs: Sequence[Job], todo: Sequence[Job], rate: float) -> str:
    """What the plan holds and what is left of it, in words a person can check."""
    cells = {(c.table, c.row, c.seed) for job in jobs for c in job.cells}
    pretrainings = sum(job.stage == PRETRAIN for job in jobs)
    lines = [
        f"{len(cells)} rows need {pretrainings} pre-trainings and {len(jobs) - pretrainings} evaluations "
        f"(shared ones counted once); {len(todo)} of {len(jobs)} are still to run",
    ]
    lines += [f"  {job.fingerprint}  {job.flops / rate / 60:6.1f} min  {job.name}{_shared(job.cells)}" for job in todo]
    if todo:
        total = sum(job.flops for job in todo) / rate
        lines.append(f"about {total / 60:.0f} min at {rate / 1e9:.0f} GFLOP/s on this machine")
    return "\n".join(lines)


def _shared(cells: Sequence[Cell]) -> str:
    return f" (+ {len(cells) - 1} more rows)" if len(cells) > 1 else ""


def measured_rate(finished: dict[str, Run]) -> float:
    """FLOP per second: of the runs finished so far, else what a matrix product suggests."""
    import numpy as np

    rates = [
        run.data.metrics["pretrain/gflops"] * 3e9 * run.data.metrics["pretrain/samples_per_second"]
        for run in finished.values()
        if "pretrain/gflops" in run.data.metrics
    ]
    if rates:
        return float(np.median(rates))
    size = 768
    left, right = np.ones((size, size), np.float32), np.ones((size, size), np.float32)
    left @ right
    start = time.perf_counter()
    for _ in range(10):
        left @ right
    return 0.5 * 10 * 2 * size**3 / (time.perf_counter() - start)


def main(arguments: Sequence[str]) -> int:
    if not arguments or any(argument in ("-h", "--help", "help") for argument in arguments):
        print(__doc__)
        print(f"Tables: {', '.join(ablation_names())}")
        return 0
    try:
        return run(parse(arguments))
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    except Exception as error:
        if (status := _status(error)) is None:
            raise
        print(f"error: {error}", file=sys.stderr)
        return status


def _status(error: Exception) -> int | None:
    """Exit status of an error that has been put into words: 2 before any training, 1 once it runs; None for a defect."""
    if isinstance(error, SpecError):
        return 2
    names = {"TrackingError": 2, "DataError": 2, "CheckpointError": 1, "NotFinite": 1}
    if type(error).__name__ in names:
        return names[type(error).__name__]
    return 1 if isinstance(error, OSError) else None


def run(options: Options) -> int:
    """Plan, run what is missing, and print the tables."""
    from experiments.tracking import Tracker, measurements, tracking_uri

    started = time.monotonic()
    ablations = chosen(options)
    jobs = plan(ablations, options.scale, options.seeds, options.overrides, options.rows)
    make_out(options.out)
    tracker = Tracker(tracking_uri(options.out), options.out)
    finished = tracker.finished()
    place(jobs, finished, tracker)
    done = set() if options.rerun else set(finished)
    if options.reuse == "committed":
        done |= committed()
    todo = pending(jobs, done, options.out)
    if todo or options.plan_only:
        print(describe(jobs, todo, measured_rate(finished)), flush=True)
    if todo:
        from experiments.execute import Machine, device_of, execute, preflight

        machine = Machine(options.out, device_of(options.device))
        preflight(todo, machine)
        if not options.plan_only:
            execute(todo, tracker, machine, again=options.rerun)
    if not options.plan_only:
        local = measurements(tracker.uri, [ablation.name for ablation in ablations])
        show(ablations, options, local, time.monotonic() - started)
    return 0


def committed() -> set[str]:
    """Fingerprints of the results in reports/results."""
    from reports.collect import EVIDENCE, collect

    return set(collect(EVIDENCE)["fingerprint"])


def show(ablations: Sequence[Ablation], options: Options, local: object, elapsed: float) -> None:
    """Print each table and write its files."""
    from reports.build import build
    from reports.collect import EVIDENCE, collect
    from reports.tables import render_text

    merged = collect(EVIDENCE, local)
    variant = variant_of(options.overrides)
    for ablation in ablations:
        print(render_text(ablation, merged, options.scale, variant, elapsed))
    build([ablation.name for ablation in ablations], merged, options.report_dir)
    names = ", ".join(table_name(ablation.name, variant) for ablation in ablations)
    print(f"\nwritten: {options.report_dir}/tables and figures ({names}); index: {options.report_dir}/index.html")
    print(f"runs: mlflow ui --backend-store-uri {_uri(options.out)}")


def _uri(out: Path) -> str:
    from experiments.tracking import tracking_uri

    return tracking_uri(out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
