"""Degrade slices that a checkpoint has not seen, measure every copy by `image/measure`, and score it.

A copy is measured and scored from the same stored pixels, as a stack of one slice. Of its header the measures know what
the simulation knows: pixel spacing and region for CT, the axis along which lines were acquired for MR.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mediqa_node.dicom.technique.stack_facts import body_part
from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.measure_facts import CtFacts, MrFacts
from mediqa_node.domain.measures import Measure
from mediqa_node.domain.preprocessing import PreprocessSpec
from mediqa_node.domain.quantities import (
    CT_NOISE,
    CT_PEAK_FREQUENCY,
    CT_SHARPNESS,
    MR_GHOST,
    MR_NONUNIFORMITY,
    MR_SNR,
    MR_SUPPORT_COLUMNS,
    MR_SUPPORT_ROWS,
    OP_CLIPPED,
    OP_FIELD_COVERAGE,
    OP_FOCUS,
    OP_ILLUMINATION,
    OP_VESSEL_CONTRAST,
)
from mediqa_node.image.measure.ct.series import measure_ct
from mediqa_node.image.measure.mr.series import measure_mr
from mediqa_node.image.measure.op.series import measure_op
from mediqa_node.image.measure.stack_source import StackSource, coarse, coarse_step, evenly
from mediqa_node.model.card import Card
from mediqa_node.model.checkpoint import Regressors
from mediqa_node.model.network import MedIQA
from training.data.collection import ImageSet
from training.data.store import Sample, Store
from training.data.views import prepare
from training.evaluate.by_method import OUTPUTS, QUALITY, predict_samples
from training.evaluate.fixed_measures import MIXED, MeasuredCopies
from training.simulate.build import bases_of, random_of, samples_of
from training.simulate.degraded import FACTORS, BaseImage, Step

MEASURES = {
    "CT": (CT_NOISE, CT_PEAK_FREQUENCY, CT_SHARPNESS),
    "MR": (MR_SNR, MR_GHOST, MR_SUPPORT_ROWS, MR_SUPPORT_COLUMNS, MR_NONUNIFORMITY),
    "OP": (OP_FOCUS, OP_ILLUMINATION, OP_CLIPPED, OP_VESSEL_CONTRAST, OP_FIELD_COVERAGE),
}
"""The measures of image quality; those of the patient's size, of dose and of stacks are no property of one slice."""
COPIES = 8
"""Copies of each slice for each factor, at random strengths."""

Advance = Callable[[int, int, str], None]


def unseen(sets: Sequence[ImageSet], card: Card, wanted: Sequence[str] = ()) -> dict[str, list[ImageSet]]:
    """Return the sets of patients to use, by source: those that a checkpoint was not trained on, or those wanted.

    Raises:
        ConfigurationError: there is no such source, or the card does not say what the checkpoint was trained on.
    """
    by_source: dict[str, list[ImageSet]] = {}
    for one in sets:
        if one.split == "dev":
            by_source.setdefault(one.source, []).append(one)
    if wanted:
        if unknown := sorted(set(wanted) - set(by_source)):
            raise ConfigurationError(
                f"no source {', '.join(unknown)}; the collection has {', '.join(sorted(by_source))}"
            )
        return {name: by_source[name] for name in dict.fromkeys(wanted)}
    trained = card.metrics.get("made_by", {}).get("sources")
    if not trained:
        raise ConfigurationError("the card does not name the sources that it was trained on: name others by --source")
    seen = {name for names in trained.values() for name in names}
    found = {
        name: each for name, each in by_source.items() if name not in seen and not any(one.name in seen for one in each)
    }
    if not found:
        raise ConfigurationError("the checkpoint was trained on every source of the collection: name some by --source")
    return found


def slices_of(sources: dict[str, list[ImageSet]], spec: PreprocessSpec, at_most: int) -> list[BaseImage]:
    """Return at most so many slices of each modality, of every source about as many, evenly from its stacks."""
    of_modality: dict[str, list[list[BaseImage]]] = {}
    for sets in sources.values():
        bases = list(bases_of(sets, spec, dict.fromkeys(FACTORS, at_most)))
        if bases:
            of_modality.setdefault(bases[0].modality, []).append(bases)
    chosen: list[BaseImage] = []
    for modality in FACTORS:
        for of_source, share in _shared(of_modality.get(modality, []), at_most):
            chosen += [of_source[index] for index in evenly(len(of_source), share)]
    return chosen


def _shared(of_sources: list[list[BaseImage]], at_most: int) -> Iterator[tuple[list[BaseImage], int]]:
    """Yield each source with its share; what a source with few slices leaves goes to the others."""
    left = at_most
    for done, one in enumerate(sorted(of_sources, key=len)):
        share = min(len(one), -(-left // (len(of_sources) - done)))
        left -= share
        if share:
            yield one, share


def measured_copies(
    network: MedIQA,
    card: Card,
    regressors: Regressors,
    bases: Sequence[BaseImage],
    store: Store,
    *,
    seed: int,
    advance: Advance,
) -> dict[str, MeasuredCopies]:
    """Return the degraded copies of slices with measures and scores, by modality.

    Args:
        store: empty; holds the copies.
    """
    measured: list[dict[str, float]] = []
    for done, base in enumerate(bases):
        advance(done, len(bases), base.key)
        before = len(store.samples)
        store.add(samples_of(base, _steps(base.modality), random_of(base, seed), split="test"))
        for sample in store.samples[before:]:
            found = measure_copy(store.slices(sample)[0], sample, base.spacing_mm)
            measured.append({one.name: np.nan if one.value is None else one.value for one in found})
    prepared = prepare(store, card.preprocess, advance=lambda done, total: advance(done, total, "preparing images"))
    predictions = predict_samples(network, card, regressors, prepared, advance)
    copies = {}
    for modality in (one for one in OUTPUTS if one in predictions):
        places = [place for place, sample in enumerate(store.samples) if sample.modality == modality]
        copies[modality] = MeasuredCopies(
            samples=[store.samples[place] for place in places],
            measures={
                one.name: np.array([measured[place][one.name] for place in places]) for one in MEASURES[modality]
            },
            scores=predictions[modality].values[QUALITY],
        )
    return copies


def _steps(modality: str) -> tuple[Step, ...]:
    return (Step("clean"), *(Step(factor) for factor in (*FACTORS[modality], MIXED) for _ in range(COPIES)))


def measure_copy(image: np.ndarray, sample: Sample, spacing_mm: float) -> tuple[Measure, ...]:
    """Return the measures of one copy, (rows, columns[, 3])."""
    step = coarse_step(*image.shape[:2])
    source = StackSource(
        count=1,
        image_at=lambda _: image,
        coarse_at=lambda _: coarse(image, step),
        spacing_mm=(spacing_mm, spacing_mm),
        step=step,
    )
    wanted = [one.name for one in MEASURES[sample.modality]]
    if sample.modality == "CT":
        return measure_ct(source, CtFacts(body_part=body_part(sample.prompt["region"])), wanted)
    if sample.modality == "MR":
        return measure_mr(source, MrFacts(phase_axis=int(sample.settings["axis"])), wanted)
    return measure_op(source, wanted)
