"""Fit the training range of a checkpoint (`image.training_range`), and test it on held-out sources.

The node's own code reads, chooses and prepares the images. Limits are learnt from the patients of a collection and
from worse copies of them; each source is then held out in turn, limits are learnt from the others, and what they
refuse of it is a false alarm.
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
from training.fit.degradations import worse_copies

_SEED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The statistics of one stack.

    Attributes:
        stack: None where there was nothing to measure.
        worse: those of its worse copies.
        refused: why the node would refuse the series without looking at its pixels, or None.
    """

    belongs_to: ImageSet
    modality: str
    stack: SliceStatistics | None
    worse: tuple[SliceStatistics, ...] = ()
    refused: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one stack compares with the limits; for a patient, limits that were fitted without its source.

    Attributes:
        ratio: the median over its slices of the larger distance in limits; NaN where nothing was measured.
        verdict: why it is outside, or None.
        worse_refused: how many of its worse copies are outside.
    """

    measured: Measured
    ratio: float
    verdict: str | None
    worse_refused: int = 0


def measure(
    sets: Sequence[ImageSet], spec: PreprocessSpec, *, advance: Callable[[int, int, str], None]
) -> list[Measured]:
    """Measure every stack of a collection; of patients, worse copies too.

    Args:
        advance: called with the sets done, the number of sets, and the name of the next.

    Raises:
        ConfigurationError: the network is shown values as stored, which no window bounds.
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
    """Learn the limits of every modality that the patients of a collection show, by modality.

    Raises:
        ConfigurationError: a modality with too few sources, or no patients at all.
    """
    domains = {}
    for modality in MODALITIES:
        if sources := _sources(measured, modality):
            if len(sources) < FEWEST_SOURCES:
                raise ConfigurationError(
                    f"{modality} has {len(sources)} sources, {', '.join(sources)}; limits need {FEWEST_SOURCES} or more"
                )
            domains[modality] = fit_training_range(sources, modality=modality, fingerprint=spec.fingerprint())
    if not domains:
        raise ConfigurationError("the collection has no patients that the node would score: nothing to fit")
    return domains


def held_out(measured: Sequence[Measured], spec: PreprocessSpec) -> Iterator[Outcome]:
    """Yield what becomes of every patient under limits that were learnt without its source.

    A modality with just enough sources to learn from has none to hold out: of it nothing is yielded.
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
    found = domain.outside(one.stack, modality=one.modality)
    return Outcome(
        measured=one,
        ratio=float(np.median(larger)),
        verdict=found.details if found else None,
        worse_refused=sum(domain.outside(copy, modality=one.modality) is not None for copy in one.worse),
    )


def _sources(measured: Sequence[Measured], modality: str) -> dict[str, list[SliceStatistics]]:
    """Return what limits are learnt from, by source: patients as they are, and their worse copies."""
    sources: dict[str, list[SliceStatistics]] = {}
    for one in measured:
        if one.modality == modality and _learns(one) and one.stack is not None:
            sources.setdefault(one.belongs_to.source, []).extend([one.stack, *one.worse])
    return sources


def _learns(one: Measured) -> bool:
    return one.belongs_to.split == "dev" and one.refused is None
