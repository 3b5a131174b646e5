"""Build a store of simulated samples from a collection: choose base slices, plan and make their copies."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.preprocessing import PreprocessSpec
from mediqa_node.image.measure.mr.support import spectrum, support
from mediqa_node.system.atomic import write_atomically
from training.data.collection import ImageSet, StackImages, check_held_out, fraction, held_out_sources, stacks_of
from training.data.store import VARIANT, Sample, Store
from training.simulate import ct, fundus, mr
from training.simulate.ct_variants import variant
from training.simulate.degraded import FACTORS, BaseImage, Degraded, Step
from training.simulate.mr_from_ct import fold_of, mr_like

_DEGRADE = {"CT": ct.degrade, "MR": mr.degrade, "OP": fundus.degrade}
_SINGLE = 0.4
"""Share of the copies that one factor alone made worse, factors equally often."""
_SMALLEST_PX = 48
PLAN_FILE = "plan.json"
VERSION = 2
"""Of the simulation: a store of another version is not extended. Raise it with every change of samples or labels."""
STRENGTHS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of a sweep."""


class Plan(BaseModel):
    """The amount and kind of simulated samples.

    Attributes:
        bases: maximum number of slices per source, by modality.
        from_ct: maximum number of slices per CT source whose anatomy also becomes an MR-like source.
        ct_variants: number of other reconstructions of every CT slice (`simulate.ct_variants`); those of held-out
            sources have split `refit`.
        groups: number of groups of four copies per base, by modality, in addition to `clean`.
        held_out: names of sources to hold out, or one fraction of the sources of each modality. Their samples have
            split `test`.
        final: further sources to hold out, looked at once, after all choices; their samples have split `test`, too.
        apart: sources of the scanner of a held-out one, neither trained on nor tested: their split is `refit`.
        seed: of all random draws.
        sweep: instead of groups, each factor alone at rising strengths, for held-out sources only.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    bases: dict[str, int]
    from_ct: int = 0
    ct_variants: int = 0
    groups: dict[str, int] = {}
    held_out: tuple[str, ...] = ()
    final: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    seed: int = 1
    sweep: bool = False

    @property
    def unseen(self) -> frozenset[str]:
        """All sources that are held out; an MR-like source goes with its CT (`mr_from_ct.fold_of`)."""
        return frozenset((*self.held_out, *self.final))


def bases_of(sets: Sequence[ImageSet], spec: PreprocessSpec, at_most: Mapping[str, int]) -> Iterator[BaseImage]:
    """Yield up to `at_most` slices per source, evenly from every stack of every series.

    Images that the node would not score are left out.
    """
    several = replace(spec, slices=max(at_most.values()))
    found: list[BaseImage] = []
    for one in sets:
        for number, stack in enumerate(stacks_of(one.folder, several)):
            if stack.refused or stack.prompt is None or min(stack.images[0].shape[:2]) < _SMALLEST_PX:
                continue
            found += bases_of_stack(one, number, stack)
    if found:
        wanted = min(at_most[found[0].modality], len(found))
        yield from (found[index * len(found) // wanted] for index in range(wanted))


def bases_of_stack(one: ImageSet, number: int, stack: StackImages) -> list[BaseImage]:
    """Return the slices of a stack of a set as bases."""
    assert stack.prompt is not None
    shares = _support(stack)
    return [
        BaseImage(
            key=f"{one.name}-{number}-{place}",
            source=one.source,
            prompt=stack.prompt,
            image=fundus.at_size(image) if stack.modality == "OP" else np.asarray(image, dtype=np.float32),
            spacing_mm=stack.spacing_mm,
            support=shares,
        )
        for place, image in enumerate(stack.images)
    ]


def _support(stack: StackImages) -> tuple[float, float]:
    """Return the acquired shares of k-space along rows and columns of a stack of MR."""
    if stack.modality != "MR":
        return 1.0, 1.0
    shape = stack.images[0].shape
    folded = spectrum([image for image in stack.images if image.shape == shape])
    return support(folded, 0, shape[0], None).share, support(folded, 1, shape[1], None).share


def mr_like_bases(bases: Sequence[BaseImage], at_most: int, seed: int) -> Iterator[BaseImage]:
    """Yield MR-like slices of the anatomy of up to `at_most` CT slices of every source."""
    for source in dict.fromkeys(base.source for base in bases if base.modality == "CT"):
        mine = [base for base in bases if base.source == source]
        wanted = min(at_most, len(mine))
        for base in (mine[index * len(mine) // wanted] for index in range(wanted)):
            if (made := mr_like(base, random_of(base, seed))) is not None:
                yield made


def _variants(bases: Sequence[BaseImage], plan: Plan) -> list[BaseImage]:
    """Return the variants of every CT slice."""
    return [
        variant(base, number, random_of(base, plan.seed, number))
        for base in bases
        if base.modality == "CT"
        for number in range(1, plan.ct_variants + 1)
    ]


def plan_of(modality: str, groups: int, random: np.random.Generator) -> tuple[Step, ...]:
    """Return the steps for one base slice: `clean`, then groups of four."""
    factors = FACTORS[modality]
    start = int(random.integers(len(factors)))
    plan = ["clean"]
    singles = 0
    for index in range(4 * groups):
        if singles < _SINGLE * (index + 1):
            plan.append(factors[(start + singles) % len(factors)])
            singles += 1
        else:
            plan.append("mixed")
    return tuple(Step(factor) for factor in plan)


def plan_of_variant() -> tuple[Step, ...]:
    """Return the steps for a variant of a CT slice: `clean`, then a group of doses."""
    return (Step("clean"), *(Step("dose") for _ in range(4)))


def sweep_of(modality: str) -> tuple[Step, ...]:
    """Return a sweep: the image itself, then each factor alone at rising strengths."""
    return (Step("clean"), *(Step(factor, strength) for factor in FACTORS[modality] for strength in STRENGTHS))


def degrade(base: BaseImage, plan: Sequence[Step], random: np.random.Generator) -> Iterator[Degraded]:
    """Yield a degraded copy of a slice for every step of a plan."""
    return _DEGRADE[base.modality](base, random, plan)


def own_quality(base: BaseImage) -> float:
    """Return the quality of a slice as it is: by its own noise, resolution or blur."""
    copies = _DEGRADE[base.modality](base, np.random.default_rng(0), [Step("clean")], varied=False)
    return next(iter(copies)).labels["quality"]


def build(
    sets: Sequence[ImageSet],
    spec: PreprocessSpec,
    plan: Plan,
    store: Store,
    *,
    processes: int,
    advance: Callable[[int, int, str], None],
) -> None:
    """Simulate copies of all patients of a collection into a store, skipping existing copies.

    Raises:
        ConfigurationError: a source to hold out is not in the collection, or the store was made by another version, or
            with another plan, whose training split may contain a source that is now held out.
    """
    by_source: dict[str, list[ImageSet]] = {}
    for one in sets:
        if one.split == "dev":
            by_source.setdefault(one.source, []).append(one)
    if not by_source:
        raise ConfigurationError("the collection has no patients (split `dev`): nothing to simulate from")
    check_held_out(by_source, plan.held_out)
    for names in (plan.final, plan.apart):
        if fraction(names) is not None:
            raise ConfigurationError(f"{', '.join(names)}: sources kept for the end or apart are given by name")
        check_held_out(by_source, names)
    by_name = fraction(plan.held_out) is None
    sources = sorted(plan.unseen) if plan.sweep and by_name else by_source
    bases = [base for source in sources for base in bases_of(by_source[source], spec, plan.bases)]
    if not bases:
        raise ConfigurationError(f"no slice of CT, MR or fundus that a node would score in {len(sources)} sources")
    if not by_name:
        plan = plan.model_copy(update={"held_out": _held_out(bases, plan.held_out)})
        bases = [base for base in bases if not plan.sweep or base.source in plan.unseen]
    if plan.from_ct:
        bases += mr_like_bases(bases, plan.from_ct, plan.seed)
    bases += _variants(bases, plan)
    if not bases:
        raise ConfigurationError(
            "a sweep is made of held-out sources, and none is held out: a modality needs two sources at the least"
        )
    _agree(store.folder / PLAN_FILE, plan)
    made = {sample.base for sample in store.samples}
    wanted = [(base, plan) for base in bases if base.key not in made]
    done = len(bases) - len(wanted)
    with ProcessPoolExecutor(max_workers=processes) as pool:
        for base, items in zip([one for one, _ in wanted], pool.map(_simulated, wanted), strict=True):
            store.add(items)
            done += 1
            advance(done, len(bases), base.key)


def _held_out(bases: Sequence[BaseImage], wanted: Sequence[str]) -> tuple[str, ...]:
    """Return a share of the sources of each modality."""
    by_modality = {base.modality: {one.source for one in bases if one.modality == base.modality} for base in bases}
    return tuple(sorted(name for each in by_modality.values() for name in held_out_sources(each, wanted)))


def plan_of_store(folder: Path) -> Plan | None:
    """Return the plan that a store was made by; None for a store of real images."""
    file = folder / PLAN_FILE
    if not file.exists():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    content.pop("version", None)
    return Plan.model_validate(content)


def _agree(file: Path, plan: Plan) -> None:
    text = json.dumps({**plan.model_dump(), "version": VERSION}, indent=1, sort_keys=True) + "\n"
    if not file.exists():
        write_atomically(file, text.encode())
    elif file.read_text(encoding="utf-8") != text:
        raise ConfigurationError(
            f"{file.parent} was made by another plan or version ({PLAN_FILE}); choose another folder"
        )


def _simulated(task: tuple[BaseImage, Plan]) -> list[tuple[Sample, np.ndarray]]:
    base, plan = task
    random = random_of(base, plan.seed)
    if plan.sweep:
        steps = sweep_of(base.modality)
    elif base.is_variant:
        steps = plan_of_variant()
    else:
        steps = plan_of(base.modality, plan.groups[base.modality], random)
    return samples_of(base, steps, random, split=_split(base, plan))


def _split(base: BaseImage, plan: Plan) -> str:
    """Return the side of a slice: variants of held-out slices are neither trained on nor tested, until a refit."""
    source = fold_of(base.source)
    if source in plan.apart or (base.is_variant and source in plan.unseen):
        return "refit"
    return "test" if source in plan.unseen else "train"


def random_of(base: BaseImage, *seeds: int) -> np.random.Generator:
    """Return the generator of a slice's copies: it depends on the seeds and the key of the slice only."""
    return np.random.default_rng([*seeds, int(hashlib.sha256(base.key.encode()).hexdigest()[:8], 16)])


def samples_of(
    base: BaseImage, steps: Sequence[Step], random: np.random.Generator, *, split: str
) -> list[tuple[Sample, np.ndarray]]:
    """Return a sample with its pixels, (1, rows, columns[, 3]), for every step of a plan."""
    return [
        (
            Sample(
                key=f"{base.key}-{number}",
                base=base.key,
                patient=base.source,
                source=base.source,
                split=split,
                prompt=base.prompt.words,
                labels=one.labels,
                factor=one.factor,
                severities=one.severities,
                settings={**one.settings, VARIANT: 1.0} if base.is_variant else one.settings,
            ),
            one.image[np.newaxis],
        )
        for number, one in enumerate(degrade(base, steps, random))
    ]
