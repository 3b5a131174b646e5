"""The paper's Tables 1 and 2 over a store of samples: methods by tasks, SRCC, PLCC and RMSE, each with its interval.

Intervals are by resampling sources that no method was trained on, then patients, or base images of simulated copies.
Tables of simulated samples do not reproduce the paper's figures and are no evidence of agreement with experts; rows of
small networks are no evidence about the published sizes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.reader_study.statistics import FEWEST_GROUPS, Interval
from training.data.store import Sample
from training.evaluate.metrics import FEWEST, Agreement, agreement
from training.evaluate.results import Result, select
from training.experiments.methods import METHODS, STAGES, Advance, Budget, Data, ours, predictions, title

NOT_FOR_THIS = "/"
"""Printed, as in the paper, where a part is not used: salient slices of a single image."""
_ABLATION = ((False, False, False), (True, False, False), (True, True, False), (True, True, True))
"""Rows of Table 2: pretraining, prompts, salient slices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A column of a table: test samples of one kind, and one label.

    Attributes:
        name: `Test` for all samples, else the kind of image.
        stage: `upstream` or `downstream`.
        places: indices of its samples among the test samples.
        volumes: whether they have several slices.
        groups: units of the bootstrap; see `group_of`.
        n, patients: number of samples, and their patients.
    """

    name: str
    stage: str
    places: tuple[int, ...]
    volumes: bool
    groups: int
    patients: int

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.places)

    @property
    def key(self) -> tuple[str, str]:
        """The key of this task in results."""
        return self.stage, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The result of each row on each task of a stage.

    Attributes:
        rows: titles of the methods or ablations, in order.
        results: of a row (`method`) on a task (`Task.key`); absent if a part of the model is not used.
    """

    tasks: tuple[Task, ...]
    rows: tuple[str, ...]
    results: tuple[Result, ...]

    def cell(self, row: str, task: Task) -> Agreement | None:
        """Return the result of a row on a task, or None."""
        return next((one.agreement for one in select(self.results, task=task.key, method=row)), None)


def tasks_of(data: Data, stage: str) -> list[Task]:
    """Return the tasks of a stage: all test samples, then each kind with enough samples and groups."""
    truth = data.truth(stage, data.test)
    kinds: dict[str, list[int]] = {}
    for place, sample in enumerate(data.test.samples):
        if np.isfinite(truth[place]):
            kinds.setdefault("Test", []).append(place)
            kinds.setdefault(kind_of(sample), []).append(place)
    found = []
    for name, places in kinds.items():
        mine = [data.test.samples[place] for place in places]
        groups = len({group_of(one) for one in mine})
        if len(places) >= FEWEST and groups >= FEWEST_GROUPS and np.ptp(truth[places]) > 0:
            volumes = all(data.test.slice_of(place)[-1] > 0 for place in places)
            patients = len({one.patient for one in mine})
            found.append(
                Task(name=name, stage=stage, places=tuple(places), volumes=volumes, groups=groups, patients=patients)
            )
    return found


def group_of(sample: Sample) -> str:
    """Return the bootstrap group of a sample: the base image of a copy, else the patient."""
    return sample.base if sample.factor else sample.patient


def kind_of(sample: Sample) -> str:
    """Return the benchmark of the paper that a sample belongs to: `CT lung`, `brain t1`, `fundus`."""
    if sample.modality == "OP":
        return "fundus"
    region, image_type = sample.prompt["region"], sample.prompt["type"]
    return f"CT {image_type}" if sample.modality == "CT" else f"{region} {image_type}"


def table1(
    data: Data, budget: Budget, folder: Path, *, methods: Sequence[str] = METHODS, advance: Advance = lambda *_: None
) -> dict[str, Table]:
    """Train every method and return the table of each stage that has a task.

    Raises:
        ConfigurationError: an unknown method, or no task.
    """
    if unknown := [one for one in methods if one not in METHODS]:
        raise ConfigurationError(f"no method {unknown[0]!r}; known: {', '.join(METHODS)}")
    tasks = {stage: tasks_of(data, stage) for stage in STAGES}
    if not any(tasks.values()):
        raise ConfigurationError(
            f"no kind of test sample has {FEWEST} images of {FEWEST_GROUPS} patients with different labels"
        )
    found = {one: predictions(one, data, budget, folder, advance=advance) for one in methods}
    return {
        stage: Table(
            tasks=tuple(of_stage),
            rows=tuple(title(one, budget) for one in methods if stage in found[one]),
            results=tuple(
                result
                for one in methods
                if stage in found[one]
                for result in _reached(data, found[one][stage], of_stage, title(one, budget), budget.seed)
            ),
        )
        for stage, of_stage in tasks.items()
        if of_stage
    }


def table2(data: Data, budget: Budget, folder: Path, *, advance: Advance = lambda *_: None) -> Table:
    """Train the model with and without its parts, and return the downstream results of each row.

    Without salient slices, only the middle slice of a volume is used; single images are unaffected.

    Raises:
        ConfigurationError: no downstream task.
    """
    tasks = tasks_of(data, "downstream")
    if not tasks:
        raise ConfigurationError("no test samples with quality labels enough for a table")
    middle = replace(data, train=data.train.middle_slices(), test=data.test.middle_slices())
    rows: list[str] = []
    results: list[Result] = []
    for number, (pretrained, prompted, salient) in enumerate(_ABLATION, start=1):
        rows.append(f"{number}  {_mark(pretrained)}  {_mark(prompted)}  {_mark(salient)}")
        if used := [task for task in tasks if task.volumes or not salient]:
            predicted = ours(
                data if salient else middle, budget, folder / f"ablation{number}", pretrained=pretrained,
                prompted=prompted, advance=advance,
            )["downstream"]  # fmt: skip
            results += _reached(data, predicted, used, rows[-1], budget.seed)
    return Table(tasks=tuple(tasks), rows=tuple(rows), results=tuple(results))


def _reached(data: Data, predicted: np.ndarray, tasks: Sequence[Task], row: str, seed: int) -> Iterator[Result]:
    for task in tasks:
        places = list(task.places)
        samples = [data.test.samples[place] for place in places]
        groups, sources = [group_of(one) for one in samples], [one.source for one in samples]
        reached = agreement(predicted[places], data.truth(task.stage, data.test)[places], groups, sources=sources)
        yield Result(task=task.key, method=row, seed=seed, agreement=reached)


def _mark(used: bool) -> str:
    return "✓ " if used else "× "


# ── print ────────────────────────────────────────────────────────────────────

_METRICS = ("srcc", "plcc", "rmse")
_WIDTH = 11


def lines(table: Table, head: str) -> Iterator[str]:
    """Yield a table in the paper's layout: S, P and R of every task, under each value its 95 % interval.

    The best value of a column has an asterisk.
    """
    left = max(len(head), *map(len, table.rows)) + 2
    block = len(_METRICS) * _WIDTH
    evidence = [_evidence(task) for task in table.tasks]
    yield " " * left + "".join(task.name.ljust(block) for task in table.tasks).rstrip()
    yield " " * left + "".join(text.ljust(block) for text in evidence).rstrip()
    yield head.ljust(left) + "".join(f"{name:{_WIDTH}}" for _ in table.tasks for name in ("S↑", "P↑", "R↓")).rstrip()
    best = {(task.key, metric): _best(table, task, metric) for task in table.tasks for metric in _METRICS}
    for name in table.rows:
        values, intervals = [], []
        for task in table.tasks:
            cell = table.cell(name, task)
            for metric in _METRICS:
                found: Interval | None = None if cell is None else getattr(cell, metric)
                is_best = found is not None and found.value is not None and found.value == best[task.key, metric]
                star = "*" if is_best else ""
                values.append(NOT_FOR_THIS if found is None else _short(found.value) + star)
                intervals.append("" if found is None or found.low is None else _span(found))
        yield name.ljust(left) + "".join(f"{text:{_WIDTH}}" for text in values).rstrip()
        if any(intervals):
            yield (" " * left + "".join(f"{text:{_WIDTH}}" for text in intervals)).rstrip()


def _evidence(task: Task) -> str:
    copied = f", {task.groups} images" if task.groups != task.patients else ""
    return f"n={task.n}{copied}, {task.patients} patient{'s' * (task.patients != 1)}"


def _best(table: Table, task: Task, metric: str) -> float | None:
    found = [getattr(one.agreement, metric).value for one in select(table.results, task=task.key)]
    known = [value for value in found if value is not None]
    return (min(known) if metric == "rmse" else max(known)) if known else None


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _span(found: Interval) -> str:
    ends = (round(end or 0.0, 2) + 0.0 for end in (found.low, found.high))  # no -0
    return "–".join(f"{end:.2f}".replace("0.", ".", 1) for end in ends)


def plain(table: Table) -> Mapping[str, object]:
    """Return a table as plain values for JSON."""
    return {
        "tasks": [{**asdict(task), "n": task.n, "places": None} for task in table.tasks],
        "rows": [
            {"name": row, "cells": [(cell := table.cell(row, task)) and asdict(cell) for task in table.tasks]}
            for row in table.rows
        ],
    }
