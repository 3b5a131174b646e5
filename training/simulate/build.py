"""A store of simulated samples from a collection: bases, a plan of what is done to each, in processes."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from mediqa_node.assess.preprocess import FULL_SCALE, intensity_range
from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.preprocessing import PreprocessSpec
from training.collection import ImageSet, stacks_of
from training.simulate import ct, fundus, mr
from training.simulate.degraded import FACTORS, BaseImage, Degraded
from training.store import Sample, Store

_DEGRADE = {"CT": ct.degrade, "MR": mr.degrade, "OP": fundus.degrade}
_SINGLE = 0.4
"""Share of the copies that one factor alone made worse, factors equally often."""
_SMALLEST_PX = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is simulated.

    Attributes:
        bases: slices of each source at most, by modality.
        groups: of four copies of one base each, by modality; `clean` comes besides.
        held_out: sources that no training sees: their samples are of split `test`.
        seed: of everything that is drawn.
    """

    bases: Mapping[str, int] = field(default_factory=lambda: {"CT": 12, "MR": 14, "OP": 28})
    groups: Mapping[str, int] = field(default_factory=lambda: {"CT": 3, "MR": 4, "OP": 3})
    held_out: tuple[str, ...] = ()
    seed: int = 1


def bases_of(sets: Sequence[ImageSet], spec: PreprocessSpec, at_most: Mapping[str, int]) -> Iterator[BaseImage]:
    """Yield slices of patients: from every stack of every series of one source evenly, `at_most` of its modality.

    Images that the node refuses are none of a patient to it and are left out.
    """
    several = replace(spec, slices=max(at_most.values()))
    found: list[BaseImage] = []
    for one in sets:
        for number, stack in enumerate(stacks_of(one.folder, several)):
            if stack.refused or stack.prompt is None or min(stack.images[0].shape[:2]) < _SMALLEST_PX:
                continue
            window = (0.0, FULL_SCALE)
            if stack.modality != "OP":
                window = intensity_range(list(stack.images), spec.rule_for(stack.modality, stack.image_type))
            found += [
                BaseImage(
                    key=f"{one.name}-{number}-{place}",
                    source=one.source,
                    prompt=stack.prompt,
                    image=fundus.at_size(image) if stack.modality == "OP" else np.asarray(image, dtype=np.float32),
                    spacing_mm=stack.spacing_mm,
                    window=window,
                )
                for place, image in enumerate(stack.images)
            ]
    if found:
        wanted = min(at_most[found[0].modality], len(found))
        yield from (found[index * len(found) // wanted] for index in range(wanted))


def plan_of(modality: str, groups: int, random: np.random.Generator) -> tuple[str, ...]:
    """Return what is done to one base: `clean`, then groups of four."""
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
    return tuple(plan)


def degrade(base: BaseImage, plan: tuple[str, ...], random: np.random.Generator) -> Iterator[Degraded]:
    """Yield a worse copy of a slice for every entry of a plan."""
    return _DEGRADE[base.modality](base, random, plan)


def build(
    sets: Sequence[ImageSet],
    spec: PreprocessSpec,
    plan: Plan,
    store: Store,
    *,
    processes: int,
    advance: Callable[[int, int, str], None],
) -> None:
    """Simulate copies of all patients of a collection into a store; what it holds already is not made again.

    Raises:
        ConfigurationError: a source to be held out that the collection does not have.
    """
    by_source: dict[str, list[ImageSet]] = {}
    for one in sets:
        if one.split == "dev":
            by_source.setdefault(one.source, []).append(one)
    if unknown := set(plan.held_out) - set(by_source):
        raise ConfigurationError(
            f"held out: no source {', '.join(sorted(unknown))}; the collection has {', '.join(by_source)}"
        )
    made = {sample.base for sample in store.samples}
    bases = [base for of_source in by_source.values() for base in bases_of(of_source, spec, plan.bases)]
    wanted = [(base, plan) for base in bases if base.key not in made]
    done = len(bases) - len(wanted)
    with ProcessPoolExecutor(max_workers=processes) as pool:
        for base, items in zip([one for one, _ in wanted], pool.map(_simulated, wanted), strict=True):
            store.add(items)
            done += 1
            advance(done, len(bases), base.key)


def _simulated(task: tuple[BaseImage, Plan]) -> list[tuple[Sample, np.ndarray]]:
    base, plan = task
    random = np.random.default_rng([plan.seed, int(hashlib.sha256(base.key.encode()).hexdigest()[:8], 16)])
    found = []
    for number, one in enumerate(degrade(base, plan_of(base.modality, plan.groups[base.modality], random), random)):
        words = {term: getattr(base.prompt, term).value for term in ("dimension", "modality", "region", "type")}
        sample = Sample(
            key=f"{base.key}-{number}",
            base=base.key,
            patient=base.source,
            source=base.source,
            split="test" if base.source in plan.held_out else "train",
            prompt=words,
            labels=one.labels,
            factor=one.factor,
            severities=one.severities,
            settings=one.settings,
        )
        found.append((sample, one.image[np.newaxis]))
    return found
