"""What a run of the trials says: Markdown for people, JSON for machines."""

import platform
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from .cases import Case
from .runner import ROOT, Outcome, Run


@dataclass(frozen=True, slots=True)
class Trials:
    """All that was run.

    Attributes:
        n_runs: runs of each case that were asked for; None: what the table wants.
    """

    cases: Sequence[Case]
    runs: Sequence[Run]
    seed: int
    budget_s: float
    took_s: float
    n_runs: int | None
    machine: dict[str, str]

    def of(self, case: Case) -> list[Run]:
        """Return the runs of a case that came to an end."""
        return [run for run in self.runs if run.case == case.id and run.outcome is not Outcome.CUT]

    def wanted(self, case: Case) -> int:
        """Return how many runs of a case were wanted."""
        return self.n_runs or case.wanted

    @property
    def failed(self) -> list[Run]:
        """The runs that failed."""
        return [run for run in self.runs if run.outcome is Outcome.FAILED]


def machine() -> dict[str, str]:
    """Return what the figures depend on."""
    facts = {
        "processor": f"{_processor()}, {psutil.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 1024**3:.0f} GiB",
        "load before": " ".join(f"{load:.1f}" for load in psutil.getloadavg()),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "commit": _said("git", "rev-parse", "--short", "HEAD")
        + (" with changes" if _said("git", "status", "-s") else ""),
        "Orthanc": _said("/usr/sbin/Orthanc", "--version").partition("\n")[0] or "missing",
        "DCMTK": _said("/usr/bin/storescu", "--version").partition("\n")[0] or "missing",
    }
    for package in ("pynetdicom", "pydicom", "SQLAlchemy", "torch", "hypothesis", "atheris"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "missing"
    return facts


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _said(*command: str) -> str:
    with suppress(OSError):
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60).stdout.strip()
    return ""


def repeating(run: Run) -> str:
    """Return the command that repeats a run."""
    return f"python -m tests.trials {run.case} --seed {run.seed} --runs 1"


def markdown(trials: Trials) -> str:
    """Return the report for people."""
    return "\n".join([*_summary(trials), *_table(trials), *_failures(trials), *_gaps(trials), *_facts(trials)]) + "\n"


def _summary(trials: Trials) -> list[str]:
    n_done = sum(len(trials.of(case)) for case in trials.cases)
    n_wanted = sum(map(trials.wanted, trials.cases))
    verdict = f"{len(trials.failed)} runs failed" if trials.failed else "no run failed"
    return [
        "# Trials",
        "",
        f"{verdict}; {n_done} of {n_wanted} wanted runs of {len(trials.cases)} cases were done in "
        f"{trials.took_s / 60:.1f} minutes of {trials.budget_s / 60:.0f}, first seed {trials.seed}.",
        "",
    ]


def _table(trials: Trials) -> list[str]:
    lines = [
        "| case | title | runs | of | passed | failed | skipped | tests | seconds |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for case in trials.cases:
        runs = trials.of(case)
        counts = [
            sum(run.outcome is kind for run in runs) for kind in (Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED)
        ]
        seconds, tests = sum(run.seconds for run in runs), sum(run.n_tests for run in runs)
        figures = [len(runs), trials.wanted(case), *counts, tests, f"{seconds:.0f}"]
        lines.append(f"| {case.id} | {case.title} | " + " | ".join(map(str, figures)) + " |")
    return lines


def _failures(trials: Trials) -> list[str]:
    lines = ["", "## Failures", ""] if trials.failed else []
    for run in trials.failed:
        lines += [
            f"- **{run.case}**, seed {run.seed}, {run.seconds:.0f} s: {run.sentence}",
            f"  `{repeating(run)}`; output and logs: `{run.kept}`",
        ]
    return lines


def _gaps(trials: Trials) -> list[str]:
    """Return what was not done: by the budget, or skipped."""
    lines = []
    for case in trials.cases:
        runs, wanted = trials.of(case), trials.wanted(case)
        if len(runs) < wanted:
            cut = sum(run.outcome is Outcome.CUT for run in trials.runs if run.case == case.id)
            lines.append(f"- {case.id}: {len(runs)} of {wanted} runs" + (f", {cut} cut off" if cut else ""))
        reasons = {run.sentence for run in runs if run.outcome is Outcome.SKIPPED}
        reasons |= {reason for run in runs for reason in run.left_out}
        lines += [f"- {case.id}, skipped: {reason}" for reason in sorted(reasons)]
    return ["", "## Not done", "", *lines] if lines else []


def _facts(trials: Trials) -> list[str]:
    return ["", "## Machine", "", *(f"- {name}: {value}" for name, value in trials.machine.items())]


def as_json(trials: Trials) -> dict[str, Any]:
    """Return the report for machines."""
    return {
        "seed": trials.seed,
        "budget_s": trials.budget_s,
        "took_s": round(trials.took_s, 1),
        "machine": trials.machine,
        "cases": [
            {"id": case.id, "title": case.title, "wanted": trials.wanted(case), "done": len(trials.of(case))}
            for case in trials.cases
        ],
        "runs": [{**run.as_json(), "repeat": repeating(run)} for run in trials.runs],
    }
