"""`python -m tests.trials`: run the trials within a budget, and report every run."""

# ruff: noqa: T201 (the report)

import argparse
import json
import random
import signal
import sys
import time
from pathlib import Path

from .cases import CASES, find
from .report import Trials, as_json, machine, markdown
from .runner import Run, run_all

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """Return a duration such as `90m`."""
    return float(text[:-1]) * _UNITS[text[-1]] if text[-1:] in _UNITS else float(text)


def main(arguments: list[str]) -> int:
    """Run; return 1 if a run failed, 2 if the request makes no sense."""
    parser = argparse.ArgumentParser(prog="python -m tests.trials", description=__doc__)
    parser.add_argument("case", nargs="*", help="the cases to run, such as F5 B1")
    parser.add_argument("--all", action="store_true", help="every case")
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    parser.add_argument("--budget", type=seconds, default=seconds("90m"), help="such as 90m, 2h (default: 90m)")
    parser.add_argument("--seed", type=int, help="of the first run of each case; drawn, and printed, by default")
    parser.add_argument("--runs", type=int, help="runs of each case, instead of what the table wants")
    parser.add_argument("--report", type=Path, help="Markdown file to write; JSON goes beside it")
    wanted = parser.parse_args(arguments)
    if wanted.list:
        for case in CASES:
            print(f"{case.id:4} {case.wanted:3} runs of about {case.about_s:4.0f} s  {case.title}")
        return 0
    try:
        cases = list(CASES) if wanted.all else find(wanted.case)
    except KeyError as unknown:
        parser.error(f"there is no case {unknown}; `--list` names them")
    if not cases:
        parser.error("name cases, or --all")
    seed = random.SystemRandom().randrange(10**6) if wanted.seed is None else wanted.seed
    for number in (signal.SIGINT, signal.SIGTERM):  # a run that is broken off ends what it has started
        signal.signal(number, signal.default_int_handler)
    facts, started = machine(), time.monotonic()
    runs = run_all(cases, seed=seed, budget_s=wanted.budget, n_runs=wanted.runs, on_run=_tell)
    trials = Trials(cases, runs, seed, wanted.budget, time.monotonic() - started, wanted.runs, facts)
    print(markdown(trials))
    if wanted.report:
        wanted.report.write_text(markdown(trials))
        wanted.report.with_suffix(".json").write_text(json.dumps(as_json(trials), indent=1))
    return 1 if trials.failed else 0


def _tell(run: Run) -> None:
    print(
        f"{run.case:4} seed {run.seed}: {run.outcome}, {run.seconds:.0f} s {run.sentence[:200]}",
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
