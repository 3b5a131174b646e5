"""Fit the training range of a checkpoint (`image.training_range`), and test it on held-out sources.

The node's own code reads, chooses and prepares the images. Limits are fitted to the patients of a collection and
degraded copies of them. Each source is then held out in turn, limits are fitted to the others, and every patient of it
that they refuse is a false alarm.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.preprocessing import PreprocessSpec
from mediqa_node.domain.prompt import MODALITIES
from mediqa_node.image.measure.slice_statistics import SliceStatistics, slice_statistics
from mediqa_node.image.preprocess import preprocess
from mediqa_node.image.training_range import FEWEST_SOURCES, TrainingRange, fit_training_range
from training.data.collection import ImageSet, StackImages, stacks_of
from training.evaluate.refusals import Refusals
from training.fit.degradations import worse_copies

_SEED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The statistics of one stack.

    Attributes:
        stack: None if there was nothing to measure.
        worse: statistics of its degraded copies.
        refused: why the node would refuse the series without looking at its pixels, or None.
    """

    belongs_to: ImageSet
    modality: str
    stack: SliceStatistics | None
    worse: tuple[SliceStatistics, ...] = ()
    refused: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of one stack against the limits; for a patient, against limits fitted without its source.

    Attributes:
        ratio: the median over its slices of the larger distance in limits; NaN if nothing was measured.
        verdict: why it is outside, or None.
        worse_refused: number of its degraded copies that are outside.
    """

    measured: Measured
    ratio: float
    verdict: str | None
    worse_refused: int = 0


def refusals(measured: Sequence[Measured], domains: Mapping[str, TrainingRange], spec: PreprocessSpec) -> Refusals:
    """Count the refusals of a training range."""
    of_patients = list(held_out(measured, spec))
    patients = {name: [one for one in of_patients if one.measured.modality == name] for name in domains}
    foreign = list(of_refused(measured, domains))
    names = {one.measured.belongs_to.name for one in foreign}
    scored = {one.measured.belongs_to.name for one in foreign if one.measured.refused is None and one.verdict is None}
    return Refusals(
        patients={name: len(ones) for name, ones in patients.items()},
        refused={name: sum(one.verdict is not None for one in ones) for name, ones in patients.items()},
        foreign=len(names),
        passed=sorted(scored),
    )


def measure(
    sets: Sequence[ImageSet], spec: PreprocessSpec, *, advance: Callable[[int, int, str], None]
) -> list[Measured]:
    """Measure every stack of a collection; for patients, degraded copies as well.

    Args:
        advance: called with the number of sets done, the total, and the name of the next.

    Raises:
        ConfigurationError: the network takes stored values, which have no window.
    """
    if spec.reads_stored_values:
        raise ConfigurationError("this card reads stored values without a window, so it has no training range")
    found = []
    for done, one in enumerate(sets):
        advance(done, len(sets), one.name)
        found += [_measured(one, stack, spec) for stack in stacks_of(one.folder, spec)]
    advance(len(sets), len(sets), "")
    return found


def _measured(one: ImageSet, stack: StackImages, spec: PreprocessSpec) -> Measured:
    if not stack.images:
        return Measured(belongs_to=one, modality=stack.modality, stack=None, refused=stack.refused)
    kind = {"modality": stack.modality, "image_type": stack.image_type}
    learns = one.split == "dev" and stack.refused is None
    copies = worse_copies(stack.images, spec, **kind, random=np.random.default_rng(_SEED)) if learns else ()
    taken = [
        slice_statistics(preprocess(images, spec, **kind), spec, modality=stack.modality)
        for images in (stack.images, *copies)
    ]
    return Measured(
        belongs_to=one, modality=stack.modality, stack=taken[0], worse=tuple(taken[1:]), refused=stack.refused
    )


def fit_training_ranges(measured: Sequence[Measured], spec: PreprocessSpec) -> dict[str, TrainingRange]:
    """Return the fitted limits by modality, for every modality among the patients of a collection.

    Raises:
        ConfigurationError: a modality with too few sources, or no patients at all.
    """
    domains = {}
    for modality in MODALITIES:
        if sources := _sources(measured, modality):
            if len(sources) < FEWEST_SOURCES:
                raise ConfigurationError(
                    f"{modality} has {len(sources)} source{'s' * (len(sources) != 1)}, {', '.join(sources)}; "
                    f"limits need {FEWEST_SOURCES} or more"
                )
            domains[modality] = fit_training_range(sources, modality=modality, fingerprint=spec.fingerprint())
    if not domains:
        raise ConfigurationError("the collection has no patients that the node would score: nothing to fit")
    return domains


def held_out(measured: Sequence[Measured], spec: PreprocessSpec) -> Iterator[Outcome]:
    """Yield the outcome of every patient under limits fitted without its source.

    A modality with just enough sources for a fit has none to hold out and yields nothing.
    """
    for modality in MODALITIES:
        sources = _sources(measured, modality)
        for source in sources if len(sources) > FEWEST_SOURCES else ():
            others = {name: stacks for name, stacks in sources.items() if name != source}
            domain = fit_training_range(others, modality=modality, fingerprint=spec.fingerprint())
            for one in measured:
                if one.belongs_to.source == source and one.modality == modality and _learns(one):
                    yield outcome(one, domain)


def of_refused(measured: Sequence[Measured], domains: Mapping[str, TrainingRange]) -> Iterator[Outcome]:
    """Yield the outcome of everything that must not be scored, ignoring its headers."""
    for one in measured:
        if one.belongs_to.split == "refuse":
            domain = domains.get(one.modality)
            yield outcome(one, domain) if domain else Outcome(measured=one, ratio=float("nan"), verdict=None)


def outcome(one: Measured, domain: TrainingRange) -> Outcome:
    """Return the outcome of one stack and its degraded copies."""
    if one.stack is None:
        return Outcome(measured=one, ratio=float("nan"), verdict=None)
    larger = np.max(list(domain.ratios(one.stack).values()), axis=0)
    return Outcome(
        measured=one,
        ratio=float(np.median(larger)),
        verdict=domain.outside(one.stack),
        worse_refused=sum(domain.outside(copy) is not None for copy in one.worse),
    )


def _sources(measured: Sequence[Measured], modality: str) -> dict[str, list[SliceStatistics]]:
    """Return the stacks to fit limits to, by source: patients and their degraded copies."""
    sources: dict[str, list[SliceStatistics]] = {}
    for one in measured:
        if one.modality == modality and _learns(one) and one.stack is not None:
            sources.setdefault(one.belongs_to.source, []).extend([one.stack, *one.worse])
    return sources


def _learns(one: Measured) -> bool:
    return one.belongs_to.split == "dev" and one.refused is None
