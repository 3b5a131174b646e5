"""A checkpoint from nothing: simulate, train every seed in both stages, fit the training range, evaluate, write cards.

Everything lies in one folder:

store, sweep        simulated samples; sweep: single factors at rising strengths, of held-out sources
choices.json        options, compared on left-out development sources (`fit.choices`)
runs/sN-*           the runs of seed N: stage 1, then those of stage 2
range.json          the training range
refusals.json       what it refuses of the collection
checkpoints/sN      a checkpoint for each seed
gates/gates.json    their results on held-out sources
refit               runs and checkpoints of the refit, if the recipe has one: the same steps with all sources
costs.json          wall and core time of every step, over all starts that were not killed during it

Every step leaves what it has finished, so an interrupted recipe is resumed by the same command.
"""

import copy
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.image.training_range import TrainingRange
from mediqa_node.model.card import Fusion
from mediqa_node.model.checkpoint import load_whole
from mediqa_node.model.lock import LOCK_FILE
from mediqa_node.model.network import MedIQA
from mediqa_node.model.sizes import SIZES
from mediqa_node.system.atomic import write_atomically
from training.data.collection import ImageSet, read_collection
from training.data.store import Store
from training.data.tokens import tokens_of
from training.data.views import Prepared, prepare
from training.evaluate.by_method import QUALITY
from training.experiments.methods import Advance
from training.fit.checkpoint import claimed_before, make_card, provenance, quality_regressors, write_checkpoint
from training.fit.choices import Merit, merits
from training.fit.loop import CURVE
from training.fit.pretrained import load_pretrained, pretrained
from training.fit.recipe import SIMULATE, STAGE1, STAGE2, Recipe, read_preset, read_recipe
from training.fit.runs import finetune, pretrain, read_run
from training.fit.training_range import fit_training_ranges, measure, refusals
from training.simulate import ct, fundus, mr
from training.simulate.build import Plan, build

RECIPE = "recipe.yaml"
CHOICES, RANGE, REFUSALS, COSTS = "choices.json", "range.json", "refusals.json", "costs.json"


class Sections(BaseModel):
    """A section of `config/recipe.yaml`: which sections of the other files it takes.

    Attributes:
        statistics: share of the regressor on statistics in the quality, by modality; the network has the rest.
        refit: whether every seed is trained once more, with the held-out sources as well; its cards keep the figures of
            the fit without them.
        steps: of every run, instead of the presets'; null: theirs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    simulate: str
    sweep: str
    stage1: str
    stage2: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    statistics: dict[Literal["CT", "MR", "OP"], Annotated[float, Field(ge=0, le=1)]] = {}
    refit: bool = False
    steps: int | None = Field(default=None, ge=1)


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to make, of which images, and where.

    Attributes:
        recipe: name of the section.
        processes: simulated and trained at the same time.
        trunk: file of pretrained weights; None: the package of the row.
    """

    recipe: str
    collection: Path
    manifest: Path | None
    out: Path
    sections: Sections
    processes: int = 2
    trunk: Path | None = None

    @cached_property
    def sets(self) -> list[ImageSet]:
        """The image sets of the collection."""
        return read_collection(self.collection, self.manifest)

    @property
    def stage1(self) -> Recipe:
        """The preset of stage 1."""
        return read_recipe(STAGE1, self.sections.stage1)

    @property
    def stage2(self) -> list[Recipe]:
        """The presets of stage 2, in order."""
        return [read_recipe(STAGE2, name) for name in self.sections.stage2]

    @property
    def seeds(self) -> Sequence[int]:
        """The seeds, first the one that is shipped."""
        return self.sections.seeds

    def runs(self, seed: int, *, refit: bool) -> list[Path]:
        """Return the folders of a seed's runs, in order."""
        return [self.fit(refit=refit) / "runs" / f"s{seed}-{name}" for name in ("stage1", *self.sections.stage2)]

    def name(self, seed: int, *, refit: bool) -> str:
        """Return the name of a seed's checkpoint: that of the recipe for the first seed of the last fit."""
        if refit != self.sections.refit:
            return f"{self.recipe}-s{seed}-before"
        return self.recipe if seed == self.seeds[0] else f"{self.recipe}-s{seed}"

    def checkpoint(self, seed: int, *, refit: bool) -> Path:
        """Return the folder of a seed's checkpoint."""
        return self.fit(refit=refit) / "checkpoints" / f"s{seed}"

    def fit(self, *, refit: bool) -> Path:
        """Return the folder of one of the two fits."""
        return self.out / "refit" if refit else self.out


@contextmanager
def measured(order: Order, step: str) -> Iterator[None]:
    """Add the wall and core time of a block to `costs.json`."""
    wall, core = time.monotonic(), _core_seconds()
    try:
        yield
    finally:
        file = order.out / COSTS
        costs = json.loads(file.read_text()) if file.exists() else {}
        before = costs.get(step, {"wall_s": 0.0, "core_s": 0.0})
        costs[step] = {
            "wall_s": round(before["wall_s"] + time.monotonic() - wall, 1),
            "core_s": round(before["core_s"] + _core_seconds() - core, 1),
        }
        write_atomically(file, (json.dumps(costs, indent=1) + "\n").encode())


def _core_seconds() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def simulated(order: Order, name: str, preset: str, advance: Advance) -> Prepared:
    """Return the samples of a store of the recipe as network input, simulating what is missing."""
    plan, spec = read_preset(Plan, SIMULATE, preset), order.stage2[-1].spec
    store = Store(order.out / name)
    build(order.sets, spec, plan, store, processes=order.processes, advance=advance)
    return prepare(
        store, spec, processes=order.processes, advance=lambda done, total: advance(done, total, "preparing images")
    )


def of_fit(data: Prepared, *, refit: bool) -> Prepared:
    """Return the samples of a store as a fit sees them: a refit trains on all of them."""
    if not refit:
        return data
    everything = copy.copy(data)
    everything.samples = [replace(sample, split="train") for sample in data.samples]
    return everything


class TrainSeed(Protocol):
    """Trains one seed: see `train_seed`."""

    def __call__(self, order: Order, seed: int, advance: Advance, *, refit: bool) -> None:
        """Train it in both stages."""


def train_seeds(order: Order, advance: Advance, train: TrainSeed | None = None) -> None:
    """Train all seeds in both stages, several at a time, each on one core; then those of the refit, if there is one.

    Args:
        train: of one seed; None: `train_seed`.

    Raises:
        Exception: whatever a seed failed with, at once: the others stop, and are resumed from their last saved states.
    """
    fits = [(seed, refit) for refit in ((False, True) if order.sections.refit else (False,)) for seed in order.seeds]
    recipes = [order.stage1, *order.stage2]
    total = len(fits) * sum(order.sections.steps or one.steps or 1 for one in recipes)
    context = get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(order.processes, mp_context=context, initializer=_begin, initargs=(stop,)) as pool:
        running = [
            pool.submit(_train_while_wanted, train or train_seed, order, seed, os.getpid(), refit=refit)
            for seed, refit in fits
        ]
        while not all(one.done() for one in running):
            advance(_steps_done(order, fits), total, "training")
            if any(one.done() and not one.cancelled() and one.exception() for one in running):
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)  # a seed has failed: the next ones would as well
            time.sleep(1.0)
        for one in running:
            if not one.cancelled():
                one.result()


def _steps_done(order: Order, fits: Sequence[tuple[int, bool]]) -> int:
    curves = (folder / CURVE for seed, refit in fits for folder in order.runs(seed, refit=refit))
    return sum(max(0, len(file.read_text().splitlines()) - 1) for file in curves if file.exists())


class _Stopped(Exception):
    """Another seed has failed."""


_stops: list[Event] = []
"""Of this process: an event reaches a spawned process only while it starts."""


def _begin(stop: Event) -> None:
    """Let the seeds that a process will train see when they are to stop."""
    _stops.append(stop)


def _train_while_wanted(train: TrainSeed, order: Order, seed: int, parent: int, *, refit: bool) -> None:
    """Train one seed in a process of its own, which ends with its parent: a killed recipe leaves nothing running."""

    def advance(*_: object) -> None:
        if os.getppid() != parent:
            os._exit(1)  # a run is resumed from its last saved state
        if any(stop.is_set() for stop in _stops):
            raise _Stopped

    with suppress(_Stopped):
        train(order, seed, advance, refit=refit)


def train_seed(order: Order, seed: int, advance: Advance, *, refit: bool) -> None:
    """Train one seed: stage 1, then every run of stage 2 from the one before."""
    folders = order.runs(seed, refit=refit)
    data = of_fit(prepare(Store(order.out / "store"), order.stage1.spec), refit=refit)
    steps = order.sections.steps
    pretrain(data, order.stage1, folders[0], seed=seed, steps=steps, trunk=order.trunk, advance=advance)
    for recipe, begin, folder in zip(order.stage2, folders, folders[1:], strict=False):
        finetune(data, recipe, folder, seed=seed, begin=begin, steps=steps, advance=advance)


def choose(order: Order, data: Prepared, advance: Advance) -> list[Merit]:
    """Return the merits of the recipe's options on left-out development sources, and write `choices.json`."""
    network = MedIQA(SIZES[order.stage1.size]).eval()
    given = pretrained(network.size, order.trunk)
    if given is None:
        return []  # an encoder that is not pretrained has no features to judge by
    load_pretrained(network, given[0])
    tokens = tokens_of(data, network.trunk, advance=lambda done, total: advance(done, total, "tokens"))
    found = list(merits(tokens))
    text = json.dumps([one.as_json() for one in found], indent=1) + "\n"
    write_atomically(order.out / CHOICES, text.encode())
    return found


def fit_range(order: Order, advance: Advance) -> list[str]:
    """Fit the training range to all patients of the collection; write `range.json`, and what it refuses.

    Returns:
        why a modality has none: it has too few sources.
    """
    spec = order.stage2[-1].spec
    found, missing = measure(order.sets, spec, advance=advance), []
    ranges: dict[str, TrainingRange] = {}
    for modality in sorted({one.modality for one in found if one.belongs_to.split == "dev" and one.modality}):
        try:
            ranges |= fit_training_ranges([one for one in found if one.modality == modality], spec)
        except ConfigurationError as reason:
            missing.append(str(reason))
    text = json.dumps({name: asdict(one) for name, one in ranges.items()}, indent=1) + "\n"
    write_atomically(order.out / RANGE, text.encode())
    seen = json.dumps(asdict(refusals(found, ranges, spec)), indent=1) + "\n"
    write_atomically(order.out / REFUSALS, seen.encode())
    return missing


def write_checkpoints(order: Order, data: Prepared, *, command: str, refit: bool = False) -> list[Path]:
    """Write a checkpoint for each seed, with its training range, choices and costs."""
    choices = json.loads((order.out / CHOICES).read_text()) if (order.out / CHOICES).exists() else []
    with measured(order, "regressors"):
        regressors = quality_regressors(of_fit(data, refit=refit), order.sections.statistics)
    costs = json.loads((order.out / COSTS).read_text())
    fusion: dict[str, dict[str, Fusion]] = {
        modality: {QUALITY: Fusion(offset=0.0, network=1.0 - share, statistics=share)}
        for modality, share in order.sections.statistics.items()
        if modality in regressors
    }
    folders = []
    for seed in order.seeds:
        runs = order.runs(seed, refit=refit)
        card = make_card(
            read_run(runs[-1]),
            name=order.name(seed, refit=refit),
            fusion=fusion,
            domains=order.out / RANGE,
            training_data=command,
            metrics={
                "made_by": provenance(read_run(runs[-1])),
                "stages": [provenance(read_run(run)) for run in runs[:-1]],
                "labels": {"CT": ct.QUALITY, "MR": mr.QUALITY, "OP": fundus.QUALITY},
                "choices": choices,
                "costs": costs,
                "refusals": json.loads((order.out / REFUSALS).read_text()),
            },
        )
        folders.append(order.checkpoint(seed, refit=refit))
        write_checkpoint(folders[-1], runs[-1], card, regressors)
    return folders


def claim_before(order: Order) -> None:
    """Write into the cards of the refit what the fit before it showed on held-out sources, seed by seed."""
    for seed in order.seeds:
        _, card, _ = load_whole(order.name(seed, refit=False), order.checkpoint(seed, refit=False) / LOCK_FILE)
        claimed_before(order.checkpoint(seed, refit=True), card)


def costs_of(order: Order) -> Sequence[tuple[str, str, str]]:
    """Return a row for every step: name, wall minutes, core minutes."""
    costs = json.loads((order.out / COSTS).read_text())
    return [(name, f"{one['wall_s'] / 60:.1f}", f"{one['core_s'] / 60:.1f}") for name, one in costs.items()]
