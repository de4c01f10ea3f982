"""Run one published table (or all of them) and print it, the published number beside the measured one.

Usage: python experiments/run.py ablation=NAME [scale=NAME] [seeds=N|auto] [plan_only=true] [KEY=VALUE ...]

  ablation      a table by name, several joined by commas, or all; a table of one's own by its file: PATH/my_table.yaml
  scale         smoke: seconds, proves the plumbing; desk: minutes on two cores (default); study: hours on two cores;
                gpu: hours on one card; day: pictures, a day on one card, never run yet;
                paper: the published recipe to the letter
  seeds         seeds 0 .. N-1 of every row (default: 1); finished ones are not run again; auto: two of every row, then
                one at a time where it decides a claim, until all claims are decided or the budget is spent
  budget        how long seeds=auto may go on: 2h, 90min (default: 1h)
  row           only this row; may be given several times
  plan_only     true: say what would be run and how long it would take, and run nothing
  rerun         true: run again what is finished
  reuse         committed: count results in reports/results as finished, too (default: only runs under out)
  out           the one folder that runs write to: records, database, checkpoints, cache (default: outputs)
  report_dir    where tables/ and figures/ go (default: reports)
  workers       processes side by side (default: one a core at smoke, desk and study scale on a CPU, else one)
  launch        inline: this command trains (default); local: a worker on each card, or each core; slurm, slurm_cpu: an
                array of workers, which go on when this command ends (docs/machines.md); or a file like those of
                experiments/conf/launch. launch.KEY=VALUE changes what it asks for
  cluster       local: what launch=slurm would do, by processes of this machine (default: slurm)
  locks         file: of this machine's system; lease: for an out that several machines share (default: as out was used)
  accelerator   plan_only: the card to reckon with, such as h100 (default: a100-80gb at gpu, day and paper scale)
  device        auto, cpu, cuda, cuda:1, mps (default: auto)
  devices       how many devices do each training together (default: one, or as many processes as torchrun started);
                 with plan_only, how many cards to reckon with
  micro_batch   samples that go forward and backward at a time on a device: auto, as many as fit (default), or a number
  sharding      ddp: each device holds the whole model (default); fsdp: each holds its share of it
  recompute     true: keep less in memory, and compute blocks again in the backward pass
  compile       off, blocks: compile each block, graphs: replay them as CUDA graphs, too, or auto: on a card what its
                first steps show to be the fastest, on a CPU off (default)
  KEY=VALUE     any key of the spec, for instance mask.ratio=0.6, pretrain.epochs=6, data.samples.train=1000,
                or an option of a group, for instance model=vit_b16; `plan_only=true` checks it without training

A run that was stopped, however it was, goes on with the same command. Exit status: 0 done, 1 a run failed,
2 what was asked for cannot be run, 130 stopped by the keyboard.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    # as a script, Python looks into this folder first: the packages of the repository are one folder up
    sys.path[0] = str(ROOT)

from experiments.ablation import (  # noqa: E402
    SCALES,
    Ablation,
    SpecError,
    ablation_names,
    has_scale,
    load_ablation,
    nearest,
    table_name,
)
from experiments.browse import NOTE, link, source_tags, table_note  # noqa: E402
from experiments.command import answer, home, make_folder, make_out, pending, place, spec_keys  # noqa: E402
from experiments.cost import Pace, pace_of, seconds_of  # noqa: E402
from experiments.crew import Place, check_sharing, crew, follow_torchrun  # noqa: E402
from experiments.effects import check_effects  # noqa: E402
from experiments.failures import describe_failures, failures_of  # noqa: E402
from experiments.hardware import (  # noqa: E402
    CARD,
    CARD_SCALES,
    Accelerator,
    accelerators,
    check_fits,
    describe_demands,
)
from experiments.launch import INLINE, LOCAL, SLURM, Launch, launch_of, on_cluster  # noqa: E402
from experiments.locks import FILE, LEASE, use_locks  # noqa: E402
from experiments.needs import describe_needs  # noqa: E402
from experiments.options import asks_for_help, option, read  # noqa: E402
from experiments.plan import FIRST_LOOK, MOST_SEEDS, Cell, Job, plan, variant  # noqa: E402
from experiments.preflight import (  # noqa: E402
    check_checkpoints,
    cores,
    full_disk,
    offer_of,
    parts_used,
    preflight,
    workers_for,
)
from experiments.record import Failure, measurements  # noqa: E402
from experiments.remember import remembered  # noqa: E402
from experiments.sharing import Sharing  # noqa: E402
from experiments.spec import PRETRAIN  # noqa: E402
from mae.data.files.content import remember_in  # noqa: E402

if TYPE_CHECKING:
    import pandas as pd

    from experiments.crew import Crew
    from experiments.deciding import Deciding
    from experiments.record import Record, Records
    from experiments.view import View


AUTO = "auto"

#: How long seeds=auto may go on when nobody says.
BUDGET = "1h"


@dataclass(frozen=True)
class Options:
    """What the command line asks for, but for the keys of the spec."""

    ablation: tuple[str, ...] = ()
    scale: str = option("desk", choices=SCALES)
    seeds: str = "1"
    budget: str = ""
    plan_only: bool = False
    rerun: bool = False
    reuse: str = option("runs", choices=("runs", "committed"))
    out: Path = home() / "outputs"
    report_dir: Path = home() / "reports"
    device: str = "auto"
    devices: int = option(0, least=1)
    micro_batch: str = AUTO
    sharding: str = option("ddp", choices=("ddp", "fsdp"))
    recompute: bool = False
    compile: str = option(AUTO, choices=(AUTO, "off", "blocks", "graphs"))
    workers: int = option(0, least=1)
    launch: str = INLINE
    cluster: str = option(SLURM, choices=(SLURM, LOCAL))
    resources: tuple[str, ...] = option((), key="launch.*")
    locks: str = option("", choices=("file", "lease"))
    accelerator: str = option("", choices=accelerators())
    rows: tuple[str, ...] = option((), key="row")
    overrides: tuple[str, ...] = ()


def parse(arguments: Sequence[str]) -> Options:
    """Read KEY=VALUE arguments; SpecError says in one sentence what is wrong and what is near it."""
    resources = tuple(argument for argument in arguments if argument.startswith("launch."))
    options = read(Options, [argument for argument in arguments if argument not in resources], spec_keys)
    options = replace(options, resources=resources)
    launch_of(options.launch, resources)
    if not options.ablation:
        raise SpecError(f"say which table: ablation=NAME, one of all, {', '.join(ablation_names())}")
    if options.seeds != AUTO and (not options.seeds.isdecimal() or int(options.seeds) < 1):
        raise SpecError(f"seeds={options.seeds}: give a whole number of at least 1, or auto")
    if options.micro_batch != AUTO and (not options.micro_batch.isdecimal() or int(options.micro_batch) < 1):
        raise SpecError(f"micro_batch={options.micro_batch}: give a whole number of at least 1, or auto")
    if options.sharding == "fsdp" and options.compile not in (AUTO, "off"):
        raise SpecError(f"compile={options.compile} goes with sharding=ddp: choose that, or compile=off")
    if options.devices > 1 and options.workers > 1:
        raise SpecError(
            f"devices={options.devices} do one training together, and workers={options.workers} do several side by "
            f"side: leave one out"
        )
    if options.budget and options.seeds != AUTO:
        raise SpecError(f"budget={options.budget} is for seeds=auto; add that, or leave the budget out")
    seconds_of(options.budget or BUDGET)
    if options.accelerator and not options.plan_only:
        raise SpecError("accelerator= says what a plan reckons with; add plan_only=true, or leave it out")
    return options


def chosen(options: Options) -> list[Ablation]:
    """The ablations asked for; SpecError on an unknown name or a row that none of them has."""
    names = ablation_names() if options.ablation == ("all",) else options.ablation
    ablations = [load_ablation(name) for name in names]
    if options.ablation == ("all",):
        ablations = [ablation for ablation in ablations if has_scale(ablation, options.scale)]
    for ablation in ablations:
        if not has_scale(ablation, options.scale):
            others = " or ".join(scale for scale in SCALES if has_scale(ablation, scale))
            raise SpecError(f"{ablation.name} has no rows at scale={options.scale}: choose {others}")
    for folder in {ablation.options for ablation in ablations if ablation.options}:
        sys.path.append(str(folder))  # a table of one's own may name classes of modules beside it
    labels = {label for ablation in ablations for label in ablation.rows}
    for row in options.rows:
        if row not in labels:
            raise SpecError(f"unknown row {row!r} of {', '.join(options.ablation)}: {nearest(row, labels)}")
    return ablations


def planned(ablations: Sequence[Ablation], options: Options) -> list[Job]:
    """The trainings of the tables; SpecError for what can be refused before training."""
    precision = precision_of(options)
    seeds = FIRST_LOOK if options.seeds == AUTO else int(options.seeds)
    jobs = plan(ablations, options.scale, seeds, options.overrides, options.rows, precision)
    check_effects(ablations, options.scale, options.overrides, options.rows, precision)
    return jobs


def card_of(options: Options) -> Accelerator | None:
    """The card that a plan reckons with: the one that is named, or the usual one of a scale that is made for cards."""
    name = options.accelerator or (CARD if options.plan_only and options.scale in CARD_SCALES else "")
    return accelerators()[name] if name else None


def precision_of(options: Options) -> str:
    """What ``auto`` stands for: in a plan for a card, on that card."""
    card, launch = card_of(options), launching(options)
    if card:
        return card.precision
    return offer_of(options.device).precision if launch.precision == AUTO else launch.precision


def launching(options: Options) -> Launch:
    """How the trainings are launched, with the device that is asked for."""
    launch = launch_of(options.launch, options.resources)
    return launch if options.device == AUTO else replace(launch, device=options.device)


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or asks_for_help(arguments):
        print(__doc__)
        print(f"Tables: {', '.join(ablation_names())}")
        return 0
    if (place := Place.by_torchrun()) is not None and place.rank:
        return follow_torchrun(place)
    return answer(lambda: run(parse(arguments)))


def run(options: Options) -> int:
    """Plan, run what is missing, and print the tables."""
    started = time.monotonic()
    ablations = chosen(options)
    make_out(options.out)
    make_folder("report_dir", options.report_dir)
    remember_in(options.out / "cache" / "digests")
    with remembered(options.out / "cache"), crew(options.devices) as others:
        return _plan(ablations, options) if options.plan_only else _run(ablations, options, started, others)


def _plan(ablations: Sequence[Ablation], options: Options) -> int:
    """Say what is left to run, how long it takes and what it lacks, and refuse what a run would refuse for good."""
    jobs = planned(ablations, options)
    from experiments.view import records_of

    finished = records_of(options.out).finished()
    todo = _left(jobs, finished, options)
    workers = _workers(todo, options)
    lines = [describe(jobs, todo, pace_of(finished, options.scale, workers)), *parts_used(todo)]
    if todo and (card := card_of(options)):
        lines.append(describe_demands(todo, card, options.devices or 1, ablations))
    print("\n".join([*lines, *describe_needs(todo), *full_disk(todo, options.out)]))
    check_checkpoints(todo, options.out)
    if card_of(options) is None and launching(options).engine != SLURM:
        check_sharing(todo, options.device, sharing_of(options))
    if options.seeds == AUTO:
        print(
            deciding(ablations, options).expect(
                measured(ablations, options), workers, seconds_of(options.budget or BUDGET)
            )
        )
    return 0


def _run(ablations: Sequence[Ablation], options: Options, started: float, others: Crew | None) -> int:
    from experiments.database import check_database
    from experiments.tracking import tracking_uri
    from experiments.view import View, records_of, shown

    jobs = planned(ablations, options)
    check_database(tracking_uri(options.out))
    use_locks(options.out, options.locks, usual=LEASE if launching(options).engine == SLURM else FILE)
    records = records_of(options.out)
    ended, failures = "", list[Failure]()
    view = View(records, tracking_uri(options.out))
    with view.kept_up():
        if options.seeds == AUTO:
            ended = deciding(ablations, options).decide(
                measured=lambda: measured(ablations, options),
                run=lambda jobs: _do_all(jobs, records, options, others),
                workers=_workers(jobs, options),
                budget=seconds_of(options.budget or BUDGET),
            )
        else:
            failures += _do(jobs, records, options, others)
        local = measurements(records, [ablation.name for ablation in ablations])
        show(ablations, options, local, time.monotonic() - started)
        tell(ablations, view, options)
    where = f", then {link(view.experiment)}" if view.experiment else ""
    print(f"runs: mlflow ui --backend-store-uri {shlex.quote(shown(view.uri))}{where}")
    if ended:
        print(ended)
    if failures:
        print(describe_failures(failures, jobs, lambda job: repeating(job, ablations, options)), file=sys.stderr)
    return 1 if failures else 0


def _do_all(jobs: Sequence[Job], records: Records, options: Options, others: Crew | None) -> None:
    """Do those of the jobs that are not done yet; what fails is raised, since nothing can be decided without it."""
    for failure in _do(jobs, records, options, others):
        raise failure.error()


def _do(jobs: Sequence[Job], records: Records, options: Options, others: Crew | None) -> list[Failure]:
    """Do those of the jobs that are not done yet; return what failed."""
    place(jobs, records)
    finished = records.finished()
    todo = _left(jobs, finished, options)
    if not todo:
        return []
    from experiments.execute import critical_first, execute, places_of, workplace
    from mae.train.machine import memory_of

    workers = _workers(todo, options)
    preflight(todo, options.out)
    launch = launching(options)
    if launch.engine != SLURM:  # there a worker finds out
        check_sharing(todo, options.device, sharing_of(options))
    print(describe(jobs, todo, pace_of(finished, options.scale, workers)), *parts_used(todo), sep="\n", flush=True)
    planned_seeds = MOST_SEEDS if options.seeds == AUTO else None
    device = "cpu" if launch.engine == SLURM else options.device  # theirs is found where the workers run
    here = workplace(options.out, device, options.scale)
    here = replace(here, sharing=sharing_of(options), planned_seeds=planned_seeds)
    if here.device.type == "cuda":
        check_fits(todo, memory_of(here.device), here.sharing.devices)
    if launch.engine == SLURM:
        names = on_cluster(critical_first(todo), here, launch, options.cluster, options.rerun)
        return failures_of(todo, records, names)
    if launch.engine == LOCAL:
        places = places_of(here, options.device, cores(), todo, options.workers)
        return execute(todo, here, places, again=options.rerun)
    return execute(todo, here, workers, again=options.rerun, others=others)


def repeating(job: Job, ablations: Sequence[Ablation], options: Options) -> str:
    """The command that runs a job again, and what it needs."""
    cell = job.cells[0]
    name = cell.table.partition("--")[0]
    file = next((str(a.file) for a in ablations if a.name == name and a.options), name)
    words = [f"ablation={file}", f"row={cell.row}", f"scale={options.scale}", f"out={options.out}"]
    words += [f"seeds={cell.seed + 1}"] if cell.seed else []
    words += [f"device={options.device}"] if options.device != "auto" else []
    return shlex.join(["python", "experiments/run.py", *words, *options.overrides])


def sharing_of(options: Options) -> Sharing:
    """How the devices share each training, torchrun's where that started this process."""
    torchrun = Place.by_torchrun()
    devices = torchrun.size if torchrun else options.devices or 1
    size = None if options.micro_batch == AUTO else int(options.micro_batch)
    return Sharing(devices, size, options.sharding, options.recompute, options.compile)


def _workers(jobs: Sequence[Job], options: Options) -> int:
    launch = launching(options)
    if launch.engine == SLURM:
        return launch.workers
    if sharing_of(options).devices > 1:
        return 1
    return options.workers or workers_for(jobs, options.scale, offer_of(options.device))


def deciding(ablations: Sequence[Ablation], options: Options) -> Deciding:
    """The claims of the tables, to be decided."""
    from experiments.deciding import Deciding

    precision = precision_of(options)
    return Deciding(ablations, options.scale, options.overrides, options.rows, precision)


def measured(ablations: Sequence[Ablation], options: Options) -> pd.DataFrame:
    """What counts as measured: the runs here, and committed results where they are asked for."""
    from experiments.view import records_of
    from reports.collect import EVIDENCE, collect, merge, tidy, validate

    local = measurements(records_of(options.out))
    if options.reuse == "committed":
        found = collect(EVIDENCE, local)
    else:
        found = tidy() if local.empty else merge(tidy(), validate(local, str(options.out)))
    return up_to_date(found, ablations, options)


def _left(jobs: Sequence[Job], finished: Mapping[str, Record], options: Options) -> list[Job]:
    done = set() if options.rerun else set(finished)
    return pending(jobs, done | (committed() if options.reuse == "committed" else set()), options.out)


def committed() -> set[str]:
    """Fingerprints of the results in reports/results."""
    from reports.collect import EVIDENCE, collect

    return set(collect(EVIDENCE)["fingerprint"])


def show(ablations: Sequence[Ablation], options: Options, local: pd.DataFrame, elapsed: float) -> None:
    """Print each table and write its files."""
    from reports.build import build
    from reports.collect import EVIDENCE, collect
    from reports.render.text import render_text

    name = variant(options.overrides)
    merged = up_to_date(collect(EVIDENCE, local), ablations, options)
    for ablation in ablations:
        print(render_text(ablation, merged, options.scale, name, elapsed))
    build(ablations, merged, options.report_dir, redraw=False, out=options.out)
    names = ", ".join(table_name(ablation.name, name) for ablation in ablations)
    print(f"\nwritten: {options.report_dir}/tables and figures ({names}); index: {options.report_dir}/index.html")


def tell(ablations: Sequence[Ablation], view: View, options: Options) -> None:
    """Let the view's run of each table say what the table is, and what it came to."""
    from experiments.tracking import table_tag
    from reports.summary import summarise_table

    name = variant(options.overrides)
    for ablation in ablations:
        table = table_name(ablation.name, name)
        found = summarise_table(ablation, options.scale, name, options.report_dir)
        note = table_note(ablation, options.scale, table_tag(table), found.sentences)
        tags = {"ablation": ablation.name, "verdicts": found.verdicts, "row": found.best, NOTE: note, **source_tags()}
        view.describe(table, options.scale, tags, found.numbers, found.files)


def up_to_date(merged: pd.DataFrame, ablations: Sequence[Ablation], options: Options) -> pd.DataFrame:
    """``merged`` without what earlier specs measured in these tables, so that no table mixes two versions of a row."""
    if merged.empty:
        return merged
    seeds = int(merged["seed"].max()) + 1
    precision = precision_of(options)
    jobs = plan(ablations, options.scale, seeds, options.overrides, precision=precision, distinct=False)
    now = {job.fingerprint for job in jobs}
    here = merged["ablation"].isin([ablation.name for ablation in ablations]) & (merged["scale"] == options.scale)
    here &= merged["variant"] == variant(options.overrides)
    return merged[~here | merged["fingerprint"].isin(now)]


if __name__ == "__main__":
    sys.exit(main())
