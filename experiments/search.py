"""Search between the rows of a table: trials chosen by Optuna, trained and tracked as the table's rows are.

Usage: python experiments/search.py search=NAME [scale=smoke|desk|study|gpu|paper] [trials=N] [seeds=N] [KEY=VALUE ...]

  search        a search by name: a file of experiments/conf/search
  scale         smoke: seconds, proves the plumbing; desk: minutes a trial on two cores (default); study; gpu; paper
  trials        how many trials the study is to have in all (default: 12); finished ones are not made again
  seeds         seeds 0 .. N-1 of every trial, whose mean is maximised (default: 1)
  plan_only     true: say what the study holds and what is left of it, and run nothing
  out           the one folder that runs write to: databases, artifacts, checkpoints, cache (default: outputs)
  storage       database of the study (default: sqlite, out/optuna.db), for instance postgresql://USER@HOST/NAME
  report_dir    where tables/search_NAME.csv and figures/search_NAME.png go (default: reports)
  device        auto, cpu, cuda, cuda:1, mps (default: auto)
  KEY=VALUE     any other key of the spec, or an option of a group, for instance mask=block

The first trial is the paper's own value. Trials are tested on validation data, since one of them is chosen; the test
set is left to tables. A training that was done for another trial is not done again. The same
command resumes a study that was stopped, however it was, and may run in several processes at once. A study belongs to
what its first trial computes: other seeds, another scale or a changed recipe begin a new one. Exit status: 0 done,
1 a run failed, 2 what was asked for cannot be run, 130 stopped by the keyboard.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
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
from experiments.options import option, read  # noqa: E402
from experiments.plan import Job, plan, variant  # noqa: E402
from experiments.preflight import offer_of, parts_used, preflight  # noqa: E402
from experiments.remember import fingerprint  # noqa: E402
from experiments.searching.space import Search, Space, load_search, search_names, space_of  # noqa: E402
from experiments.spec import PRETRAIN  # noqa: E402
from mae.data.files.content import remember_in  # noqa: E402

if TYPE_CHECKING:
    from experiments.searching.study import Result, Study, Turn
    from experiments.tracking import Tracker
    from experiments.work import Workplace


@dataclass(frozen=True)
class Options:
    """What the command line asks for, but for the keys of the spec."""

    search: str = ""
    scale: str = option("desk", choices=SCALES)
    trials: int = option(12, least=1)
    seeds: int = option(1, least=1)
    plan_only: bool = False
    out: Path = home() / "outputs"
    storage: str | None = None
    report_dir: Path = home() / "reports"
    device: str = "auto"
    overrides: tuple[str, ...] = ()


def parse(arguments: Sequence[str]) -> Options:
    """Read KEY=VALUE arguments; SpecError says in one sentence what is wrong and what is near it."""
    options = read(Options, arguments, spec_keys)
    if not options.search:
        raise SpecError(f"say which search: search=NAME, one of {', '.join(search_names())}")
    return options


def jobs_of(search: Search, value: float, options: Options) -> list[Job]:
    """The trainings of a trial at ``value``: those of a table with this one row."""
    precision = offer_of(options.device).precision
    return plan([search.table([value])], options.scale, options.seeds, options.overrides, precision=precision)


def study_name(search: Search, first: Sequence[Job], options: Options) -> str:
    """A name for a person, and a hash of what is maximised and of what the ``first`` trial computes."""
    identity = {"metric": search.metric, "jobs": [job.fingerprint for job in first]}
    if search.parameter.log:
        identity["log"] = "true"
    return f"{table_name(search.name, variant(options.overrides))}--{options.scale}--{fingerprint(identity)[:8]}"


@dataclass(frozen=True)
class Bench:
    """Everything that a trial needs: what is searched, where it is tracked, where it runs."""

    options: Options
    search: Search
    space: Space
    study: Study
    tracker: Tracker
    place: Workplace

    def make(self, turn: Turn) -> str:
        """Train what the trial lacks and tell the study; return what there is to say about it."""
        from mae.errors import NotFinite

        value = self.space.settle(turn.suggested)
        try:
            results = self._measure(turn, value)
        except NotFinite as error:
            return f"trial {turn.number}: {self.search.parameter.key}={value:g} diverged: " + (
                self.study.prune(turn, value, f"diverged: {error}").reason
            )
        trial = self.study.complete(turn, value, results)
        return (
            f"trial {trial.number}: {self.search.parameter.key}={value:g} gives {self.search.metric} {trial.mean:.2f}"
        )

    def _measure(self, turn: Turn, value: float) -> list[Result]:
        """The metric at ``value`` for every seed."""
        from experiments.execute import execute
        from experiments.searching.study import Result
        from experiments.tracking import results_of

        jobs = jobs_of(self.search, value, self.options)
        finished = self.tracker.finished()
        place(jobs, finished, self.tracker)
        if todo := pending(jobs, set(finished), self.options.out):
            preflight(todo, self.options.out)
            try:
                execute(todo, self.tracker, self.place)
            finally:
                self._tag(todo, turn)
            finished = self.tracker.finished()
        results = []
        for job in jobs:
            if job.stage == self.search.stage:
                run = finished[job.fingerprint]
                found = results_of(run)
                if self.search.metric not in found:
                    hint = nearest(self.search.metric, found)
                    raise SpecError(f"search {self.search.name}: {job.stage} has no {self.search.metric!r}: {hint}")
                value_of_seed = found[self.search.metric]
                results.append(Result(job.spec.seed, value_of_seed, job.fingerprint, run.info.run_id))
        return results

    def _tag(self, jobs: Sequence[Job], turn: Turn) -> None:
        """Name the study and the trial on the runs that were made for it; the first that asked stays."""
        from experiments.tracking import Record

        for job in jobs:
            for run in self.tracker.runs(f"tags.fingerprint = '{job.fingerprint}'"):
                if "study" not in run.data.tags:
                    Record(self.tracker, run.info.run_id).tags({"study": self.study.name, "trial": turn.number})


def describe(options: Options, search: Search, space: Space, study: Study, first: Sequence[Job], pace: Pace) -> str:
    """What the study holds and what is left of it, in words a person can check."""
    made, declared, used = len(study.trials()), search.parameter, space.parameter
    narrowed = "" if (used.low, used.high) == (declared.low, declared.high) else " (as far as the grid allows)"
    pretrainings = sum(job.stage == PRETRAIN for job in first)
    minutes = pace.seconds(first) / 60
    left = max(0, options.trials - made)
    return (
        f"study {study.name}: {made} of {options.trials} trials are finished\n"
        f"{used.key} from {used.low:g} to {used.high:g}{narrowed}; "
        f"maximised: {search.metric}, mean of {options.seeds} seeds\n"
        f"a trial needs {pretrainings} pre-trainings and {len(first) - pretrainings} evaluations, "
        f"about {minutes:.1f} min at {used.key}={search.enqueue[0]:g}; "
        f"the others about {left * minutes:.0f} min"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or any(argument in ("-h", "--help", "help") for argument in arguments):
        print(__doc__)
        print(f"Searches: {', '.join(search_names())}")
        return 0
    return answer(lambda: run(parse(arguments)))


def run(options: Options) -> int:
    """Open the study, make the trials that are missing, and print and draw all of them."""
    search = load_search(options.search)
    remember_in(options.out / "cache" / "digests")
    if any(override.partition("=")[0].lstrip("+~") == search.parameter.key for override in options.overrides):
        raise SpecError(f"{search.parameter.key} is what this search varies: leave it out, or run the table's row")
    first = jobs_of(search, search.enqueue[0], options)
    table = search.table(search.enqueue[:1])
    check_effects([table], options.scale, options.overrides, (), offer_of(options.device).precision)
    space = space_of(search, first[0].spec, options.scale)

    from experiments.execute import workplace
    from experiments.searching.study import Study, storage_url
    from experiments.tracking import Tracker, tracking_uri

    make_out(options.out)
    make_folder("report_dir", options.report_dir)
    here = workplace(options.out, options.device, options.scale)
    tracker = Tracker(tracking_uri(options.out), options.out)
    ends = [jobs_of(search, space.settle(end), options) for end in (space.parameter.low, space.parameter.high)]
    preflight([job for jobs in (first, *ends) for job in jobs], options.out)
    url = storage_url(options.out, options.storage)
    study = Study(study_name(search, first, options), url, options.out, space.parameter, space.enqueue)
    print(describe(options, search, space, study, first, pace_of(tracker.finished(), options.scale)), flush=True)
    for line in parts_used(first):
        print(line)
    if options.plan_only:
        return 0
    bench = Bench(options, search, space, study, tracker, here)
    while True:
        with study.claim(options.trials, _waiting) as turn:
            if turn is None:
                break
            print(bench.make(turn), flush=True)
    show(bench)
    return 0


def _waiting(count: int) -> None:
    print(f"waiting for another process, which makes the last {count} trials", file=sys.stderr, flush=True)


def show(bench: Bench) -> None:
    """Print the trials and write their table and figure."""
    from reports.trials import write_trials

    options, name = bench.options, variant(bench.options.overrides)
    trials = bench.study.trials()
    text, written = write_trials(bench.search, trials, bench.space, options.scale, name, options.report_dir)
    print(f"\n{text}\n\nwritten: {', '.join(str(path) for path in written)}")
    print(f"runs: mlflow ui --backend-store-uri {shlex.quote(bench.tracker.uri)}")


if __name__ == "__main__":
    sys.exit(main())
