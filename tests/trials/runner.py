"""Run cases within a budget: each gets its least number of runs first, then all take turns."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil

from .cases import Case

ROOT = Path(__file__).parents[2]
_TIMES_LONGER = 5.0
"""A run that takes so many times longer than it should, and at least 15 minutes, hangs."""
_TO_CLEAN_UP_S = 60.0


class Outcome(StrEnum):
    """How a run ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CUT = "cut off by the budget"


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a case.

    Attributes:
        sentence: what failed, or why it was skipped.
        left_out: tests within it that were skipped, with their reasons.
        kept: folder with output, logs and crash inputs of a run that failed.
    """

    case: str
    seed: int
    outcome: Outcome
    seconds: float
    n_tests: int
    sentence: str = ""
    left_out: tuple[str, ...] = ()
    kept: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def run_all(
    cases: list[Case], *, seed: int, budget_s: float, n_runs: int | None, on_run: Callable[[Run], None]
) -> list[Run]:
    """Run cases until all have their runs or the time is used up.

    Args:
        seed: of the first run of each case; the next one's is one more.
        n_runs: how many runs of each case; None: what the table wants.
    """
    ends_at = time.monotonic() + budget_s
    runs: list[Run] = []
    for case in _turns(cases, n_runs):
        mine = [run for run in runs if run.case == case.id]
        expected = mine[-1].seconds if mine else case.about_s
        left = ends_at - time.monotonic()
        if left + 1.0 < min(expected, budget_s):  # a case alone always begins
            continue
        try:
            runs.append(_run(case, seed + len(mine), left_s=left))
        except KeyboardInterrupt:  # what was done is reported all the same
            break
        on_run(runs[-1])
    return runs


def _turns(cases: list[Case], n_runs: int | None) -> Iterator[Case]:
    """Return whose turn it is: first the least runs, short ones before long ones, then in turn."""
    wanted = {case.id: n_runs or case.wanted for case in cases}
    least = {case.id: min(case.least, wanted[case.id]) for case in cases}
    for i in range(max(least.values())):
        yield from (case for case in sorted(cases, key=lambda case: case.about_s) if i < least[case.id])
    for i in range(max(wanted.values())):
        yield from (case for case in cases if least[case.id] <= i < wanted[case.id])


def _run(case: Case, seed: int, *, left_s: float) -> Run:
    """Run the tests of a case in a process of their own."""
    limit_s = max(900.0, _TIMES_LONGER * case.about_s)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"trial-{case.id}-") as folder:
        report = Path(folder) / "report.xml"
        options = ["-p", "no:xdist", "-p", "no:cacheprovider", "-o", "addopts=", "-q", f"--timeout={limit_s:.0f}"]
        command = [sys.executable, "-m", "pytest", *options, f"--basetemp={folder}/tmp", f"--junitxml={report}"]
        with (Path(folder) / "output").open("wb") as output:
            process = subprocess.Popen(
                [*command, *case.tests_of(seed)],
                cwd=ROOT,
                env=os.environ | {"MEDIQA_TRIAL_SEED": str(seed)},
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                process.wait(timeout=min(left_s, limit_s))
                is_cut = False
            except subprocess.TimeoutExpired:
                is_cut = True
            finally:
                _end(process)
        took = time.monotonic() - started
        if is_cut:
            hung = left_s >= limit_s
            sentence = f"did not end within {limit_s:.0f} s" if hung else ""
            run = Run(case.id, seed, Outcome.FAILED if hung else Outcome.CUT, took, 0, sentence)
        else:
            said = (Path(folder) / "output").read_text(errors="replace")
            run = _judged(case.id, seed, took, report, said)
        return replace(run, kept=str(_keep(Path(folder), run))) if run.outcome is Outcome.FAILED else run


def _keep(folder: Path, run: Run) -> Path:
    """Copy what explains a failure out of a folder that will be gone."""
    kept = Path(tempfile.gettempdir()) / "mediqa-trials" / f"{run.case}-{run.seed}"
    kept.mkdir(parents=True, exist_ok=True)
    for pattern in ("output", "report.xml", "tmp/**/*.log", "tmp/**/crash-*", "tmp/**/timeout-*"):
        for path in folder.glob(pattern):
            if path.is_file() and not path.is_symlink():
                shutil.copy(path, kept / "-".join(path.relative_to(folder).parts)[-200:])
    return kept


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a run and everything that it started, and nothing else."""
    if process.poll() is not None:
        return
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)  # fixtures end what they started
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_TO_CLEAN_UP_S)
    for child in family:
        with suppress(psutil.Error):  # `psutil` knows a process by its start as well, not by its number alone
            child.kill()
    process.kill()
    process.wait()


def _judged(case: str, seed: int, took_s: float, report: Path, said: str) -> Run:
    """Read what pytest reported."""
    tests = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
    failed = [_sentence(test, what) for test in tests for what in (*test.iter("failure"), *test.iter("error"))]
    skipped = [_sentence(test, what) for test in tests for what in test.iter("skipped")]
    if not tests:
        last = [line for line in said.splitlines() if line.strip()][-3:]
        return Run(case, seed, Outcome.FAILED, took_s, 0, f"no test ran: {' / '.join(last)}")
    if failed:
        return Run(case, seed, Outcome.FAILED, took_s, len(tests), "; ".join(failed), tuple(skipped))
    if len(skipped) == len(tests):
        return Run(case, seed, Outcome.SKIPPED, took_s, len(tests), skipped[0])
    return Run(case, seed, Outcome.PASSED, took_s, len(tests), left_out=tuple(skipped))


def _sentence(test: ElementTree.Element, what: ElementTree.Element) -> str:
    message = " ".join(what.get("message", "").split())
    return f"{test.get('name')}: {message[:600]}"
