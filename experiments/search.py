"""Search between the rows of a table: trials chosen by Optuna, trained and tracked as the table's rows are.

Usage: python experiments/search.py search=NAME [scale=smoke|desk|study|gpu|paper] [trials=N] [seeds=N] [KEY=VALUE ...]

  search        a search by name: a file of experiments/conf/search
  scale         smoke: seconds, proves the plumbing; desk: minutes a trial on two cores (default); study; gpu; paper
  trials        how many trials the study is to have in all (default: 12); finished ones are not made again
  seeds         seeds 0 .. N-1 of every trial, whose mean is maximised (default: 1)
  sampler       tpe (default), gp (a Gaussian process), random, or grid: the values that the file lists, each once
  minimise      seconds: a second objective beside accuracy, the seconds spent in the steps of a trial's trainings
  confirm       after the last trial, its winner and the recipe's own value are trained on so many seeds that no trial
                had, and tested on the test set (default: 2; 0: never)
  plan_only     true: say what the study holds and what is left of it, and run nothing
  out           the one folder that runs write to: databases, artifacts, checkpoints, cache (default: outputs)
  storage       database of the study (default: sqlite, out/optuna.db), for instance postgresql://USER@HOST/NAME
  study         name of the study in that database (default: made of the search, the scale and what it computes)
  report_dir    where tables/search_NAME.csv and figures/search_NAME.png go (default: reports)
  device        auto, cpu, cuda, cuda:1, mps (default: auto)
  KEY=VALUE     any other key of the spec, or an option of a group, for instance mask=block

The first trial is what the recipe of the scale says: at the paper's scale the published value. Trials are tested on
validation data, since one of them is chosen. A training that was done for another trial is not done again. The same
command resumes a study that was stopped, however it was, and may run in several processes and on several machines at
once, which together make exactly the trials asked for; a trial whose process dies is made by another one a minute
later. A study belongs to what its first trial computes: other seeds, another scale or a changed recipe begin a new
one. To look at it: pip install optuna-dashboard; optuna-dashboard sqlite:///outputs/optuna.db. Exit status: 0 done,
1 a run failed, 2 what was asked for cannot be run, 130 stopped by the keyboard.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    # as a script, Python looks into this folder first: the packages of the repository are one folder up
    sys.path[0] = str(ROOT)

from experiments.ablation import SCALES, SpecError, nearest, table_name  # noqa: E402
from experiments.command import answer, home, make_folder, make_out, pending, place, spec_keys  # noqa: E402
from experiments.cost import Pace, pace_of  # noqa: E402
from experiments.effects import check_effects  # noqa: E402
from experiments.options import asks_for_help, option, read  # noqa: E402
from experiments.plan import Job, plan, variant  # noqa: E402
from experiments.preflight import offer_of, parts_used, preflight  # noqa: E402
from experiments.remember import fingerprint  # noqa: E402
from experiments.searching.declared import SAMPLERS, Point, Search, load_search, row_label, search_names  # noqa: E402
from experiments.searching.space import Space, space_of  # noqa: E402
from experiments.searching.trials import Result, Trial, best_trial  # noqa: E402
from experiments.spec import PRETRAIN  # noqa: E402
from mae.data.files.content import remember_in  # noqa: E402

if TYPE_CHECKING:
    from experiments.record import Record, Records
    from experiments.searching.study import Study
    from experiments.work import Workplace


@dataclass(frozen=True)
class Options:
    """What the command line asks for, but for the keys of the spec."""

    search: str = ""
    scale: str = option("desk", choices=SCALES)
    trials: int = option(12, least=1)
    seeds: int = option(1, least=1)
    sampler: str = option("tpe", choices=SAMPLERS)
    minimise: str = option("", choices=("seconds",))
    confirm: int = option(2, least=0)
    plan_only: bool = False
    out: Path = home() / "outputs"
    storage: str | None = None
    study: str = ""
    report_dir: Path = home() / "reports"
    device: str = "auto"
    overrides: tuple[str, ...] = ()


def parse(arguments: Sequence[str]) -> Options:
    """Read KEY=VALUE arguments; SpecError says in one sentence what is wrong and what is near it."""
    options = read(Options, arguments, spec_keys)
    if not options.search:
        raise SpecError(f"say which search: search=NAME, one of {', '.join(search_names())}")
    return options


def jobs_of(
    search: Search, points: Sequence[Point], options: Options, seeds: Sequence[int], tested: str = "val"
) -> list[Job]:
    """The trainings at ``points``: those of a table with these rows."""
    precision = offer_of(options.device).precision
    return plan([search.table(points, tested)], options.scale, seeds, options.overrides, precision=precision)


def study_name(search: Search, computes: str, options: Options) -> str:
    """The name that is asked for, or one for a person with a hash of what the study is."""
    ranges = "; ".join(f"{p}{p.step or ''}" for p in search.parameters)
    identity = {"computes": computes, "ranges": ranges, "second": options.minimise, "grid": options.sampler == "grid"}
    name = table_name(search.name, variant(options.overrides))
    return options.study or f"{name}--{options.scale}--{fingerprint(identity)[:8]}"


@dataclass(frozen=True)
class Bench:
    """Everything that a trial needs: what is searched, where it is tracked, where it runs."""

    options: Options
    search: Search
    space: Space
    study: Study
    records: Records
    place: Workplace

    def make(self, number: int, point: Point) -> list[Result]:
        """Train what a trial lacks, and read what each of its seeds measured."""
        jobs = jobs_of(self.search, [point], self.options, range(self.options.seeds))
        finished = self.done(jobs, {"study": self.study.name, "trial": number})
        results = self.results(jobs, finished)
        print(self._said(Trial(number, point, point, tuple(results))), flush=True)
        return results

    def done(self, jobs: Sequence[Job], tags: Mapping[str, object]) -> dict[str, Record]:
        """Do those of the jobs that are not done yet; return the finished runs by fingerprint.

        Records that are made for it get ``tags``.
        """
        from experiments.execute import execute

        place(jobs, self.records)
        if todo := pending(jobs, set(self.records.finished()), self.options.out):
            preflight(todo, self.options.out)
            for failure in execute(todo, self.place):
                raise failure.error()
            for job in todo:
                self.records.tag(job.fingerprint, {key: str(value) for key, value in tags.items()})
        return self.records.finished()

    def results(self, jobs: Sequence[Job], finished: Mapping[str, Record]) -> list[Result]:
        """The metric of each seed of one point, and the seconds of all its trainings."""
        seconds: dict[int, float] = {}
        for job in jobs:
            spent = finished[job.fingerprint].results.get(f"{job.stage}/seconds", 0.0)
            seconds[job.spec.seed] = seconds.get(job.spec.seed, 0.0) + spent
        found = []
        for job in jobs:
            if job.stage == self.search.stage:
                run = finished[job.fingerprint]
                measured, metric, seed = run.results, self.search.metric, job.spec.seed
                if metric not in measured:
                    raise SpecError(
                        f"search {self.search.name}: {job.stage} has no {metric!r}: {nearest(metric, measured)}"
                    )
                found.append(Result(seed, measured[metric], seconds[seed], job.fingerprint, run.run_id))
        return found

    def confirmed(self, winner: Point) -> list[Trial]:
        """The recipe's own point and the winner, trained on seeds that no trial had and tested on the test set."""
        points = list({tuple(point.items()): point for point in (self.space.own, winner)}.values())
        seeds = range(self.options.seeds, self.options.seeds + self.options.confirm)
        jobs = {tuple(p.items()): jobs_of(self.search, [p], self.options, seeds, "test") for p in points}
        finished = self.done(jobs_of(self.search, points, self.options, seeds, "test"), {"study": self.study.name})
        return [
            Trial(number, point, point, tuple(self.results(jobs[tuple(point.items())], finished)))
            for number, point in enumerate(points)
        ]

    def _said(self, trial: Trial) -> str:
        where = ", ".join(f"{key}={value:g}" for key, value in trial.point.items())
        paid = f" in {trial.seconds:.1f} s" if self.options.minimise else ""
        return f"trial {trial.number}: {where} gives {self.search.metric} {trial.mean:.2f}{paid}"


def describe(options: Options, search: Search, study: Study, first: Sequence[Job], pace: Pace) -> str:
    """What the study holds and what is left of it, in words a person can check."""
    made, total = len(study.trials()), min(options.trials, study.most or options.trials)
    pretrainings = sum(job.stage == PRETRAIN for job in first)
    minutes = pace.seconds(first) / 60
    left = max(0, total - made)
    second = f", and {options.minimise} minimised" if options.minimise else ""
    return (
        f"study {study.name}: {made} of {total} trials are finished\n"
        f"{study.space.words()}\n"
        f"maximised: {search.metric}, mean of {options.seeds} seeds{second}; sampler: {options.sampler}\n"
        f"a trial needs {pretrainings} pre-trainings and {len(first) - pretrainings} evaluations, "
        f"about {minutes:.1f} min at {row_label(study.space.own)}; the others about {left * minutes:.0f} min"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or asks_for_help(arguments):
        print(__doc__)
        print(f"Searches: {', '.join(search_names())}")
        return 0
    return answer(lambda: run(parse(arguments)))


def run(options: Options) -> int:
    """Open the study, make the trials that are missing, and print and draw all of them."""
    search = load_search(options.search)
    remember_in(options.out / "cache" / "digests")
    varied = {parameter.key for parameter in search.parameters}
    if taken := varied & {override.partition("=")[0].lstrip("+~") for override in options.overrides}:
        raise SpecError(f"{taken.pop()} is what this search varies: leave it out, or run the table's row")
    seeds = range(options.seeds)
    first = jobs_of(search, [{}], options, seeds)  # the recipe as it is
    check_effects([search.table([{}])], options.scale, options.overrides, (), offer_of(options.device).precision)
    space = space_of(search, first[-1].spec, options.scale)
    edges = [job for point in space.edges() for job in jobs_of(search, [point], options, seeds[:1])]

    from experiments.database import check_database
    from experiments.execute import workplace
    from experiments.searching.address import storage_url
    from experiments.searching.study import Study
    from experiments.tracking import tracking_uri
    from experiments.view import View, records_of

    make_out(options.out)
    make_folder("report_dir", options.report_dir)
    here = workplace(options.out, options.device, options.scale)
    check_database(tracking_uri(options.out))
    records = records_of(options.out)
    preflight([*first, *edges], options.out)
    url = storage_url(options.out, options.storage)
    computes = fingerprint({"metric": search.metric, "jobs": [job.fingerprint for job in first]})
    name = study_name(search, computes, options)
    objectives = [search.metric, options.minimise] if options.minimise else [search.metric]
    study = Study(name, url, options.out, space, computes, objectives, options.sampler)
    print(describe(options, search, study, first, pace_of(records.finished(), options.scale)), flush=True)
    for line in parts_used(first):
        print(line)
    if options.plan_only:
        return 0
    bench = Bench(options, search, space, study, records, here)
    with View(records, tracking_uri(options.out)).kept_up():
        study.run(options.trials, bench.make, _waiting)
        show(bench)
    return 0


def _waiting(count: int) -> None:
    print(f"waiting for other processes, which make the last {count} trials", file=sys.stderr, flush=True)


def show(bench: Bench) -> None:
    """Print the trials and write their table and figure; train and test what was chosen."""
    from experiments.record import measurements
    from experiments.tracking import tracking_uri
    from experiments.view import shown
    from reports.trials import measured_beside, render_tested, write_trials

    options, search, trials = bench.options, bench.search, bench.study.trials()
    name, seconds = variant(options.overrides), bool(options.minimise)
    beside = measured_beside(search, options.scale, measurements(bench.records, [search.beside.name]))
    text, written = write_trials(search, trials, bench.space, options.scale, name, options.report_dir, beside, seconds)
    print(f"\n{text}", flush=True)
    best = best_trial(trials)
    if options.confirm and best is not None:
        print(render_tested(search, bench.confirmed(best.point)))
    print(f"\nwritten: {', '.join(str(path) for path in written)}")
    print(f"runs: mlflow ui --backend-store-uri {shlex.quote(shown(tracking_uri(options.out)))}")
    print(f"study: optuna-dashboard {shlex.quote(bench.study.shown)}")


if __name__ == "__main__":
    sys.exit(main())
